"""Results of databases whose drivers give Arrow data are loaded from it, as exactly as row by row or more exactly."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import adbc_driver_manager
import duckdb
import psycopg
import pyarrow as pa
import pytest
from adbc_driver_postgresql import dbapi as adbc
from airflow.providers.common.sql.hooks.sql import DbApiHook

from airflow_provider_lakebase.core.bulk.load import load
from airflow_provider_lakebase.core.bulk.options import LoadOptions
from airflow_provider_lakebase.emulator import LakebaseEmulator
from airflow_provider_lakebase.exceptions import LakebaseLoadError
from airflow_provider_lakebase.hooks import _source_arrow
from airflow_provider_lakebase.hooks._source_arrow import run_query
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook
from airflow_provider_lakebase.transfers import sql_to_lakebase
from airflow_provider_lakebase.transfers.sql_to_lakebase import SqlToLakebaseOperator

MIDWAY = "SELECT CASE WHEN i = 500000 THEN error('out of milk') ELSE i END AS id FROM range(1000000) t(i)"


@pytest.fixture(autouse=True)
def schema(hook: LakebaseHook) -> Iterator[None]:
    hook.run("DROP SCHEMA IF EXISTS arrow CASCADE; CREATE SCHEMA arrow; CREATE TABLE arrow.t (id bigint, note text)")
    yield
    hook.run("DROP SCHEMA arrow CASCADE")


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], None]:
    """Return a function that makes the connection ``source`` one that opens a driver's connections."""

    def use(connect: Callable[[], Any]) -> None:
        hook = DbApiHook.__new__(DbApiHook)
        hook.get_conn = connect  # type: ignore[method-assign]
        connection = SimpleNamespace(get_hook=lambda hook_params=None: hook, conn_type="other")
        find = sql_to_lakebase.BaseHook.get_connection
        monkeypatch.setattr(
            sql_to_lakebase.BaseHook,
            "get_connection",
            lambda *given: connection if given[-1] == "source" else find(given[-1]),
        )

    return use


def transfer(sql: str, table: str = "arrow.t", **arguments: Any) -> dict[str, Any]:
    operator = SqlToLakebaseOperator(
        task_id="load", source_conn_id="source", sql=sql, table=table, **{"mode": "replace", **arguments}
    )
    keep = lambda key, value: None  # noqa: E731
    return operator.execute(
        {"ti": SimpleNamespace(dag_id="d", run_id="r", task_id="load", map_index=-1, xcom_push=keep)}  # type: ignore
    )


@pytest.fixture(params=["duckdb", "adbc"])
def driver(
    request: pytest.FixtureRequest, source: Callable[[Callable[[], Any]], None], shared_emulator: LakebaseEmulator
) -> str:
    where: Any = psycopg.conninfo.conninfo_to_dict(shared_emulator.superuser_conninfo)
    conninfo = psycopg.conninfo.make_conninfo(**where)
    source(duckdb.connect if request.param == "duckdb" else lambda: adbc.connect(conninfo))
    return str(request.param)


# ── from the operator ──


@pytest.mark.parametrize("mode", ["append", "replace", "upsert"])
def test_a_result_is_loaded_as_arrow_data_in_any_mode(
    hook: LakebaseHook, driver: str, mode: str, task_log: Callable[[], str]
):
    hook.run("ALTER TABLE arrow.t ADD PRIMARY KEY (id)")
    sql = "SELECT 'note ' || i AS note, i AS id FROM generate_series(1, 25000) AS t(i)"
    assert transfer(sql, mode=mode)["rows"] == 25_000
    assert hook.get_first("SELECT count(*), sum(id), max(note) FROM arrow.t") == (25_000, 312_512_500, "note 9999")
    assert "Reading the source as Arrow data" in task_log()


def test_parameters_are_bound(hook: LakebaseHook, driver: str):
    mark = "?" if driver == "duckdb" else "$1"
    transfer(f"SELECT 7 AS id, {mark}::text || '%' AS note", parameters=["a%"])
    assert hook.get_records("SELECT id, note FROM arrow.t") == [(7, "a%%")]


