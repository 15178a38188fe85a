"""The pytest plugin ``lakebase``: an emulator for a test session, in a known state before each test.

pytest imports this module in every project that has the provider installed. So it starts nothing, and imports neither
Airflow nor a driver, before a test asks for one of its fixtures.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_lakebase.emulator import LakebaseEmulator, MissingExtraError, require_extra
from airflow_provider_lakebase.emulator.environment import airflow_connections, no_proxy
from airflow_provider_lakebase.emulator.model.workspace import Behaviour

_SKIPPED = "no Lakebase emulator here: "
_MARKER_ARGUMENTS = ("asleep", *Behaviour.__annotations__)
_OPTIONS: dict[str, tuple[type, str]] = {
    "pg_version": (int, "PostgreSQL's major version"),
    "wake_seconds": (float, "seconds that a wake takes"),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options, on the command line and in the configuration file."""
    group = parser.getgroup("lakebase", "Lakebase emulator")
    for name, (kind, help_text) in _OPTIONS.items():
        group.addoption(f"--lakebase-{name.replace('_', '-')}", type=kind, help=help_text)
        parser.addini(f"lakebase_{name}", help_text, default="")
    parser.addini(
        "lakebase_conn_ids", "Airflow connection ids that lead to the emulator besides lakebase_default", type="args"
    )
    parser.addini(
        "lakebase_dags_folder", "DAG folder; Airflow also gets a home and a database for the session", type="paths"
    )


def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Set ``AIRFLOW_HOME`` to a new folder if there is a DAG folder; Airflow reads its variables on import."""
    folders = early_config.getini("lakebase_dags_folder")
    if folders:
        if len(folders) > 1 or not folders[0].is_dir():
            given = " ".join(map(str, folders))
            raise pytest.UsageError(f"lakebase_dags_folder must be one folder that exists, not {given}")
        if "airflow" in sys.modules:
            raise pytest.UsageError("lakebase_dags_folder has no effect: a plugin has already imported Airflow")
        home = tempfile.TemporaryDirectory(prefix="lakebase-airflow-")
        early_config.add_cleanup(home.cleanup)
        os.environ["AIRFLOW_HOME"] = home.name
        os.environ["AIRFLOW__CORE__DAGS_FOLDER"] = str(folders[0])
        os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
        os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = f"sqlite:///{home.name}/airflow.db"


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    arguments = ", ".join(f"{name}=..." for name in _MARKER_ARGUMENTS)
    config.addinivalue_line("markers", f"lakebase({arguments}): run the test on the emulator, in this state")


def pytest_report_header(config: pytest.Config) -> str:
    """Name PostgreSQL's version, or say why the emulator cannot run."""
    try:
        require_extra()
    except MissingExtraError as error:
        return f"lakebase: {error}"
    return f"lakebase: emulator with PostgreSQL {LakebaseEmulator(**_chosen(config)).pg_version}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many tests were skipped because the emulator cannot run here, which is easily overlooked in CI."""
    reports = terminalreporter.stats.get("skipped", [])
    reasons = [str(report.longrepr[-1]) for report in reports if isinstance(report.longrepr, tuple)]
    skipped = [reason for reason in reasons if _SKIPPED in reason]
    if skipped:
        tests = "1 test was" if len(skipped) == 1 else f"{len(skipped)} tests were"
        terminalreporter.section("lakebase", yellow=True)
        terminalreporter.write_line(f"{tests} skipped. {skipped[0].partition(_SKIPPED)[2]}")


@pytest.fixture(scope="session")
def lakebase_emulator_options(pytestconfig: pytest.Config) -> dict[str, Any]:
    """Return the arguments of ``LakebaseEmulator``. Override it to pass others."""
    return _chosen(pytestconfig)


@pytest.fixture(scope="session")
def lakebase_emulator(
    pytestconfig: pytest.Config, lakebase_emulator_options: dict[str, Any]
) -> Iterator[LakebaseEmulator]:
    """Return the session's emulator. Airflow finds its connections, and the service principal has its Postgres role.

    The connections are ``lakebase_default``, ``lakebase_admin`` and those of the setting ``lakebase_conn_ids``. The
    test is skipped where the emulator cannot run.
    """
    emulator = LakebaseEmulator(**lakebase_emulator_options)
    try:
        emulator.start()
    except MissingExtraError as error:
        pytest.skip(f"{_SKIPPED}{error}")
    try:
        if pytestconfig.getini("lakebase_dags_folder"):
            from airflow.utils.db import initdb

            initdb()
        emulator.create_role(emulator.service_principal)
        with _connections(emulator, pytestconfig), pytest.MonkeyPatch.context() as environment:
            for name, value in no_proxy(os.environ).items():
                environment.setenv(name, value)
            yield emulator
    finally:
        emulator.stop()


