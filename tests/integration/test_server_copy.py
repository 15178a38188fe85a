"""Rows of a query on another Postgres server are copied as they are, where the target stores exactly that."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any

import psycopg
import psycopg2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_lakebase.core.bulk.catalog import find_table
from airflow_provider_lakebase.core.bulk.formats.server_copy import choose_format
from airflow_provider_lakebase.core.bulk.load import load
from airflow_provider_lakebase.core.bulk.options import LoadOptions
from airflow_provider_lakebase.core.bulk.source import NamedRows
from airflow_provider_lakebase.emulator import LakebaseEmulator
from airflow_provider_lakebase.exceptions import LakebaseLoadError
from airflow_provider_lakebase.hooks._source_copy import SourceCopy, use_utf8
from airflow_provider_lakebase.hooks._source_types import describe_query

VALUES: dict[str, list[str]] = {
    "smallint": ["-32768", "0", "32767"],
    "integer": ["-2147483648", "7", "2147483647"],
    "bigint": ["-9223372036854775808", "70000", "9223372036854775807"],
    "real": ["0.1", "3.4e38", "NaN", "-Infinity", "1e-45"],
    "double precision": ["0.1", "1.7976931348623157e308", "NaN", "Infinity", "5e-324", "-0"],
    "numeric": ["0.10", "-12345678901234567890.12345", "NaN", "Infinity", "1e-300"],
    "numeric(6,2)": ["1.50", "-9999.99", "NaN"],
    "numeric(8,3)": ["1.125", "-99999.999"],
    "boolean": ["t", "f"],
    "text": ["", "a\tb\\n\n\r", "\\N", "\\.", "ä€😀", "NULL"],
    "character varying(5)": ["", "abc  ", "ä€😀"],
    "character varying(3)": ["abc", "a"],
    "character(5)": ["a", "abcde"],
    "uuid": ["00000000-0000-0000-0000-000000000005"],
    "bytea": ["\\x", "\\x00ff5c"],
    "json": ['{"b": 1,  "a": 1, "a": 2}', "null", '"\\u0041"'],
    "jsonb": ['{"a": [1.50, null]}', "[]"],
    "date": ["0044-03-15 BC", "2026-11-01", "infinity", "99999-12-31"],
    "timestamp without time zone": ["0044-03-15 01:02:03.000004 BC", "infinity", "2026-11-01 23:59:59.999999"],
    "timestamp(0) without time zone": ["2026-11-01 23:59:59"],
    "timestamp with time zone": ["-infinity", "2026-10-25 02:30:00.5+02", "294276-12-31 00:00:00Z"],
    "time without time zone": ["00:00", "24:00:00", "23:59:59.999999"],
    "time with time zone": ["12:00:00.5+15:59", "00:00-15"],
    "interval": ["1 year 2 mons -3 days 04:05:06.000007", "-1 mon 1 day", "0"],
    "inet": ["10.0.0.1", "::1/64"],
    "macaddr": ["08:00:2b:01:02:03"],
    "bit(3)": ["101"],
    "bit varying(5)": ["", "10101"],
    "integer[]": ["{1,NULL,3}", "{{1,2},{3,4}}", "{}", "[0:1]={5,6}"],
    "text[]": ['{"a,b",NULL,"NULL","\\""}'],
    "numeric(6,2)[]": ["{1.25,NULL}"],
    "daterange": ["empty", "[2026-11-01,)", "(,)"],
    "int4multirange": ["{[1,3),[5,7)}"],
    "point": ["(0.1,-1e300)"],
    "tsvector": ["'a':1A 'b':2"],
    "money": ["$1.50"],
    "copied.mood": ["sad", "happy"],
    "copied.small": ["1.5", "0"],
}
SAME = [kind for kind in VALUES if not kind.startswith(("copied", "money"))]


@pytest.fixture(params=["psycopg", "psycopg2"])
def source(request: pytest.FixtureRequest, shared_emulator: LakebaseEmulator) -> Iterator[Any]:
    driver: Any = psycopg if request.param == "psycopg" else psycopg2
    with closing(driver.connect(shared_emulator.superuser_conninfo)) as connection:
        yield connection


@pytest.fixture
def target(shared_emulator: LakebaseEmulator) -> Iterator[psycopg.Connection[Any]]:
    """A session whose transaction is rolled back; another session sees none of it."""
    with psycopg.connect(shared_emulator.superuser_conninfo) as connection:
        connection.execute(
            "CREATE SCHEMA copied; CREATE TYPE copied.mood AS ENUM ('sad', 'happy');"
            "CREATE DOMAIN copied.small AS numeric(3,1) CHECK (value < 50)"
        )
        yield connection
        connection.rollback()


def transfer(source: Any, query: str, target: Any, parameters: Any = None, **options: Any) -> Any:
    use_utf8(source)
    cursor = source.cursor(name="rows")
    cursor.execute(query, *([parameters] if parameters else []))
    described = describe_query(source, cursor)
    assert described is not None
    names, types = described

    def rows() -> Iterator[Any]:
        yield from cursor

    try:
        query_copy = SourceCopy(source, query, parameters)
        return load(target, NamedRows(rows(), names, types, query_copy), "copied.t", LoadOptions(**options))
    finally:
        source.rollback()
        with suppress(psycopg.Error, psycopg2.Error):  # the cursor ended with its transaction
            cursor.close()


def literals(kind: str, values: list[str]) -> str:
    quoted = [f"({n}, '{value.replace(chr(39), chr(39) * 2)}'::{kind})" for n, value in enumerate(values)]
    # The rows of VALUES have no common modifier.
    return f"SELECT n, v::{kind} AS v FROM (VALUES {', '.join(quoted)}, (-1, NULL)) AS t (n, v)"


@pytest.mark.parametrize("mode", ["append", "upsert", "replace"])
@pytest.mark.parametrize("kind", SAME)
def test_each_type_is_copied_in_binary_into_the_same_type(
    source: Any, target: psycopg.Connection[Any], kind: str, mode: Any, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    target.execute(f"CREATE TABLE copied.t (n int PRIMARY KEY, v {kind})".encode())
    query = literals(kind, VALUES[kind])
    result = transfer(source, query, target, mode=mode)
    assert result.rows == len(VALUES[kind]) + 1
    is_known = not (kind.startswith("bit(") and isinstance(source, psycopg2.extensions.connection))
    assert ("server to server in binary" in caplog.text) == is_known
    stored = target.execute("SELECT n, v::text FROM copied.t ORDER BY n").fetchall()
    assert stored == target.execute(f"SELECT n, v::text FROM ({query}) AS q ORDER BY n".encode()).fetchall()


@pytest.mark.parametrize("kind", SAME)
def test_what_is_copied_into_another_type_is_exact_or_refused(source: Any, target: psycopg.Connection[Any], kind: str):
    for other in SAME:
        with target.transaction(force_rollback=True):
            target.execute(f"CREATE TABLE copied.t (n int, v {other})".encode())
            if choose_format([kind], find_table(target, "copied.t").columns[1:])[0] is None:
                continue
            for value in VALUES[kind]:
                query = literals(kind, [value])
                try:
                    with target.transaction():
                        transfer(source, query, target)
                except LakebaseLoadError:
                    continue
                check = f"SELECT t.v::text, q.v::text FROM copied.t AS t JOIN ({query}) AS q ON t.n = q.n AND t.n >= 0"
                ((stored, given_text),) = target.execute(check.encode()).fetchall()
                assert is_same(target, kind, other, stored, given_text), (kind, other, given_text, stored)
                target.execute("DELETE FROM copied.t")


def is_same(target: psycopg.Connection[Any], kind: str, other: str, stored: str, given_text: str) -> bool:
    """Return whether a text of another type says the same: it does if it is the same when it is cast back."""
    if kind in ("json", "point"):  # they have no operator for equality
        return stored == given_text
    query = f"SELECT (%s::{other})::{kind} IS NOT DISTINCT FROM %s::{kind}"
    return bool(target.execute(query.encode(), [stored, given_text]).fetchall()[0][0])


@pytest.mark.parametrize(
    ("wanted", "kind", "format"),
    [
        ("integer", "integer", "binary"),
        ("numeric(8,2)", "numeric(6,2)", "binary"),
        ("text", "character varying(3)", "binary"),
        ("character varying(9)", "character varying(3)", "binary"),
        ("bigint", "integer", "text"),
        ("smallint", "bigint", "text"),
        ("numeric(9,0)", "integer", "text"),
        ("numeric(3,-2)", "integer", None),
        ("numeric(6,1)", "numeric(6,2)", "binary"),
        ("numeric(6,2)", "numeric", "binary"),
        ("timestamp(0) without time zone", "timestamp without time zone", "binary"),
        ("character varying(2)", "character varying(3)", None),
        ("date", "timestamp without time zone", None),
        ("timestamp without time zone", "timestamp with time zone", None),
        ("real", "double precision", None),
        ("text", "integer", None),
        ("jsonb", "json", None),
        ("copied.mood", "text", None),
    ],
)
def test_what_could_change_is_read_and_checked_row_by_row(
    source: Any,
    target: psycopg.Connection[Any],
    wanted: str,
    kind: str,
    format: str | None,
    caplog: pytest.LogCaptureFixture,
):
    caplog.set_level(logging.INFO)
    target.execute(f"CREATE TABLE copied.t (v {wanted})".encode())
    transfer(source, f"SELECT NULL::{kind} AS v", target)
    expected = f"server to server in {format}" if format else "Reading and checking each row: column v is of type"
    assert expected in caplog.text


ANYTHING = {
    "bigint": st.integers(-(2**63), 2**63 - 1),
    "numeric": st.decimals(allow_nan=False, allow_infinity=False) | st.integers(),
    "double precision": st.floats(),
    "text": st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    "bytea": st.binary(),
    "timestamptz": st.datetimes(timezones=st.timezones()),
    "interval": st.timedeltas(),
    "text[]": st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])) | st.none()),
}


@pytest.mark.parametrize("others", [False, True])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_values_arrive_as_they_were(
    source: Any, target: psycopg.Connection[Any], shared_emulator: LakebaseEmulator, others: bool, data: st.DataObject
):
    rows = data.draw(st.lists(st.tuples(*(st.none() | values for values in ANYTHING.values())), max_size=5))
    small = data.draw(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=len(rows), max_size=len(rows)))
    columns = ", ".join(f"c{n} {kind}" for n, kind in enumerate(ANYTHING))
    with psycopg.connect(shared_emulator.superuser_conninfo) as writer:
        writer.execute(f"CREATE SCHEMA IF NOT EXISTS given; CREATE TABLE given.t (id int, {columns})".encode())
        marks = ", ".join(["%s"] * (len(ANYTHING) + 1))
        for row, number in zip(rows, small, strict=True):
            writer.execute(f"INSERT INTO given.t VALUES ({marks})".encode(), [number, *row])
    try:
        with target.transaction(force_rollback=True):
            kind = "bigint" if others else "int"  # the other type makes the format text
            target.execute(f"CREATE TABLE copied.t (id {kind}, {columns})".encode())
            transfer(source, "SELECT * FROM given.t", target)
            stored = [
                target.execute(f"SELECT t::text FROM {table} AS t ORDER BY 1".encode()).fetchall()
                for table in ("copied.t", "given.t")
            ]
    finally:
        with psycopg.connect(shared_emulator.superuser_conninfo) as writer:
            writer.execute("DROP SCHEMA given CASCADE")
    assert stored[0] == stored[1]


def test_parameters_are_bound_and_columns_chosen(source: Any, target: psycopg.Connection[Any]):
    target.execute("CREATE TABLE copied.t (a text, b int)")
    query = 'SELECT 1 AS x, %s || \'%%\' AS y, g AS "z ""z" FROM generate_series(1, 3) g -- a comment;'
    transfer(source, query, target, ["ä'\\%"], columns={"y": "a", 'z "z': "b"})
    assert target.execute("SELECT a, b FROM copied.t").fetchall() == [("ä'\\%%", n) for n in (1, 2, 3)]


def test_a_value_that_the_target_would_round_is_named(source: Any, target: psycopg.Connection[Any]):
    target.execute("CREATE TABLE copied.t (v numeric(6,2))")
    query = "SELECT CASE g WHEN 3 THEN 1.255 ELSE 1.250 END AS v FROM generate_series(1, {}) g"
    transfer(source, query.format(2), target)
    assert target.execute("SELECT v::text FROM copied.t").fetchall() == [("1.25",)] * 2
    with pytest.raises(LakebaseLoadError, match=r"row 3, column v, of the source.* more digits than numeric\(6,2\)"):
        transfer(source, query.format(4), target)


@pytest.mark.parametrize("query", ["SELECT 1 AS v;", "VALUES (1)", "WITH a AS (SELECT 1 AS v) SELECT v FROM a ;  "])
def test_any_form_of_query_is_copied(source: Any, target: psycopg.Connection[Any], query: str):
    target.execute("CREATE TABLE copied.t (v int)")
    transfer(source, query, target, columns=["v"])
    assert target.execute("SELECT v FROM copied.t").fetchall() == [(1,)]


def test_a_row_that_the_target_rejects_is_named(source: Any, target: psycopg.Connection[Any]):
    target.execute("CREATE TABLE copied.t (v int CHECK (v < 900))")
    with pytest.raises(LakebaseLoadError, match="row 900 of the source") as caught:
        transfer(source, "SELECT g AS v FROM generate_series(1, 1000) g", target)
    assert (caught.value.row, caught.value.sqlstate) == (900, "23514")


@pytest.fixture(params=["LATIN1", "SQL_ASCII"])
def encoded(request: pytest.FixtureRequest, shared_emulator: LakebaseEmulator) -> Iterator[str]:
    """The connection string of a database in another encoding."""
    with psycopg.connect(shared_emulator.superuser_conninfo, autocommit=True) as connection:
        template = "TEMPLATE template0 LOCALE_PROVIDER libc LOCALE 'C'"
        connection.execute(f"CREATE DATABASE encoded ENCODING '{request.param}' {template}".encode())
        yield psycopg.conninfo.make_conninfo(shared_emulator.superuser_conninfo, dbname="encoded")
        connection.execute("DROP DATABASE encoded")


@pytest.mark.parametrize("driver", [psycopg, psycopg2])
def test_a_source_may_have_any_encoding(encoded: str, target: psycopg.Connection[Any], driver: Any):
    target.execute("CREATE TABLE copied.t (v text, n int)")
    with closing(driver.connect(encoded)) as source:
        transfer(source, "SELECT 'caf' || %s || chr(65) AS v, 1 AS n", target, ["é"])
    assert target.execute("SELECT v FROM copied.t").fetchall() == [("caféA",)]


@pytest.mark.parametrize("driver", [psycopg, psycopg2])
@pytest.mark.parametrize("encoded", ["SQL_ASCII"], indirect=True)
def test_bytes_that_are_no_text_are_refused_by_the_source(encoded: str, target: psycopg.Connection[Any], driver: Any):
    target.execute("CREATE TABLE copied.t (v text)")
    with closing(driver.connect(encoded)) as source:
        with pytest.raises(driver.Error, match="invalid byte sequence"):
            transfer(source, "SELECT convert_from('\\xe9', 'SQL_ASCII') AS v", target)
