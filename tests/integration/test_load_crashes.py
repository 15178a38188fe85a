"""Loads whose worker is killed, whose session is cut, or which meet each other: the target ends as if each ran once."""

from __future__ import annotations

import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.pq import Trace

from airflow_provider_lakebase.core.session.connections import LakebaseSession
from airflow_provider_lakebase.emulator import LakebaseEmulator
from airflow_provider_lakebase.exceptions import LakebaseOutcomeUnknownError
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook

MODES = ["append", "replace", "upsert"]
TABLE = "crashes.target"
ROWS = 20_000
"""Rows of a load that a worker does, keys from 0."""
COPIED_ROWS = 80_000
"""Rows of one by COPY from another server, which is faster."""
OLD_ROWS = 3000
TIMES = int(os.environ.get("LAKEBASE_KILLS", "5"))
SEED = 20240229

Digest = tuple[int, int]
Source = int | str | dict[str, str]
"""What a worker loads, as ``_load_worker.py`` says."""


# ── what is looked at past the provider ──


@pytest.fixture
def server(emulator: LakebaseEmulator) -> Iterator[psycopg.Connection[Any]]:
    """A session of the superuser, straight to PostgreSQL."""
    with closing(psycopg.connect(emulator.superuser_conninfo, autocommit=True)) as connection:
        yield connection


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def table(hook: LakebaseHook) -> Iterator[str]:
    hook.run(
        f"""DROP SCHEMA IF EXISTS crashes CASCADE;
        CREATE SCHEMA crashes;
        CREATE TABLE {TABLE} (id int PRIMARY KEY, name text, amount numeric(12, 2), at timestamptz, flag boolean);
        CREATE INDEX ON {TABLE} (name);
        CREATE TABLE crashes.pair (id int PRIMARY KEY, value int)"""
    )
    yield TABLE
    hook.run("DROP SCHEMA crashes CASCADE")


def restore(server: psycopg.Connection[Any], mode: str, rows: int) -> Digest:
    """Give the target its old rows, of which a load of so many rows meets some by key, unless it appends."""
    first = rows if mode == "append" else rows // 2
    with server.transaction():
        server.execute(f"TRUNCATE {TABLE}".encode())
        server.execute(
            f"""INSERT INTO {TABLE} SELECT n, 'old ' || n, n / 100.0, '2020-01-01Z'::timestamptz + n * '1 min'::interval
            FROM generate_series({first}, {first + OLD_ROWS - 1}) AS n""".encode()
        )
    return digest(server)


def digest(server: psycopg.Connection[Any], table: str = TABLE) -> Digest:
    """Return the count of rows, and a sum that tells any two contents apart."""
    query = f"SELECT count(*), coalesce(sum(hashtextextended(t::text, 0)), 0)::text FROM {table} AS t"
    ((count, total),) = server.execute(query.encode()).fetchall()
    return count, int(total)


