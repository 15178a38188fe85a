"""Object storage for the tests that load from it or export to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

if TYPE_CHECKING:
    from _examples import Examples
    from _object_store import Server
    from _synced_tables import World
    from databricks.sdk.service.postgres import SyncedTable

    from airflow_provider_lakebase.emulator import LakebaseEmulator


@pytest.fixture(scope="session")
def s3_server() -> Iterator[Server]:
    from _object_store import BUCKET, Server, path_of

    server = Server()
    extra = {"endpoint_url": server.url, "region_name": "us-east-1", "config_kwargs": {"retries": {"max_attempts": 1}}}
    store = {"conn_type": "aws", "login": "access-key", "password": "secret-key", "extra": extra}
    down = {**store, "extra": {**extra, "endpoint_url": "http://127.0.0.1:9"}}
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AIRFLOW_CONN_STORE", json.dumps(store))
        environment.setenv("AIRFLOW_CONN_DOWN", json.dumps(down))
        path_of(f"s3://store@{BUCKET}").fs.mkdir(BUCKET)
        yield server
    server.server.stop()


@pytest.fixture
def s3(s3_server: Server) -> Iterator[Server]:
    yield s3_server
    s3_server.refusing = False


@pytest.fixture(params=["local", "s3"])
def folder(request: pytest.FixtureRequest, s3: Server, tmp_path: Path) -> str:
    """The place of a test's files, as text."""
    from _object_store import BUCKET

    unique = uuid4().hex
    places = {"local": str(tmp_path), "s3": f"s3://store@{BUCKET}/{unique}", "memory": f"memory://{unique}"}
    return places[request.param]


@pytest.fixture
def s3_folder(s3: Server) -> str:
    from _object_store import BUCKET

    return f"s3://store@{BUCKET}/{uuid4().hex}"


@pytest.fixture(scope="module")
def synced_world(shared_emulator: LakebaseEmulator) -> Iterator[World]:
    from _synced_tables import World

    world = World(shared_emulator)
    yield world
    with world.connect() as session:
        session.execute("DROP SCHEMA IF EXISTS synced CASCADE")


@pytest.fixture
def world(emulator: LakebaseEmulator, synced_world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """The shared emulator with a catalog; afterwards, the synced tables that it made are deleted."""
    from airflow_provider_lakebase.core.workspace import plans

    monkeypatch.setattr(plans, "FIRST_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(plans, "LONGEST_PAUSE_SECONDS", 0.05)
    world = synced_world
    made: list[str] = []
    create = world.create

    def noted(*arguments: Any, **changes: Any) -> SyncedTable:
        made.append(str((table := create(*arguments, **{"schema": "synced", **changes})).name))
        return table

    monkeypatch.setattr(world, "create", noted)
    yield world
    emulator.pipeline_seconds = 0.02
    emulator.faults.clear()
    for name in made:
        world.client.postgres.delete_synced_table(name).wait()


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Examples]:
    from _examples import start_examples

    source = tmp_path_factory.mktemp("source") / "source.db"
    with start_examples(tmp_path_factory.mktemp("examples"), source) as examples:
        yield examples
