"""Loads that are large: memory that does not grow, a bad line far into a file, statistics afterwards."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from airflow_provider_lakebase.emulator import LakebaseEmulator
from airflow_provider_lakebase.exceptions import LakebaseLoadError
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook

MIB = 1 << 20
# In a process of its own: the emulator's memory is not the loader's.
LOAD = """
import io, resource, sys
from airflow_provider_lakebase.core.bulk.load import load
import psycopg


class Generated(io.RawIOBase):
    '''A CSV file of a size that no disk need hold.'''

    def __init__(self, size):
        self.left, self.pending, self.name = size, b"id,note\\n", "generated.csv"

    def readable(self):
        return True

    def readinto(self, buffer):
        if not self.pending and self.left > 0:
            self.pending = b"1," + b"x" * 8000 + b"\\n"
            self.pending *= 8
            self.left -= len(self.pending)
        size = min(len(buffer), len(self.pending))
        buffer[:size], self.pending = self.pending[:size], self.pending[size:]
        return size


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


with psycopg.connect(sys.argv[1]) as connection:
    load(connection, io.BufferedReader(Generated(1 << 20)), "large.t")
    before = peak()
    result = load(connection, io.BufferedReader(Generated(int(sys.argv[2])), 1 << 18), "large.t")
    print(result.bytes, result.rows, peak() - before)
"""


@pytest.fixture
def table(hook: LakebaseHook) -> Iterator[str]:
    hook.run("DROP SCHEMA IF EXISTS large CASCADE; CREATE SCHEMA large; CREATE TABLE large.t (id int, note text)")
    yield "large.t"
    hook.run("DROP SCHEMA large CASCADE")


@pytest.mark.long
def test_a_csv_file_of_one_gigabyte_takes_no_more_memory_than_a_small_one(table: str, emulator: LakebaseEmulator):
    command = [sys.executable, "-c", LOAD, emulator.superuser_conninfo, str(1 << 30)]
    output = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ}).stdout
    size, rows, grown = map(int, output.split())
    assert size >= 1 << 30
    assert rows == pytest.approx((1 << 30) / 8003, rel=0.01)
    assert grown < 8 * MIB


@pytest.mark.parametrize("mode", ["append", "replace", "upsert"])
def test_a_bad_value_on_line_777777_is_named_and_the_target_untouched(hook: LakebaseHook, table: str, mode: str):
    hook.run(f"ALTER TABLE {table} ADD PRIMARY KEY (id); INSERT INTO {table} VALUES (-1, 'old')")
    lines = [f"{number},n\n" for number in range(2, 800_001)]
    lines[777_775] = "confidential,n\n"
    with pytest.raises(LakebaseLoadError, match="rejects line 777777, column id, of the file") as refused:
        hook.load(io.BytesIO(("id,note\n" + "".join(lines)).encode()), table, mode=mode)  # type: ignore[arg-type]
    assert "confidential" not in str(refused.value)
    assert hook.get_records(f"SELECT * FROM {table}") == [(-1, "old")]


def analyzed(emulator: LakebaseEmulator) -> float:
    with psycopg.connect(emulator.superuser_conninfo) as superuser:
        row = superuser.execute("SELECT reltuples FROM pg_class WHERE oid = 'large.t'::regclass").fetchone()
    assert row
    return float(row[0])


def test_statistics_are_new_after_a_load_that_changed_much(hook: LakebaseHook, table: str, emulator: LakebaseEmulator):
    hook.load(((n, "n") for n in range(5000)), table)
    assert analyzed(emulator) == 5000
    hook.load([(1, "n")], table)
    assert analyzed(emulator) == 5000
    hook.load(((n, "n") for n in range(1000)), table)
    assert analyzed(emulator) == 6001


def test_a_failing_analyze_is_a_warning(
    hook: LakebaseHook, table: str, emulator: LakebaseEmulator, task_log: Callable[[], str], tmp_path: Path
):
    # The function of an index on an expression is called by ANALYZE, which must not fail the load that is committed.
    hook.run(
        """CREATE FUNCTION large.fussy(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
        BEGIN IF current_query() LIKE 'ANALYZE%' THEN RAISE EXCEPTION 'not now'; END IF; RETURN $1; END $$;
        CREATE INDEX ON large.t (large.fussy(id))"""
    )
    assert hook.load([(1, "a"), (2, "b")], table).rows == 2
    assert "Loaded into large.t, but ANALYZE failed: not now" in task_log()
    assert hook.get_first("SELECT count(*) FROM large.t") == (2,)
