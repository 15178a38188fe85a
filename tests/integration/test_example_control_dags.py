"""The example DAGs on waiting, assets and the control plane run green, again and again, and leak no secret."""

from __future__ import annotations

import asyncio
import json
import re
import runpy
import sqlite3
from contextlib import closing
from decimal import Decimal
from typing import Any

import pytest
from _clients import workspace_client
from _environment import REPOSITORY
from _examples import Examples
from _synced_tables import World
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from airflow_provider_lakebase.core.grants.request import RoleRequest
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook
from airflow_provider_lakebase.hooks.workspace import LakebaseWorkspaceHook

PROJECT = "projects/demo"


def test_wait_and_bill_runs_twice_and_each_bill_is_in_the_ledger(examples: Examples):
    examples.run("wait_and_bill")
    examples.run("wait_and_bill", day="2026-01-02")
    query = "SELECT day::text, orders, amount::text FROM billing.bills ORDER BY day"
    assert examples.hook.get_records(query) == [("2026-01-01", 2, "42.50"), ("2026-01-02", 2, "42.50")]
    recorded = "SELECT count(*) FROM airflow_lakebase.loads WHERE load_id LIKE '%wait_and_bill%bill%'"
    assert examples.hook.get_first(recorded) == (2,)


if AIRFLOW_V_3_0_PLUS:  # Airflow 2 has no asset watchers

    @pytest.mark.long
    def test_new_orders_runs_twice_and_its_watcher_tells_of_each_order_once(
        examples: Examples, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setenv("AIRFLOW_CONN_LAKEBASE_DEFAULT", examples.emulator.connections["lakebase_default"])
        names = runpy.run_path(str(REPOSITORY / "dags_examples" / "new_orders.py"))
        (watcher,) = names["new_orders"].watchers
        trigger = watcher.trigger
        trigger.poll_interval = 0.2
        monkeypatch.setattr("airflow_provider_lakebase.triggers.query.STORING_SECONDS", 0.2)

        async def first_event() -> Any:
            events = trigger.run()
            event = await asyncio.wait_for(anext(events), 60)
            # The commit comes after the event was taken.
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(events), 2)
            return event.payload

        examples.run("new_orders")
        examples.hook.run("INSERT INTO new_orders.orders (amount) VALUES (1), (2)")
        assert asyncio.run(first_event())["rows"] == 2
        examples.run("new_orders")
        query = "SELECT count(*), count(taken_at), count(shipped_at) FROM new_orders.orders"
        assert examples.hook.get_first(query) == (2, 2, 2)


@pytest.mark.long
def test_asset_scheduled_runs_twice_and_each_load_emits_an_event_of_its_tables_asset(examples: Examples):
    examples.command("dags", "reserialize")
    for times in (1, 2):
        examples.run("asset_scheduled_load")
        with closing(sqlite3.connect(examples.home / "airflow.db")) as database:
            old = bool(database.execute("SELECT 1 FROM sqlite_master WHERE name = 'dataset_event'").fetchall())
            kind = "dataset" if old else "asset"
            query = f"SELECT uri, e.extra FROM {kind}_event e JOIN {kind} a ON a.id = e.{kind}_id"
            events = database.execute(query).fetchall()
        host = examples.emulator.workspace_url.removeprefix("http://")
        uri = f"lakebase://{host}/demo/production/databricks_postgres/asset_scheduled/airports"
        assert [(found, json.loads(extra)["rows"]) for found, extra in events] == [(uri, 1458)] * times
        examples.run("asset_scheduled")
        counted = examples.hook.get_first("SELECT count(*), sum(airports) FROM asset_scheduled.airports_by_zone")
        assert counted == (9, 1455)


def branches(examples: Examples) -> list[str | None]:
    return [each.name for each in LakebaseWorkspaceHook("examples").list_branches(show_deleted=True)]


def compute(examples: Examples) -> tuple[Any, ...]:
    status = LakebaseWorkspaceHook("examples").get_endpoint().status
    assert status
    return (status.autoscaling_limit_min_cu, status.autoscaling_limit_max_cu)


