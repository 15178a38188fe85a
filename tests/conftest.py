"""Airflow's home and the emulator, shared by all tests."""

from __future__ import annotations

import base64
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from urllib.parse import quote

import pytest

# A project of its own, which a test copies.
collect_ignore = ["project"]

# Airflow reads its configuration when it is first imported.
_HOME = tempfile.TemporaryDirectory(prefix="airflow-home-")
os.environ["AIRFLOW_HOME"] = _HOME.name
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = f"sqlite:///{_HOME.name}/airflow.db"

from airflow_provider_lakebase.core.grants.request import RoleRequest  # noqa: E402
from airflow_provider_lakebase.emulator import LakebaseEmulator, Principal  # noqa: E402
from airflow_provider_lakebase.hooks import _masking  # noqa: E402
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook  # noqa: E402

MOST_MASKS = 10
LONGEST = (
    "test_example_dags.py",
    "test_example_control_dags.py",
    "test_load_crashes.py",
    "test_rejects.py",
    "test_documentation.py",
    "test_stack.py",
    "test_folders.py",
    "test_browser.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, then those with long tests: at the end, no worker waits for another."""
    files = {item.path for item in items if item.get_closest_marker("long")}
    order = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: (order.get(item.path.name, len(order)), item.path not in files))


@pytest.fixture(autouse=True)
def masks_do_not_pile_up() -> Iterator[None]:
    """Forget the masks of a process once there are many: with each new one, Airflow compiles all of them again."""
    yield
    masker = _masking._masker()
    if masker and len(masker.patterns) > MOST_MASKS:
        masker.patterns, masker.replacer = set(), None
        _masking.PROCESS_MASKS.forget()


@pytest.fixture(scope="session")
def shared_emulator() -> Iterator[LakebaseEmulator]:
    """The emulator, started once; its connections are in the environment, and the service principal has its role."""
    version = int(os.environ.get("LAKEBASE_TEST_POSTGRES", "18"))
    with (
        LakebaseEmulator(wake_seconds=0.2, pg_version=version, opaque_credentials=True) as emulator,
        pytest.MonkeyPatch.context() as environment,
    ):
        for conn_id, connection in emulator.connections.items():
            environment.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", connection)
        request = RoleRequest(emulator.service_principal.client_id, create_on_database=True)
        LakebaseHook("lakebase_admin").bootstrap_role(request)
        yield emulator


@pytest.fixture
def emulator(shared_emulator: LakebaseEmulator) -> Iterator[LakebaseEmulator]:
    """The shared emulator, awake and enabled before and after the test."""
    shared_emulator.wake_seconds = 0.2
    shared_emulator.wake()
    yield shared_emulator
    shared_emulator.enable()


@pytest.fixture
def connect_as(emulator: LakebaseEmulator, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Return a function that makes an Airflow connection for a principal and returns its id."""

    def connect_as(principal: Principal, conn_id: str = "lakebase_other") -> str:
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", emulator.connection(principal))
        return conn_id

    return connect_as


@pytest.fixture
def admin(emulator: LakebaseEmulator) -> LakebaseHook:
    return LakebaseHook("lakebase_admin")


@pytest.fixture
def hook(emulator: LakebaseEmulator) -> LakebaseHook:
    return LakebaseHook()


@pytest.fixture(scope="session")
def leaks() -> Callable[[bytes, list[str]], list[str]]:
    """Return a function that gives the secrets of which a content holds a piece, plain, URL-encoded or in base64."""

    def pieces(secret: str) -> Iterator[bytes]:
        """Give pieces one of which is in every 24 characters of the form."""
        forms = [
            secret,
            quote(secret, safe=""),
            *(base64.b64encode(b" " * n + secret.encode()).decode() for n in range(3)),
        ]
        for form in forms:
            yield from (form[start : start + 16].encode() for start in range(4, len(form) - 15, 8))

    def leaks(content: bytes, secrets: list[str]) -> list[str]:
        return [secret for secret in secrets if any(piece in content for piece in pieces(secret))]

    return leaks


@pytest.fixture
def task_log(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], str]]:
    """Return what a task's log would hold: Airflow 3 writes it to standard output, Airflow 2 through logging."""
    printed = []

    def read() -> str:
        printed.extend(capfd.readouterr())
        return "".join(printed) + caplog.text

    logger = logging.getLogger("airflow.task")
    logger.addHandler(caplog.handler)
    with caplog.at_level(logging.DEBUG):
        yield read
    logger.removeHandler(caplog.handler)