def expected_count(mode: str, rows: int) -> int:
    return {"append": rows + OLD_ROWS, "replace": rows, "upsert": rows // 2 + max(OLD_ROWS, rows - rows // 2)}[mode]


def arguments_of(mode: str, attempted: str) -> dict[str, Any]:
    """Return what ``load`` is called with, alike for each try of one load; an append needs the ledger to be one."""
    return {"table": TABLE, "mode": mode, **({"load_id": attempted} if mode == "append" else {})}


def sessions(emulator: LakebaseEmulator, server: psycopg.Connection[Any]) -> dict[tuple[Any, ...], str]:
    """Return the provider's sessions, and what each is about: ``in transaction``, ``waiting`` or ``idle``."""
    query = """
        SELECT pid, backend_start,
            CASE WHEN wait_event_type = 'Lock' THEN 'waiting' WHEN xact_start IS NULL THEN 'idle'
            ELSE 'in transaction' END
        FROM pg_stat_activity WHERE usename = %s AND backend_type = 'client backend'
    """
    found = server.execute(query, [emulator.service_principal.client_id]).fetchall()
    return {tuple(key): about for *key, about in found}


@contextmanager
def nothing_left(emulator: LakebaseEmulator, server: psycopg.Connection[Any]) -> Iterator[Callable[[], bool]]:
    """Check that, 10 s after the block at most, its sessions are gone and their temporary tables with them.

    The block gets a function that tells whether its sessions are gone.
    """
    before = set(sessions(emulator, server))

    def gone() -> bool:
        return set(sessions(emulator, server)) <= before

    yield gone
    wait_until(gone)
    temporary = "SELECT relname FROM pg_class WHERE relpersistence = 't' AND relname LIKE 'lakebase%'"
    assert server.execute(temporary.encode()).fetchall() == []


def wait_until(condition: Callable[[], object], *, seconds: float = 60, pause: float = 0.002) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass in time"
        time.sleep(pause)


def spread(what: str, end: float, times: int = TIMES) -> list[float]:
    """Return so many random points, one in each of as many equal parts, so that no part is missed."""
    chance = random.Random(f"{SEED} {what}")
    return [(part + chance.random()) * end / times for part in range(times)]


def copied(emulator: LakebaseEmulator, rows: int, *, pause_at: int | None = None) -> dict[str, str]:
    """Return a query of so many rows on another server; before the row ``pause_at`` it rests."""
    pause = f"CASE n WHEN {pause_at} THEN pg_sleep(2)::text ELSE '' END ||" if pause_at is not None else ""
    query = f"""SELECT n AS id, {pause} 'row ' || n AS name, (n * 37 % 10000)::numeric(12, 2) AS amount,
        timestamptz '2024-01-01Z' + n * interval '1 second' AS at, n % 3 = 0 AS flag
        FROM generate_series(0, {rows - 1}) AS n"""
    return {"conninfo": emulator.superuser_conninfo, "query": query}


# ── a worker that is killed ──


class Workers:
    """Start loads in processes of their own, each forked from one that has imported everything already."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert self._answer() == "ready"

    def _answer(self) -> Any:
        assert self.process.stdout
        return json.loads(self.process.stdout.readline())

    def _ask(self, command: dict[str, Any]) -> Any:
        assert self.process.stdin
        print(json.dumps(command), file=self.process.stdin, flush=True)
        return self._answer()

    def start(self, source: Source, arguments: dict[str, Any]) -> int:
        pid: int = self._ask({"source": source, **arguments})
        return pid

    def wait(self) -> dict[str, Any]:
        """Wait until the worker has ended and return how."""
        report: dict[str, Any] = self._ask({})
        return report

    def run(self, source: Source, arguments: dict[str, Any]) -> dict[str, Any]:
        """Let a worker do a load in peace; return its report, and how long it took."""
        self.start(source, arguments)
        started_at = time.monotonic()
        report = self.wait()
        assert report["exit_code"] == 0, report
        return {**report, "seconds": time.monotonic() - started_at}


@pytest.fixture(scope="module")
def workers(shared_emulator: LakebaseEmulator) -> Iterator[Workers]:
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("_load_worker.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        with process:
            yield Workers(process)
            assert process.stdin
            process.stdin.close()


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def has_new_rows(server: psycopg.Connection[Any]) -> bool:
    return server.execute(f"SELECT FROM {TABLE} WHERE id = 0".encode()).fetchone() is not None


@pytest.mark.long
@pytest.mark.parametrize("by", ["rows", "copy"])
@pytest.mark.parametrize("mode", MODES)
def test_a_worker_killed_at_any_point_is_retried_and_the_load_is_done_once(
    emulator: LakebaseEmulator, server: psycopg.Connection[Any], table: str, workers: Workers, mode: str, by: str
):
    """The points are spread over the time that an undisturbed load takes, from its process's first moment.

    That time is the shortest of the last three, so that it follows a machine that is shared. A load that ended before
    its kill is done again and killed earlier.
    """
    count, source = (ROWS, ROWS) if by == "rows" else (COPIED_ROWS, copied(emulator, COPIED_ROWS))
    restore(server, mode, count)
    workers.run(source, arguments_of(mode, "warm-up"))
    old = restore(server, mode, count)
    undisturbed = [workers.run(source, arguments_of(mode, "undisturbed"))["seconds"]]
    new = digest(server)
    assert new[0] == expected_count(mode, count)
    hits: Counter[str] = Counter()
    with nothing_left(emulator, server):
        for number, share in enumerate(spread(f"kill {mode}", 1)):
            for attempt in range(20):
                seconds = share * min(undisturbed[-3:]) * 0.8**attempt
                restore(server, mode, count)
                arguments = arguments_of(mode, f"killed {number} {attempt}")
                pid = workers.start(source, arguments)
                time.sleep(seconds)
                where = ", ".join(set(sessions(emulator, server).values())) or "no session yet"
                kill(pid)
                if workers.wait()["exit_code"] == -signal.SIGKILL:
                    break
                assert digest(server) == new
            else:
                pytest.fail("no kill came before the end of a load")
            place = f"seed {SEED}, kill {number} after {seconds:.4f} s, {where}"
            found = digest(server)
            assert found in (old, new), f"some rows of a load that was killed: {place}"
            hits["committed" if found == new else where] += 1
            retry = workers.run(source, arguments)
            assert digest(server) == new, place
            assert retry["rows"] == count, place
            # What was not seen committed may be, a moment later: the kill came while COMMIT was under way.
            assert retry["already_loaded"] or not (found == new and mode == "append"), place
            if not retry["already_loaded"]:
                undisturbed.append(retry["seconds"])
    print(f"{mode}, {by}: a load takes {min(undisturbed):.3f} s; the kills hit it {dict(hits)}")
    assert hits["in transaction"] >= TIMES // 5, f"too few kills in the middle of a load: {hits}"


@pytest.mark.long
@pytest.mark.parametrize("mode", MODES)
def test_a_worker_killed_while_rows_are_rejected_is_retried_and_records_each_of_them_once(
    emulator: LakebaseEmulator,
    server: psycopg.Connection[Any],
    table: str,
    workers: Workers,
    tmp_path: Path,
    mode: str,
):
    path = tmp_path / "rejected.csv"
    bad = {0: "x,,1,,t", 1: "{n},a,99999999999,,t", 2: ",a,1,,t", 3: "1,again,1,,t", 4: "{n},a,1"}
    lines = (
        bad[n // 10 % 5].format(n=n) if n % 10 == 9 else f"{n},row {n},{n}.25,2024-01-01T00:00:00Z,t"
        for n in range(ROWS)
    )
    path.write_text("\n".join(lines))
    rejects: dict[str, Any] = {"reject_limit": "10%", "rejects_table": "crashes.rejected", "header": False}
    if mode == "upsert":
        rejects["duplicates"] = "error"

    def arguments(attempted: str) -> dict[str, Any]:
        return {**arguments_of(mode, attempted), "load_id": attempted, **rejects}

    def state() -> tuple[Digest, list[Any]]:
        query = "SELECT number, column_name, sqlstate, raw FROM crashes.rejected ORDER BY number, raw"
        with server.transaction():
            # One snapshot for both: the COMMIT of a killed worker may still be under way.
            server.execute(b"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            return digest(server), server.execute(query.encode()).fetchall()

    def begin() -> tuple[Digest, list[Any]]:
        restore(server, mode, ROWS)
        server.execute(b"DELETE FROM crashes.rejected")
        return state()

    restore(server, mode, ROWS)
    workers.run(str(path), arguments("warm-up"))
    old = begin()
    undisturbed = [workers.run(str(path), arguments("undisturbed"))["seconds"]]
    new = state()
    assert len(new[1]) == ROWS // 10
    hits: Counter[str] = Counter()
    with nothing_left(emulator, server):
        for number, share in enumerate(spread(f"kill rejects {mode}", 1)):
            begin()
            pid = workers.start(str(path), arguments(f"killed {number}"))
            time.sleep(share * min(undisturbed[-3:]))
            kill(pid)
            workers.wait()
            found = state()
            assert found in (old, new), f"a part of a load that was killed: kill {number} of seed {SEED}"
            hits["committed" if found == new else "lost"] += 1
            retry = workers.run(str(path), arguments(f"killed {number}"))
            assert state() == new
            if not retry["already_loaded"]:
                undisturbed.append(retry["seconds"])
    print(f"{mode}: the kills hit it {dict(hits)}")
    assert hits["lost"] >= TIMES // 5


@pytest.mark.parametrize("mode", MODES)
def test_a_worker_killed_right_after_its_commit_is_retried_and_the_load_is_done_once(
    emulator: LakebaseEmulator, server: psycopg.Connection[Any], table: str, workers: Workers, mode: str
):
    """It is killed when others see its rows, so that it has not learnt of them or is busy with ANALYZE."""
    restore(server, mode, ROWS)
    workers.run(ROWS, arguments_of(mode, "undisturbed"))
    new = digest(server)
    killed = 0
    with nothing_left(emulator, server):
        for number in range(3):
            restore(server, mode, ROWS)
            arguments = arguments_of(mode, f"killed {number}")
            pid = workers.start(ROWS, arguments)
            wait_until(lambda: has_new_rows(server), pause=0.0005)
            kill(pid)
            killed += workers.wait()["exit_code"] == -signal.SIGKILL
            assert digest(server) == new
            retry = workers.run(ROWS, arguments)
            assert retry["already_loaded"] is (mode == "append")
            assert retry["rows"] == ROWS
            assert digest(server) == new
    assert killed


# ── a session that is cut ──


class TracedHook(LakebaseHook):
    """Write down what a session sends, once it is open."""

    path: Path

    def get_conn(self) -> LakebaseSession:
        session = super().get_conn()
        self.trace = self.path.open("wb")
        session.pgconn.trace(self.trace.fileno())
        session.pgconn.set_trace_flags(Trace.SUPPRESS_TIMESTAMPS)
        return session


@dataclass(frozen=True)
class Wire:
    """Say how many bytes the session of a load has sent when it has sent its rows, its COMMIT, and all."""

    rows: int
    commit: int
    end: int


_SENT = re.compile(rb"^F\t(\d+)\t(\w+)(?:\t \"([^\"]*)\")?", re.MULTILINE)


def measure(path: Path, source: str, arguments: dict[str, Any]) -> Wire:
    hook = TracedHook()
    hook.path = path
    hook.load(source, **arguments)
    hook.trace.close()
    sent, rows, commit = 0, 0, 0
    for size, kind, query in _SENT.findall(path.read_bytes()):
        sent += 1 + int(size)  # a message's size does not count the letter before it
        if kind == b"CopyDone":
            rows, commit = sent, 0
        elif rows and not commit and query == b"COMMIT":
            commit = sent
    assert 0 < rows < commit < sent
    return Wire(rows, commit, sent)


def undisturbed(
    hook: LakebaseHook, server: psycopg.Connection[Any], source: str, mode: str, rows: int, trace: Path
) -> tuple[Digest, Digest, Wire]:
    """Return what the table holds before and after a load that nothing disturbs, and what went over the wire."""
    hook.load(source, **arguments_of(mode, "first of all"))  # it makes the ledger
    old = restore(server, mode, rows)
    wire = measure(trace, source, arguments_of(mode, "load 00"))
    new = digest(server)
    assert new[0] == expected_count(mode, rows)
    return old, new, wire


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], str]:
    """Return a function that gives the path of a file of so many rows."""
    directory = tmp_path_factory.mktemp("crashes")

    def write(rows: int) -> str:
        path = directory / f"{rows}.csv"
        lines = (
            f'{n},"row {n}, ñ {"x" * (n % 40)}",{n * 37 % 10_000}.{n % 100:02},2024-01-01T00:00:{n % 60:02}Z,t\n'
            for n in range(rows)
        )
        path.write_text("id,name,amount,at,flag\n" + "".join(lines))
        return str(path)

    return write


@pytest.mark.long
@pytest.mark.parametrize("mode", MODES)
def test_a_session_cut_after_any_byte_is_retried_and_the_load_is_done_once(
    emulator: LakebaseEmulator,
    hook: LakebaseHook,
    server: psycopg.Connection[Any],
    table: str,
    files: Callable[[int], str],
    tmp_path: Path,
    mode: str,
):
    """Further cuts are in what follows the rows, which are nearly all of the bytes."""
    rows = 5000
    source = files(rows)
    old, new, wire = undisturbed(hook, server, source, mode, rows, tmp_path / "trace")
    cuts = [1 + int(each) for each in spread(f"cut {mode}", wire.end)]
    cuts += [wire.rows + int(each) for each in spread(f"late cut {mode}", wire.end - wire.rows, times=8)]
    outcomes: Counter[str] = Counter()
    with nothing_left(emulator, server):
        for number, size in enumerate(cuts, 1):
            restore(server, mode, rows)
            place = f"seed {SEED}, cut {number} after {size} bytes of {wire}"
            emulator.faults.cut_after(size)
            arguments = arguments_of(mode, f"load {number:02}")
            try:
                hook.load(source, **arguments)
                outcomes["loaded"] += 1
                # Only ANALYZE, which a load can do without, comes after it.
                assert size > wire.commit, place
            except (psycopg.OperationalError, LakebaseOutcomeUnknownError) as error:
                outcomes[type(error).__name__] += 1
            finally:
                emulator.faults.clear()
            assert digest(server) in (old, new), f"some rows of a load that was cut: {place}"
            assert hook.load(source, **arguments).rows == rows, place
            assert digest(server) == new, place
    print(f"{mode}: {wire}, {dict(outcomes)}")
    assert outcomes.total() - outcomes["loaded"] >= TIMES


@pytest.mark.long
@pytest.mark.parametrize(("mode", "times"), [("append", TIMES), ("replace", 6), ("upsert", 6)])
def test_a_session_cut_between_commit_and_its_answer_is_told_and_the_load_is_done_once(
    emulator: LakebaseEmulator,
    hook: LakebaseHook,
    server: psycopg.Connection[Any],
    table: str,
    files: Callable[[int], str],
    tmp_path: Path,
    mode: str,
    times: int,
):
    """The cut takes the answer of each second COMMIT, which is done; of the others it takes the last byte."""
    rows = 500
    source = files(rows)
    old, new, wire = undisturbed(hook, server, source, mode, rows, tmp_path / "trace")
    with nothing_left(emulator, server) as gone:
        for number in range(1, times + 1):
            arrives = number % 2 == 0
            restore(server, mode, rows)
            arguments = arguments_of(mode, f"load {number:02}")
            emulator.faults.cut_after(wire.commit - (not arrives))
            with pytest.raises(LakebaseOutcomeUnknownError, match="lost after COMMIT was sent"):
                hook.load(source, **arguments)
            wait_until(gone)
            assert digest(server) == (new if arrives else old), number
            retry = hook.load(source, **arguments)
            assert retry.already_loaded is (arrives and mode == "append"), number
            assert retry.rows == rows
            assert digest(server) == new, number


# ── a transfer whose source or target goes away ──

SOURCE_PID = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'COPY (SELECT n AS id%' AND wait_event = 'PgSleep'"


@pytest.mark.long
@pytest.mark.parametrize("gone", ["source session", "target session", "target endpoint"])
@pytest.mark.parametrize("mode", MODES)
def test_a_transfer_that_loses_a_side_midway_loads_nothing_and_its_retry_loads_all(
    emulator: LakebaseEmulator,
    server: psycopg.Connection[Any],
    table: str,
    workers: Workers,
    stack: ExitStack,
    mode: str,
    gone: str,
):
    rows = 50_000
    restore(server, mode, rows)
    workers.run(copied(emulator, rows), arguments_of(mode, "undisturbed"))
    new = digest(server)
    old = restore(server, mode, rows)
    arguments = arguments_of(mode, "disturbed")
    # A suspend stops the server, with all sessions: what is left of them cannot be asked.
    with nullcontext() if gone == "target endpoint" else nothing_left(emulator, server):
        workers.start(copied(emulator, rows, pause_at=rows // 2), arguments)
        wait_until(lambda: server.execute(SOURCE_PID.encode()).fetchone())
        (target,) = [pid for (pid, _), about in sessions(emulator, server).items() if about == "in transaction"]
        if gone == "source session":
            server.execute(f"SELECT pg_terminate_backend(({SOURCE_PID}))".encode())
        elif gone == "target session":
            server.execute("SELECT pg_terminate_backend(%s)", [target])
        else:
            emulator.suspend()
            emulator.wake()
            server = stack.enter_context(closing(psycopg.connect(emulator.superuser_conninfo, autocommit=True)))
        report = workers.wait()
        assert report["exit_code"] == 1
        # The source is on the same server, and a suspend ends it as well: either side may be the first to notice.
        driver = {"source session": "psycopg2", "target session": "psycopg"}.get(gone, "psycopg2?")
        lost = rf"^{driver}\.(OperationalError|DatabaseError|errors\.AdminShutdown): "
        assert re.search(lost, report["error"], re.MULTILINE), report
        assert digest(server) == old
    assert workers.run(copied(emulator, rows), arguments)["rows"] == rows
    assert digest(server) == new


# ── loads that meet ──


class Held:
    """Give rows, the second half of which waits until it is let go."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.reached = threading.Event()
        self.go_on = threading.Event()

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for n in range(self.rows):
            if n == self.rows // 2:
                self.reached.set()
                assert self.go_on.wait(60)
            yield n, n


def counted(server: psycopg.Connection[Any], table: str) -> int:
    return digest(server, table)[0]


@pytest.mark.parametrize("zombie_ends", ["well", "cut off"])
def test_a_retry_waits_for_the_attempt_that_still_runs_and_exactly_one_of_them_writes(
    emulator: LakebaseEmulator, server: psycopg.Connection[Any], table: str, zombie_ends: str
):
    source = Held(2000)

    def load(rows: Any) -> tuple[int, bool]:
        result = LakebaseHook().load(rows, "crashes.pair", load_id="the one")
        return result.rows, result.already_loaded

    with nothing_left(emulator, server), ThreadPoolExecutor(2) as threads:
        zombie = threads.submit(load, source)
        assert source.reached.wait(60)
        (pid,) = [pid for (pid, _), about in sessions(emulator, server).items() if about == "in transaction"]
        retry = threads.submit(load, ((n, n) for n in range(2000)))
        wait_until(lambda: "waiting" in sessions(emulator, server).values())
        time.sleep(0.2)
        assert not retry.done()
        if zombie_ends == "cut off":
            server.execute("SELECT pg_terminate_backend(%s)", [pid])
            assert retry.result() == (2000, False)
        source.go_on.set()
        if zombie_ends == "cut off":
            with pytest.raises(psycopg.OperationalError):
                zombie.result()
        else:
            assert zombie.result() == (2000, False)
            assert retry.result() == (2000, True)
    assert counted(server, "crashes.pair") == 2000


def test_of_attempts_that_start_together_exactly_one_writes(
    server: psycopg.Connection[Any], table: str, hook: LakebaseHook
):
    barrier = threading.Barrier(4)

    def load(number: int) -> bool:
        barrier.wait(60)
        rows = ((number * 100 + n, n) for n in range(100))
        return LakebaseHook().load(rows, "crashes.pair", load_id=f"race {number}").already_loaded

    with ThreadPoolExecutor(4) as threads:
        for number in range(10):
            already = list(threads.map(load, [number] * 4))
            assert sorted(already) == [False, True, True, True]
            assert counted(server, "crashes.pair") == (number + 1) * 100


KEYS = 100_000


class Meeting(io.BytesIO):
    """A file at whose end its reader waits for the readers of others, so that all go on from there together."""

    def __init__(self, content: bytes, barrier: threading.Barrier) -> None:
        super().__init__(content)
        self.barrier = barrier

    def read(self, size: int | None = -1) -> bytes:
        block = super().read(size)
        if not block:
            self.barrier.wait(60)
        return block


@pytest.mark.long
def test_upserts_of_the_same_keys_in_opposite_orders_do_not_deadlock(
    emulator: LakebaseEmulator, server: psycopg.Connection[Any], table: str
):
    """Both have sent all rows before either writes one; every second time the rows are in the table already."""
    barrier = threading.Barrier(2)
    met = 0

    def content(value: int, keys: range) -> bytes:
        return ("id,value\n" + "".join([f"{key},{value}\n" for key in keys])).encode()

    def upsert(rows: bytes) -> int:
        return LakebaseHook().load(Meeting(rows, barrier), "crashes.pair", mode="upsert").rows

    # What comes into an empty table, and what comes after that.
    upwards = [content(value, range(KEYS)) for value in (0, 2)]
    downwards = [content(value, range(KEYS - 1, -1, -1)) for value in (1, 3)]

    with nothing_left(emulator, server), ThreadPoolExecutor(2) as threads:
        for number in range(TIMES):
            second = number % 2
            if not second:
                server.execute("TRUNCATE crashes.pair")
            ascending = threads.submit(upsert, upwards[second])
            descending = threads.submit(upsert, downwards[second])
            met += waited(emulator, server, [ascending, descending])
            assert (ascending.result(), descending.result()) == (KEYS, KEYS)
            query = "SELECT count(*), count(*) FILTER (WHERE value IN (%s, %s)) FROM crashes.pair"
            assert server.execute(query, [2 * second, 2 * second + 1]).fetchall() == [(KEYS, KEYS)]
    print(f"{met} of {TIMES} pairs were seen to wait for each other")
    assert met, "no pair was seen to wait for each other"


def waited(emulator: LakebaseEmulator, server: psycopg.Connection[Any], loads: list[Future[int]]) -> bool:
    """Wait for the end of loads; return whether one of them was seen waiting for a lock."""
    seen = False
    while not all(load.done() for load in loads):
        seen = seen or "waiting" in sessions(emulator, server).values()
        time.sleep(0.01)
    return seen


# ── a replace that is watched ──

OLD_COUNT, NEW_COUNT = 1_000_000, 1_000_001
POLL_SECONDS = 0.01
LONGEST_WAIT = 0.2


class Watch:
    """Run a query again and again on a session of its own, and keep each answer and the longest time one took.

    :param conninfo: where to
    :param query: has one row
    :param pause: seconds between the beginnings of two queries
    """

    def __init__(self, conninfo: str, query: str, pause: float) -> None:
        self.conninfo = conninfo
        self.query = query.encode()
        self.pause = pause
        self.answers: list[tuple[Any, ...]] = []
        self.longest = 0.0
        self._end = threading.Event()

    def __enter__(self) -> Watch:
        self._thread = ThreadPoolExecutor(1)
        self._done = self._thread.submit(self._poll)
        wait_until(lambda: self.answers or self._done.done())
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        with self._thread:
            self._done.result()

    def _poll(self) -> None:
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            while not self._end.is_set():
                asked_at = time.perf_counter()
                found = connection.execute(self.query).fetchall()
                seconds = time.perf_counter() - asked_at
                self.longest = max(self.longest, seconds)
                self.answers.extend(found or [()])
                time.sleep(max(self.pause - seconds, 0))


GENERATION = "SELECT generation FROM crashes.large WHERE id = 1"


@pytest.fixture
def large(server: psycopg.Connection[Any], table: str, hook: LakebaseHook) -> Callable[[int], None]:
    """Return a function that fills a table with so many rows of generation 1; there is a small one beside it."""
    hook.run(
        """CREATE TABLE crashes.large (id int PRIMARY KEY, generation int);
        CREATE TABLE crashes.control (id int PRIMARY KEY, generation int);
        INSERT INTO crashes.control VALUES (1, 1)"""
    )

    def fill(rows: int) -> None:
        with server.transaction():
            server.execute("TRUNCATE crashes.large")
            server.execute(f"INSERT INTO crashes.large SELECT n, 1 FROM generate_series(1, {rows}) AS n".encode())
        server.execute("ANALYZE crashes.large")

    return fill


@dataclass
class Seen:
    """What readers saw during a replace, and how long they waited at most."""

    generations: list[int | None]
    counts: set[tuple[int, int, int]]
    longest: float
    control: float

    @property
    def blocked(self) -> bool:
        return self.longest >= LONGEST_WAIT


def watch(conninfo: str, work: Callable[[], object]) -> Seen:
    """Do some work that replaces the table's rows, under the eyes of three readers.

    One looks a row up by its key every 10 ms, and its waits are measured. Another does so in a table that nobody
    touches: its waits are the machine's. The third counts, which takes too long by itself to tell whether it waited.
    """
    counting = "SELECT count(*), min(generation), max(generation) FROM crashes.large"
    with (
        Watch(conninfo, GENERATION, POLL_SECONDS) as target,
        Watch(conninfo, "SELECT generation FROM crashes.control WHERE id = 1", POLL_SECONDS) as control,
        Watch(conninfo, counting, 0.25) as counts,
    ):
        work()
        for each in (target, counts):  # one more answer from after the work
            so_far = len(each.answers)
            wait_until(lambda each=each, so_far=so_far: len(each.answers) > so_far + 1)
    generations = [answer[0] if answer else None for answer in target.answers]
    return Seen(generations, set(counts.answers), target.longest, control.longest)


@pytest.mark.long
def test_readers_of_a_table_being_replaced_see_the_old_rows_or_the_new_and_never_wait(
    emulator: LakebaseEmulator, workers: Workers, large: Callable[[int], None], tmp_path: Path
):
    """A look-up by key takes less than 200 ms all the while, in one of three tries at least: the machine is shared.

    What it looks up tells the old rows from the new: it is there each time, and changes once.
    """
    file = tmp_path / "new.csv"
    file.write_text("id,generation\n" + "".join([f"{n},2\n" for n in range(1, NEW_COUNT + 1)]))
    waits = []

    def replace() -> None:
        workers.run(str(file), {"table": "crashes.large", "mode": "replace"})

    for _ in range(3):
        large(OLD_COUNT)
        seen = watch(emulator.superuser_conninfo, replace)
        assert seen.counts == {(OLD_COUNT, 1, 1), (NEW_COUNT, 2, 2)}
        switch = seen.generations.index(2)
        assert seen.generations == [1] * switch + [2] * (len(seen.generations) - switch)
        waits.append(f"{seen.longest:.3f} s, {seen.control:.3f} s on a table that nobody touched")
        if not seen.blocked:
            break
    print(f"longest waits: {waits}")
    assert not seen.blocked, f"readers waited: {waits}"
    assert switch > 20, "too few looks at the old rows while the new ones came"


@pytest.mark.long
def test_readers_of_a_table_being_truncated_would_be_seen_to_wait(
    emulator: LakebaseEmulator, server: psycopg.Connection[Any], large: Callable[[int], None]
):
    """What the provider does not do: it shows that the measurement above can tell."""
    large(1)

    def truncate_and_insert() -> None:
        with server.transaction():
            server.execute("TRUNCATE crashes.large")
            rows = f"SELECT n, 2 FROM generate_series(1, {NEW_COUNT}) AS n"
            server.execute(f"INSERT INTO crashes.large {rows}".encode())

    seen = watch(emulator.superuser_conninfo, truncate_and_insert)
    assert seen.blocked
    assert seen.control < seen.longest
