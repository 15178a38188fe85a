"""CSV dialects that COPY does not have: escapes, comments, several texts of NULL, numbers with other characters."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_lakebase.core.bulk.export import export
from airflow_provider_lakebase.core.bulk.formats import csv_rewrite
from airflow_provider_lakebase.core.bulk.load import load
from airflow_provider_lakebase.core.bulk.options import ExportOptions, LoadOptions
from airflow_provider_lakebase.emulator import LakebaseEmulator
from airflow_provider_lakebase.exceptions import LakebaseLoadError, LakebaseSettingsError

SECRET = "SECRETVALUE77"
REWRITTEN = {"null": ["", ""]}
"""Changes nothing but the path that a file takes."""


@pytest.fixture(scope="module")
def connection(shared_emulator: LakebaseEmulator) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(shared_emulator.superuser_conninfo, options="-c TimeZone=Europe/Berlin") as connection:
        yield connection


def load_into(
    connection: psycopg.Connection[Any], data: bytes, table: str = "a text, b text", **options: Any
) -> list[tuple[Any, ...]]:
    """Load into a table of its own and return its rows, in the order of the file."""
    try:
        connection.execute(f"CREATE TABLE public.t ({table})".encode())
        load(connection, io.BytesIO(data), "public.t", LoadOptions(format="csv", **options))
        return connection.execute("SELECT * FROM public.t ORDER BY ctid").fetchall()
    finally:
        connection.rollback()


def refuses(
    connection: psycopg.Connection[Any], data: bytes, match: str, table: str = "a text, b text", **options: Any
) -> LakebaseLoadError:
    with pytest.raises(LakebaseLoadError, match=match) as refused:
        load_into(connection, data, table, **options)
    assert SECRET not in str(refused.value)
    return refused.value


@pytest.fixture(params=[1, 2, 3, 7, 1 << 18])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """The size of the blocks that a file is read in."""
    monkeypatch.setattr("airflow_provider_lakebase.core.bulk.formats.csv_rows.BLOCK_BYTES", request.param)
    size: int = request.param
    return size


# ── Both paths ──

TEXTS = st.text(st.sampled_from('a,"\n\r\\.é1-\0\t'), max_size=30)


def outcome(connection: psycopg.Connection[Any], data: bytes, table: str, **options: Any) -> Any:
    """Return the rows of a file, or the kind and the line of its error."""
    try:
        return load_into(connection, data, table, **options)
    except LakebaseLoadError as refused:
        return LakebaseLoadError, refused.line


@given(text=TEXTS, width=st.integers(1, 2), end=st.sampled_from(["\n", "\r\n", "\r"]), header=st.booleans())
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_text_is_read_or_refused_as_on_the_direct_path(
    connection: psycopg.Connection[Any], text: str, width: int, end: str, header: bool
):
    data = ((",".join("ab"[:width]) + end if header else "") + text.replace("\n", end)).encode()
    table = ", ".join(f"{name} text" for name in "ab"[:width])
    direct = outcome(connection, data, table, header=header, columns=list("ab"[:width]))
    other = outcome(connection, data, table, header=header, columns=list("ab"[:width]), **REWRITTEN)
    refused = [kind for kind in (direct, other) if kind and kind[0] is LakebaseLoadError]
    assert direct == other or len(refused) == 2


VALUES = ["", '""', "1", '"1"', "2026-11-01", '"2026-11-01"', "2026-11-01 10:00", "1.5", "x", '"x\ny"', "\\.", "NA"]


@pytest.mark.parametrize("null", ["", "NA"])
@pytest.mark.parametrize("kind", ["int", "numeric(6,2)", "date", "timestamptz", "text", "varchar(2)", "int[]", "bool"])
def test_each_value_is_stored_or_refused_as_on_the_direct_path(
    connection: psycopg.Connection[Any], kind: str, null: str
):
    for value in VALUES:
        data = f"a,b\nk,{value}\nl,\n".encode() if null == "" else f"a,b\nk,{value}\nl,NA\n".encode()
        for kinds, casts in ((f"a text, b {kind}", None), ("a text, b text", {"b": kind})):
            direct = outcome(connection, data, kinds, null=null, casts=casts)
            other = outcome(connection, data, kinds, null=[null, null], casts=casts)
            if "\n" in value and direct[0] is other[0] is LakebaseLoadError:
                continue  # Postgres names the line in which a row ends
            assert direct == other, value


# ── Escapes ──


@pytest.mark.parametrize("quote", ['"', "'", None])
def test_an_escape_makes_the_next_character_a_part_of_the_value(
    connection: psycopg.Connection[Any], quote: str | None, block: int
):
    rows = [("a\\b", "x,y"), ("'\"", "two\nlines"), ("\\N", "\\"), (",", "é"), ("\\.", "\t")]
    buffer = io.StringIO(newline="")
    kind = csv.QUOTE_NONE if quote is None else csv.QUOTE_MINIMAL
    writer = csv.writer(buffer, quotechar=quote or '"', quoting=kind, escapechar="\\", lineterminator="\n")
    writer.writerows(rows)
    data = buffer.getvalue().encode()
    assert load_into(connection, data, header=False, quote=quote, escape="\\", null="\\N") == rows
    theirs = csv.reader(io.StringIO(data.decode()), quotechar=quote or '"', quoting=kind, escapechar="\\")
    assert [tuple(row) for row in theirs] == rows


def test_a_file_of_mysql_keeps_its_nulls(connection: psycopg.Connection[Any], block: int):
    data = b'\\N\t"x \\"y\\" \\\\"\n"\\\\N"\ta\\\tb\n\\N\t\\N\n'
    options: dict[str, Any] = {"delimiter": "\t", "escape": "\\", "null": "\\N", "header": False}
    assert load_into(connection, data, **options) == [(None, 'x "y" \\'), ("\\N", "a\tb"), (None, None)]


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"a,b\n1,x\\y\n", "line 2, column b, .*the escape stands before a character that needs none"),
        (b'a,b\n1,"x\ny\\z"\n', "line 3, column b, .*the escape stands"),
        (b'a,b\n1,"x\\"y\n', "line 2, column b, .*never closed"),
        (b'a,b\n1,"x\\"y"z\n', "line 2, column b, .*text follows"),
        (b"a,b\n1,x\\", "line 2, column b, .*the escape stands"),
        (b'a,b\n1,x"\n', "line 2, column b, .*not quoted"),
    ],
)
def test_a_misplaced_escape_or_quote_is_refused(
    connection: psycopg.Connection[Any], data: bytes, match: str, block: int
):
    refuses(connection, data, match, escape="\\")


def test_an_escape_that_is_the_quote_is_the_default(connection: psycopg.Connection[Any]):
    assert load_into(connection, b'a,b\n"x""y",z\n', escape='"') == [('x"y', "z")]


# ── Comments ──


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("header", [True, False])
def test_comments_are_ignored_wherever_they_stand_and_counted(
    connection: psycopg.Connection[Any], line_end: str, header: bool, block: int
):
    comments = ['# a "comment', "#", "#,,,"]
    good = ["1,#2", '"#3\n#4",5', "6,7"]
    lines = [comments[0], *(["a,b"] if header else []), comments[1], good[0], comments[2], *good[1:], comments[0]]
    data = line_end.join(lines).replace("\n", line_end) if line_end != "\r\n" else line_end.join(lines)
    quoted = "#3\n#4" if line_end != "\r" else "#3\r#4"
    for ended in (data, data + line_end):
        found = load_into(connection, ended.encode(), comment="#", header=header)
        assert found == [("1", "#2"), (quoted, "5"), ("6", "7")]
    number = data.split("6,7")[0].count(line_end[-1]) + 1
    for bad, match in [("6,x", "column b, of the file: invalid"), ("6", "1 values for 2 columns"), ('6,"7"8', "text")]:
        refused = refuses(
            connection,
            data.replace("6,7", bad).replace("#2", "2").encode(),
            match,
            "a text, b int",
            comment="#",
            header=header,
        )
        assert refused.line == number
    staged = data.replace("6,7", "6,7.555").replace("#2", "2").encode()
    refused = refuses(connection, staged, "more digits", "a text, b numeric(6,2)", comment="#", header=header)
    assert refused.line == number


def test_comments_come_after_skipped_lines(connection: psycopg.Connection[Any]):
    data = b"Report\n#not counted\n#c\na,b\n1,2\n"
    assert load_into(connection, data, comment="#", skip_lines=2) == [("1", "2")]
    assert load_into(connection, data, comment="#", skip_lines=1) == [("1", "2")]
    with pytest.raises(LakebaseLoadError, match="does not begin with a line"):
        load_into(connection, b"#a,b\n#1,2\n", comment="#")


def test_rows_are_named_by_number_where_too_many_lines_would_have_to_be_kept(
    connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(csv_rewrite, "_MOST_JUMPS", 3)
    rows = "".join(f"#\n{number},x\n" for number in range(9)).replace("8,x", "bad,x").replace("\n1,x", "\nbad,x", 0)
    refused = refuses(connection, f"a,b\n{rows}".encode(), "rejects row 9, column a", "a int, b text", comment="#")
    assert refused.row == 9
    early = f"a,b\n{rows}".replace("\n2,x", "\nbad,x").encode()
    assert refuses(connection, early, "column a", "a int, b text", comment="#").line == 7


# ── NULL ──


def test_several_texts_stand_for_null(connection: psycopg.Connection[Any], block: int):
    data = b'a,b\nNA,1\n"NA",-\n-,"NA"\n,"-"\n"",NULL\nx,na\n'
    texts = load_into(connection, data, null=["NA", "-", "NULL"])
    assert texts == [(None, "1"), ("NA", None), (None, "NA"), ("", "-"), ("", None), ("x", "na")]
    numbers = load_into(
        connection, data[: data.index(b"x,na")].replace(b'"",NULL\n', b""), "a text, b int", null=["NA", "-", ""]
    )
    assert numbers == [(None, 1), ("NA", None), (None, None), (None, None)]
    assert load_into(connection, b"a,b\n,NA\n", null=[]) == [("", "NA")]


# ── Numbers ──

KINDS = ["smallint", "integer", "bigint", "numeric", "numeric(9,3)", "real", "double precision", "public.amount"]


@pytest.fixture(scope="module", autouse=True)
def amount(connection: psycopg.Connection[Any]) -> Iterator[None]:
    connection.execute("CREATE DOMAIN public.amount AS numeric(9,3)")
    connection.commit()
    yield
    connection.execute("DROP DOMAIN public.amount")
    connection.commit()


@pytest.mark.parametrize(
    ("decimal", "thousands", "text", "value"),
    [
        (",", None, "1,5", "1.5"),
        (",", None, "-1,50", "-1.50"),
        (",", None, "+1,", "1"),
        (",", None, ",25", "0.25"),
        (",", None, "7", "7"),
        (",", None, "1,5e3", "1500"),
        (",", ".", "1.234,5", "1234.5"),
        (",", ".", "123.234", "123234"),
        (",", ".", "1234,5", "1234.5"),
        (".", ",", "1,234.5", "1234.5"),
        (".", ",", "-12,234", "-12234"),
        (".", "'", "1'234.5", "1234.5"),
        (",", " ", "1 234,5", "1234.5"),
        (",", " ", " 1 234,5 ", "1234.5"),
        (",", "\u202f", "1\u202f234,5", "1234.5"),
        ("٫", "٬", "1٬234٫5", "1234.5"),
    ],
)
@pytest.mark.parametrize("quoted", [True, False])
def test_numbers_are_read_by_their_decimal_and_thousands(
    connection: psycopg.Connection[Any], decimal: str, thousands: str | None, text: str, value: str, quoted: bool
):
    data = f'a;b\nx;"{text}"\n' if quoted else f"a;b\nx;{text}\n"
    options: dict[str, Any] = {"delimiter": ";", "decimal": decimal, "thousands": thousands}
    for kind in KINDS:
        if kind in ("smallint", "integer", "bigint") and ("." in value or text[-1] == "," or "e" in text):
            continue
        if kind == "smallint" and abs(float(value)) > 32767:
            continue
        found = load_into(connection, data.encode(), f"a text, b {kind}", **options)
        assert Decimal(str(found[0][1])) == Decimal(value), kind
        cast = load_into(connection, data.encode(), "a text, b numeric", casts={"b": kind}, **options)
        assert Decimal(str(cast[0][1])) == Decimal(value), kind
    assert load_into(connection, data.encode(), **options) == [("x", text)]


@pytest.mark.parametrize(
    ("decimal", "thousands", "text"),
    [
        *((",", None, text) for text in ("1.5", "1.500", "1,2,3", "1 5", "x", "1,5x", ",", "", "١,٥", "0x1F", "1_000")),
        *(
            (".", ",", text)
            for text in ("1,23", "1234,567", "12,345,6", "0,123", ",123", "1,,234", "1,234.5,6", "1.5,0")
        ),
        *((",", ".", text) for text in ("1.5", "1.23", "1234.567", "1.2345", "1,234.5")),
        *((",", " ", text) for text in ("1 23", "1\u202f234", "1  234")),
    ],
)
def test_a_number_that_does_not_match_is_refused_by_line_and_column(
    connection: psycopg.Connection[Any], decimal: str, thousands: str | None, text: str
):
    data = f"a;b\n\nx;1\n# \ny;{text}\n".replace("\n\n", "\n").encode()
    options: dict[str, Any] = {"delimiter": ";", "decimal": decimal, "thousands": thousands, "null": "NA"}
    for kind in KINDS:
        refused = refuses(connection, data, "rejects line 4, column b", f"a text, b {kind}", comment="#", **options)
        assert not text or f" {text} " not in str(refused)
    refuses(connection, data, "rejects line 4, column b", casts={"b": "numeric"}, comment="#", **options)


def test_special_numbers_and_other_types_stay_as_they_are(connection: psycopg.Connection[Any]):
    data = b"a;b\nNaN;1.5\n-Infinity;\xe2\x82\xac\n;1,5\n"
    found = load_into(connection, data, "a float8, b text", delimiter=";", decimal=",")
    assert [str(row[0]) for row in found] == ["nan", "-inf", "None"]
    assert [row[1] for row in found] == ["1.5", "€", "1,5"]
    data = b'a;b\n{1,2};"[1,5)"\n'
    ((a, b),) = load_into(connection, data, "a int[], b int4range", delimiter=";", decimal=",")
    assert (a, str(b)) == ([1, 2], "[1, 5)")


def test_numbers_of_spreadsheets_are_read_as_pandas_reads_them(connection: psycopg.Connection[Any]):
    order = random.Random(3)
    numbers = [round(order.uniform(-1e7, 1e7), order.randint(0, 4)) for _ in range(300)]
    texts = [f"{number:,}".replace(",", "_").replace(".", ",").replace("_", ".") for number in numbers]
    data = ("a;b\n" + "".join(f"{number};{text}\n" for number, text in enumerate(texts))).encode()
    found = load_into(connection, data, "a int, b float8", delimiter=";", decimal=",", thousands=".")
    theirs = pd.read_csv(io.BytesIO(data), sep=";", decimal=",", thousands=".")
    assert [row[1] for row in found] == numbers == theirs["b"].tolist()


# ── All of it, in each mode ──

EVERYTHING = (
    "Export of 1 November\r\n% made by hand\r\nnr§name§price§day\r\n1§«x§ ö»§1.234,50§2026-11-01\r\n% note\r\n"
    "2§b\\§c§n/a§«-»\r\n3§«two\r\n% lines»§0,5§-\r\n"
).encode("utf-16")
OPTIONS: dict[str, Any] = {
    "delimiter": "§",
    "quote": "«",
    "escape": "\\",
    "comment": "%",
    "null": ["n/a", "-"],
    "decimal": ",",
    "thousands": ".",
    "encoding": "utf-16",
    "skip_lines": 1,
}


@pytest.mark.parametrize("mode", ["append", "replace", "upsert"])
def test_a_file_with_every_option_in_each_mode(connection: psycopg.Connection[Any], mode: Any, block: int):
    data = EVERYTHING.decode("utf-16").replace("»", "«").encode("utf-16")
    table = "nr int PRIMARY KEY, name text, price numeric(9,2), day date"
    found = load_into(connection, data, table, mode=mode, **OPTIONS)
    assert [(nr, name, price and str(price), day and str(day)) for nr, name, price, day in found] == [
        (1, "x§ ö", "1234.50", "2026-11-01"),
        (2, "b§c", None, None),
        (3, "two\r\n% lines", "0.50", None),
    ]


def test_a_table_is_created_from_the_names_behind_comments(connection: psycopg.Connection[Any], tmp_path: Path):
    path = tmp_path / "names.csv"
    path.write_text("# c\na|b\n1,5|x\n")
    types = {"a": "numeric", "*": "text"}
    try:
        options = LoadOptions(comment="#", delimiter="|", decimal=",", create_table=types)
        load(connection, path, "public.made", options)
        assert connection.execute("SELECT * FROM public.made").fetchall() == [(Decimal("1.5"), "x")]
    finally:
        connection.rollback()


def test_bad_rows_are_left_out_with_the_text_of_the_file(connection: psycopg.Connection[Any], block: int):
    lines = ["# c", "a;b", "x;1,5", "y;1.5", "z;2;3", "#", 'q";4', 'v;"5"6', "u;no", 'w;"7,0"', "\xff;8"]
    data = "\n".join(lines).encode("latin-1")
    try:
        connection.execute("CREATE TABLE public.t (a text, b numeric)")
        options = LoadOptions(
            format="csv", delimiter=";", decimal=",", comment="#", reject_limit=9, rejects_table="public.bad"
        )
        result = load(connection, io.BytesIO(data), "public.t", options, rejects_id="one")
        assert (result.rows, result.rejected) == (2, 6)
        assert connection.execute("SELECT a, b::text FROM public.t ORDER BY b").fetchall() == [
            ("x", "1.5"),
            ("w", "7.0"),
        ]
        bad = connection.execute("SELECT number, column_name, sqlstate, raw FROM public.bad ORDER BY number").fetchall()
    finally:
        connection.rollback()
    assert [(number, column or "", state, raw) for number, column, state, raw in bad] == [
        (4, "b", "22P02", "y;1.5"),
        (5, "", "22P04", "z;2;3"),
        (7, "a", "22P04", 'q";4'),
        (8, "b", "22P04", 'v;"5"6'),
        (9, "b", "22P02", "u;no"),
        (11, "", "22021", "\\xff;8"),
    ]


# ── Exports ──


@pytest.mark.parametrize("escape", ["\\", "!", "'"])
@pytest.mark.parametrize("quote", ['"', "$"])
def test_an_export_with_an_escape_is_read_back_by_others_and_by_a_load(
    connection: psycopg.Connection[Any], tmp_path: Path, escape: str, quote: str
):
    rows = [(f"a{quote}b", f"x{escape}y"), (f"{escape}{quote}{escape}{escape}", "line\nbreak"), (None, ""), ("é", ",")]
    file = tmp_path / "out.csv"
    try:
        connection.execute("CREATE TABLE public.e (n serial, a text, b text)")
        connection.cursor().executemany("INSERT INTO public.e (a, b) VALUES (%s, %s)", rows)
        options = ExportOptions(quote=quote, escape=escape)
        export(connection, "SELECT a, b FROM public.e ORDER BY n", file, options)
    finally:
        connection.rollback()
        connection.execute("DROP TABLE IF EXISTS public.e")
        connection.commit()
    expected = [[a or "", b] for a, b in rows]
    with file.open(newline="") as opened:
        _, *found = csv.reader(opened, quotechar=quote, escapechar=escape, doublequote=False)
    assert found == expected
    frame = pd.read_csv(file, quotechar=quote, escapechar=escape, doublequote=False, keep_default_na=False)
    assert frame.to_numpy().tolist() == expected
    query = """SELECT * FROM read_csv(?, quote=?, escape=?, delim=',', header=true, auto_detect=false,
        columns={'a': 'VARCHAR', 'b': 'VARCHAR'})"""
    theirs = duckdb.execute(query, [str(file), quote, escape]).fetchall()
    assert [[a or "", b or ""] for a, b in theirs] == expected
    assert load_into(connection, file.read_bytes(), quote=quote, escape=escape) == rows


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"delimiter": "§"}, "delimiter is '§', and this is an export.*ASCII"),
        ({"quote": "«"}, "quote is '«'"),
        ({"escape": "÷"}, "escape is '÷'"),
        ({"null": ["", "NA"]}, "null is no text"),
        ({"escape": ","}, "escape and delimiter are the same"),
    ],
)
def test_an_export_refuses_what_postgres_does_not_write(options: dict[str, Any], match: str):
    with pytest.raises(LakebaseSettingsError, match=match):
        ExportOptions(**options)
