"""Rows in the binary format of COPY."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from psycopg.adapt import Transformer
from psycopg.pq import Format

from airflow_provider_lakebase.core.bulk.formats.binary_rows import BinaryRows


class Copy:
    """Keep what is written."""

    def __init__(self) -> None:
        self.formatter = SimpleNamespace(transformer=Transformer())
        self.written: list[bytes] = []

    def set_types(self, types: Sequence[str]) -> None:
        oids = [psycopg.adapters.types[name].oid for name in types]
        self.formatter.transformer.set_dumper_types(oids, Format.BINARY)

    def write(self, data: bytes) -> None:
        self.written.append(bytes(data))


def row(text: str) -> bytes:
    return b"\0\2" + b"\0\0\0\x04\0\0\0\x07" + len(text).to_bytes(4, "big") + text.encode()


@pytest.fixture
def copy() -> Copy:
    return Copy()


@pytest.fixture
def rows(copy: Any) -> BinaryRows:
    return BinaryRows(copy, ["int4", "text"])


def test_rows_of_all_sizes_are_written_in_order(copy: Copy, rows: BinaryRows):
    texts = ["x" * size for size in [*range(400), 200_000, 300_000, *range(400)]]
    for start in range(0, len(texts), 250):
        rows.write((7, text) for text in texts[start : start + 250])
    rows.end()
    sent = b"".join(copy.written)
    assert sent == b"PGCOPY\n\xff\r\n\0" + bytes(8) + b"".join(map(row, texts)) + b"\xff\xff"


def test_narrow_rows_are_sent_together(copy: Copy, rows: BinaryRows):
    rows.write([(7, "x" * 100)] * 10_000)
    assert {128 <= len(data) / 1024 < 160 for data in copy.written} == {True}


def test_of_wide_rows_none_waits_for_another(copy: Copy, rows: BinaryRows):
    rows.write([(7, "x" * 1_000_000)] * 20)
    assert max(map(len, copy.written)) < 1_100_000