def test_a_result_makes_its_table(hook: LakebaseHook, driver: str):
    sql = "SELECT 1::bigint AS a, 1.5::float8 AS b, 'x'::varchar AS c, date '2026-01-02' AS d, true AS e"
    for condition, count in (("", 1), (" WHERE 1 = 2", 0)):
        table = f"arrow.made_{count}"
        assert transfer(sql + condition, table, create_table=True)["rows"] == count
        kinds = hook.get_records(
            "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 "
            "ORDER BY attnum",
            [table],
        )
        assert [kind for (kind,) in kinds] == ["bigint", "double precision", "text", "date", "boolean"]
    assert hook.get_first("SELECT a, b, c, d::text, e FROM arrow.made_1") == (1, 1.5, "x", "2026-01-02", True)


def test_an_empty_result_loads_no_rows_and_its_columns_are_checked(hook: LakebaseHook, driver: str):
    hook.run("INSERT INTO arrow.t VALUES (1, 'old')")
    assert transfer("SELECT 1 AS id, 'a' AS note WHERE 1 = 2")["rows"] == 0
    assert hook.get_records("TABLE arrow.t") == []
    with pytest.raises(Exception, match="nosuch"):
        transfer("SELECT 1 AS id, 'a' AS nosuch WHERE 1 = 2")


def test_a_query_that_fails_midway_loads_nothing(hook: LakebaseHook, driver: str):
    hook.run("INSERT INTO arrow.t VALUES (1, 'old')")
    sql, match = MIDWAY, "out of milk"
    if driver == "adbc":
        sql, match = "SELECT 1 / (500000 - i) AS id FROM generate_series(1, 1000000) AS t(i)", "division by zero"
    with pytest.raises(Exception, match=match) as caught:
        transfer(sql)
    assert isinstance(caught.value, duckdb.Error | OSError | adbc_driver_manager.Error)
    assert hook.get_records("TABLE arrow.t") == [(1, "old")]


def test_a_row_that_the_table_rejects_is_named(hook: LakebaseHook, driver: str):
    hook.run("ALTER TABLE arrow.t ADD CHECK (id < 15000)")
    with pytest.raises(Exception, match=r"row 15000 of the source"):
        transfer("SELECT i AS id FROM generate_series(1, 25000) AS t(i)", mode="append")
    assert hook.get_records("TABLE arrow.t") == []


@pytest.mark.parametrize(
    ("sql", "note"),
    [
        ("SELECT 1 AS id, '101'::bit AS note", "101"),
        ("SELECT 1 AS id, [time with time zone '01:02:03+05:30'] AS note", None),
        ("INSERT INTO made VALUES (1, 'once') RETURNING id, note", "once"),
    ],
)
def test_what_arrow_data_of_duckdb_does_not_hold_is_read_row_by_row(
    hook: LakebaseHook, source: Any, sql: str, note: str | None, task_log: Callable[[], str]
):
    database = duckdb.connect()
    database.execute("CREATE TABLE made (id int, note text)")
    source(database.cursor)
    if note is None:
        hook.run("ALTER TABLE arrow.t ALTER note TYPE timetz[] USING NULL")
    transfer(sql)
    assert "Reading the source row by row" in task_log()
    assert hook.get_first("SELECT note::text FROM arrow.t") == (note or "{01:02:03+05:30}",)
    assert database.execute("SELECT count(*) FROM made").fetchall() == [(int(note == "once"),)]


def test_rows_are_read_without_the_extra(
    hook: LakebaseHook, driver: str, monkeypatch: pytest.MonkeyPatch, task_log: Callable[[], str]
):
    monkeypatch.setattr(_source_arrow, "find_spec", lambda name: None)
    transfer("SELECT 1 AS id, 'a' AS note")
    assert "Reading the source row by row" in task_log()
    assert hook.get_records("TABLE arrow.t") == [(1, "a")]


MEMORY = """
import resource, sys
import duckdb, psycopg
from airflow_provider_lakebase.core.bulk.load import load
from airflow_provider_lakebase.hooks._source_arrow import run_query
def run(count):
    with psycopg.connect(sys.argv[1]) as target, duckdb.connect() as source:
        target.execute("CREATE TEMPORARY TABLE t (id bigint, note text) ON COMMIT DROP")
        sql = "SELECT i AS id, repeat('x', 200) AS note FROM range(?) AS t(i)"
        assert load(target, run_query(source.cursor(), sql, [count]), "t").rows == count
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
first = run(100_000)
print(run(1_000_000) - first)
"""