def test_branch_test_runs_twice_and_leaves_no_branch_though_a_check_fails(examples: Examples):
    query = "SELECT array_agg(column_name::text ORDER BY ordinal_position) FROM information_schema.columns WHERE "
    for _ in range(2):
        examples.run("branch_test")
        assert branches(examples) == [f"{PROJECT}/branches/production"]
        assert examples.hook.get_first(query + "table_schema = 'branch_test'") == (["faa", "name", "lat"],)
        assert examples.hook.get_first("SELECT count(*) FROM branch_test.airports") == (1,)
    states = examples.run_to_its_end("branch_test", is_red=True, least_airports="1000000")
    assert states == {
        "create_tables": "success",
        "find_file": "success",
        "try_it.create_branch": "success",
        "try_it.migrate": "success",
        "try_it.load": "success",
        "try_it.check": "failed",
        "try_it.delete_branch": "success",
        "report": "upstream_failed",
    }
    assert branches(examples) == [f"{PROJECT}/branches/production"]


def test_load_window_runs_twice_and_leaves_the_endpoint_as_it_was_though_the_load_fails(examples: Examples):
    former = compute(examples)
    for _ in range(2):
        examples.run("load_window")
        assert compute(examples) == former
        assert examples.hook.get_first("SELECT count(*) FROM load_window.weather") == (26_115,)
    states = examples.run_to_its_end("load_window", is_red=True, file="nothing")
    assert states == {
        "find_file": "success",
        "enlarge": "success",
        "create_schema": "success",
        "load": "failed",
        "restore": "success",
    }
    assert compute(examples) == former
    before = {"endpoint": f"{PROJECT}/branches/production/endpoints/primary", "min_cu": former[0], "max_cu": former[1]}
    assert examples.results("load_window", "enlarge") == [before] * 3
    changes = [each.path for each in examples.emulator.requests if each.method == "PATCH"]
    assert len(changes) == 6


def test_publish_gold_runs_twice_and_starts_one_update_for_a_version(examples: Examples):
    world = World(examples.emulator)
    client = workspace_client(examples.emulator, examples.emulator.service_principal)
    world.publish("main.gold.orders", {"id": [1], "customer_id": [7]})
    table = world.create("main.gold.orders", client, schema="gold", table="orders")
    version = world.publish("main.gold.orders", {"id": [1, 2], "customer_id": [7, 8]})
    world.settle(table)
    world.publish("main.gold.orders", {"id": [1, 2, 3], "customer_id": [7, 8, 9]})
    for _ in range(2):
        examples.run("publish_gold", synced_table="lake.gold.orders", version=str(version + 1))
        assert examples.hook.get_first("SELECT count(*) FROM gold.orders") == (3,)
    first, second = examples.results("publish_gold", "sync")
    assert (first["version"], second["version"]) == (version + 1, version + 1)
    assert first["pipeline_update"]
    assert second["pipeline_update"] is None
    world.client.postgres.delete_synced_table(str(table.name)).wait()


def test_schema_change_runs_twice_and_replaces_the_table_once_its_source_changes(examples: Examples):
    world = World(examples.emulator)
    world.publish("main.gold.orders_1", {"id": [1], "customer_id": [7]})
    world.publish("main.gold.orders_2", {"id": [1, 2], "customer_id": [7, 8], "amount": [1.5, 2.5]})
    catalogue = """
        SELECT array_agg(relname::text ORDER BY relname), array_agg(relacl::text ORDER BY relname)
        FROM pg_class WHERE relnamespace = 'serving'::regnamespace AND relname LIKE 'orders%%'
    """
    found = []
    for source in ("orders_1", "orders_1", "orders_2"):
        examples.run("schema_change", source=f"main.gold.{source}")
        found.append(examples.hook.get_first(catalogue))
    assert found == [found[0]] * 3
    assert "orders_by_customer" in found[0][0]
    assert examples.hook.get_first("SELECT sum(orders) FROM serving.orders_of_customers") == (2,)
    results = examples.results("schema_change", "create")
    assert [each["created"] for each in results] == [True, False, False]
    assert [each["recreated"] for each in results] == [False, False, True]
    world.client.postgres.delete_synced_table("synced_tables/lake.serving.orders").wait()


