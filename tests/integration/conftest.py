"""Object storage for the tests that load from it or export to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

if TYPE_CHECKING:
    from _object_store import Server


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


@pytest.fixture(params=["local", "s3", "memory"])
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