def test_memory_does_not_grow_with_the_rows(emulator: LakebaseEmulator):
    """A million rows of 200 bytes are 200 MB where a driver holds them all."""
    command = [sys.executable, "-c", MEMORY, emulator.superuser_conninfo]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    assert float(output) < 60


# ── the types of DuckDB ──

VALUES: dict[str, list[str]] = {
    "BOOLEAN": ["true"],
    "TINYINT": ["-128"],
    "SMALLINT": ["-32768"],
    "INTEGER": ["-2147483648"],
    "BIGINT": ["-9223372036854775808"],
    "HUGEINT": ["170141183460469231731687303715884105727", "-170141183460469231731687303715884105727", "1"],
    "UTINYINT": ["255"],
    "USMALLINT": ["65535"],
    "UINTEGER": ["4294967295"],
    "UBIGINT": ["18446744073709551615"],
    "UHUGEINT": ["340282366920938463463374607431768211455"],
    "BIGNUM": ["99999999999999999999999999999999999999999999999999"],
    "FLOAT": ["'nan'", "0.1", "'-inf'", "3.4e38"],
    "DOUBLE": ["'nan'", "0.1", "'inf'", "5e-324"],
    "DECIMAL(4,2)": ["-99.99"],
    "DECIMAL(38,0)": ["99999999999999999999999999999999999999"],
    "DECIMAL(38,38)": ["0.00000000000000000000000000000000000001"],
    "VARCHAR": ["''", "'ä€😀'", "'a\tb\\n'", "'a' || chr(0)"],
    "BLOB": ["'\\xAA\\x00'", "''"],
    "BIT": ["'101'"],
    "DATE": ["'2020-01-01'", "'290000-01-01'", "'infinity'", "'-infinity'", "'0044-03-15 (BC)'"],
    "TIME": ["'01:02:03.000004'", "'24:00:00'"],
    "TIME WITH TIME ZONE": ["'01:02:03+05:30'"],
    "TIME_NS": ["'01:02:03.000004'", "'01:02:03.000000001'", "'24:00:00'"],
    "TIMESTAMP": ["'2020-01-01 01:02:03.000004'", "'infinity'", "'-infinity'", "'290000-01-01'"],
    "TIMESTAMP_S": ["'2020-01-01 01:02:03'", "'infinity'"],
    "TIMESTAMP_MS": ["'2020-01-01 01:02:03.004'", "'-infinity'"],
    "TIMESTAMP_NS": ["'2020-01-01 00:00:00.000001'", "'2020-01-01 00:00:00.000000001'", "'infinity'"],
    "TIMESTAMP WITH TIME ZONE": ["'2020-01-01 01:02:03+03'", "'infinity'", "'-infinity'"],
    "INTERVAL": ["'1 month -2 days 3.000004 seconds'", "'3 seconds'", "'-5 years'"],
    "UUID": ["'00000000-0000-0000-0000-000000000005'"],
    "JSON": ["'{\"a\":  1.50}'"],
    "ENUM('x', 'y')": ["'x'"],
    "INTEGER[]": ["[1, NULL]", "[]"],
    "VARCHAR[]": ["['a', NULL, '\"']"],
    "DATE[]": ["['2020-01-01', NULL]", "['290000-01-01']", "['infinity']"],
    "TIME[]": ["['01:02:03']", "['24:00:00']"],
    "BIT[]": ["['101']"],
    "UUID[]": ["['00000000-0000-0000-0000-000000000005']"],
    "INTERVAL[]": ["['1 day']"],
    "INTEGER[2]": ["[1, 2]"],
    "STRUCT(a DECIMAL(4,2), b TIMESTAMP, c BLOB)": ["{'a': 1.50, 'b': '2020-01-01', 'c': '\\xAA'}"],
    "STRUCT(a BIT, b HUGEINT)": ["{'a': '101', 'b': 170141183460469231731687303715884105727}"],
    "MAP(VARCHAR, DOUBLE)": ["MAP {'a': 1.5}"],
    "UNION(a INTEGER, b VARCHAR)": ["union_value(a := 1)"],
}
TARGETS = [
    *("text", "boolean", "smallint", "bigint", "numeric", "numeric(40,2)", "real", "double precision", "bytea"),
    *("date", "time", "time(3)", "timetz", "timestamp", "timestamp(3)", "timestamptz", "interval", "interval(0)"),
    *("uuid", "json", "jsonb", "bit(3)", "int[]", "text[]", "date[]", "time[]", "uuid[]", "bit(3)[]", "interval[]"),
]
LESS_IN_ROWS = ("infinity", "BC", "month", "years", "000000001'")
"""DuckDB's rows clamp infinity, give years before 1 as text, make months of 30 days, and drop nanoseconds."""
OTHERS_IN_ROWS = ("UUID", "INTEGER[2]")
"""Of these types DuckDB's rows hold values of classes that fit fewer columns: UUID rather than str, tuple than list."""


