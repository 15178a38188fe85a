"""Text files are stored as they are, or refused by file, line and column: CSV, JSON Lines, dates and times in them."""

from __future__ import annotations

import contextlib
import csv
import datetime as dt
import gzip
import io
import json
import random
import re
import sys
import tarfile
import tempfile
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import pandas as pd
import psycopg
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractBufferedFile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_lakebase.core.bulk.load import load
from airflow_provider_lakebase.core.bulk.options import LoadOptions
from airflow_provider_lakebase.emulator import LakebaseEmulator
from airflow_provider_lakebase.exceptions import LakebaseError, LakebaseLoadError, LakebaseSettingsError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

BOM = b"\xef\xbb\xbf"
SECRET = "SECRETVALUE77"


class Server:
    """A session on one version of PostgreSQL, in which each load is undone."""

    def __init__(self, conninfo: str) -> None:
        self.connection = psycopg.connect(conninfo, options="-c TimeZone=Europe/Berlin")

    def load(self, source: Any, table: str = "a text, b text", **options: Any) -> list[tuple[Any, ...]]:
        """Load into a table of its own and return its rows, in the order of the file."""
        try:
            self.connection.execute(f"CREATE TABLE public.t ({table})".encode())
            if isinstance(source, bytes):
                source = io.BytesIO(source)
            load(self.connection, source, "public.t", LoadOptions(**options))
            return self.connection.execute("SELECT * FROM public.t ORDER BY ctid").fetchall()
        finally:
            self.connection.rollback()

    def refuses(self, source: Any, match: str, table: str = "a text, b text", **options: Any) -> str:
        with pytest.raises(LakebaseLoadError, match=match) as refused:
            self.load(source, table, **options)
        assert SECRET not in str(refused.value)
        return str(refused.value)


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[int, Server]]:
    # A suspend would end these sessions, which go straight to PostgreSQL and are no traffic of the endpoint.
    never = {"wake_seconds": 0, "suspend_timeout": 604_800}
    with LakebaseEmulator(pg_version=16, **never) as older, LakebaseEmulator(pg_version=18, **never) as newer:
        servers = {16: Server(older.superuser_conninfo), 18: Server(newer.superuser_conninfo)}
        yield servers
        for server in servers.values():
            server.connection.close()


@pytest.fixture(params=[16, 18])
def server(servers: dict[int, Server], request: pytest.FixtureRequest) -> Server:
    return servers[request.param]


@pytest.fixture
def newest(servers: dict[int, Server]) -> Server:
    return servers[18]


# ── Quotes, lines, columns ──

MALFORMED = [
    (b'a,b\n1,37.8"N\n', "line 2, column b, .*not quoted"),
    (b'a,b\n1,2\n5" pipe,1\n6" pipe,2\n', "line 3, column a, .*not quoted"),
    (b'a,b\n"a" b,1\n', "line 2, column a, .*text follows the quote"),
    (b'a,b\n1,"a"b"\n', "line 2, column b, .*text follows the quote"),
    (b'a,b\n1,"x\ny"z\n', "line 3, column b, .*text follows"),
    (b'a,b\r\n1,"x\r\ny"z\r\n', "line 3, column b, .*text follows"),
    (b'a,b\r1,"x\ry"z\r', "line 3, column b, .*text follows"),
    (b'a,b\n1,2\n3,"never\nclosed\n', "line 3.*never closed"),
    (b'a,b\n1,2\n3,"never ""\n""closed\n', "line 3.*never closed"),
    (b"a,b\n1,2\n1\n", 'line 3.*missing data for column "b"'),
    (b"a,b\n1,2\n1,2,3\n", "line 3.*extra data"),
    (b"a,b\n1,2\n\n1,2\n", "line 3.*missing data"),
    (b"a,b\n1,2\r3,4\n", "line 2"),
    (b"a,b\r\n1,2\n3,4\r\n", "line 2"),
    (b"a,b\n1,x\x00\n", "line 2.*null byte"),
    (b"a,b\n1,\xff\n", "line 2.*UTF-8"),
]


@pytest.mark.parametrize(("content", "said"), MALFORMED)
def test_a_malformed_file_is_refused_by_line_and_column(server: Server, content: bytes, said: str):
    assert "the file" in server.refuses(content, said)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 64])
