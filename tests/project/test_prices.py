import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_lakebase.hooks.lakebase import LakebaseHook
from airflow_provider_lakebase.operators.load import LakebaseLoadOperator
from airflow_provider_lakebase.operators.sql import LakebaseSQLOperator

TABLE = "CREATE SCHEMA shop; CREATE TABLE shop.prices (day date PRIMARY KEY, price numeric)"


def test_a_file_that_comes_twice_is_stored_once(lakebase_branch, tmp_path):
    LakebaseSQLOperator(task_id="table", sql=TABLE).execute({})
    file = tmp_path / "prices.csv"
    file.write_text("day,price\n2026-11-01,42\n")
    for _ in range(2):
        LakebaseLoadOperator(task_id="load", source=str(file), table="shop.prices", mode="upsert").execute({})
    assert LakebaseHook().get_records("SELECT day::text, price FROM shop.prices") == [("2026-11-01", 42)]


@pytest.mark.lakebase(asleep=True, wake_seconds=1)
def test_a_task_wakes_a_sleeping_endpoint(lakebase):
    assert LakebaseSQLOperator(task_id="query", sql="SELECT 1").execute({}) == [(1,)]


def test_a_disabled_endpoint_fails_the_task_at_once(lakebase):
    lakebase.disable()
    with pytest.raises(AirflowFailException, match="disabled"):
        LakebaseSQLOperator(task_id="query", sql="SELECT 1").execute({})
