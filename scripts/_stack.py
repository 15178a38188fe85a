"""A whole Airflow on loopback, for the demo and tests: start and stop its processes, read its database."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

AIRFLOW = Path(sys.executable).with_name("airflow")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Stack:
    """The scheduler, the triggerer and the other processes that a version of Airflow needs to run DAGs.

    :param home: an empty directory
    :param variables: added to the environment: connections
    :param dags: folder of DAGs; by default an empty one
    :param login: user and password of the web UI; by default everyone is an administrator without login
    """

    def __init__(
        self,
        home: Path,
        variables: Mapping[str, str],
        dags: Path | None = None,
        login: tuple[str, str] | None = None,
    ) -> None:
        self.home = home
        self.dags = dags or home / "dags"
        home.mkdir(parents=True, exist_ok=True)
        self.dags.mkdir(exist_ok=True)
        self.port = free_port()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.url = f"http://127.0.0.1:{self.port}"
        settings = {
            "CORE__DAGS_FOLDER": str(self.dags),
            "CORE__LOAD_EXAMPLES": "False",
            "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "CORE__PARALLELISM": "4",
            "CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": str(login is None),
            "CORE__TEST_CONNECTION": "Enabled",
            "CORE__EXECUTOR": "LocalExecutor" if AIRFLOW_V_3_0_PLUS else "SequentialExecutor",
            "API__BASE_URL": self.url,
            "API__SECRET_KEY": secrets.token_hex(16),
            "API_AUTH__JWT_SECRET": secrets.token_hex(32),
            "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
            "SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
            # A file that is new or changed is parsed within seconds; the others need not be parsed again and again.
            "SCHEDULER__MIN_FILE_PROCESS_INTERVAL": "600",
            "SCHEDULER__DAG_DIR_LIST_INTERVAL": "5",
            "DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
            "TRIGGERER__JOB_HEARTBEAT_SEC": "1",
            "TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "4",
            # On a busy machine a call may time out although it succeeded; its retry is then refused.
            "WORKERS__EXECUTION_API_TIMEOUT": "30",
        }
        if login is not None:
            passwords = write_secrets(home / "passwords.json", dict([login]))
            settings["CORE__SIMPLE_AUTH_MANAGER_USERS"] = f"{login[0]}:admin"
            settings["CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"] = str(passwords)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")},
            **{f"AIRFLOW__{name}": value for name, value in settings.items()},
            **variables,
            "AIRFLOW_HOME": str(home),
            "PATH": f"{AIRFLOW.parent}{os.pathsep}{os.environ['PATH']}",
        }

    def start(self) -> None:
        self.command("db", "migrate")
        if AIRFLOW_V_3_0_PLUS:
            self.run("api-server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1")
            self.run("dag-processor")
            wait_until(self.answers, 240, "the API server did not answer")
        self.run("scheduler", "--skip-serve-logs")
        self.start_triggerer()

    def start_triggerer(self) -> None:
        self.run("triggerer", "--skip-serve-logs")

    def run(self, command: str, *arguments: str) -> None:
        with (self.home / f"{command}.log").open("ab") as log:
            self.processes[command] = subprocess.Popen(
                [AIRFLOW, command, *arguments],
                env=self.environment,
                cwd=self.home,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def command(self, *arguments: str) -> None:
        subprocess.run([AIRFLOW, *arguments], env=self.environment, check=True, capture_output=True, cwd=self.home)

    def import_connections(self, connections: Mapping[str, str]) -> None:
        """Add connections to the database, so that the web UI shows them."""
        fields = {conn_id: json.loads(connection) for conn_id, connection in connections.items()}
        file = write_secrets(self.home / "connections.json", fields)
        self.command("connections", "import", str(file))
        file.unlink()

    def ended(self) -> str | None:
        """Return the name of a process that has ended by itself, or None."""
        return next((name for name, process in self.processes.items() if process.poll() is not None), None)

    def answers(self) -> bool:
        with suppress(OSError):
            return bool(urllib.request.urlopen(f"{self.url}/api/v2/version", timeout=2).status == 200)
        return False

    def kill_triggerer(self) -> None:
        """Kill a process and its children at once, as a power failure would."""
        process = self.processes.pop("triggerer")
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                pass
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def query(self, sql: str, *parameters: Any) -> list[Any]:
        path = f"file:{self.home}/airflow.db?mode=ro"
        for _ in range(50):
            try:
                with closing(sqlite3.connect(path, uri=True, timeout=10)) as connection:
                    return connection.execute(sql, parameters).fetchall()
            except sqlite3.OperationalError:  # locked
                time.sleep(0.1)
        raise AssertionError("the metadata database stayed locked")

    def states(self, dag_id: str) -> dict[str, str]:
        return dict(self.query("SELECT task_id, coalesce(state, '') FROM task_instance WHERE dag_id = ?", dag_id))

    def runs(self, dag_id: str) -> list[str]:
        return [state for (state,) in self.query("SELECT state FROM dag_run WHERE dag_id = ?", dag_id)]

    def logs(self) -> str:
        files = [*self.home.glob("*.log"), *(self.home / "logs").rglob("*.log")]
        return "\n".join(f"── {file.relative_to(self.home)}\n{file.read_text(errors='replace')}" for file in files)


def write_secrets(file: Path, content: dict[str, Any]) -> Path:
    """Write a JSON file that is never readable by other users."""
    file.touch(mode=0o600)
    file.write_text(json.dumps(content))
    return file


def wait_until(condition: Callable[[], bool], seconds: float, what: str = "it did not happen in time") -> None:
    started_at = time.monotonic()
    while not condition():
        assert time.monotonic() - started_at < seconds, what
        time.sleep(0.1)
