"""An Airflow that runs the example DAGs on the emulator, and searches what it writes for secrets."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _demo as demo
import pytest
from _openlineage import read_events, transport

from airflow_provider_lakebase.core.grants.request import RoleRequest
from airflow_provider_lakebase.emulator import LakebaseEmulator
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook

# At DEBUG, `airflow dags test` prints whatever Airflow is asked to mask, its connections' passwords first of all.
AIRFLOWS_OWN = re.compile(rb"(?m)^.* Sending request .* msg=MaskSecret\(.*\n")
# Logs say the same again and again: to search each of their words once takes a hundredth of the time.
WORD = re.compile(rb"[\w.~+/=-]{16,}")


def pieces(secret: str) -> list[bytes]:
    """Return the pieces one of which is in every 24 bytes of the secret."""
    return [secret[start : start + 16].encode() for start in range(0, len(secret) - 15, 8)]


def leaks(folder: Path, secrets: list[str]) -> list[str]:
    """Return the files that hold a piece of a secret."""
    assert all(WORD.fullmatch(secret.encode()) for secret in secrets)
    searched = [piece for secret in secrets for piece in pieces(secret)]
    words = {path: set(WORD.findall(AIRFLOWS_OWN.sub(b"", path.read_bytes()))) for path in files(folder)}
    contents = {str(path): b"\n".join(found) for path, found in words.items()}
    return [path for path, content in contents.items() if any(piece in content for piece in searched)]


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def task_states(home: Path, dag_id: str) -> list[tuple[str, int]]:
    with closing(sqlite3.connect(home / "airflow.db")) as database:
        query = "SELECT state, count(*) FROM task_instance WHERE dag_id = ? GROUP BY state"
        return database.execute(query, [dag_id]).fetchall()


def run(variables: dict[str, str], log: Path, *arguments: str) -> None:
    process = demo.run_airflow(variables, log, *arguments)
    assert process.wait(200) == 0, log.read_text()[-3000:]


# Airflow takes seconds to start, so one process runs many of its commands; it answers each with its exit code.
COMMANDS = """
import json, os, sys

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
from airflow.__main__ import main


def forget_lineage():
    # Airflow collects what hooks read and write as if a process ran one task: a later one would report it again.
    try:
        from airflow.sdk.lineage import get_hook_lineage_collector
    except ImportError:  # before Airflow 3.2
        from airflow.lineage import hook

        hook._hook_lineage_collector = None
    else:
        get_hook_lineage_collector.cache_clear()


for line in sys.stdin:
    forget_lineage()
    arguments, variables = json.loads(line)
    os.environ.update(variables)
    sys.argv = ["airflow", *arguments]
    code = 0
    try:
        main()
    except SystemExit as error:
        code = error.code
    for name in variables:
        del os.environ[name]
    sys.stdout.flush()
    print(code, file=answers, flush=True)