@pytest.mark.parametrize("kind", VALUES)
def test_a_value_arrives_from_arrow_data_as_it_does_row_by_row_or_is_refused(emulator: LakebaseEmulator, kind: str):
    with psycopg.connect(emulator.superuser_conninfo) as target, duckdb.connect() as database:
        arrived = 0

        def stored(data: Any, column: str) -> str | None:
            try:
                with target.transaction(force_rollback=True):
                    load(target, data, "t", LoadOptions(mode="append", columns=["v"]))
                    ((value,),) = target.execute("SELECT v::text FROM t").fetchall()
            except LakebaseLoadError:
                return None
            return str(value)

        for column in TARGETS:
            target.execute(f"DROP TABLE IF EXISTS t; CREATE TEMPORARY TABLE t (v {column})".encode())
            for value in VALUES[kind]:
                query = f"SELECT CAST({value} AS {kind}) AS v"
                with database.cursor() as cursor:
                    data = run_query(cursor, query, None)
                    found = stored(cursor.fetchmany(10) if data is None else data, column)
                    rows = stored(database.execute(query).fetchall(), column)
                    if data is not None and any(each in value for each in LESS_IN_ROWS):
                        continue
                    if rows is None and kind in OTHERS_IN_ROWS:
                        continue
                    assert found in (rows, None), (column, value)
                    arrived += found is not None
        assert arrived


@pytest.mark.parametrize("kind", ["DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE"])
def test_infinity_is_refused(emulator: LakebaseEmulator, kind: str):
    for value in ("infinity", "-infinity"):
        with psycopg.connect(emulator.superuser_conninfo) as target, duckdb.connect() as database:
            target.execute(f"CREATE TEMPORARY TABLE t (v {kind})".encode())
            data = run_query(database.cursor(), f"SELECT {kind} '{value}' AS v FROM range(20000)", None)
            with pytest.raises(LakebaseLoadError, match="row 1, column v, of the source: .* no Python type"):
                load(target, data, "t")


def test_an_interval_keeps_its_months_and_days(emulator: LakebaseEmulator):
    with psycopg.connect(emulator.superuser_conninfo) as target, duckdb.connect() as database:
        data = run_query(database.cursor(), "SELECT INTERVAL '1 month -2 days 3.000004 seconds' AS v", None)
        load(target, data, "pg_temp.t", LoadOptions(create_table=True))
        assert target.execute("SELECT v::text FROM t").fetchall() == [("1 mon -2 days +00:00:03.000004",)]


# ── drivers that are not here ──


class Cursor:
    """The documented interface of another driver's cursor."""

    description = (("id", 1), ("note", 2))

    def __init__(self, tables: list[pa.Table]) -> None:
        self.tables = iter(tables)
        self.executed: tuple[Any, ...] = ()
        self.connection = SimpleNamespace()

    def execute(self, *arguments: Any) -> None:
        self.executed = arguments

    def fetchmany(self, size: int) -> list[Any]:
        return []


class Databricks(Cursor):
    def fetchmany_arrow(self, size: int) -> pa.Table:
        return next(self.tables, EMPTY)


