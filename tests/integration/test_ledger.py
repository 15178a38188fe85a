"""The ledger of loads: written with the rows, found by a retry, prepared by the role bootstrap."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator

import psycopg
import pytest

from airflow_provider_lakebase.core.grants.request import RoleRequest
from airflow_provider_lakebase.emulator import LakebaseEmulator, Principal
from airflow_provider_lakebase.exceptions import LakebaseLoadError, LakebaseSettingsError
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook


@pytest.fixture
def table(hook: LakebaseHook) -> Iterator[str]:
    hook.run("DROP SCHEMA IF EXISTS once CASCADE; CREATE SCHEMA once; CREATE TABLE once.t (id int)")
    yield "once.t"
    hook.run("DROP SCHEMA once CASCADE; DROP SCHEMA IF EXISTS my_ledger CASCADE")


def count(hook: LakebaseHook, table: str) -> int:
    return int(hook.get_first(f"SELECT count(*) FROM {table}")[0])


def test_a_second_load_with_the_same_id_does_nothing(hook: LakebaseHook, table: str):
    first = hook.load([(1,), (2,)], table, load_id="monday")
    second = hook.load([(3,)], table, load_id="monday")
    assert (first.rows, first.already_loaded) == (2, False)
    assert (second.rows, second.already_loaded) == (2, True)
    hook.load([(3,)], table, load_id="tuesday")
    assert count(hook, table) == 3


def test_without_an_id_nothing_is_recorded(hook: LakebaseHook, table: str):
    for _ in range(2):
        hook.load([(1,)], table)
    assert count(hook, table) == 2
    query = "SELECT count(*) FROM airflow_lakebase.loads WHERE target = 'once.t'::regclass"
    assert hook.get_first(query) == (0,)


def test_a_load_that_failed_is_not_recorded(hook: LakebaseHook, table: str):
    with pytest.raises(LakebaseLoadError):
        hook.load([(1,), ("x",)], table, load_id="wednesday")
    assert hook.load([(1,), (2,)], table, load_id="wednesday").already_loaded is False
    assert count(hook, table) == 2


def test_a_table_that_was_made_anew_is_loaded_again(hook: LakebaseHook, table: str):
    hook.load([(1,)], table, load_id="thursday")
    hook.run("DROP TABLE once.t; CREATE TABLE once.t (id int)")
    assert hook.load([(1,)], table, load_id="thursday").already_loaded is False
    assert count(hook, table) == 1


def test_old_records_are_deleted_in_one_call(hook: LakebaseHook, table: str):
    hook.load([(1,)], table, load_id="old", ledger_schema="my_ledger")
    hook.load([(1,)], table, load_id="new", ledger_schema="my_ledger")
    hook.run("UPDATE my_ledger.loads SET loaded_at = now() - interval '91 days' WHERE load_id = 'old'")
    older_than = datetime.timedelta(days=90)
    assert hook.delete_load_records(older_than, ledger_schema="my_ledger") == 1
    assert hook.delete_load_records(older_than, ledger_schema="my_ledger") == 0
    assert hook.load([(1,)], table, load_id="new", ledger_schema="my_ledger").already_loaded
    assert hook.delete_load_records(older_than, ledger_schema="no such schema") == 0
    for age in (90, datetime.timedelta(days=-1)):
        with pytest.raises(LakebaseSettingsError, match=r"older_than is .*Give an age: timedelta\(days=90\)"):
            hook.delete_load_records(age, ledger_schema="my_ledger")  # type: ignore[arg-type]
    assert hook.load([(1,)], table, load_id="new", ledger_schema="my_ledger").already_loaded


@pytest.fixture
def newcomer(emulator: LakebaseEmulator, connect_as: Callable[..., str], admin: LakebaseHook) -> Iterator[Principal]:
    principal = emulator.add_principal("a loader")
    connect_as(principal, "newcomer")
    admin.run("DROP SCHEMA IF EXISTS loader_ledger CASCADE; CREATE TABLE public.loader (id int)")
    yield principal
    admin.run("DROP TABLE public.loader; DROP SCHEMA IF EXISTS loader_ledger CASCADE")


def test_the_role_bootstrap_prepares_the_ledger(admin: LakebaseHook, newcomer: Principal):
    reports = [admin.bootstrap_role(RoleRequest(newcomer.client_id, ledger_schema="loader_ledger")) for _ in range(2)]
    assert [report["ledger"] for report in reports] == ["created", "found"]
    assert [report["changed"] for report in reports] == [True, False]
    hook = LakebaseHook("newcomer")
    for repeated in (False, True):
        result = hook.load([(1,)], "public.loader", load_id="once", ledger_schema="loader_ledger")
        assert result.already_loaded is repeated
    assert hook.delete_load_records(datetime.timedelta(0), ledger_schema="loader_ledger") == 1


def test_a_role_that_can_neither_find_nor_make_the_ledger_is_told_what_to_do(admin: LakebaseHook, newcomer: Principal):
    admin.bootstrap_role(RoleRequest(newcomer.client_id, ledger_schema=None))
    hook = LakebaseHook("newcomer")
    remedy = "nothing was loaded .connection 'newcomer'.*the role bootstrap for this role.*'ledger_schema'"
    with pytest.raises(LakebaseLoadError, match=f"The ledger loader_ledger.loads cannot be created.*{remedy}"):
        hook.load([(1,)], "public.loader", load_id="once", ledger_schema="loader_ledger")
    admin.run("CREATE SCHEMA loader_ledger; CREATE TABLE loader_ledger.loads (load_id text)")
    with pytest.raises(LakebaseLoadError, match=f"The ledger loader_ledger.loads cannot be used.*{remedy}"):
        hook.load([(1,)], "public.loader", load_id="once", ledger_schema="loader_ledger")
    assert hook.load([(1,)], "public.loader").rows == 1


def test_a_role_that_may_make_schemas_makes_the_ledger_itself(hook: LakebaseHook, table: str):
    assert hook.load([(1,)], table, load_id="own", ledger_schema="my_ledger").rows == 1
    owner = "SELECT tableowner = current_user FROM pg_tables WHERE schemaname = 'my_ledger' AND tablename = 'loads'"
    assert hook.get_first(owner) == (True,)


def test_the_ledger_survives_the_sessions_end(hook: LakebaseHook, table: str, emulator: LakebaseEmulator):
    hook.load([(1,)], table, load_id="friday")
    emulator.suspend()
    assert hook.load([(1,)], table, load_id="friday").already_loaded
    with psycopg.connect(emulator.superuser_conninfo) as superuser:
        query = "SELECT relpersistence FROM pg_class WHERE oid = 'airflow_lakebase.loads'::regclass"
        assert superuser.execute(query).fetchone() == ("p",)
