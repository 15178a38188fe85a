from dags.totals import dag

from airflow_provider_lakebase.hooks.lakebase import LakebaseHook


def test_a_dag_that_runs_twice_leaves_one_row(lakebase):
    for _ in range(2):
        assert dag.test().state == "success"
    assert LakebaseHook().get_records("SELECT day::text FROM totals.days") == [("2026-11-01",)]
