"""Load what people have: a dialect of CSV, a folder that Spark wrote, a data frame, and a file with bad rows.

Each load makes its table at the first run. The folder is a param: one that every worker reaches. The role of
`lakebase_default` is there already: flights_etl shows how.
"""

from __future__ import annotations

import datetime
import tempfile
from pathlib import Path

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_lakebase.hooks.lakebase import LakebaseHook
from airflow_provider_lakebase.operators.load import LakebaseLoadOperator
from airflow_provider_lakebase.operators.sql import LakebaseSQLOperator

CUSTOMERS = """\
# Export of 28.11.2026
# Customers
id;name;city
1;Müller;Köln
2;"Strauß; Söhne";Zürich
3;Ibáñez;
"""
BAD_LINES = {4321: "no number,1.00", 77_777: "77777,1.005", 500_000: "499999,1.00"}


@task
def write_files(folder: str) -> None:
    """Write the files, which in earnest others have written."""
    import pyarrow
    import pyarrow.parquet

    root = Path(folder)
    (root / "customers.csv").write_text(CUSTOMERS, encoding="latin-1")
    for day in range(1, 4):
        partition = root / "events" / f"dt=2026-11-{day:02}"
        partition.mkdir(parents=True, exist_ok=True)
        for part in range(2):
            events = pyarrow.table({"id": [day * 10 + part, day * 10 + part + 5], "kind": ["view", "order"]})
            pyarrow.parquet.write_table(events, partition / f"part-{part:05}.snappy.parquet")
    (root / "events" / "_SUCCESS").touch()
    with (root / "payments.csv").open("w") as file:
        file.write("id,amount\n")
        file.writelines(f"{BAD_LINES.get(n, f'{n},1.25')}\n" for n in range(1, 1_000_001))


# [START frame]
@task
def load_prices() -> int:
    """Compute a data frame and load it."""
    import pandas

    prices = pandas.DataFrame({"sku": ["a", "b", "c"], "price": [1.5, 2.25, None]})
    result = LakebaseHook().load(prices, "wild.prices", mode="upsert", create_table=True, key_columns=["sku"])
    return result.rows


# [END frame]


with DAG(
    dag_id="files_from_the_wild",
    description=__doc__.splitlines()[0],
    start_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    schedule=None,
    catchup=False,
    params={"folder": tempfile.gettempdir()},
    tags=["lakebase", "example"],
):
    schema = LakebaseSQLOperator(
        task_id="schema",
        sql="CREATE SCHEMA IF NOT EXISTS wild; DROP TABLE IF EXISTS wild.rejects",
    )
    # [START load]
    customers = LakebaseLoadOperator(
        task_id="customers",
        source="{{ params.folder }}/customers.csv",
        table="wild.customers",
        mode="replace",
        delimiter=";",
        encoding="latin-1",
        skip_lines=2,
        create_table={"id": "bigint", "*": "text"},
    )
    events = LakebaseLoadOperator(
        task_id="events",
        source="{{ params.folder }}/events",
        table="wild.events",
        mode="replace",
        create_table=True,
        casts={"dt": "date"},
    )
    payments = LakebaseLoadOperator(
        task_id="payments",
        source="{{ params.folder }}/payments.csv",
        table="wild.payments",
        mode="replace",
        create_table={"id": "bigint", "amount": "numeric(8,2)"},
        key_columns=["id"],
        reject_limit=10,
        rejects_table="wild.rejects",
    )
    # [END load]
    report = LakebaseSQLOperator(
        task_id="report", sql="SELECT number, column_name, sqlstate, reason FROM wild.rejects ORDER BY number"
    )

    [schema, write_files("{{ params.folder }}")] >> customers >> events >> load_prices() >> payments >> report
