"""A process that has imported the provider and forks a worker for each load that standard input asks for.

One command a line, as JSON, and one answer each: ``{"source": …, "table": …}`` and whatever else ``LakebaseHook.load``
takes starts a worker and answers its pid; ``{}`` waits for the worker and answers how it ended. A worker that has ended
keeps its pid until then, so that a signal sent to it reaches no other process. A number as the source stands for so
many rows, ``{"conninfo": …, "query": …}`` for a query on another server, which COPY runs.
"""

from __future__ import annotations

import datetime
import json
import os
import sys
import traceback
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import psycopg2

from airflow_provider_lakebase.core.bulk import load as _  # noqa: F401 - imported here, so that no worker has to
from airflow_provider_lakebase.core.bulk.source import NamedRows
from airflow_provider_lakebase.hooks._source_copy import SourceCopy
from airflow_provider_lakebase.hooks._source_types import describe_query
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook

_EPOCH = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)


def rows(count: int) -> Iterator[tuple[Any, ...]]:
    """Give the same rows each time: key, text, decimal, moment, truth."""
    for n in range(count):
        name = None if n % 11 == 0 else f"row {n * 7919 % count}, 'quoted'\tñ" + "x" * (n % 40)
        yield n, name, Decimal(n * 37 % 100_000) / 100, _EPOCH + datetime.timedelta(seconds=n * 61), n % 3 == 0


def copied(conninfo: str, query: str) -> NamedRows:
    """Run a query as a transfer does."""
    connection = psycopg2.connect(conninfo)
    cursor = connection.cursor(name="rows")
    cursor.execute(query)
    described = describe_query(connection, cursor)
    assert described is not None
    return NamedRows(iter(cursor), *described, SourceCopy(connection, query, None))


def source_of(given: Any) -> Any:
    if isinstance(given, int):
        return rows(given)
    return copied(**given) if isinstance(given, dict) else given


def work(command: dict[str, Any], report: int) -> int:
    """Run the load, write into ``report`` what came of it, and return the exit code."""
    source = command.pop("source")
    try:
        result = LakebaseHook().load(source_of(source), **command)
    except BaseException:
        os.write(report, json.dumps({"error": traceback.format_exc()[-4000:]}).encode())
        return 1
    os.write(report, json.dumps({"rows": result.rows, "already_loaded": result.already_loaded}).encode())
    return 0


def start(command: dict[str, Any]) -> tuple[int, int]:
    """Fork a worker; return its pid and where it will report to."""
    report, to_report = os.pipe()
    pid = os.fork()
    if pid == 0:
        os._exit(work(command, to_report))
    os.close(to_report)
    return pid, report


def wait(pid: int, report: int) -> dict[str, Any]:
    """Wait for a worker's end and return its report, with its exit code: -9 when it was killed."""
    exit_code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with os.fdopen(report, "rb") as written:
        return {"exit_code": exit_code, **json.loads(written.read() or b"{}")}


def main() -> None:
    # Airflow's log goes to standard output too.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    LakebaseHook().get_first("SELECT 1")  # which imports the rest
    worker = (0, 0)
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        if command:
            worker = start(command)
        print(json.dumps(worker[0] if command else wait(*worker)), file=answers, flush=True)


if __name__ == "__main__":
    main()
