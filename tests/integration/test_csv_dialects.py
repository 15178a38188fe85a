"""CSV files of other delimiters, quotes and encodings hold the values that an independent reader finds in them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from airflow_provider_lakebase.core.bulk.export import export
from airflow_provider_lakebase.core.bulk.load import load
from airflow_provider_lakebase.core.bulk.options import ExportOptions, LoadOptions
from airflow_provider_lakebase.emulator import LakebaseEmulator
from airflow_provider_lakebase.exceptions import LakebaseExportError, LakebaseLoadError, LakebaseSettingsError

DELIMITERS = [";", "\t", "|", ",", ":", " ", "^", "-", "]", "\\", "a", "1", "D", "Q", ".", "§", "😀"]
QUOTES = ['"', "'", "`", "$", "^", "Q", "D", "«"]
ESCAPES = [None, None, "\\", "!", "]", "^", "÷"]
SECRET = "SECRETVALUE77"


@pytest.fixture(scope="module")
def connection(shared_emulator: LakebaseEmulator) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(shared_emulator.superuser_conninfo) as connection:
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


def test_the_file_of_a_german_spreadsheet(connection: psycopg.Connection[Any]):
    data = 'Bericht vom 1. März\r\n\r\nname;tag\r\n"Müller; Söhne";2026-11-01\r\nÄrzte;2026-11-02\r\n'.encode("latin-1")
    rows = load_into(
        connection,
        data,
        "name text, tag date",
        delimiter=";",
        encoding="latin-1",
        skip_lines=2,
        columns=["name", "tag"],
    )
    assert [(name, str(day)) for name, day in rows] == [("Müller; Söhne", "2026-11-01"), ("Ärzte", "2026-11-02")]


@pytest.mark.parametrize(
    "encoding", ["utf-8", "latin-1", "cp1252", "utf-16", "utf-16-le", "utf-32", "cp437", "utf-8-sig"]
)
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_an_encoding_is_decoded_whatever_the_blocks(
    connection: psycopg.Connection[Any], encoding: str, line_end: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("airflow_provider_lakebase.core.bulk.formats.csv.BLOCK_BYTES", 7)
    text = line_end.join(["a,b", "é,ü", '"x, é","y"', "1,2", ""])
    assert load_into(connection, text.encode(encoding), encoding=encoding) == [("é", "ü"), ("x, é", "y"), ("1", "2")]


def test_bytes_that_the_encoding_does_not_have_are_refused(connection: psycopg.Connection[Any]):
    data = f"a,b\n{SECRET},x\n{SECRET},".encode() + b"\x81\n"
    with pytest.raises(LakebaseLoadError, match="near byte 35 it is not cp1252 text.*Set 'encoding'") as refused:
        load_into(connection, data, encoding="cp1252")
    assert SECRET not in str(refused.value)


PAIRS = [(delimiter, quote) for delimiter in DELIMITERS for quote in (*QUOTES, None) if delimiter != quote]


@pytest.mark.parametrize(("delimiter", "quote"), PAIRS)
def test_each_pair_of_delimiter_and_quote(connection: psycopg.Connection[Any], delimiter: str, quote: str | None):
    rows = [("x", "5"), ("", "z"), ("y" * 9, "w")] if quote is None else [("x", f"5{delimiter}{quote}"), ("u\nv", "z")]
    buffer = io.StringIO()
    kind = csv.QUOTE_NONE if quote is None else csv.QUOTE_MINIMAL
    writer = csv.writer(buffer, delimiter=delimiter, quotechar=quote or '"', quoting=kind, lineterminator="\n")
    writer.writerows(rows)
    found = load_into(connection, buffer.getvalue().encode(), delimiter=delimiter, quote=quote, header=False)
    assert found == [tuple(value or None for value in row) for row in rows]


TEXTS = st.text(st.characters(exclude_characters="\0\1", codec="utf-8"), max_size=6) | st.sampled_from(
    ["", '"', "''", ";", "\t", ",", "\\.", "\r\n", "\n", "a;b", '";"', "NULL"]
)


@given(
    rows=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=6),
    delimiter=st.sampled_from(DELIMITERS),
    quote=st.sampled_from(QUOTES),
    escape=st.sampled_from(ESCAPES),
    doubles=st.booleans(),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC, csv.QUOTE_NONE]),
    line_end=st.sampled_from(["\n", "\r\n", "\r"]),
    encoding=st.sampled_from(["utf-8", "utf-16", "utf-8-sig"]),
    block=st.sampled_from([1, 2, 5, 1 << 18]),
)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_csv_writer_writes_loads_exactly(
    connection: psycopg.Connection[Any],
    rows: list[tuple[str, str]],
    delimiter: str,
    quote: str,
    escape: str | None,
    doubles: bool,
    quoting: Any,
    line_end: str,
    encoding: str,
    block: int,
):
    assume(len({delimiter, quote, escape}) == 3)
    assume(escape or quoting != csv.QUOTE_NONE)
    # One kind of line end a file: Postgres counts on it.
    rows = [(a.replace("\r", "").replace("\n", line_end), b.replace("\r", "").replace("\n", line_end)) for a, b in rows]
    buffer = io.StringIO(newline="")
    how: dict[str, Any] = {"delimiter": delimiter, "quotechar": quote, "quoting": quoting, "escapechar": escape}
    writer = csv.writer(buffer, lineterminator=line_end, doublequote=doubles or not escape, **how)
    writer.writerows([("a", "b"), *rows])
    with pytest.MonkeyPatch.context() as patch:
        for module in ("csv", "csv_rows"):
            patch.setattr(f"airflow_provider_lakebase.core.bulk.formats.{module}.BLOCK_BYTES", block)
        found = load_into(
            connection,
            buffer.getvalue().encode(encoding),
            delimiter=delimiter,
            quote=quote,
            escape=escape,
            encoding=encoding,
            columns=["a", "b"],
        )
    empty = None if quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_NONE) else ""
    assert found == [tuple(value or empty for value in row) for row in rows]


MALFORMED = [
    (b"a;b\n1;5'x\n", "line 2, column b, .*not quoted"),
    (b"a;b\n1;'a'b'\n", "line 2, column b, .*text follows the quote"),
    (b"a;b\n1;2\n3;'never\nclosed\n", "line 3.*never closed"),
    (b"a;b\n1;2;3\n", "line 2.*extra data"),
    (b"a;b\n1,2\n", "line 2.*missing data"),
]


@pytest.mark.parametrize(("data", "match"), MALFORMED)
def test_a_misplaced_quote_is_refused_by_line_and_column(connection: psycopg.Connection[Any], data: bytes, match: str):
    with pytest.raises(LakebaseLoadError, match=match):
        load_into(connection, data, delimiter=";", quote="'")


def test_dates_are_checked_in_every_dialect(connection: psycopg.Connection[Any]):
    table = "a int, b date"
    assert load_into(connection, b"a|b\n1|'2026-11-01'\n2|2026-11-02\n", table, delimiter="|", quote="'")
    with pytest.raises(LakebaseLoadError, match="line 3, column b"):
        data = b"a|b\n1|'2026-11-01'\n2|'2026-11-02 10:00'\n"
        load_into(connection, data, table, delimiter="|", quote="'")


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("count", [0, 1, 2, 3])
@pytest.mark.parametrize("header", [True, False])
def test_lines_before_the_header_are_skipped_and_counted(
    connection: psycopg.Connection[Any], line_end: bytes, count: int, header: bool, monkeypatch: pytest.MonkeyPatch
):
    lines = [b'about "quotes', b"", b"a,b,c"][:count] + ([b"a,b"] if header else [])
    good = line_end.join([*lines, b"1,2", b"3,4", b""])
    for block in (1 << 18, 3):
        monkeypatch.setattr("airflow_provider_lakebase.core.bulk.formats.csv.BLOCK_BYTES", block)
        assert load_into(connection, good, header=header, skip_lines=count) == [("1", "2"), ("3", "4")]
    monkeypatch.undo()
    bad = line_end.join([*lines, b"1,2", b'3,"4"5', b""])
    with pytest.raises(LakebaseLoadError, match=f"line {len(lines) + 2}, column b"):
        load_into(connection, bad, header=header, skip_lines=count)


def test_a_file_of_fewer_lines_than_are_skipped_has_no_header(connection: psycopg.Connection[Any]):
    with pytest.raises(LakebaseLoadError, match="does not begin with a line"):
        load_into(connection, b"a,b\n", skip_lines=5)
    assert load_into(connection, b"a,b\n", skip_lines=5, header=False) == []


def test_a_file_without_quotes_keeps_them_as_text(connection: psycopg.Connection[Any]):
    data = b'a\tb\n5" pipe\t"x"\n\'\t\\N\n'
    assert load_into(connection, data, delimiter="\t", quote=None, null="\\N") == [('5" pipe', '"x"'), ("'", None)]
    with pytest.raises(LakebaseLoadError, match="line 2.*control character"):
        load_into(connection, b"a\tb\nx\x01\ty\n", delimiter="\t", quote=None)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"delimiter": ";;"}, "delimiter is ';;'"),
        ({"delimiter": ""}, "delimiter is ''"),
        ({"delimiter": "\n"}, "delimiter is"),
        ({"delimiter": "\ud800"}, "delimiter is"),
        ({"escape": "\n"}, "escape is"),
        ({"escape": ","}, "escape and delimiter are the same"),
        ({"comment": "##"}, "comment is '##'"),
        ({"comment": '"'}, "comment and quote are the same"),
        ({"comment": ","}, "comment and delimiter are the same"),
        ({"comment": "\\", "escape": "\\"}, "comment and escape are the same"),
        ({"comment": "#", "null": ["", "#N/A"]}, "null begins with the character of comments"),
        ({"null": ["", "a,b"]}, "null contains the quote, the delimiter"),
        ({"null": ["", None]}, "null contains"),
        ({"null": 5}, "null contains"),
        ({"decimal": ""}, "decimal is ''"),
        ({"decimal": None}, "decimal is None"),
        ({"decimal": "5"}, "decimal is '5'"),
        ({"decimal": "-"}, "decimal is '-'"),
        ({"decimal": '"'}, "decimal and quote are the same"),
        ({"thousands": "."}, "decimal and thousands are the same"),
        ({"decimal": ",", "thousands": ","}, "decimal and thousands are the same"),
        ({"thousands": "e"}, "thousands is 'e'"),
        ({"thousands": "\\", "escape": "\\"}, "thousands and escape are the same"),
        ({"thousands": ",", "quote": None}, "thousands and delimiter are the same, and quote is None"),
        ({"format": "jsonl", "comment": "#"}, "comment is given, but the source is no CSV file"),
        ({"delimiter": None}, "delimiter is None"),
        ({"quote": ","}, "the same"),
        ({"quote": "''"}, "quote is"),
        ({"encoding": "klingon"}, "encoding is 'klingon'"),
        ({"encoding": "base64"}, "encoding is 'base64'"),
        ({"encoding": "rot13"}, "encoding is 'rot13'"),
        ({"encoding": None}, "encoding is None"),
        ({"skip_lines": -1}, "skip_lines is -1"),
        ({"skip_lines": True}, "skip_lines is True"),
        ({"null": ";", "delimiter": ";"}, "null contains"),
        ({"null": "'", "quote": "'"}, "null contains"),
        ({"format": "jsonl", "delimiter": ";"}, "delimiter"),
    ],
)
def test_options_that_cannot_be_are_refused(connection: psycopg.Connection[Any], options: dict[str, Any], match: str):
    with pytest.raises(LakebaseSettingsError, match=match):
        load_into(connection, b"", **options) if "format" not in options else load(
            connection, io.BytesIO(b"{}\n"), "public.t", LoadOptions(**options)
        )


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-16"])
@pytest.mark.parametrize(("delimiter", "quote"), [(";", '"'), ("\t", "'"), ("|", "$")])
def test_an_export_is_read_back_by_csv_and_by_a_load(
    connection: psycopg.Connection[Any], tmp_path: Path, delimiter: str, quote: str, encoding: str
):
    rows = [("é", f"x{delimiter}y"), (f"a{quote}b", "line\nbreak"), (None, "")]
    file = tmp_path / "out.csv"
    try:
        connection.execute("CREATE TABLE public.e (n serial, a text, b text)")
        connection.cursor().executemany("INSERT INTO public.e (a, b) VALUES (%s, %s)", rows)
        options = ExportOptions(delimiter=delimiter, quote=quote, encoding=encoding)
        query = "SELECT a, b FROM public.e ORDER BY n"
        export(connection, query, file, options)
    finally:
        connection.rollback()
        connection.execute("DROP TABLE IF EXISTS public.e")
        connection.commit()
    with file.open(encoding=encoding, newline="") as opened:
        names, *found = csv.reader(opened, delimiter=delimiter, quotechar=quote)
    assert names == ["a", "b"]
    assert found == [[a or "", b] for a, b in rows]
    loaded = load_into(connection, file.read_bytes(), delimiter=delimiter, quote=quote, encoding=encoding)
    assert loaded == rows


def test_an_export_refuses_what_its_encoding_does_not_have(connection: psycopg.Connection[Any], tmp_path: Path):
    query = f"SELECT '{SECRET} €' AS a"
    with pytest.raises(LakebaseExportError, match=r"U\+20AC, which latin-1 does not have.*Choose another") as refused:
        export(connection, query, tmp_path / "out.csv", ExportOptions(encoding="latin-1"))
    connection.rollback()
    assert SECRET not in str(refused.value)
    assert not (tmp_path / "out.csv").exists()
    with pytest.raises(LakebaseSettingsError, match="quote is None"):
        export(connection, query, tmp_path / "out.csv", ExportOptions(quote=None))
    connection.rollback()
