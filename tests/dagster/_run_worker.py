"""A process that has imported Dagster and forks a worker for each run that standard input asks for.

One command a line, as JSON: the arguments of :func:`work`. The answers are the worker's pid, ``loading`` whenever it
begins to send rows, and its exit code.
"""

import datetime
import json
import os
import sys
from collections.abc import Iterator

import dagster as dg
import pyarrow

from airflow_provider_lakebase.dagster import LakebaseIOManager, LakebaseResource, ServicePrincipal

ROWS = 20_000
SCHEMA = os.environ["TEST_SCHEMA"]

lakebase = LakebaseResource(
    host=dg.EnvVar("DATABRICKS_HOST"),
    endpoint=dg.EnvVar("LAKEBASE_ENDPOINT"),
    port=dg.EnvVar.int("PGPORT"),
    authentication=ServicePrincipal(
        client_id=dg.EnvVar("DATABRICKS_CLIENT_ID"), client_secret=dg.EnvVar("DATABRICKS_CLIENT_SECRET")
    ),
    wake_timeout=30,
)
days = dg.DailyPartitionsDefinition("2026-01-01")
retries = dg.RetryPolicy(max_retries=2)
answers = os.fdopen(os.dup(1), "w")


def answer(text: object) -> None:
    print(json.dumps(text), file=answers, flush=True)


def rows(day: datetime.date) -> Iterator[tuple[datetime.date, int]]:
    answer("loading")
    for number in range(ROWS):
        yield day, number


@dg.asset(partitions_def=days, retry_policy=retries)
def appended(context: dg.AssetExecutionContext, lakebase: LakebaseResource) -> dg.MaterializeResult:
    day = datetime.date.fromisoformat(context.partition_key)
    return dg.MaterializeResult(metadata=lakebase.load(context, rows(day), f"{SCHEMA}.appended"))


@dg.asset(
    key_prefix=SCHEMA, partitions_def=days, metadata={"partition_expr": "day"}, deps=[appended], retry_policy=retries
)
def stored(context: dg.AssetExecutionContext) -> pyarrow.Table:
    day = datetime.date.fromisoformat(context.partition_key)
    return pyarrow.table({"day": [day] * ROWS, "number": range(ROWS)})


def work(run_id: str, partition: str, parent: str | None) -> int:
    """Run both assets for a partition, as a run that completes its parent, and return the exit code."""
    instance = dg.DagsterInstance.get()
    if parent:  # as Dagster's daemon does with a run whose process is gone
        instance.report_run_failed(instance.get_run_by_id(parent))
    resources = {"lakebase": lakebase, "io_manager": LakebaseIOManager(lakebase=lakebase)}
    job = dg.Definitions(
        [appended, stored], jobs=[dg.define_asset_job("load", [appended, stored])], resources=resources
    ).resolve_job_def("load")
    tags = {"dagster/parent_run_id": parent, "dagster/root_run_id": parent} if parent else {}
    result = job.execute_in_process(
        instance=instance, run_id=run_id, partition_key=partition, tags=tags, raise_on_error=False
    )
    return 0 if result.success else 1


def main() -> None:
    os.dup2(2, 1)
    answer("ready")
    for line in sys.stdin:
        if (pid := os.fork()) == 0:
            os._exit(work(**json.loads(line)))
        answer(pid)
        answer(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


if __name__ == "__main__":
    main()