@pytest.fixture
def lakebase(request: pytest.FixtureRequest, lakebase_emulator: LakebaseEmulator) -> LakebaseEmulator:
    """Return the emulator as it was when it started: awake and enabled, without faults. Data of earlier tests remain.

    The marker ``lakebase`` changes this: ``@pytest.mark.lakebase(asleep=True, wake_seconds=2)``.
    """
    lakebase_emulator.reset()
    settings = _marked(request.node)
    asleep = settings.pop("asleep", False)
    for name, value in settings.items():
        setattr(lakebase_emulator, name, value)
    if asleep and "lakebase_branch" not in request.fixturenames:
        lakebase_emulator.suspend()
    return lakebase_emulator


@pytest.fixture
def lakebase_branch(
    request: pytest.FixtureRequest, pytestconfig: pytest.Config, lakebase: LakebaseEmulator
) -> Iterator[str]:
    """Return the name of a branch that only this test uses: a copy of ``production``, deleted after the test.

    In the meantime its endpoint is the emulator's first: Airflow's connections lead to it, and ``lakebase.suspend()``
    suspends it.
    """
    branch = lakebase.create_branch()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lakebase, "endpoint", f"{branch}/endpoints/primary")
            if _marked(request.node).get("asleep"):
                lakebase.suspend()
            with _connections(lakebase, pytestconfig):
                yield branch
    finally:
        # Not by the API: the test may have deleted, protected or branched it, or left faults for operations.
        lakebase._state.branches.purge_tree(branch)


@pytest.fixture
def lakebase_connection(request: pytest.FixtureRequest, lakebase: LakebaseEmulator) -> str:
    """Return the service principal's Airflow connection as JSON, as ``Connection.from_json`` takes it."""
    if "lakebase_branch" in request.fixturenames:
        request.getfixturevalue("lakebase_branch")
    return lakebase.connection(lakebase.service_principal)


@pytest.fixture(autouse=True)
def _lakebase_marker(request: pytest.FixtureRequest) -> None:
    """Give a marked test the emulator, also if it does not name the fixture."""
    if request.node.get_closest_marker("lakebase"):
        _marked(request.node)  # before the emulator starts
        request.getfixturevalue("lakebase")


@contextlib.contextmanager
def _connections(emulator: LakebaseEmulator, config: pytest.Config) -> Iterator[None]:
    """Set the connections of the emulator's endpoint in the environment, where Airflow looks for them."""
    with pytest.MonkeyPatch.context() as environment:
        for name, value in airflow_connections(emulator, config.getini("lakebase_conn_ids")).items():
            environment.setenv(name, value)
        yield


def _chosen(config: pytest.Config) -> dict[str, Any]:
    """Return the options that were given; the command line wins over the configuration file."""
    chosen = {}
    for name, (kind, _) in _OPTIONS.items():
        value = config.getoption(f"lakebase_{name}")
        written = config.getini(f"lakebase_{name}")
        if value is None and written:
            try:
                value = kind(written)
            except ValueError:
                raise pytest.UsageError(f"lakebase_{name} must be a number, not {written!r}") from None
        if value is not None:
            chosen[name] = value
    return chosen


def _marked(item: pytest.Item) -> dict[str, Any]:
    """Return the arguments of an item's markers; the closest one wins."""
    settings: dict[str, Any] = {}
    for marker in item.iter_markers("lakebase"):
        unknown = [*map(repr, marker.args), *(name for name in marker.kwargs if name not in _MARKER_ARGUMENTS)]
        if unknown:
            known = ", ".join(_MARKER_ARGUMENTS)
            pytest.fail(f"the marker lakebase takes {known} by name, not {', '.join(unknown)}", pytrace=False)
        settings = {**marker.kwargs, **settings}
    return settings
