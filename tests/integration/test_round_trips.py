"""What goes in comes out: any names, any values, by every kind of source and file; and the table around the rows."""

from __future__ import annotations

import csv
import datetime as dt
import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from psycopg import sql
from psycopg.types.json import Jsonb

from airflow_provider_lakebase.emulator import LakebaseEmulator
from airflow_provider_lakebase.exceptions import LakebaseExportError, LakebaseLoadError
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook

MODES: Sequence[Any] = ("append", "replace", "upsert")
FILES = ("t.csv", "t.csv.gz", "t.csv.zst", "t.json", "t.jsonl", "t.jsonl.gz", "t.jsonl.zst", "t.parquet")
few = settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture(scope="module")
def probe(shared_emulator: LakebaseEmulator) -> Iterator[Callable[..., list[Any]]]:
    """Return a function that runs a statement in a session beside the hook's."""
    connection = LakebaseHook().get_conn()
    connection.autocommit = True
    connection.prepare_threshold = None

    def run(statement: str | sql.Composed, *values: Any) -> list[Any]:
        query = statement.encode() if isinstance(statement, str) else statement
        cursor = connection.execute(query, values or None)
        return cursor.fetchall() if cursor.description else []

    run("DROP SCHEMA IF EXISTS trips CASCADE")
    run("CREATE SCHEMA trips")
    yield run
    run("DROP SCHEMA trips CASCADE")
    connection.close()


Probe = Callable[..., list[Any]]


def write_csv(file: Path, names: Sequence[str], rows: Sequence[Sequence[str | None]]) -> Path:
    """Write text in quotes, so that an empty one is not NULL: as the csv module does by Python 3.12's QUOTE_NOTNULL."""
    with file.open("w", encoding="utf-8", newline="") as opened:
        csv.writer(opened, quoting=csv.QUOTE_ALL, lineterminator="\n").writerow(names)
        for row in rows:
            opened.write(",".join("" if v is None else '"' + v.replace('"', '""') + '"' for v in row) + "\n")
    return file


# ── Names ──


def fit(name: str) -> str:
    return name.encode()[:63].decode(errors="ignore")


names = (
    st.one_of(
        st.sampled_from(
            ["select", "table", "values", "Mixed", "a.b", 'q"u"ote', "a b ", " a", "%s", "%(a)s%", "new\nline", "\r\n"]
            + [
                "é" * 31,
                "x" * 63,
                "row",
                "target",
                "number",
                "nth",
                "name",
                "coming",
                "excluded",
                "written",
                "lakebase row",
            ]
            + [
                "left out 0",
                "{}",
                "{0}",
                "$1",
                "\\",
                "\\N",
                "'",
                ",",
                ";",
                "t;",
                "--",
                "/*",
                "a: b",
                ", line 5",
                "0",
                "\t",
            ]
        ),
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20),
    )
    .map(fit)
    .filter(lambda name: name not in ("", "ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"))
)


def check_names(hook: LakebaseHook, probe: Probe, directory: Path, table: str, key: str, column: str) -> None:
    quoted = sql.Identifier("trips", table)
    written = quoted.as_string()
    probe(sql.SQL("DROP TABLE IF EXISTS {}").format(quoted))
    create = sql.SQL("CREATE TABLE {} ({} integer PRIMARY KEY, {} text)")
    probe(create.format(quoted, sql.Identifier(key), sql.Identifier(column)))
    try:
        hook.load([{column: "old", key: 1}], written)
        assert hook.load([(1, "new"), (2, None)], written, mode="upsert", duplicates="error").rows == 2
        for name in ("t.csv", "t.jsonl", "t.parquet"):
            assert hook.export(written, directory / name).rows == 2
            hook.load(directory / name, written, mode="replace")
            hook.load(directory / name, written, mode="upsert", key_columns=[key], update_columns=[column])
            mapping = {key: key, column: column}
            hook.load(directory / name, written, mode="upsert", columns=mapping, casts={column: "text"})
        found = hook.get_arrow(written)
        assert found.column_names == [key, column]
        assert sorted(found.to_pydict()[key]) == [1, 2]
        assert probe(sql.SQL("SELECT * FROM {} ORDER BY 1").format(quoted)) == [(1, "new"), (2, None)]
        with pytest.raises(LakebaseLoadError, match="row 2"):
            hook.load([(1, "a"), (1, "b")], written, mode="upsert", duplicates="error")
    finally:
        probe(sql.SQL("DROP TABLE {}").format(quoted))