@pytest.mark.parametrize(("content", "said"), MALFORMED[:9])
def test_quotes_are_read_the_same_wherever_blocks_of_the_file_end(
    newest: Server, monkeypatch: pytest.MonkeyPatch, content: bytes, said: str, size: int
):
    monkeypatch.setattr("airflow_provider_lakebase.core.bulk.formats.csv.BLOCK_BYTES", size)
    monkeypatch.setattr("airflow_provider_lakebase.core.bulk.formats.csv_header._FIRST_BYTES", 1)
    newest.refuses(content, re.sub(", column ., ", "", said))
    good = b'a,b\r\n"x""y\r\n\\.\r\nz",\\.\r\n\\.,""""\r\n,""\r\n'
    assert newest.load(good) == [('x"y\r\n\\.\r\nz', "\\."), ("\\.", '"'), (None, "")]
    assert newest.load(b"a\n\\.\n\\.\n1\n\\.", "a text") == [("\\.",), ("\\.",), ("1",), ("\\.",)]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 64, 1 << 18])
@pytest.mark.parametrize(("content", "said"), MALFORMED)
def test_rows_with_dates_are_looked_at_wherever_blocks_of_the_file_end(
    newest: Server, monkeypatch: pytest.MonkeyPatch, content: bytes, said: str, size: int
):
    monkeypatch.setattr("airflow_provider_lakebase.core.bulk.formats.csv.BLOCK_BYTES", size)
    monkeypatch.setattr("airflow_provider_lakebase.core.bulk.formats.csv_header._FIRST_BYTES", 1)
    end = content[3:5] if content[3:5] == b"\r\n" else content[3:4]
    head, rest = content[: 3 + len(end)], content[3 + len(end) :]
    dated = head.replace(b"a,b", b"d,a,b") + rest.replace(end, end + b"2026-01-05,").removesuffix(b"2026-01-05,")
    dated = dated.replace(head.replace(b"a,b", b"d,a,b"), head.replace(b"a,b", b"d,a,b") + b"2026-01-05,", 1)
    table = "d date, a text, b text"
    if rest.count(b'"') in (0, 1) and end * content.count(b"\n") == b"\n" * content.count(b"\n"):
        newest.refuses(dated, re.sub(", column ., ", "", said), table)
    good = b'a,d,b\r\n"x""y\r\n\\.\r\nz","2026-01-05",\\.\r\n\\.,,""""\r\n,"",""\r\n,2026-01-05,x'
    day = dt.date(2026, 1, 5)
    rows = [('x"y\r\n\\.\r\nz', day, "\\."), ("\\.", None, '"'), (None, None, ""), (None, day, "x")]
    assert newest.load(good, "a text, d date, b text") == rows
    newest.refuses(good + b"\r\n,2026-01-05 10:00,", "line 8, column d", "a text, d date, b text")
    newest.refuses(good + b'\r\n,"2026-01-05 10:00",\r\n', "line 8, column d", "a text, d date, b text")
    newest.refuses(good + b'\r\n,"2026-01-05",x"y\r\n', "line 8.*not quoted", "a text, d date, b text")
    newest.refuses(good + b'\r\n,"2026-01-05","x"y\r\n', "line 8.*text follows", "a text, d date, b text")
    newest.refuses(good + b'\r\n,"2026-01-05","x\r\ny', "line 8.*never closed", "a text, d date, b text")


def test_a_quote_in_the_header_swallows_no_rows(server: Server):
    content = b'a,size (")\nA,15\nB,17"\nC,19\n'
    server.refuses(content, "in line 1, in its header, a quote stands within a value", columns=["a", "b"])


@pytest.mark.parametrize(
    ("content", "row"),
    [
        (b'a,b\n1,"x\ny"\nbad,2\n', "line 4"),
        (b'a,b\r\n1,"x\r\ny"\r\nbad,2\r\n', "line 4"),
        (b'a,b\r\n1,"x\ny"\r\nbad,2\r\n', "row 2"),  # of such a file, Postgres counts the rows
        (b'a,b\r\n1,"x\ny\r\nz"\r\nbad,2\r\n', "a row"),
        (b'a,b\r1,"x\ry"\rbad,2\r', "line 4"),
        (b'a,"b\nc"\n1,"x\ny"\nbad,2\n', "line 5"),
    ],
)
def test_a_line_that_postgres_refuses_is_counted_as_an_editor_counts_it(server: Server, content: bytes, row: str):
    said = server.refuses(content, f"rejects {row}, column a, of", "a int, b text", columns=["a", "b"])
    assert "integer" in said
    if row.startswith("line"):
        without = content[content.index(b"\n1" if b"\n1" in content else b"\r1") + 1 :]
        lines = int(row[5:]) - (2 if b"c" in content else 1)
        server.refuses(without, f"rejects line {lines}, column a, of", "a int, b text", header=False)


