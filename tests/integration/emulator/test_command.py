"""The command ``lakebase-emulator``: what it prints, and what it runs."""

from __future__ import annotations

import inspect
import json
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from airflow_provider_lakebase.emulator import LakebaseEmulator
from airflow_provider_lakebase.emulator import __main__ as command

COMMAND = str(Path(sysconfig.get_path("scripts"), "lakebase-emulator"))
SIGN_IN = """
import os
import psycopg
from databricks.sdk import WorkspaceClient
token = WorkspaceClient().postgres.generate_database_credential(os.environ["LAKEBASE_ENDPOINT"]).token
print(psycopg.connect(password=token).execute("SELECT current_user").fetchone()[0] == os.environ["PGUSER"])
"""


def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "DATABRICKS_"))}
    return subprocess.run(
        [COMMAND, *arguments], capture_output=True, text=True, timeout=240, env={**inherited, "NO_PROXY": "", **more}
    )


@contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([COMMAND, *arguments], stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=120)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def test_a_command_gets_the_variables_and_gives_its_exit_code():
    result = run("--", sys.executable, "-c", f"{SIGN_IN}\nraise SystemExit(7)")
    assert (result.stdout, result.returncode) == ("True\n", 7)
    assert result.stderr.startswith("# Lakebase emulator: workspace and page http://127.0.0.1:")


def test_by_https_clients_that_check_certificates_find_their_authority():
    check = "import requests; print(requests.get(os.environ['DATABRICKS_HOST'] + '/.well-known/databricks-config').url)"
    result = run("--https", "--quiet", "--", sys.executable, "-c", f"{SIGN_IN}\n{check}")
    assert result.stdout.startswith("True\nhttps://127.0.0.1:"), result.stderr
    assert (result.stderr, result.returncode) == ("", 0)


def test_a_command_that_does_not_exist():
    result = run("--quiet", "--", "no-such-command")
    assert (result.stderr, result.returncode) == ("lakebase-emulator: no-such-command: command not found\n", 127)


def test_sigterm_ends_the_command_and_gives_the_exit_code_of_a_shell(tmp_path: Path):
    started = tmp_path / "started"
    with running("--quiet", "--", "sh", "-c", f"touch {started}; exec sleep 60") as process:
        while not started.exists():
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM


def test_it_prints_where_it_is_and_listens_on_the_ports_that_were_asked_for():
    port, workspace_port = free_port(), free_port()
    with running("--format", "json", "--port", str(port), "--workspace-port", str(workspace_port)) as process:
        assert process.stdout
        lines = []
        while "}\n" not in lines:
            lines.append(process.stdout.readline())
        found = json.loads("".join(lines))
        assert (found["PGPORT"], found["DATABRICKS_HOST"]) == (str(port), f"http://127.0.0.1:{workspace_port}")
        connection = json.loads(found["AIRFLOW_CONN_LAKEBASE_DEFAULT"])
        assert (connection["port"], connection["login"]) == (port, found["PGUSER"])
        assert Path(found["PGSSLROOTCERT"]).read_text().startswith("-----BEGIN CERTIFICATE-----")
        assert "PGPASSWORD" not in found
        for number in (port, workspace_port):
            socket.create_connection(("127.0.0.1", number)).close()


@pytest.mark.parametrize("option", ["--port", "--workspace-port"])
def test_a_port_in_use_is_named(option: str):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run(option, str(port))
    argument = option[2:].replace("-", "_")
    said = (
        f"lakebase-emulator: {argument}={port}: this port of 127.0.0.1 is in use; choose another, or 0 for a free one\n"
    )
    assert (result.stderr, result.returncode) == (said, 1)


def test_the_options_are_the_arguments_of_the_class():
    result = run("--help")
    for name in inspect.signature(LakebaseEmulator).parameters:
        assert (f"--{name.replace('_', '-')}" in result.stdout) == (name != "clock")


def test_it_is_also_a_module():
    module = [sys.executable, "-m", "airflow_provider_lakebase.emulator", "--help"]
    assert subprocess.run(module, capture_output=True, text=True).stdout == run("--help").stdout


def test_sigterm_that_comes_while_the_command_starts_ends_it_too(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(command, "variables", lambda *_: {})
    stop, before = threading.Event(), signal.getsignal(signal.SIGTERM)
    stop.set()
    try:
        assert command._run(["sleep", "30"], LakebaseEmulator(), stop, quiet=True) == 128 + signal.SIGTERM
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("runs_a_command", [True, False])
def test_sigterm_ends_it_whatever_thread_receives_it(monkeypatch: pytest.MonkeyPatch, runs_a_command: bool):
    def receive() -> None:
        time.sleep(0.3)  # until the main thread waits
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    monkeypatch.setattr(command, "variables", lambda *_: {})
    monkeypatch.setattr(command, "_printed", lambda *_: "")
    for method in ("start", "stop"):
        monkeypatch.setattr(LakebaseEmulator, method, lambda self: None)
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    begin = time.monotonic()
    threading.Thread(target=receive).start()
    try:
        code = command.main(["--no-role", "--quiet", *(["--", "sleep", "20"] if runs_a_command else [])])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert code == (128 + signal.SIGTERM if runs_a_command else 0)
    assert time.monotonic() - begin < 40


def test_help_has_the_whole_text_of_each_option():
    said = " ".join(command._parser()[0].format_help().split())
    assert "which log filters hide: for tests that search for leaks --port N" in said
