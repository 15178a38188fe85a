"""With dialect="auto", a CSV file is read as it was written or refused, and the log tells the dialect taken."""

from __future__ import annotations

import io
import logging
import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from _csv_corpus import CorpusFile, make_file
from psycopg import sql

from airflow_provider_lakebase.core.bulk.load import load
from airflow_provider_lakebase.core.bulk.options import LoadOptions
from airflow_provider_lakebase.emulator import LakebaseEmulator
from airflow_provider_lakebase.exceptions import LakebaseLoadError, LakebaseSettingsError

LOGGER = "airflow_provider_lakebase.core.bulk.formats.csv_sniff"


@pytest.fixture(scope="module")
def connection(shared_emulator: LakebaseEmulator) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(shared_emulator.superuser_conninfo) as connection:
        yield connection


def load_texts(
    connection: psycopg.Connection[Any], data: bytes, names: list[str], **options: Any
) -> list[tuple[str | None, ...]]:
    """Load into a table of text columns and return its rows."""
    columns = sql.SQL(", ").join(sql.SQL("{} text").format(sql.Identifier(name)) for name in names)
    try:
        connection.execute(sql.SQL("CREATE TABLE public.t ({})").format(columns))
        load(connection, io.BytesIO(data), "public.t", LoadOptions(format="csv", dialect="auto", **options))
        return connection.execute("SELECT * FROM public.t ORDER BY ctid").fetchall()
    finally:
        connection.rollback()


def judge(connection: psycopg.Connection[Any], file: CorpusFile, caplog: pytest.LogCaptureFixture) -> str:
    """Load a file and return whether it was read right, refused, or read wrong."""
    caplog.clear()
    names = file.names or [f"c{number}" for number in range(len(file.rows[0]))]
    try:
        found = load_texts(connection, file.data, names)
    except LakebaseLoadError as refused:
        return "ambiguous" if "ambiguous" in str(refused) else "refused otherwise"
    end = str(file.dialect["line_end"])
    expected = [[value.replace("\n", end) for value in row] for row in file.rows]
    (said,) = [record.getMessage() for record in caplog.records if record.name == LOGGER]
    assert "delimiter=" in said and "encoding=" in said and "skip_lines=" in said
    if [[value or "" for value in row] for row in found] == expected:
        return "right"
    print("wrong:", file.dialect, said)
    return "wrong"