# ── The end of data ──


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        (b"a\none\n\\.\nthree\n", ["one", "\\.", "three"]),
        (b"a\r\n\\.\r\nthree\r\n", ["\\.", "three"]),
        (b"a\r\\.\rthree", ["\\.", "three"]),
        (b"a\n\\.", ["\\."]),
        (b'a\n"\\."\nx\n', ["\\.", "x"]),
        (b'a\n"x\n\\.\ny"\nz\n', ["x\n\\.\ny", "z"]),
        (b'a\n"x\n\\.\ny ""\n\\.\n"\n\\.\n', ['x\n\\.\ny "\n\\.\n', "\\."]),
        (b"\\.\nx\n", ["x"]),
        (b"a\n\\.x\n\\..\n\\\n", ["\\.x", "\\..", "\\"]),
    ],
)
@pytest.mark.parametrize("mode", ["append", "replace"])
def test_a_line_of_a_backslash_and_a_dot_is_a_value(server: Server, content: bytes, rows: list[str], mode: str):
    assert server.load(content, "a text", columns=["a"], mode=mode) == [(row,) for row in rows]


def test_a_line_of_a_backslash_and_a_dot_does_not_hide_what_follows(server: Server):
    server.refuses(b"a,b\n1,a\n\\.\n2,b\n", "line 3.*missing data")


# ── Byte order marks and other encodings ──


@pytest.mark.parametrize("header", [True, False])
def test_a_byte_order_mark_is_no_data(server: Server, header: bool, tmp_path: Path):
    names = b"a,b\n" if header else b""
    assert server.load(BOM + names + b"1,x\n", "a int, b text", header=header) == [(1, "x")]
    assert server.load(BOM + names + b'"1",x\n', "a int, b text", header=header) == [(1, "x")]
    (tmp_path / "1.csv").write_bytes(names + b"1,x\n")
    (tmp_path / "2.csv.gz").write_bytes(gzip.compress(BOM + names + b"2,y\n", mtime=0))
    files = [tmp_path / "1.csv", tmp_path / "2.csv.gz"]
    assert server.load(files, "a int, b text", header=header) == [(1, "x"), (2, "y")]


def test_a_byte_order_mark_of_json_lines_is_no_data(newest: Server):
    assert newest.load(BOM + b'{"a": "1", "b": "x"}\n', format="jsonl") == [("1", "x")]


