"""Pools: a credential a connection, a suspend unnoticed, the true cause of a failure."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg_pool
import pytest
from _clock import Clock

from airflow_provider_lakebase.core.grants.request import RoleRequest
from airflow_provider_lakebase.emulator import LakebaseEmulator
from airflow_provider_lakebase.exceptions import LakebaseAuthenticationError, LakebaseEndpointDisabledError
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook

CREDENTIALS = "/api/2.0/postgres/credentials"


def credentials(emulator: LakebaseEmulator) -> int:
    return sum(request.path == CREDENTIALS for request in emulator.requests)


def test_each_connection_has_a_credential_of_its_own(hook: LakebaseHook, emulator: LakebaseEmulator):
    before = credentials(emulator)
    with hook.connection_pool(min_size=2, max_size=3) as pool:
        assert isinstance(pool, psycopg_pool.ConnectionPool)
        with pool.connection() as one, pool.connection() as two, pool.connection() as three:
            assert one.execute("SELECT current_user").fetchone() == (emulator.service_principal.client_id,)
            assert len({connection.info.backend_pid for connection in (one, two, three)}) == 3
        # One more than connections: the first is tried in the foreground.
        assert credentials(emulator) - before == 4


def test_a_suspend_between_two_checkouts_is_not_noticed(hook: LakebaseHook, emulator: LakebaseEmulator):
    with hook.connection_pool() as pool:
        with pool.connection() as connection:
            connection.execute("SELECT 1")
        emulator.suspend()
        with pool.connection() as connection:
            assert connection.execute("SELECT 2").fetchone() == (2,)


def test_the_true_cause_of_a_failed_fill_is_raised_at_once(emulator: LakebaseEmulator, connect_as: Callable[..., str]):
    hook = LakebaseHook(connect_as(emulator.add_principal("no role")))
    started_at = time.monotonic()
    with pytest.raises(LakebaseAuthenticationError, match="The Postgres role does not exist"):
        hook.connection_pool()
    assert time.monotonic() - started_at < 60


REFUSAL = 'role "reader" does not exist'


def test_a_hopeless_attempt_to_grow_leaves_a_waiter_the_connection_that_comes_back(
    hook: LakebaseHook, emulator: LakebaseEmulator
):
    with hook.connection_pool(min_size=1, max_size=2) as pool:
        pool.wait(60)
        connection = pool.getconn()
        emulator.faults.refuse_logins(REFUSAL, times=50)
        try:
            with ThreadPoolExecutor() as threads:
                waiting = threads.submit(pool.getconn, 20)
                time.sleep(2)
                assert not waiting.done()
                pool.putconn(connection)
                assert waiting.result(60) is connection
            pool.putconn(connection)
        finally:
            emulator.faults.clear()


def test_an_asynchronous_waiter_gets_the_connection_that_comes_back_too(hook: LakebaseHook, emulator: LakebaseEmulator):
    async def take() -> None:
        async with hook.async_connection_pool(min_size=1, max_size=2) as pool:
            await pool.wait(60)
            connection = await pool.getconn()
            emulator.faults.refuse_logins(REFUSAL, times=50)
            waiting = asyncio.create_task(pool.getconn(20))
            await asyncio.sleep(2)
            assert not waiting.done()
            await pool.putconn(connection)
            assert await waiting is connection
            await pool.putconn(connection)

    try:
        asyncio.run(take())
    finally:
        emulator.faults.clear()


def test_a_waiter_is_told_of_no_failure_from_before_it_waited(hook: LakebaseHook, emulator: LakebaseEmulator):
    with hook.connection_pool(min_size=1, max_size=1) as pool, pool.connection():
        pool._loans.must_fail_waiters(LakebaseAuthenticationError("of another time"))
        with pytest.raises(psycopg_pool.PoolTimeout):
            pool.getconn(0.5)


def test_the_true_cause_of_a_later_failure_is_raised(hook: LakebaseHook, emulator: LakebaseEmulator):
    with hook.connection_pool() as pool:
        with pool.connection() as connection:
            connection.execute("SELECT 1")
        emulator.disable()
        started_at = time.monotonic()
        with pytest.raises(LakebaseEndpointDisabledError), pool.connection():
            pass
        assert time.monotonic() - started_at < 60


def test_a_pool_of_busy_connections_says_so(hook: LakebaseHook):
    with (
        hook.connection_pool(max_size=1) as pool,
        pool.connection(),
        pytest.raises(psycopg_pool.PoolTimeout),
        pool.connection(timeout=0.2),
    ):
        pass


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def timed(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[LakebaseEmulator]:
    """An emulator whose clock can be moved."""
    with LakebaseEmulator(clock=clock, suspend_timeout=10**9) as emulator:
        for conn_id, connection in emulator.connections.items():
            monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", connection)
        LakebaseHook("lakebase_admin").bootstrap_role(RoleRequest(emulator.service_principal.client_id))
        yield emulator


def test_a_pool_outlives_the_credentials_it_was_filled_with(timed: LakebaseEmulator, clock: Clock):
    with LakebaseHook().connection_pool(min_size=1, max_size=2) as pool:
        with pool.connection() as connection:
            connection.execute("SELECT 1")
        clock.ahead = 3 * 3600
        with pool.connection() as one, pool.connection() as two:
            assert one.execute("SELECT 1").fetchone() == two.execute("SELECT 1").fetchone() == (1,)
        timed.suspend()
        with pool.connection() as one, pool.connection() as two:
            assert one.execute("SELECT 1").fetchone() == two.execute("SELECT 1").fetchone() == (1,)


def test_an_asynchronous_pool(hook: LakebaseHook, emulator: LakebaseEmulator):
    async def use() -> tuple[object, object]:
        async with hook.async_connection_pool(max_size=2) as pool:
            async with pool.connection() as connection:
                first = await (await connection.execute("SELECT 1")).fetchone()
            await asyncio.to_thread(emulator.suspend)
            async with pool.connection() as connection:
                return first, await (await connection.execute("SELECT 2")).fetchone()

    assert asyncio.run(use()) == ((1,), (2,))


def test_an_asynchronous_pool_raises_the_true_cause(emulator: LakebaseEmulator, connect_as: Callable[..., str]):
    hook = LakebaseHook(connect_as(emulator.add_principal("no role")))

    async def use() -> None:
        async with hook.async_connection_pool():
            pass

    with pytest.raises(LakebaseAuthenticationError, match="The Postgres role does not exist"):
        asyncio.run(use())