@few
@given(table=names, key=names, column=names)
def test_any_names_that_postgres_allows_work(
    hook: LakebaseHook, probe: Probe, tmp_path: Path, table: str, key: str, column: str
):
    if key != column:
        check_names(hook, probe, tmp_path, table, key, column)


@pytest.mark.parametrize("name", ["number", "row", "target", "lakebase row"])
def test_names_that_the_provider_uses_itself_are_free_for_columns(
    hook: LakebaseHook, probe: Probe, tmp_path: Path, name: str
):
    check_names(hook, probe, tmp_path, name, "id", name)
    check_names(hook, probe, tmp_path, name, name, "v")


# ── Values ──

text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30) | st.sampled_from(
    [
        "",
        "NULL",
        "null",
        "\\N",
        "\\.",
        "\r",
        "\n",
        "\r\n",
        '"',
        "'",
        ",",
        "\t",
        "\\",
        "{}",
        "NaN",
        "Infinity",
        "\ufeff",
        " ",
    ]
)
numbers = st.decimals(allow_nan=False, allow_infinity=False, places=None).filter(
    lambda n: -5000 < n.as_tuple().exponent < 5000  # type: ignore[operator]
)
numbers = numbers | st.integers(-(10**40), 10**40).map(Decimal) | st.sampled_from([Decimal("NaN"), Decimal("1.500")])
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | text
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
moments = st.datetimes(min_value=dt.datetime(1, 1, 2), max_value=dt.datetime(9999, 12, 30), timezones=st.just(dt.UTC))
rows_of_values = st.lists(
    st.tuples(
        st.none() | text,
        st.none() | st.lists(st.none() | text, max_size=4),
        st.none() | st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=4),
        st.none() | st.dictionaries(text, json_values, max_size=3) | st.lists(json_values, max_size=3),
        st.none() | numbers,
        st.none() | moments,
        st.none() | st.uuids(),
        st.none() | st.binary(max_size=20),
        st.none() | st.floats(),
        st.none() | st.lists(st.none() | st.floats(), max_size=4),
        st.none() | st.dates(),
    ),
    min_size=1,
    max_size=6,
)
COLUMNS = {
    "t": "text",
    "ts": "text[]",
    "i": "bigint[]",
    "j": "jsonb",
    "n": "numeric",
    "m": "timestamptz",
    "u": "uuid",
    "b": "bytea",
    "f": "double precision",
    "fs": "double precision[]",
    "d": "date",
}


def make_tables(probe: Probe, *tables: str) -> None:
    columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
    for table in tables:
        probe(f"DROP TABLE IF EXISTS trips.{table}")
        probe(f"CREATE TABLE trips.{table} (id integer PRIMARY KEY, {columns})")


def insert(probe: Probe, table: str, rows: Sequence[Sequence[Any]]) -> None:
    """Put rows in by INSERT, as a measure for all other ways."""
    for number, row in enumerate(rows):
        values = [Jsonb(v) if name == "j" and v is not None else v for name, v in zip(COLUMNS, row, strict=True)]
        casts = ", ".join(f"%s::{kind}" for kind in COLUMNS.values())
        probe(f"INSERT INTO trips.{table} VALUES (%s, {casts})", number, *values)


def assert_equal(probe: Probe, one: str, other: str, how: str) -> None:
    # As text, in which -0 and 0, 1.0 and 1.00 are told apart.
    columns = ", ".join(f"{name}::text" for name in ("id", *COLUMNS))
    one, other = (f"SELECT {columns} FROM trips.{table}" for table in (one, other))
    difference = probe(f"(({one}) EXCEPT ALL ({other})) UNION ALL (({other}) EXCEPT ALL ({one}))")
    assert difference == [], how


