"""Create the Python environments of the scripts in this folder. Standard library only."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
# In a copy of the tests this is a link to the environments of the clone.
ENVIRONMENTS = (REPOSITORY / ".environments").resolve()
DEFAULT_AIRFLOW = "3.3"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def requirements(airflow: str = DEFAULT_AIRFLOW) -> Path:
    """Return the requirements file for a version of Airflow.

    :param airflow: ``major.minor``; ``lowest`` for the lowest version of everything; ``dagster-dbt`` for the default
        version with Dagster, Cosmos and dbt
    """
    if airflow == DEFAULT_AIRFLOW:
        return REPOSITORY / "requirements.txt"
    return REPOSITORY / f"requirements-{'airflow-' if airflow[0].isdigit() else ''}{airflow}.txt"


def prepare(airflow: str = DEFAULT_AIRFLOW, python: str = PYTHON, wheel: Path | None = None) -> Path:
    """Return the Python of an environment with the provider and its tests' requirements; install it if needed.

    :param airflow: version of Airflow, or what :func:`requirements` takes in its place
    :param python: version of Python, ``major.minor``
    :param wheel: the provider to install; by default the sources, in editable mode
    """
    if sys.version_info < (3, 11):  # noqa: UP036 - the script may run on an older one
        sys.exit(f"Python 3.11 or newer is needed; this is {PYTHON} ({sys.executable}).")
    versions = requirements(airflow)
    if not versions.exists():
        sys.exit(f"Airflow {airflow} is not supported: {versions.name} does not exist.")
    name = f"airflow-{airflow}-python-{python}"
    what = f"Airflow {airflow} and the provider"
    if wheel is None:
        return _install(ENVIRONMENTS / name, versions, what, "--no-deps", "--editable", REPOSITORY, version=python)
    installed = _install(ENVIRONMENTS / f"wheel-{name}", versions, what, version=python)
    # Reinstall: a wheel of the same name and version may have changed.
    _run(uv(), "pip", "install", "--quiet", "--python", installed, "--no-deps", "--reinstall", wheel)
    return installed


def prepare_dbt() -> Path:
    """Return the Python of an environment with dbt, psql and pg_dump but no Airflow; install it if needed."""
    return _install(ENVIRONMENTS / f"dbt-python-{PYTHON}", REPOSITORY / "requirements-dbt.txt", "dbt, psql and pg_dump")


def prepare_clients() -> Path:
    """Return the Python of an environment with other projects' clients of Lakebase; install it if needed."""
    return _install(
        ENVIRONMENTS / f"clients-python-{PYTHON}", REPOSITORY / "requirements-clients.txt", "other projects' clients"
    )


def prepare_node_clients(sources: Path) -> Path:
    """Return a folder with the programs of ``sources`` and the npm packages that they need; install them if needed."""
    home = ENVIRONMENTS / "clients-node"
    npm = shutil.which("npm")
    if npm is None:
        sys.exit("npm was not found on PATH: install Node.js 20 or newer.")
    wanted = (sources / "package-lock.json").read_text()
    stamp = home / "installed"
    with _alone():
        if not (stamp.exists() and stamp.read_text() == wanted):
            print(f"Installing npm packages into {ENVIRONMENTS.name}/{home.name} …", flush=True)
            shutil.rmtree(home, ignore_errors=True)
            home.mkdir()
            for name in ("package.json", "package-lock.json"):
                shutil.copy(sources / name, home)
            _run(npm, "ci", "--prefix", home, "--no-audit", "--no-fund", "--loglevel=error")
            stamp.write_text(wanted)
        for program in sources.glob("*.mjs"):
            shutil.copy(program, home)
    return home


def prepare_build() -> Path:
    """Return the Python of an environment with the build tools; install it if needed."""
    return _install(ENVIRONMENTS / f"build-python-{PYTHON}", REPOSITORY / "requirements-build.txt", "build and twine")


def _install(home: Path, versions: Path, what: str, *more: str | Path, version: str = PYTHON) -> Path:
    stamp = home / "installed"
    # Environments contain absolute paths: in a moved clone they are created again.
    contents = (versions.read_bytes(), (REPOSITORY / "pyproject.toml").read_bytes(), str(home).encode())
    wanted = hashlib.sha256(b"".join(contents)).hexdigest()
    python = home / "bin" / "python"
    with _alone():
        if stamp.exists() and stamp.read_text() == wanted and python.exists():
            return python
        print(f"Installing {what} into {ENVIRONMENTS.name}/{home.name} …", flush=True)
        shutil.rmtree(home, ignore_errors=True)
        tool = uv()
        _run(tool, "venv", "--quiet", "--python", find_python(version), home)
        _run(tool, "pip", "install", "--quiet", "--python", python, "--requirements", versions)
        if more:
            _run(tool, "pip", "install", "--quiet", "--python", python, *more)
        stamp.write_text(wanted)
        return python


def find_python(version: str) -> Path:
    """Return an interpreter of a version, ``major.minor``: this one, one of pyenv's, or one that uv finds."""
    if version == PYTHON:
        return Path(sys.executable)
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for python in root.glob(f"versions/{version}.*/bin/python{version}"):
        return python
    command = [uv(), "python", "find", "--no-python-downloads", version]
    found = subprocess.run(command, capture_output=True, text=True)
    if found.returncode:
        sys.exit(f"Python {version} was not found under {root}, on PATH, or among uv's installations.")
    return Path(found.stdout.strip())


@contextmanager
def _alone() -> Iterator[None]:
    """Allow only one script at a time to install."""
    ENVIRONMENTS.mkdir(exist_ok=True)
    with (ENVIRONMENTS / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def uv() -> Path:
    """Return the path of uv in the pinned version; install it from PyPI if needed."""
    home = ENVIRONMENTS / "uv"
    pinned = re.search(r"^uv==\S+", requirements().read_text(), re.MULTILINE) if requirements().exists() else None
    version = pinned[0] if pinned else "uv"
    tool = home / version / "bin" / "uv"
    if not tool.exists():
        print(f"Installing {version} …", flush=True)
        _run(sys.executable, "-m", "venv", home / version)
        _run(
            home / version / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", version
        )
    return tool


def environment(python: Path) -> dict[str, str]:
    """Return variables with this Python's programs first on PATH and without the caller's Python settings."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AIRFLOW", "PYTHON", "VIRTUAL_ENV", "PG", "DATABRICKS_"))
    }
    return {**kept, "PATH": f"{python.parent}{os.pathsep}{kept.get('PATH', os.defpath)}"}


def _run(*command: str | Path) -> None:
    # Use the system's certificates: behind a corporate proxy, only they include its authority.
    kept = {name: value for name, value in os.environ.items() if name not in ("PIP_USER", "PIP_TARGET", "PIP_PREFIX")}
    result = subprocess.run(command, cwd=REPOSITORY, env={**kept, "UV_SYSTEM_CERTS": "true"})
    if result.returncode:
        sys.exit(f"{Path(command[0]).name} failed with exit code {result.returncode}.")
