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
ENVIRONMENTS = REPOSITORY / ".environments"
DEFAULT_AIRFLOW = "3.3"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def requirements(airflow: str = DEFAULT_AIRFLOW) -> Path:
    """Return the file of exact versions for a version of Airflow."""
    return REPOSITORY / ("requirements.txt" if airflow == DEFAULT_AIRFLOW else f"requirements-airflow-{airflow}.txt")


def prepare(airflow: str = DEFAULT_AIRFLOW) -> Path:
    """Return the Python of an environment with the provider and all that its tests need, installed if it is not yet.

    :param airflow: version of Airflow, ``major.minor``
    """
    if sys.version_info < (3, 11):  # noqa: UP036 - whoever runs the script may have an older one
        sys.exit(f"Python 3.11 or newer is needed; this is {PYTHON} ({sys.executable}).")
    versions = requirements(airflow)
    if not versions.exists():
        sys.exit(f"There are no versions for Airflow {airflow}: {versions.name} is missing.")
    home = ENVIRONMENTS / f"airflow-{airflow}-python-{PYTHON}"
    return _install(home, versions, f"Airflow {airflow} and the provider", "--no-deps", "--editable", REPOSITORY)


def prepare_dbt() -> Path:
    """Return the Python of an environment with dbt, psql and pg_dump but no Airflow, installed if it is not yet."""
    return _install(ENVIRONMENTS / f"dbt-python-{PYTHON}", REPOSITORY / "requirements-dbt.txt", "dbt, psql and pg_dump")


def _install(home: Path, versions: Path, what: str, *more: str | Path) -> Path:
    stamp = home / "installed"
    # An environment knows where it lies: in a clone that was moved it is made anew.
    contents = (versions.read_bytes(), (REPOSITORY / "pyproject.toml").read_bytes(), str(home).encode())
    wanted = hashlib.sha256(b"".join(contents)).hexdigest()
    python = home / "bin" / "python"
    with _alone():
        if stamp.exists() and stamp.read_text() == wanted and python.exists():
            return python
        print(f"Installing {what} into {home.relative_to(REPOSITORY)} …", flush=True)
        shutil.rmtree(home, ignore_errors=True)
        tool = uv()
        _run(tool, "venv", "--quiet", "--python", sys.executable, home)
        _run(tool, "pip", "install", "--quiet", "--python", python, "--requirements", versions)
        if more:
            _run(tool, "pip", "install", "--quiet", "--python", python, *more)
        stamp.write_text(wanted)
        return python


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