class Snowflake(Cursor):
    def execute(self, *arguments: Any) -> None:
        assert self.connection.arrow_number_to_decimal
        super().execute(*arguments)

    def fetch_arrow_batches(self) -> Iterator[pa.Table]:
        return self.tables


class NotSupportedError(Exception):
    pass


class SnowflakeWithoutArrow(Snowflake):
    def fetch_arrow_batches(self) -> Iterator[pa.Table]:
        raise NotSupportedError


class OldSnowflakeConnection:
    arrow_number_to_decimal = property(lambda self: self.flag)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__("flag" if name == "arrow_number_to_decimal_setter" else name, value)


class OldSnowflake(Snowflake):
    def __init__(self, tables: list[pa.Table]) -> None:
        super().__init__(tables)
        self.connection = OldSnowflakeConnection()  # type: ignore[assignment]


class BigQuery(Cursor):
    @property
    def query_job(self) -> Any:
        batches = (batch for table in self.tables for batch in table.to_batches())
        return SimpleNamespace(result=lambda: SimpleNamespace(to_arrow_iterable=lambda: batches))


class AirflowBigQuery(Cursor):
    running_job_id, job_id, project_id, location = None, "job", "project", "EU"

    @property
    def hook(self) -> Any:
        def get_job(job_id: str, project_id: str, location: str) -> Any:
            assert (job_id, project_id, location) == ("job", "project", "EU")
            return BigQuery(list(self.tables)).query_job

        return SimpleNamespace(get_job=get_job)


EMPTY = pa.table({"id": pa.array([], pa.int64()), "note": pa.array([], pa.string())})
DRIVERS = [Databricks, Snowflake, OldSnowflake, BigQuery, AirflowBigQuery]


@pytest.mark.parametrize("kind", DRIVERS)
def test_arrow_data_comes_through_the_documented_interface(hook: LakebaseHook, kind: type[Cursor]):
    tables = [
        pa.table({"id": pa.array([1], pa.int8()), "note": ["a"]}),
        pa.table({"id": pa.array([2, 3], pa.int16()), "note": [None, "c"]}),
    ]
    cursor = kind(tables)
    data = run_query(cursor, "SELECT …", ["x"])
    assert cursor.executed == ("SELECT …", ["x"])
    assert hook.load(data, "arrow.t").rows == 3
    assert hook.get_records("SELECT id, note FROM arrow.t ORDER BY id") == [(1, "a"), (2, None), (3, "c")]


@pytest.mark.parametrize("kind", [*DRIVERS, SnowflakeWithoutArrow])
def test_a_result_without_batches_loads_no_rows(hook: LakebaseHook, source: Any, kind: type[Cursor]):
    class Connection(SimpleNamespace):
        def cursor(self) -> Any:
            found = kind([])
            found.close = lambda: None  # type: ignore[attr-defined]
            return found

        def close(self) -> None: ...

    source(Connection)
    assert transfer("SELECT …")["rows"] == 0
    with pytest.raises(Exception, match="nosuch"):
        transfer("SELECT …", columns={"nosuch": "id"})


def test_integers_of_snowflake_make_columns_that_hold_those_of_later_batches(hook: LakebaseHook):
    tables = [pa.table({"id": pa.array([n], kind)}) for n, kind in ((1, pa.int8()), (2**40, pa.int64()))]
    hook.load(run_query(Snowflake(tables), "SELECT …", None), "arrow.made", create_table=True)
    assert hook.get_records("SELECT id FROM arrow.made ORDER BY id") == [(1,), (2**40,)]


@pytest.mark.parametrize("kind", DRIVERS)
def test_an_error_of_the_driver_midway_is_raised_as_it_is(hook: LakebaseHook, kind: type[Cursor]):
    class DriverError(Exception):
        pass

    def tables() -> Iterator[pa.Table]:
        yield pa.table({"id": [1], "note": ["a"]})
        raise DriverError("the warehouse has closed")

    cursor = kind([])
    cursor.tables = tables()
    with pytest.raises(DriverError, match="the warehouse has closed"):
        data = run_query(cursor, "SELECT …", None)
        hook.load(data, "arrow.t")
    assert hook.get_records("TABLE arrow.t") == []