@pytest.mark.parametrize("format", ["csv", "jsonl"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_another_encoding_is_named(newest: Server, encoding: str, format: str):
    options = {"format": format} | ({"header": False} if format == "csv" else {})
    newest.refuses("1,x\n".encode(encoding), f"it is {encoding.upper()}, not UTF-8", **options)


@pytest.mark.parametrize("content", [b"PK\x03\x04abcd", b"BZh91AY", b"PAR1abcd", b"\xfd7zXZ\x00a"])
def test_another_kind_of_file_is_named(newest: Server, content: bytes):
    newest.refuses(content, "the file cannot be read: it is (a zip|compressed by|a Parquet).*set 'encoding'")


# ── Names of columns ──


def test_columns_without_a_name_are_left_out_or_named_by_their_place(newest: Server, tmp_path: Path):
    pd.DataFrame({"a": [4, 7], "b": [2, 4]}).to_csv(tmp_path / "t.csv")
    rows = [("4", "2"), ("7", "4")]
    assert newest.load(tmp_path / "t.csv", columns={"a": "a", "b": "b"}) == rows
    assert [
        row[1:] for row in newest.load(tmp_path / "t.csv", "i int, a text, b text", columns=["i", "a", "b"])
    ] == rows
    assert newest.load(b"a,b,,\n4,2,,\n", columns={"b": "b", "a": "a"}) == [("4", "2")]
    assert newest.load(b"a,x,x,b\n4,1,2,2\n", columns={"b": "b", "a": "a"}) == [("4", "2")]
    newest.refuses(tmp_path / "t.csv", "column 1 has no name in its first line.*'columns' as a mapping.*as a list")
    newest.refuses(b"a,a\n1,2\n", "names a column twice.*as a list")
    newest.refuses(b"a,a\n1,2\n", "names a column twice.*as a list", columns={"a": "a"})


def test_a_misspelt_name_is_shown_and_a_value_is_not(newest: Server):
    newest.refuses(b"id,nmae\n1,x\n", "Name 2 'nmae' in the first line", "id int, name text")
    assert SECRET not in newest.refuses(f"id,{SECRET}\n1,x\n".encode(), "Name 2 in the first line", "id int, name text")


def test_a_header_without_an_end_is_refused_soon(newest: Server):
    started_at = time.monotonic()
    newest.refuses(b'a,"b\n' + b"x\n" * 2_000_000, "does not end within 1 MiB, or a quote in it is never closed")
    newest.refuses(b"a,b" * 2_000_000, "does not end within 1 MiB")
    newest.refuses(b'"' + b"a" * 200_000 + b'",b\n1,2\n', "does not begin with a line")
    assert time.monotonic() - started_at < 15


# ── Empty values ──


@pytest.mark.parametrize("null", ["", "NA"])
def test_a_quoted_text_of_null_is_null_where_it_is_no_value(server: Server, null: str):
    content = f'a,b,c,d,e,f\n"1","{null}","{null}","{null}",{null},"{null}"\n'.encode()
    columns = "a int, b int, c text, d date, e text, f bytea"
    # An empty bytea is a value.
    expected = (1, None, null, None, None, b"" if null == "" else b"NA")
    assert server.load(content, columns, null=null) == [expected]
    assert server.load(content, columns, null=null, casts={"b": "int", "d": "date"}) == [expected]


@pytest.mark.parametrize("null", ['""', '"', ",", "\n", "a\r"])
def test_a_text_of_null_that_cannot_be_is_refused_as_an_argument(null: str):
    with pytest.raises(LakebaseSettingsError, match="null contains the quote.*quoted empty value is NULL in any"):
        LoadOptions(null=null)


# ── Dates and times ──

LOSSY = [
    ("timestamp", "2024-02-29 10:00:00 UTC"),
    ("timestamp", "Thu, 29 Feb 2024 10:00:00 +0200"),
    ("timestamp", "2024-02-29 10:00:00 America/New_York"),
    ("timestamp", "2024-02-29T10:00:00.123 -08"),
    ("timestamp", "2024-02-29T10:00:00Z"),
    ("timestamp", "2024-02-29 10:00:00.1234567"),
    ("timestamp", "Jan 5 2026 10:00 PST"),
    ("timestamptz", "2024-02-29 10:00:00.1234567+02"),
    ("timestamptz", "Feb 29 2024 10:00:00.1234567 PST"),
    ("date", "2024-02-29 10:00:00"),
    ("date", "2024-02-29 00:00:00+02"),
    ("date", "Thu, 29 Feb 2024 23:30:00 GMT"),
    ("date", "2024/02/29 23:30"),
    ("date", "Feb 29, 2024 11:30 PM"),
    ("date", "2026-01-05 24:00"),
    ("date", "now"),
    ("time", "10:00:00+02"),
    ("time", "10:00 PM PST"),
    ("time", "2024-02-29 10:00:00"),
    ("time", "10:00:00.1234567"),
    ("timetz", "2024-02-29 10:00:00+02"),
    ("interval", "1.1234567 seconds"),
    ("interval", "1.04 years"),
    ("interval", "0.0005 ms"),
    ("timestamp(0)", "Feb 29 2024 10:00:00.5"),
    ("timestamp(3)", "2024-02-29 10:00:00.1235"),
]
ALIKE = [
    ("date[]", "{2024-02-29 10:00:00}"),
    ("timestamp[]", '{"2024-02-29 10:00:00+02"}'),
    ("daterange", "[2024-02-28 10:00,2024-02-29)"),
    ("tsrange", "[2024-02-28 10:00+02,2024-02-29)"),
]


def sources(text: str, directory: Path) -> Iterator[tuple[str, Any]]:
    yield "tuples", [(text, 1)]
    yield "dicts", [{"v": text, "n": 1}]
    (directory / "t.jsonl").write_text(json.dumps({"v": text, "n": 1}) + "\n")
    yield "jsonl", directory / "t.jsonl"
    for name, quoting in (("csv", csv.QUOTE_MINIMAL), ("quoted csv", csv.QUOTE_ALL)):
        with (directory / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file, quoting=quoting).writerows([("v", "n"), (text, "1")])
        yield name, directory / f"{name}.csv"


@pytest.mark.parametrize(("kind", "text"), LOSSY + ALIKE)
def test_text_that_a_date_or_time_would_lose_something_of_is_refused(
    newest: Server, tmp_path: Path, kind: str, text: str
):
    for name, source in sources(text, tmp_path):
        place = "line 2" if "csv" in name else "(line|row) 1"
        assert text not in newest.refuses(source, f"{place}, column v, of", f"v {kind}, n int"), name
        if (kind, text) in LOSSY:
            newest.refuses(source, f"{place}, column v, of", f"v {kind}, n int", casts={"v": kind})


@pytest.mark.parametrize(
    ("kind", "text", "stored"),
    [
        ("date", "Feb 29, 2024", "2024-02-29"),
        ("date", "02/29/2024", "2024-02-29"),
        ("date", "Feb 29 2024 00:00", "2024-02-29"),
        ("timestamp", "Feb 29, 2024 11:30 PM", "2024-02-29 23:30:00"),
        ("timestamp", "2026-01-05 24:00", "2026-01-06 00:00:00"),
        ("timestamp", "20240229T101010.5", "2024-02-29 10:10:10.5"),
        ("timestamptz", "Thu, 29 Feb 2024 10:00:00 +0200", "2024-02-29 09:00:00+01"),
        ("time", "10:00 PM", "22:00:00"),
    ],
)
def test_other_forms_are_read_by_casts_and_refused_without(
    newest: Server, tmp_path: Path, kind: str, text: str, stored: str
):
    for name, source in sources(text, tmp_path):
        newest.refuses(source, "column v, .*name the column in 'casts'", f"v {kind}, n int")
        rows = newest.load(source, f"v {kind}, n int", casts={"v": kind})
        with newest.connection.transaction(force_rollback=True):
            assert newest.connection.execute("SELECT %s::text", [rows[0][0]]).fetchall() == [(stored,)], name


ZONES = st.sampled_from(["", "Z", "+02", "-08:00", " +05:30", " UTC", " PST", " America/New_York"])


@st.composite
def spellings(draw: st.DrawFn) -> tuple[str, bool, bool, bool, bool]:
    """Draw text, and whether it says a day, a time of day, more than six digits, and a zone."""
    day = draw(st.dates(dt.date(1000, 1, 1), dt.date(9000, 1, 1)))
    form = draw(st.sampled_from(["%Y-%m-%d", "%Y/%m/%d", "%Y%m%d", "%b %d %Y", "%d %B %Y", "%m/%d/%Y", ""]))
    hour, minute, second = draw(st.tuples(st.integers(0, 24), st.integers(0, 59), st.integers(0, 59)))
    digits = draw(st.sampled_from(["", ".5", ".123456", ".1234560", ".1234567", ".0000000"]))
    zone = draw(ZONES)
    clock = draw(st.sampled_from([f"{hour:02}:{minute:02}", f"{hour:02}:{minute:02}:{second:02}{digits}", ""]))
    if not form and not clock:
        clock = "00:00"
    joint = draw(st.sampled_from([" ", "T"])) if form == "%Y-%m-%d" else " "
    text = joint.join(part for part in (day.strftime(form) if form else "", clock) if part) + (zone if clock else "")
    return (
        text,
        bool(form),
        bool(clock) and not re.match(r"00:00(:00)?(\.0+)?$", clock),
        bool(re.search(r"\.\d{6}\d*[1-9]", clock)),
        bool(clock and zone),
    )


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(spelling=spellings(), kind=st.sampled_from(["date", "timestamp", "timestamptz", "time", "timetz"]))
def test_every_spelling_of_a_date_or_time_is_stored_exactly_or_refused(
    newest: Server, spelling: tuple[str, bool, bool, bool, bool], kind: str
):
    text, has_day, has_time, is_too_exact, has_zone = spelling
    loses = {
        "date": has_time or has_zone or is_too_exact,
        "timestamp": has_zone or is_too_exact,
        "timestamptz": is_too_exact,
        "time": has_zone or has_day or is_too_exact,
        "timetz": has_day or is_too_exact,
    }[kind]
    stored = set()
    for casts in ({}, {"v": kind}):
        for source in ([(text,)], f'v\n"{text}"\n'.encode(), f"v\n{text}\n".encode()):
            with contextlib.suppress(LakebaseLoadError):
                stored.add(newest.load(source, f"v {kind}, w text", columns=["v"], casts=casts)[0][0])
    assert not (loses and stored), (text, stored)
    assert len(stored) <= 1, text


# ── Files of all kinds ──


class ObjectFile(AbstractBufferedFile):
    """What files of s3fs, gcsfs and adlfs are: their readline() takes no size."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        return CONTENT[start:end]


CONTENT = b'a,b\n1,"x\ny"\n2,z\n'
ROWS = [("1", "x\ny"), ("2", "z")]


class OnlyRead:
    """The least that a file can be."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def read(self, size: int) -> bytes:
        found, self.content = self.content[: min(size, 3)], self.content[min(size, 3) :]
        return found


def open_files(directory: Path) -> Iterator[tuple[str, Any]]:
    (directory / "t.csv").write_bytes(CONTENT)
    (directory / "t.csv.gz").write_bytes(gzip.compress(CONTENT, mtime=0))
    (directory / "t.csv.zst").write_bytes(zstd.compress(CONTENT))
    (directory / "gzipped.csv").write_bytes(gzip.compress(CONTENT, mtime=0))
    (directory / "plain.csv.gz").write_bytes(CONTENT)
    (directory / "zstd.csv.gz").write_bytes(zstd.compress(CONTENT))
    with tarfile.open(directory / "t.tar", "w") as tar:
        tar.add(directory / "t.csv", "t.csv")
    with zipfile.ZipFile(directory / "t.zip", "w") as archive:
        archive.write(directory / "t.csv", "t.csv")
    for name in ("t.csv", "t.csv.gz", "t.csv.zst", "gzipped.csv", "plain.csv.gz", "zstd.csv.gz"):
        yield name, directory / name
        yield f"open {name}", (directory / name).open("rb")
        yield f"raw {name}", (directory / name).open("rb", buffering=0)
    yield "gzip.open", gzip.open(directory / "t.csv.gz")
    yield "zstd.open", zstd.open(directory / "t.csv.zst")
    yield "fsspec.open", fsspec.open(str(directory / "t.csv.gz"), compression="gzip")
    yield "fsspec.open plain", fsspec.open(str(directory / "t.csv"))
    yield "fsspec.open opened", fsspec.open(str(directory / "t.csv.gz"), compression="gzip").open()
    yield "object", ObjectFile(MemoryFileSystem(), "bucket/t.csv", size=len(CONTENT))
    yield "bytes", io.BytesIO(CONTENT)
    yield "compressed bytes", io.BytesIO(gzip.compress(gzip.compress(CONTENT), mtime=0))
    spooled = tempfile.SpooledTemporaryFile()
    spooled.write(CONTENT)
    spooled.seek(0)
    yield "spooled", spooled
    with tarfile.open(directory / "t.tar") as tar:
        yield "tar", tar.extractfile("t.csv")
    with zipfile.ZipFile(directory / "t.zip") as archive:
        yield "zip", archive.open("t.csv")
    yield "only read", OnlyRead(CONTENT)
    yield "only read, compressed", OnlyRead(gzip.compress(CONTENT, mtime=0))


def test_any_file_can_be_loaded(newest: Server, tmp_path: Path):
    for name, source in open_files(tmp_path):
        assert newest.load(source, format="csv") == ROWS, name
        if hasattr(source, "close"):
            source.close()


def test_a_pipe_can_be_loaded(newest: Server):
    import os
    import socket

    ours, theirs = socket.socketpair()
    reading, writing = os.pipe()

    def write() -> None:
        for part in (CONTENT[:2], CONTENT[2:]):
            theirs.sendall(part)
            os.write(writing, part)
            time.sleep(0.02)
        theirs.close()
        os.close(writing)

    writer = threading.Thread(target=write)
    writer.start()
    with os.fdopen(reading, "rb", buffering=0) as pipe, ours, ours.makefile("rb") as file:
        assert newest.load(pipe, format="csv") == ROWS
        assert newest.load(file, format="csv") == ROWS
    writer.join()


def test_a_file_that_cannot_be_read_is_refused(newest: Server, tmp_path: Path):
    closed = io.BytesIO(CONTENT)
    closed.close()
    (tmp_path / "empty.csv.gz").write_bytes(b"")
    (tmp_path / "empty.jsonl.gz").write_bytes(b"")
    with (tmp_path / "t.csv").open("wb") as writing, tempfile.SpooledTemporaryFile(mode="w+") as text:
        text.write("a,b\n1,x\n")
        text.seek(0)
        for source, said in (
            (closed, "it is closed, or not open for reading"),
            (writing, "not open for reading"),
            (text, "was opened as text.*'rb'"),
            (tmp_path / "empty.csv.gz", "damaged or truncated"),
            (tmp_path / "empty.jsonl.gz", "damaged or truncated"),
            (io.BytesIO(gzip.compress(CONTENT, mtime=0)[:-5]), "damaged or truncated"),
            (io.BytesIO(gzip.compress(CONTENT, mtime=0)[:5]), "damaged or truncated"),
        ):
            with pytest.raises(LakebaseError, match=said):
                newest.load(source, format="jsonl" if "jsonl" in str(source) else "csv", mode="replace")


# ── JSON Lines ──


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"a": 1, "a": 2}', "an object in it has the same name twice"),
        (b'{"a": {"x": 1, "x": 2}}', "the same name twice"),
        (b'{"a": NaN}', "NaN, which JSON does not have"),
        (b'{"a": [-Infinity]}', "Infinity"),
        (b'{"a": "\xff"}', "not JSON in UTF-8"),
        (b'{"a": "' + "é".encode("utf-16") + b'"}', "not JSON in UTF-8"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"a": 1', "not JSON"),
        (b'{"a": 1} {"a": 2}', "not JSON"),
        (b'{"a": 01}', "not JSON"),
        (b"[1]", "not a JSON object"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not JSON|nesting"),
    ],
)
@pytest.mark.parametrize("kind", ["text", "jsonb"])
def test_a_line_that_is_no_json_object_is_refused(newest: Server, line: bytes, said: str, kind: str):
    if kind == "jsonb" and said == "surrogate":
        said = ""
    newest.refuses(b'{"a": null}\n' + line + b"\n", f"line 2.* of the file: .*{said}", f"a {kind}", format="jsonl")


def test_numbers_of_json_lines_keep_all_digits(newest: Server):
    digits = "1" * 5000
    lines = f'{{"a": {digits}}}\n{{"a": -{digits}.5}}\n{{"a": 1e100}}\n'.encode()
    found = newest.load(lines, "a numeric", format="jsonl")
    assert [str(value) for (value,) in found[:2]] == [digits, f"-{digits}.5"]
    assert found[2][0] == 10**100


# ── Generated files ──

VALUES = ["", "a", "1", "x y", "é𝄞", "\\", "\\.", "\\N", "'", " ", "NULL", "\t", "a\\"]
QUOTED = ["", "a", ",", '""', "\n", "\r\n", "\\.", "x\n\\.\ny", '""a""', "é", "a,b\n,c", "\\"]
FAULTY = ['a"b', '"a"b', '"a', '""a', 'a""', "\x00", "\ud800"]


def generate(order: random.Random) -> tuple[bytes, int]:
    """Return a file, mostly a good one, and how many columns it has."""
    width = order.randint(1, 4)
    end = order.choice(["\n", "\r\n", "\r", "\n"])
    lines = [",".join(f"c{n}" if order.random() < 0.8 else f'"c{n}"' for n in range(width))]
    for _ in range(order.randint(0, 6)):
        fields = [f'"{order.choice(QUOTED)}"' if order.random() < 0.5 else order.choice(VALUES) for _ in range(width)]
        chance = order.random()
        if chance < 0.06:
            fields[order.randrange(width)] = order.choice(FAULTY)
        elif chance < 0.09:
            fields = fields[:-1] if order.random() < 0.5 else [*fields, "more"]
        elif chance < 0.11:
            fields = []
        lines.append(",".join(fields))
    ends = [end if order.random() < 0.99 else order.choice(["\n", "\r\n", "\r"]) for _ in lines]
    text = "".join(line + each for line, each in zip(lines, ends, strict=True))
    if order.random() < 0.3:
        text = text.removesuffix(ends[-1])
    encoding = order.choices(["utf-8", "utf-8-sig", "utf-16", "latin-1"], [80, 15, 2, 3])[0]
    return text.encode(encoding, "surrogatepass" if encoding.startswith("utf") else "replace"), width


def read_by_csv(content: bytes) -> list[list[str]] | None:
    """Return the values as Python's strict reader has them; None when it refuses them."""
    try:
        text = content.decode("utf-8-sig")
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error):
        return None
    return rows[1:]


