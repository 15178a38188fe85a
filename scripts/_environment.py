"""Make the Python environments that the scripts beside this file run in. Standard library only."""

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
# A copy of the tests has a link to those of the clone.
ENVIRONMENTS = (REPOSITORY / ".environments").resolve()
DEFAULT_AIRFLOW = "3.3"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def requirements(airflow: str = DEFAULT_AIRFLOW) -> Path:
    """Return the file of exact versions for a version of Airflow, or for the ``lowest`` of all that is required."""
    if airflow == DEFAULT_AIRFLOW:
        return REPOSITORY / "requirements.txt"
    return REPOSITORY / f"requirements-{'' if airflow == 'lowest' else 'airflow-'}{airflow}.txt"


def prepare(airflow: str = DEFAULT_AIRFLOW, python: str = PYTHON, wheel: Path | None = None) -> Path:
    """Return the Python of an environment with the provider and all that its tests need, installed if it is not yet.

    :param airflow: version of Airflow, ``major.minor``, or ``lowest``
    :param python: version of Python, ``major.minor``
    :param wheel: the provider; default: the sources as they are, changes included
    """
    if sys.version_info < (3, 11):  # noqa: UP036 - whoever runs the script may have an older one
        sys.exit(f"Python 3.11 or newer is needed; this is {PYTHON} ({sys.executable}).")
    versions = requirements(airflow)
    if not versions.exists():
        sys.exit(f"There are no versions for Airflow {airflow}: {versions.name} is missing.")
    name = f"airflow-{airflow}-python-{python}"
    what = f"Airflow {airflow} and the provider"
    if wheel is None:
        return _install(ENVIRONMENTS / name, versions, what, "--no-deps", "--editable", REPOSITORY, version=python)
    installed = _install(ENVIRONMENTS / f"wheel-{name}", versions, what, version=python)
    # Of the same name and version, a wheel may have other contents.
    _run(uv(), "pip", "install", "--quiet", "--python", installed, "--no-deps", "--reinstall", wheel)
    return installed


def prepare_dbt() -> Path:
    """Return the Python of an environment with dbt, psql and pg_dump but no Airflow, installed if it is not yet."""
    return _install(ENVIRONMENTS / f"dbt-python-{PYTHON}", REPOSITORY / "requirements-dbt.txt", "dbt, psql and pg_dump")


def prepare_build() -> Path:
    """Return the Python of an environment with what makes and checks a release, installed if it is not yet."""
    return _install(ENVIRONMENTS / f"build-python-{PYTHON}", REPOSITORY / "requirements-build.txt", "build and twine")


def _install(home: Path, versions: Path, what: str, *more: str | Path, version: str = PYTHON) -> Path:
    stamp = home / "installed"
    # An environment knows where it lies: in a clone that was moved it is made anew.
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
        sys.exit(f"Python {version} is missing: it is neither under {root}, nor on PATH, nor among uv's.")
    return Path(found.stdout.strip())


@contextmanager
def _alone() -> Iterator[None]:
    """Let one script at a time install."""
    ENVIRONMENTS.mkdir(exist_ok=True)
    with (ENVIRONMENTS / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def uv() -> Path:
    """Return the path of uv in the pinned version, which comes from PyPI like the rest."""
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
    """Return the variables to run in an environment: its programs first, none of the caller's Python settings."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AIRFLOW", "PYTHON", "VIRTUAL_ENV", "PG", "DATABRICKS_"))
    }
    return {**kept, "PATH": f"{python.parent}{os.pathsep}{kept.get('PATH', os.defpath)}"}


def _run(*command: str | Path) -> None:
    # Behind a proxy of one's own, only the system knows its certificate authority.
    kept = {name: value for name, value in os.environ.items() if name not in ("PIP_USER", "PIP_TARGET", "PIP_PREFIX")}
    result = subprocess.run(command, cwd=REPOSITORY, env={**kept, "UV_SYSTEM_CERTS": "true"})
    if result.returncode:
        sys.exit(f"{Path(command[0]).name} failed with exit code {result.returncode}.")