def judge_many(connection: psycopg.Connection[Any], count: int, seed: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    order = random.Random(seed)
    counts = Counter(judge(connection, make_file(order), caplog) for _ in range(count))
    print(counts)
    assert counts["right"] > 0.9 * count
    assert counts["wrong"] + counts["refused otherwise"] == 0


def test_files_of_mixed_dialects_are_read_right_or_refused(
    connection: psycopg.Connection[Any], caplog: pytest.LogCaptureFixture
):
    judge_many(connection, 100, 1, caplog)


@pytest.mark.long
def test_500_files_of_mixed_dialects_are_read_right_or_refused(
    connection: psycopg.Connection[Any], caplog: pytest.LogCaptureFixture
):
    judge_many(connection, 500, 2, caplog)


def test_the_log_tells_the_dialect_in_one_line(connection: psycopg.Connection[Any], caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, LOGGER)
    data = "Bericht\nid;ort\n1;'Köln; Süd'\n2;Bonn\n".encode("cp1252")
    assert load_texts(connection, data, ["id", "ort"]) == [("1", "Köln; Süd"), ("2", "Bonn")]
    (said,) = [record.getMessage() for record in caplog.records if record.name == LOGGER]
    assert said == (
        "Reading the file with delimiter=';', quote=\"'\", escape=None, comment=None, encoding='cp1252', skip_lines=1, "
        "header=True"
    )


def test_the_log_tells_the_dialect_once_when_the_table_is_new(
    connection: psycopg.Connection[Any], caplog: pytest.LogCaptureFixture, tmp_path: Path
):
    caplog.set_level(logging.INFO, LOGGER)
    file = tmp_path / "orders.csv"
    file.write_text("id;ort\n1;Bonn\n2;Trier\n")
    options = LoadOptions(dialect="auto", create_table={"*": "text"})
    try:
        assert load(connection, file, "public.t", options).rows == 2
    finally:
        connection.rollback()
    (said,) = [record.getMessage() for record in caplog.records if record.name == LOGGER]
    assert said.startswith(f"Reading {file} with delimiter=';'")


AMBIGUOUS = [
    (b"1,5;2,5\n3,5;4,5\n", "separated by ';' and by ','|separated by ',' and by ';'"),
    (b"x\ny\nz\n", "no delimiter|the same number of values"),
    (b"x;y\nu;v\n", "names or values"),
    (b"a;b\n1;2\n3;4;5\n6;7\n", "the same number of values"),
    (b'a;b\n1;"2\n3;4\n', "the same number of values|no delimiter"),
    ("a;b\n1;Привет\n".encode("cp1251"), "its encoding is ambiguous"),
    ("a;b\n1;Αθήνα\n".encode("cp1253"), "its encoding is ambiguous"),
    ("a;b\n1;Łódź\n".encode("cp1250"), "its encoding is ambiguous"),
    ("a;b\n1;東京\n".encode("shift_jis"), "its encoding is ambiguous"),
    ("a;b\n1;Müller\n".encode("cp437"), "its encoding is ambiguous"),
    ("a;b\n1;2\n".encode("utf-16-le"), "dialect is ambiguous|encoding is ambiguous"),
    (b"", "no delimiter"),
]


@pytest.mark.parametrize(("data", "match"), AMBIGUOUS)
def test_an_ambiguous_file_is_refused_before_anything_changes(
    connection: psycopg.Connection[Any], data: bytes, match: str
):
    with pytest.raises(LakebaseLoadError, match=match):
        load_texts(connection, data, ["p", "q"], columns=["p", "q"])


def test_options_that_are_given_are_kept(connection: psycopg.Connection[Any]):
    data = b"1,5;2,5\n3,5;4,5\n"
    assert load_texts(connection, data, ["p", "q"], delimiter=";", header=False) == [("1,5", "2,5"), ("3,5", "4,5")]
    russian = "p;q\n1;Привет\n".encode("cp1251")
    assert load_texts(connection, russian, ["p", "q"], encoding="cp1251") == [("1", "Привет")]
    with pytest.raises(LakebaseLoadError, match="the same number of values"):
        load_texts(connection, b"Report\nabout\np;q\n1;2\n", ["p", "q"], skip_lines=1)


@pytest.mark.parametrize("header", [True, False])
def test_the_names_of_the_table_tell_the_header(connection: psycopg.Connection[Any], header: bool):
    data = b"p;q\nx;y\n" if header else b"1;x\n2;y\n"
    expected = [("x", "y")] if header else [("1", "x"), ("2", "y")]
    assert load_texts(connection, data, ["p", "q"]) == expected


def test_nothing_is_guessed_unless_asked(connection: psycopg.Connection[Any]):
    connection.execute("CREATE TABLE public.t (p text, q text)")
    with pytest.raises(LakebaseLoadError, match="no column of table"):
        load(connection, io.BytesIO(b"p;q\n1;2\n"), "public.t", LoadOptions(format="csv"))
    connection.rollback()
    with pytest.raises(LakebaseSettingsError, match="dialect is 'excel'"):
        LoadOptions(dialect="excel")  # type: ignore[arg-type]


def test_a_table_is_created_from_the_names_that_were_found(connection: psycopg.Connection[Any], tmp_path: Any):
    path = tmp_path / "new.csv"
    path.write_bytes("Bericht\nid;ort\n1;Köln\n2;Bonn\n".encode("latin-1"))
    try:
        load(connection, path, "public.made", LoadOptions(dialect="auto", create_table={"*": "text"}))
        assert connection.execute("SELECT id, ort FROM public.made").fetchall() == [("1", "Köln"), ("2", "Bonn")]
    finally:
        connection.rollback()


def test_a_missing_library_is_named(connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, LOGGER, raising=False)
    monkeypatch.setitem(sys.modules, "clevercsv", None)
    with pytest.raises(
        LakebaseSettingsError, match=r"needs clevercsv.*pip install 'airflow-provider-lakebase\[sniff\]'"
    ):
        load_texts(connection, b"p;q\n1;2\n", ["p", "q"])


def test_a_file_larger_than_the_sample_is_read_to_its_end(
    connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(f"{LOGGER}._SAMPLE_BYTES", 200)
    rows = [(str(number), f"é{number}") for number in range(500)]
    for encoding in ("utf-8", "utf-16", "cp1252"):
        data = "p|q\n" + "".join(f"{p}|{q}\n" for p, q in rows)
        assert load_texts(connection, data.encode(encoding), ["p", "q"]) == rows