def compare(server: Server, content: bytes, width: int) -> str:
    """Load a file; return "equal" or the reason for which it was refused."""
    columns = ", ".join(f"c{n} text" for n in range(width))
    try:
        found = server.load(content, columns)
    except LakebaseLoadError as refused:
        message = str(refused)
        assert "the file" in message
        # Where CR and LF end lines, and values in quotes hold others, nothing tells which line Postgres means.
        assert re.search(r"line \d+|row \d+|cannot be read: ", message) or b"\r\n" in content, message
        known = (
            "not quoted",
            "follows the quote",
            "never closed",
            "missing data",
            "extra data",
            "UTF-8",
            "UTF-16",
            "carriage return",
            "newline",
            "null byte",
        )
        return next(reason for reason in known if reason in message)
    expected = read_by_csv(content)
    assert expected is not None, content
    if width == 1:  # where an empty line is a row, which Python leaves out
        expected = [row for row in expected if row]
        found = [row for row in found if row[0]]
        expected = [row for row in expected if row[0]]
    assert [[value or "" for value in row] for row in found] == expected, content
    return "equal"


def compare_with_duckdb(server: Server, content: bytes, width: int, path: Path) -> bool:
    """Return whether DuckDB reads a file that was loaded; it must then have the same values."""
    path.write_bytes(content)
    names = ", ".join(f"'c{n}': 'VARCHAR'" for n in range(width))
    query = f"""SELECT * FROM read_csv(?, delim=',', quote='"', escape='"', header=true, auto_detect=false,
        strict_mode=true, null_padding=false, columns={{{names}}})"""
    try:
        theirs = duckdb.execute(query, [str(path)]).fetchall()
    except duckdb.Error:
        return False
    ours = server.load(content, ", ".join(f"c{n} text" for n in range(width)))
    assert [tuple(value or "" for value in row) for row in ours if any(row)] == [
        tuple(value or "" for value in row) for row in theirs if any(row)
    ], content
    return True