def literal(value: Any) -> str | None:
    """Return a value as the text of a CSV file."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    if isinstance(value, dict):
        return json.dumps(value)
    return str(value).replace("nan", "NaN")


def array_literal(values: list[Any] | None) -> str | None:
    if values is None:
        return None
    quoted = ("NULL" if v is None else '"' + str(v).replace("\\", "\\\\").replace('"', '\\"') + '"' for v in values)
    return "{" + ",".join(quoted) + "}"


def as_csv_row(number: int, row: Sequence[Any]) -> list[str | None]:
    values = [
        array_literal(v) if kind.endswith("[]") else json.dumps(v) if kind == "jsonb" and v is not None else literal(v)
        for kind, v in zip(COLUMNS.values(), row, strict=True)
    ]
    return [str(number), *values]


def as_json(value: Any) -> str:
    if isinstance(value, Decimal) and value.is_finite():
        return str(value)
    if isinstance(value, list):
        return "[" + ", ".join(map(as_json, value)) + "]"
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return json.dumps(str(value).replace("nan", "NaN"))
    if value is None or isinstance(value, bool | int | float | str | dict):
        return json.dumps(value)
    return json.dumps(literal(value))


def as_json_line(number: int, row: Sequence[Any]) -> str:
    pairs = [f'"{name}": {json.dumps(v) if name == "j" else as_json(v)}' for name, v in zip(COLUMNS, row, strict=True)]
    return f'{{"id": {number}, {", ".join(pairs)}}}\n'


ARROW_TYPES: dict[str, pa.DataType] = {
    "t": pa.string(),
    "ts": pa.list_(pa.string()),
    "i": pa.list_(pa.int64()),
    "j": pa.string(),
    "n": pa.string(),
    "m": pa.timestamp("us", "UTC"),
    "u": pa.binary(16),
    "b": pa.binary(),
    "f": pa.float64(),
    "fs": pa.list_(pa.float64()),
    "d": pa.date32(),
}


def as_arrow(rows: Sequence[Sequence[Any]]) -> pa.Table:
    convert: dict[str, Callable[[Any], Any]] = {"j": json.dumps, "n": str, "u": lambda value: value.bytes}
    columns = {"id": pa.array(range(len(rows)), pa.int32())}
    for name, values in zip(COLUMNS, zip(*rows, strict=True), strict=True):
        change = convert.get(name, lambda value: value)
        columns[name] = pa.array([None if v is None else change(v) for v in values], ARROW_TYPES[name])
    return pa.table(columns)


@pytest.fixture
def tables(probe: Probe) -> None:
    make_tables(probe, "a", "b")


def check_values(hook: LakebaseHook, probe: Probe, directory: Path, rows: list[tuple[Any, ...]]) -> None:
    probe("DELETE FROM trips.a")
    insert(probe, "a", rows)
    arrow = as_arrow(rows)
    (directory / "in.jsonl").write_text("".join(as_json_line(n, row) for n, row in enumerate(rows)))
    pq.write_table(arrow, directory / "in.parquet")
    sources: dict[str, Any] = {
        "tuples": [(n, *row) for n, row in enumerate(rows)],
        "dicts": [{"id": n, **dict(zip(COLUMNS, row, strict=True))} for n, row in enumerate(rows)],
        "csv": write_csv(directory / "in.csv", ["id", *COLUMNS], [as_csv_row(n, row) for n, row in enumerate(rows)]),
        "jsonl": directory / "in.jsonl",
        "parquet": directory / "in.parquet",
        "arrow": arrow,
    }
    for position, (name, source) in enumerate(sources.items()):
        hook.load(source, "trips.b", mode=("replace", "upsert")[position % 2])
        assert_equal(probe, "a", "b", name)
    for name in FILES:
        hook.export("trips.a", directory / name)
        hook.load(directory / name, "trips.b", mode="replace")
        assert_equal(probe, "a", "b", name)
    found = hook.get_arrow("SELECT * FROM trips.a ORDER BY id")
    hook.load(found, "trips.b", mode="upsert")
    assert_equal(probe, "a", "b", "get_arrow")
    for name in ("t", "ts", "i", "m", "b", "d"):
        assert found[name].to_pylist() == arrow[name].to_pylist(), name


A_ROW: tuple[Any, ...] = (None,) * len(COLUMNS)


@few
@example(
    [
        (
            "",
            ["NaN"],
            [],
            {},
            Decimal("1.50"),
            dt.datetime(1, 1, 2, tzinfo=dt.UTC),
            uuid.UUID(int=0),
            b"",
            -0.0,
            [1.0, 2.5],
            dt.date(1, 1, 1),
        )
    ]
)
@given(rows_of_values)
def test_any_values_come_out_as_they_went_in(
    hook: LakebaseHook, probe: Probe, tables: None, tmp_path: Path, rows: list[tuple[Any, ...]]
):
    check_values(hook, probe, tmp_path, rows)


@few
@given(
    values=st.lists(st.none() | text, min_size=1, max_size=5),
    bad=st.text(min_size=0, max_size=5),
    what=st.sampled_from("\0\ud800\udfff"),
    position=st.integers(0, 5),
    mode=st.sampled_from(MODES),
)
def test_text_that_is_none_is_refused_by_row_and_column(
    hook: LakebaseHook,
    probe: Probe,
    tables: None,
    values: list[str | None],
    bad: str,
    what: str,
    position: int,
    mode: Any,
):
    values = [*values[:position], bad + what + "x", *values[position:]]
    row = values.index(bad + what + "x") + 1
    for source in (list(enumerate(values)), [{"id": n, "t": value} for n, value in enumerate(values)]):
        with pytest.raises(LakebaseLoadError, match=f"row {row}, column t, of"):
            hook.load(source, "trips.b", mode=mode, columns=["id", "t"])
    assert probe("SELECT count(*) FROM trips.b") == [(0,)]


def test_a_text_of_megabytes_comes_out_as_it_went_in(hook: LakebaseHook, probe: Probe, tables: None, tmp_path: Path):
    long = "é\n" * 4_000_000
    rows = [(0, "short"), (1, long), (2, "short")]
    hook.load(rows, "trips.a", columns=["id", "t"])
    assert hook.get_arrow("SELECT id, t FROM trips.a ORDER BY id").to_pydict()["t"] == ["short", long, "short"]
    for name in ("t.csv", "t.jsonl", "t.parquet"):
        hook.export("trips.a", tmp_path / name)
        hook.load(tmp_path / name, "trips.b", mode="replace")
        assert_equal(probe, "a", "b", name)


KINDS: Sequence[tuple[str, str]] = [
    ("jsonb[]", """ARRAY['"1"', '1', '{"a": 1.10}', NULL]::jsonb[]"""),
    ("numeric[]", "ARRAY[1, 2.50, 'NaN', NULL]::numeric[]"),
    ("numeric(10,2)[]", "ARRAY[1, 2.50]::numeric(10,2)[]"),
    ("double precision[]", "ARRAY[1, 2.5, 'NaN', '-Infinity', NULL]::float8[]"),
    ("real[]", "ARRAY[1, 0.1, 'Infinity']::real[]"),
    ("text[]", "ARRAY['NaN', 'Infinity', '', NULL]"),
    ("boolean[]", "ARRAY[true, NULL]"),
    ("uuid[]", "ARRAY['00000000-0000-0000-0000-000000000005']::uuid[]"),
    ("bytea[]", "ARRAY['\\x00ff'::bytea, NULL]"),
    ("date[]", "ARRAY['2024-02-29'::date]"),
    ("timestamptz[]", "ARRAY['2024-02-29 10:00:00.5+00'::timestamptz]"),
    ("interval", "'1 mon -2 days 03:00:00.5'"),
    ("interval", "'25:00:00'"),
    ("time", "'24:00:00'"),
    ("timetz", "'10:00:00+02'"),
    ("timestamptz", "'infinity'"),
    ("real", "0.1"),
    ("real", "'1e-45'"),
    ("smallint", "-32768"),
    ("numeric(10,2)", "1.50"),
    ("numeric(5,-2)", "12300"),
    ("numeric(38,10)", "-1234567890123456789012345678.0123456789"),
    ("numeric(50,10)", "-1234567890123456789012345678901234567890.0123456789"),
    ("int4range", "'[1,5)'"),
    ("inet", "'10.0.0.1/8'"),
    ("json", """'{"b": 1, "a": 1.10}'"""),
    ("char(5)", "'ab'"),
    ("varchar(5)", "'ab  '"),
    ("money", "1.50"),
    ("bit(3)", "B'101'"),
    ("point", "'(1,2.5)'"),
    ("tsvector", "'a:1 b:2'"),
    ("jsonb", "'\"text\"'"),
    ("jsonb", "'[1, 2.0, 1e30]'"),
]


@pytest.mark.parametrize(("kind", "value"), KINDS)
def test_what_is_exported_can_be_loaded_again(hook: LakebaseHook, probe: Probe, tmp_path: Path, kind: str, value: str):
    for table in ("k", "l"):
        probe(f"DROP TABLE IF EXISTS trips.{table}")
        probe(f"CREATE TABLE trips.{table} (id integer PRIMARY KEY, v {kind})")
    probe(f"INSERT INTO trips.k VALUES (1, NULL), (2, {value})")
    before = probe("SELECT id, v::text FROM trips.k ORDER BY id")
    for name in ("t.csv", "t.jsonl", "t.parquet"):
        if name == "t.parquet" and value in ("'infinity'", "'24:00:00'"):  # Arrow has no such moment
            with pytest.raises(LakebaseExportError, match="Cast its column to text"):
                hook.export("trips.k", tmp_path / name)
            continue
        hook.export("trips.k", tmp_path / name)
        hook.load(tmp_path / name, "trips.l", mode="replace")
        assert probe("SELECT id, v::text FROM trips.l ORDER BY id") == before, name


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet"])
def test_no_setting_of_the_session_changes_what_a_file_holds(
    hook: LakebaseHook, probe: Probe, tmp_path: Path, name: str
):
    for table in ("s", "r"):
        probe(f"DROP TABLE IF EXISTS trips.{table}")
        probe(f"CREATE TABLE trips.{table} (d date, f double precision, b bytea, i interval, m timestamptz)")
    probe(
        "INSERT INTO trips.s VALUES ('2024-02-01', 0.1::float8 + 0.2, '\\x00ff', '-1 mon +2 days', '2024-02-01 10:00Z')"
    )
    options = "DateStyle=German extra_float_digits=0 bytea_output=escape IntervalStyle=sql_standard TimeZone=Asia/Tokyo"
    other = LakebaseHook(options=" ".join(f"-c {option}" for option in options.split()))
    other.export("trips.s", tmp_path / name)
    hook.load(tmp_path / name, "trips.r")
    look = "SELECT d::text, f::text, b::text, i::text, m::text FROM trips."
    assert probe(f"{look}r") == probe(f"{look}s")


# ── The table around the rows ──


@pytest.fixture
def schema(probe: Probe) -> Iterator[Probe]:
    probe("DROP SCHEMA IF EXISTS around CASCADE")
    probe("CREATE SCHEMA around")
    yield probe
    probe("DROP SCHEMA around CASCADE")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("identity", ["ALWAYS", "BY DEFAULT"])
def test_an_identity_column_is_filled_or_left_to_count(hook: LakebaseHook, schema: Probe, identity: str, mode: Any):
    schema(
        f"""CREATE TABLE around.t (id integer GENERATED {identity} AS IDENTITY, code text PRIMARY KEY,
        twice text GENERATED ALWAYS AS (code || code) STORED, v integer DEFAULT 9)"""
    )
    hook.load([(10, "a", 1), (11, "b", 2)], "around.t", mode=mode)
    assert schema("SELECT * FROM around.t ORDER BY code") == [(10, "a", "aa", 1), (11, "b", "bb", 2)]
    hook.load([("c",), ("d",)], "around.t", mode=mode, columns=["code"])
    found = schema("SELECT id, code, twice, v FROM around.t WHERE code > 'b' ORDER BY code")
    assert found == [(1, "c", "cc", 9), (2, "d", "dd", 9)]


@pytest.mark.parametrize("mode", ["replace", "upsert"])
def test_an_identity_that_is_given_is_stored_or_refused(hook: LakebaseHook, schema: Probe, mode: Any):
    """Postgres lets no UPDATE set it, so a row that is kept cannot take another."""
    schema("CREATE TABLE around.t (code text PRIMARY KEY, id integer GENERATED ALWAYS AS IDENTITY)")
    schema("CREATE TABLE around.child (code text REFERENCES around.t)")
    hook.load([("a", 10)], "around.t", mode=mode)
    try:
        hook.load([("a", 99)], "around.t", mode=mode)
    except LakebaseLoadError:
        assert schema("SELECT id FROM around.t") == [(10,)]
    else:
        assert schema("SELECT id FROM around.t") == [(99,)]


@pytest.mark.parametrize("mode", MODES)
def test_a_partitioned_table_takes_rows_for_its_partitions(hook: LakebaseHook, schema: Probe, mode: Any):
    schema(
        "CREATE TABLE around.t (id integer, day date, v numeric(5,2), PRIMARY KEY (id, day)) PARTITION BY RANGE (day)"
    )
    schema("CREATE TABLE around.t1 PARTITION OF around.t FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')")
    schema("CREATE TABLE around.t2 PARTITION OF around.t FOR VALUES FROM ('2025-01-01') TO ('2026-01-01')")
    schema("INSERT INTO around.t VALUES (1, '2024-05-05', 1)")
    rows = [(2, dt.date(2024, 1, 1), Decimal("1.50")), (2, dt.date(2025, 1, 1), Decimal("2.50"))]
    assert hook.load(rows, "around.t", mode=mode).rows == 2
    kept = [] if mode == "replace" else [(1,)]
    assert schema("SELECT id FROM around.t1 ORDER BY id") == [*kept, (2,)]
    assert schema("SELECT id FROM around.t2") == [(2,)]
    with pytest.raises(LakebaseLoadError, match="no partition of relation"):
        hook.load([(3, dt.date(2024, 1, 1), 1), (3, dt.date(2030, 1, 1), 1)], "around.t", mode=mode)
    assert schema("SELECT count(*) FROM around.t") == [(2 + len(kept),)]


@pytest.mark.parametrize("mode", MODES)
def test_a_table_is_found_by_the_search_path(schema: Probe, mode: Any):
    schema("CREATE TABLE around.found_by_path (id integer PRIMARY KEY)")
    hook = LakebaseHook(options="-c search_path=nowhere,around")
    hook.load([(1,), (2,)], "found_by_path", mode=mode)
    assert schema("SELECT count(*) FROM around.found_by_path") == [(2,)]
    hook.load([(3,)], "around.found_by_path", mode=mode)


@pytest.mark.parametrize("mode", MODES)
def test_row_level_security_holds_for_what_is_loaded(schema: Probe, hook: LakebaseHook, mode: Any):
    schema("CREATE TABLE around.t (id integer PRIMARY KEY, owner text)")
    schema("INSERT INTO around.t VALUES (1, 'me'), (2, 'other')")
    schema("ALTER TABLE around.t ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
    schema("CREATE POLICY mine ON around.t USING (owner = 'me')")
    assert hook.load([(3, "me"), (4, "me")], "around.t", mode=mode).rows == 2
    with pytest.raises(LakebaseLoadError, match="row-level security"):
        hook.load([(5, "me"), (6, "other")], "around.t", mode=mode)
    schema("ALTER TABLE around.t DISABLE ROW LEVEL SECURITY")
    mine = [(2, "other"), (3, "me"), (4, "me")]
    assert schema("SELECT * FROM around.t ORDER BY id") == (mine if mode == "replace" else [(1, "me"), *mine])


@pytest.fixture
def parents(schema: Probe) -> Probe:
    schema("CREATE TABLE around.parent (id integer PRIMARY KEY, v text, code integer UNIQUE, d integer DEFAULT 9)")
    schema("INSERT INTO around.parent VALUES (1, 'a', 10, 1), (2, 'b', 20, 2), (3, 'c', 30, 3)")
    return schema


@pytest.mark.parametrize("action", ["CASCADE", "RESTRICT", "SET NULL", "NO ACTION"])
def test_replace_keeps_the_children_of_rows_whose_key_comes_again(hook: LakebaseHook, parents: Probe, action: str):
    parents(f"CREATE TABLE around.child (id integer, parent integer REFERENCES around.parent ON DELETE {action})")
    parents("INSERT INTO around.child VALUES (1, 1), (2, 2)")
    for source in ([(1, "A", 10), (2, "B", 21), (4, "D", 40)], [(1, "A", 10), (2, "B", 21), (4, "D", 40)]):
        hook.load(source, "around.parent", mode="replace", columns=["id", "v", "code"])
        assert parents("SELECT * FROM around.parent ORDER BY id") == [
            (1, "A", 10, 9),
            (2, "B", 21, 9),
            (4, "D", 40, 9),
        ]
        assert parents("SELECT * FROM around.child ORDER BY id") == [(1, 1), (2, 2)]
    left = [(1, "A", 10)]
    if action in ("RESTRICT", "NO ACTION"):
        with pytest.raises(LakebaseLoadError, match="foreign key"):
            hook.load(left, "around.parent", mode="replace", columns=["id", "v", "code"])
        assert parents("SELECT count(*) FROM around.parent") == [(3,)]
    else:
        hook.load(left, "around.parent", mode="replace", columns=["id", "v", "code"])
        assert parents("SELECT id FROM around.parent") == [(1,)]
    children = {"CASCADE": [(1, 1)], "SET NULL": [(1, 1), (2, None)]}.get(action, [(1, 1), (2, 2)])
    assert parents("SELECT * FROM around.child ORDER BY id") == children


def test_replace_finds_a_key_twice_by_its_row(hook: LakebaseHook, parents: Probe):
    parents("CREATE TABLE around.child (parent integer REFERENCES around.parent)")
    with pytest.raises(LakebaseLoadError, match="row 3, column id, of .*same key"):
        hook.load([(1, "a"), (2, "b"), (1, "c")], "around.parent", mode="replace", columns=["id", "v"])


def test_replace_changes_nothing_but_rows(hook: LakebaseHook, parents: Probe):
    parents("CREATE INDEX by_v ON around.parent (v)")
    parents("CREATE VIEW around.seen AS SELECT id FROM around.parent")
    parents("GRANT SELECT ON around.parent TO public")
    parents("COMMENT ON TABLE around.parent IS 'kept'")
    look = """SELECT oid, relname, relacl::text, relowner, reloptions, obj_description(oid, 'pg_class')
        FROM pg_class WHERE relnamespace = 'around'::regnamespace ORDER BY oid"""
    before = parents(look)
    hook.load([(5, "e", 50)], "around.parent", mode="replace", columns=["id", "v", "code"])
    parents("CREATE TABLE around.child (parent integer REFERENCES around.parent)")
    hook.load([(6, "e", 60)], "around.parent", mode="replace", columns=["id", "v", "code"])
    assert [row for row in parents(look) if row[1] != "child"] == before
    assert parents("SELECT * FROM around.seen") == [(6,)]


# ── Which rows, which columns ──


@pytest.fixture
def days(schema: Probe) -> Probe:
    schema("CREATE TABLE around.t (id integer PRIMARY KEY, day date, v numeric(5,2) DEFAULT 9)")
    schema("INSERT INTO around.t VALUES (1, '2024-01-01', 1), (2, '2024-01-02', 2), (3, NULL, 3)")
    return schema


def source_of(form: str, rows: Sequence[tuple[int, str, str]], directory: Path) -> Any:
    values = [(n, dt.date.fromisoformat(day), Decimal(v)) for n, day, v in rows]
    if form == "tuples":
        return values
    if form == "dicts":
        return [dict(zip(("id", "day", "v"), row, strict=True)) for row in values]
    if form == "csv":
        return write_csv(directory / "s.csv", ["id", "day", "v"], [(str(n), day, v) for n, day, v in rows])
    if form == "jsonl":
        lines = (json.dumps({"id": n, "day": day, "v": v}) for n, day, v in rows)
        (directory / "s.jsonl").write_text("\n".join(lines))
        return directory / "s.jsonl"
    arrow = pa.table(dict(zip(("id", "day", "v"), map(list, zip(*values, strict=True)), strict=True)))
    if form == "parquet":
        pq.write_table(arrow, directory / "s.parquet")
        return directory / "s.parquet"
    return arrow


FORMS = ("tuples", "dicts", "csv", "jsonl", "parquet", "arrow")
every_form = pytest.mark.parametrize("form", FORMS)
ALL = "SELECT id, day::text, v::text FROM around.t ORDER BY id"


@every_form
@pytest.mark.parametrize("referenced", [False, True])
def test_replace_where_leaves_other_rows_alone_and_takes_none(
    hook: LakebaseHook, days: Probe, tmp_path: Path, form: str, referenced: bool
):
    if referenced:
        days("CREATE TABLE around.child (id integer REFERENCES around.t)")
    where = {"mode": "replace", "replace_where": "day = '2024-01-01'"}
    source = source_of(form, [(4, "2024-01-01", "4.50"), (5, "2024-01-01", "5.50")], tmp_path)
    assert hook.load(source, "around.t", **where).rows == 2  # type: ignore[arg-type]
    after = [(2, "2024-01-02", "2.00"), (3, None, "3.00"), (4, "2024-01-01", "4.50"), (5, "2024-01-01", "5.50")]
    assert days(ALL) == after
    place = {"csv": "line 3", "jsonl": "line 2"}.get(form, "row 2")
    source = source_of(form, [(6, "2024-01-01", "6.50"), (7, "2024-01-02", "7.50")], tmp_path)
    with pytest.raises(LakebaseLoadError, match=f"rejects {place} of .*replace_where"):
        hook.load(source, "around.t", **where)  # type: ignore[arg-type]
    assert days(ALL) == after


def test_replace_where_refuses_a_row_for_which_it_is_null(hook: LakebaseHook, days: Probe):
    with pytest.raises(LakebaseLoadError, match="row 1 of .*replace_where"):
        hook.load([(4, None, 4)], "around.t", mode="replace", replace_where="day = '2024-01-01'")


@pytest.mark.parametrize("mode", MODES)
def test_casts_turn_text_into_the_column_s_type(hook: LakebaseHook, days: Probe, tmp_path: Path, mode: Any):
    days("CREATE TABLE around.c (id integer PRIMARY KEY, v integer, j jsonb)")
    file = write_csv(tmp_path / "c.csv", ["id", "v", "j"], [["1", "2.0", '"x"'], ["2", None, None]])
    hook.load(file, "around.c", mode=mode, casts={"v": "numeric"})
    assert days("SELECT * FROM around.c ORDER BY id") == [(1, 2, "x"), (2, None, None)]
    file = write_csv(tmp_path / "c.csv", ["id", "v"], [["3", "1"], ["4", "SECRETVALUE77"]])
    with pytest.raises(LakebaseLoadError, match="line 3, column v, of") as refused:
        hook.load(file, "around.c", mode=mode, casts={"v": "numeric"})
    assert "SECRET" not in str(refused.value)
    file = write_csv(tmp_path / "c.csv", ["id", "v"], [["3", "1"], ["4", "1.6"]])
    with pytest.raises(LakebaseLoadError, match="line 3, column v, of .*as numeric it does not fit integer exactly"):
        hook.load(file, "around.c", mode=mode, casts={"v": "numeric"})


@every_form
@pytest.mark.parametrize("mode", MODES)
def test_columns_choose_and_rename(hook: LakebaseHook, days: Probe, tmp_path: Path, form: str, mode: Any):
    days("DROP TABLE around.t")
    days("CREATE TABLE around.t (key integer PRIMARY KEY, v numeric(5,2), other text DEFAULT 'd')")
    source = source_of(form, [(4, "2024-01-01", "4.50"), (5, "2024-01-01", "5.50")], tmp_path)
    if form == "tuples":
        source = [(row[0], row[2]) for row in source]
    columns = ["key", "v"] if form == "tuples" else {"id": "key", "v": "v"}
    assert hook.load(source, "around.t", mode=mode, columns=columns).rows == 2
    assert days("SELECT key, v::text, other FROM around.t") == [(4, "4.50", "d"), (5, "5.50", "d")]


def test_upsert_changes_what_it_is_told_to(hook: LakebaseHook, days: Probe):
    rows = [(1, dt.date(2030, 1, 1), 10), (4, dt.date(2030, 1, 1), 40)]
    hook.load(rows, "around.t", mode="upsert", update_columns=["v"])
    after = [(1, "2024-01-01", "10.00"), (2, "2024-01-02", "2.00"), (3, None, "3.00"), (4, "2030-01-01", "40.00")]
    assert days(ALL) == after
    result = hook.load([(1, None, 99), (5, None, 50)], "around.t", mode="upsert", update_columns=[])
    assert result.rows == 1
    assert days(ALL) == [*after, (5, None, "50.00")]


def test_upsert_lets_no_older_or_equal_version_win(hook: LakebaseHook, days: Probe):
    day = dt.date.fromisoformat
    rows: list[tuple[Any, ...]] = [
        (1, day("2023-12-31"), 100),
        (2, day("2024-01-02"), 200),
        (3, day("2024-01-01"), 300),
        (4, day("2024-01-05"), 1),
        (4, day("2024-01-07"), 2),
        (4, day("2024-01-06"), 3),
        (5, day("2024-01-01"), 4),
        (5, day("2024-01-01"), 5),
    ]
    hook.load(rows, "around.t", mode="upsert", version_column="day")
    assert days(ALL) == [
        (1, "2024-01-01", "1.00"),
        (2, "2024-01-02", "2.00"),
        (3, "2024-01-01", "300.00"),
        (4, "2024-01-07", "2.00"),
        (5, "2024-01-01", "5.00"),
    ]


def test_upsert_takes_the_last_of_rows_with_one_key_or_names_it(hook: LakebaseHook, days: Probe):
    rows = [(4, None, 1), (5, None, 2), (4, None, 3)]
    hook.load(rows, "around.t", mode="upsert")
    assert days("SELECT v FROM around.t WHERE id = 4") == [(Decimal("3.00"),)]
    with pytest.raises(LakebaseLoadError, match="row 3, column id, of .*same key"):
        hook.load(rows, "around.t", mode="upsert", duplicates="error")


def test_what_postgres_itself_refuses_reaches_the_caller(hook: LakebaseHook, days: Probe):
    with pytest.raises(psycopg.errors.UndefinedColumn):
        hook.load([(1, None, 1)], "around.t", mode="replace", replace_where="nope = 1")
    assert len(days(ALL)) == 3