"""


SUCCESS = ("0\n", "None\n")
ERROR_LINE = re.compile(r"\[(?:error|critical) *\]|\} (?:ERROR|CRITICAL) -|^(?:ERROR|CRITICAL)\b")


@dataclass(frozen=True)
class Examples:
    """An Airflow that runs the example DAGs on an emulator where the service principal has its role."""

    home: Path
    emulator: LakebaseEmulator
    airflow: subprocess.Popen[str]
    hook: LakebaseHook

    def run(self, dag_id: str, **params: str) -> list[dict[str, Any]]:
        """Run a DAG; every one of its tasks succeeds, and its OpenLineage events, which are returned, are valid."""
        return self.run_with({}, dag_id, **params)

    def run_with(self, variables: dict[str, str], dag_id: str, **params: str) -> list[dict[str, Any]]:
        """Run a DAG as :meth:`run` does, with more variables in Airflow's environment."""
        events = self.home / "lineage.jsonl"
        events.unlink(missing_ok=True)
        answer = self.answer("dags", "test", dag_id, "--conf", json.dumps(params), **variables)
        assert answer in SUCCESS, self.log()[-3000:]
        # A task that succeeds logs no error, whoever writes it.
        assert [line for line in self.log().splitlines() if ERROR_LINE.search(line)] == []
        assert {state for state, _ in task_states(self.home, dag_id)} == {"success"}
        assert leaks(self.home, self.emulator.secrets) == []
        return read_events(events)

    def run_to_its_end(self, dag_id: str, *, is_red: bool, **params: str) -> dict[str, str]:
        """Run a DAG not all of whose tasks succeed; return the states of the run's tasks."""
        answer = self.answer("dags", "test", dag_id, "--conf", json.dumps(params))
        assert (answer in SUCCESS) is not is_red, answer
        assert leaks(self.home, self.emulator.secrets) == []
        with closing(sqlite3.connect(self.home / "airflow.db")) as database:
            last = "SELECT run_id, state FROM dag_run WHERE dag_id = ? ORDER BY id DESC LIMIT 1"
            run_id, state = database.execute(last, [dag_id]).fetchone()
            query = "SELECT task_id, state FROM task_instance WHERE dag_id = ? AND run_id = ?"
            found = dict(database.execute(query, [dag_id, run_id]).fetchall())
        assert state == ("failed" if is_red else "success")
        return found

    def command(self, *arguments: str) -> None:
        """Run a command of Airflow."""
        assert self.answer(*arguments) in SUCCESS, self.log()[-3000:]

    def answer(self, *arguments: str, **variables: str) -> str:
        """Run a command of Airflow, and return its exit code or the error with which it ended."""
        assert self.airflow.stdin
        assert self.airflow.stdout
        # What was searched for secrets need not be searched again.
        os.truncate(self.home / "dags.log", 0)
        print(json.dumps([arguments, variables]), file=self.airflow.stdin, flush=True)
        return self.airflow.stdout.readline()

    def log(self) -> str:
        """Return what the last command has written."""
        return (self.home / "dags.log").read_text(errors="replace")

    def results(self, dag_id: str, task_id: str) -> list[Any]:
        """Return what a task has returned, in all runs so far and for all map indexes."""
        with closing(sqlite3.connect(self.home / "airflow.db")) as database:
            query = "SELECT CAST(value AS TEXT) FROM xcom WHERE key = 'return_value' AND dag_id = ? AND task_id = ?"
            return [json.loads(value) for (value,) in database.execute(query, [dag_id, task_id])]


@contextmanager
def start_examples(home: Path, source_database: Path) -> Iterator[Examples]:
    """Start the emulator, and an Airflow for the example DAGs.

    :param home: its folder
    :param source_database: file of the database that examples read
    """
    source = {"conn_type": "sqlite", "host": str(source_database)}
    with (
        LakebaseEmulator(asleep=True, opaque_credentials=True) as emulator,
        pytest.MonkeyPatch.context() as environment,
    ):
        environment.setenv("AIRFLOW_CONN_EXAMPLES_ADMIN", emulator.connections["lakebase_admin"])
        environment.setenv("AIRFLOW_CONN_EXAMPLES", emulator.connections["lakebase_default"])
        role = RoleRequest(emulator.service_principal.client_id, create_on_database=True)
        LakebaseHook("examples_admin").bootstrap_role(role)
        principals = {name: emulator.add_principal(name) for name in ("lakebase_owner", "lakebase_reader")}
        connections = {name: emulator.connection(each) for name, each in principals.items()}
        variables = {
            **demo.airflow_variables(home, {**emulator.connections, **connections}),
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG",
            "AIRFLOW_CONN_SOURCE_DATABASE": json.dumps(source),
            "LAKEBASE_WORKSPACE": emulator.workspace_url.removeprefix("http://"),
            **transport(home / "lineage.jsonl"),
        }
        run(variables, home / "migrate.log", "db", "migrate")
        command = [sys.executable, "-c", COMMANDS]
        pipe = subprocess.PIPE
        with (
            (home / "dags.log").open("a") as log,
            subprocess.Popen(command, env=variables, stdin=pipe, stdout=pipe, stderr=log, text=True) as airflow,
        ):
            yield Examples(home, emulator, airflow, LakebaseHook("examples"))