def check_generated(servers: dict[int, Server], files: int, path: Path, seed: int) -> Counter[str]:
    order, counts = random.Random(seed), Counter[str]()
    for number in range(files):
        content, width = generate(order)
        results = {version: compare(server, content, width) for version, server in servers.items()}
        assert len(set(results.values())) == 1, (results, content)
        result = results[18]
        counts[result] += 1
        if result == "equal" and number % 2:
            counts["equal to DuckDB"] += compare_with_duckdb(servers[18], content, width, path)
    assert counts["equal"] > files / 2
    assert counts["equal to DuckDB"] > files / 8
    return counts


def test_generated_files_are_read_as_others_read_them_or_refused(servers: dict[int, Server], tmp_path: Path):
    check_generated(servers, 100, tmp_path / "t.csv", 1)


@pytest.mark.long
def test_1000_generated_files_are_read_as_others_read_them_or_refused(servers: dict[int, Server], tmp_path: Path):
    print(check_generated(servers, 1000, tmp_path / "t.csv", 2))


FIELDS = st.one_of(
    st.text(st.characters(exclude_characters='",\r\n\x00', exclude_categories=["Cs"])),
    st.text(st.sampled_from('a,"\n\r\\.é')).map(lambda text: '"' + text.replace('"', '""') + '"'),
)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    rows=st.lists(st.tuples(FIELDS, FIELDS), max_size=5),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    mark=st.booleans(),
    junk=st.text(st.sampled_from('"a,\n'), max_size=3),
)
def test_any_well_formed_file_is_read_as_pythons_reader_reads_it(
    servers: dict[int, Server], rows: Sequence[tuple[str, str]], end: str, mark: bool, junk: str
):
    text = end.join(",".join(row) for row in [("c0", "c1"), *rows]) + (end + junk if junk else "")
    content = (BOM if mark else b"") + text.encode()
    results = {compare(server, content, 2) for server in servers.values()}
    assert len(results) == 1
    if not junk:
        assert results == {"equal"}