def test_back_to_the_lakehouse_runs_twice_and_creates_one_feed(examples: Examples):
    before = len(examples.emulator.requests)
    feed = f"{PROJECT}/branches/production/databases/databricks-postgres/cdf-configs/back_to_the_lakehouse"
    hook = LakebaseWorkspaceHook("examples")
    for _ in range(2):
        examples.run("back_to_the_lakehouse")
        (status,) = hook.list_change_feed_tables(feed)
        (number,) = re.findall(r"[0-9A-F]+/[0-9A-F]+", str(examples.results("back_to_the_lakehouse", "load")[-1]))
        query = "SELECT %s::pg_lsn <= %s::pg_lsn, count(*) FROM back_to_the_lakehouse.orders"
        assert examples.hook.get_first(query, (number, status.committed_lsn)) == (True, 10)
    assert [each["created"] for each in examples.results("back_to_the_lakehouse", "feed")] == [True, False]
    assert examples.results("back_to_the_lakehouse", "hand_on") == ["main.history.lb_orders_history"] * 2
    created = [each for each in examples.emulator.requests[before:] if each.path.endswith("/cdf-configs")]
    assert [each.method for each in created] == ["POST"]
    hook.delete_change_feed(feed)


@pytest.mark.long
def test_roles_runs_twice_and_on_a_branch_and_an_old_identitys_tables_go_to_the_owner(
    examples: Examples, monkeypatch: pytest.MonkeyPatch
):
    admin, old = LakebaseWorkspaceHook("examples_admin"), examples.emulator.add_principal("old")
    monkeypatch.setenv("AIRFLOW_CONN_OLD", examples.emulator.connection(old))
    branch = f"{admin.create_branch('roles', ttl=3600).name}/endpoints/primary"
    LakebaseHook("examples_admin").bootstrap_role(RoleRequest(old.client_id, create_on_database=True))
    LakebaseHook("old").run("CREATE SCHEMA of_old; CREATE TABLE of_old.orders (id int)")
    for number, endpoint in enumerate(["", "", branch]):
        examples.run("roles", endpoint=endpoint, retired=old.client_id)
        admin_hook = LakebaseHook("examples_admin", endpoint=endpoint, database="shop")
        assert admin_hook.get_first("SELECT count(*) FROM sales.orders") == (20 if number == 1 else 10,)
        owned = "SELECT count(DISTINCT relowner) FROM pg_class WHERE relnamespace = 'sales'::regnamespace"
        assert admin_hook.get_first(owned) == (1,)
        assert admin_hook.get_records("SELECT 1 FROM pg_roles WHERE rolname = %s", [old.client_id]) == []
    assert [each["created"] for each in examples.results("roles", "create_database")] == [True, False, True]
    assert [each["changed"] for each in examples.results("roles", "reader")] == [True, False, True]
    assert [each["role"] for each in examples.results("roles", "retire")] == ["dropped", "gone", "gone"]
    tables = "SELECT relowner::regrole::text FROM pg_class WHERE relnamespace = 'of_old'::regnamespace"
    (owner,) = {each["identity"] for each in examples.results("roles", "owner")}
    assert LakebaseHook("examples_admin").get_first(tables) == (f'"{owner}"',)
    admin.delete_branch("roles", purge=True)


def test_safe_migration_runs_twice_and_shows_how_it_was_when_a_check_fails(examples: Examples):
    hook = LakebaseWorkspaceHook("examples")
    for number in (1, 2):
        assert examples.run_to_its_end("safe_migration", is_red=False)["show_before"] == "skipped"
        assert examples.hook.get_first("SELECT sum(price) FROM safe_migration.prices") == (Decimal("561"),)
        assert len(hook.list_snapshots()) == number
    assert branches(examples) == [f"{PROJECT}/branches/production"]
    states = examples.run_to_its_end(
        "safe_migration", is_red=True, migration="UPDATE safe_migration.prices SET price = NULL"
    )
    assert states == {
        "create_table": "success",
        "snapshot": "success",
        "migrate": "success",
        "check": "failed",
        "show_before": "success",
    }
    (result,) = examples.results("safe_migration", "show_before")
    before = LakebaseHook("examples", endpoint=result["endpoint"])
    assert before.get_first("SELECT sum(price) FROM safe_migration.prices") == (550,)
    hook.delete_branch(result["branch"], purge=True)
