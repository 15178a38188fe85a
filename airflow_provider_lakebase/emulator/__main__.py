"""The command ``lakebase-emulator``: run the emulator until SIGINT or SIGTERM, or as long as another command runs."""

from __future__ import annotations

import argparse
import contextlib
import inspect
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

from airflow_provider_lakebase.emulator import LakebaseEmulator
from airflow_provider_lakebase.emulator.environment import as_dotenv, as_json, as_shell, variables

_DESCRIPTION = """\
Run an emulator of a Databricks workspace with a Lakebase project on this machine. It prints the environment variables
by which programs find it, and runs until Ctrl-C. With a command after --, it runs that command with these variables,
stops with it and returns its exit code.
"""
_FORMATS: dict[str, Callable[[Mapping[str, str]], str]] = {"shell": as_shell, "dotenv": as_dotenv, "json": as_json}
_METAVARS = {int: "N", float: "SECONDS", str: "PATH"}
_NOT_EXECUTABLE, _NOT_FOUND = 126, 127
# Python handles a signal in the main thread. If another thread receives it, a wait in the main thread does not end.
_STEP_SECONDS = 0.5


def main(arguments: list[str] | None = None) -> int:
    """Run the emulator.

    Return the command's exit code; without a command 0 after SIGINT or SIGTERM, and 1 if it cannot start.
    """
    words = sys.argv[1:] if arguments is None else arguments
    end = words.index("--") if "--" in words else len(words)
    parser, names = _parser()
    options = parser.parse_args(words[:end])
    command = words[end + 1 :]
    if end < len(words) and not command:
        parser.error("there is no command after --")
    if command and shutil.which(command[0]) is None:
        print(f"lakebase-emulator: {command[0]}: command not found", file=sys.stderr)
        return _NOT_FOUND
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    emulator = LakebaseEmulator(**{name: getattr(options, name) for name in names})
    try:
        emulator.start()
    except (RuntimeError, ValueError, OSError) as error:
        print(f"lakebase-emulator: {error}", file=sys.stderr)
        return 1
    try:
        if options.role:
            emulator.create_role(emulator.service_principal)
        if command and not stop.is_set():
            return _run(command, emulator, stop, quiet=options.quiet)
        print(_printed(emulator, options), flush=True)
        while not stop.wait(_STEP_SECONDS):
            pass
    finally:
        emulator.stop()
    return 0


def _parser() -> tuple[argparse.ArgumentParser, list[str]]:
    """Return the parser, and the options that are arguments of ``LakebaseEmulator``."""
    parser = argparse.ArgumentParser(
        prog="lakebase-emulator", usage="%(prog)s [options] [-- command …]", description=_DESCRIPTION
    )
    documented = dict(re.findall(r":param (\w+): (.*(?:\n  .*)*)", inspect.getdoc(LakebaseEmulator) or ""))
    own = [each for each in inspect.signature(LakebaseEmulator).parameters.values() if each.name != "clock"]
    for each in own:
        flag, text = f"--{each.name.replace('_', '-')}", documented.get(each.name, "").replace("``", "")
        if each.default is False:
            parser.add_argument(flag, action="store_true", help=text)
        else:
            kind: Any = str if each.default is None else type(each.default)
            shown = "" if each.default is None else f" (default: {each.default})"
            parser.add_argument(flag, type=kind, default=each.default, metavar=_METAVARS[kind], help=text + shown)
    parser.add_argument("--format", choices=_FORMATS, default="shell", help="form of the output (default: shell)")
    parser.add_argument(
        "--no-role", dest="role", action="store_false", help="do not create the service principal's Postgres role"
    )
    parser.add_argument("--quiet", action="store_true", help="print no comments")
    return parser, [each.name for each in own]


def _printed(emulator: LakebaseEmulator, options: argparse.Namespace) -> str:
    text = _FORMATS[options.format](variables(emulator, os.environ))
    comments = _comments(emulator, has_role=options.role, data_dir=options.data_dir)
    if options.quiet or options.format == "json":
        comments = []
    return "\n".join([*comments, text])


def _comments(emulator: LakebaseEmulator, *, has_role: bool, data_dir: str | None = None) -> list[str]:
    end = "it removes all its files." if data_dir is None else f"what it has stays in {data_dir}."
    role = "has its Postgres role" if has_role else "has no Postgres role yet: create it first"
    return [
        f"# Lakebase emulator: workspace and page {emulator.workspace_url}, Postgres localhost:{emulator.port}.",
        f"# Certificate authority: {emulator.ca_file}",
        f"# lakebase_admin owns the database; lakebase_default, a service principal, {role}.",
        f"# Stop it with Ctrl-C; {end}",
    ]


def _run(command: list[str], emulator: LakebaseEmulator, stop: threading.Event, *, quiet: bool) -> int:
    """Run a command with the variables; return its exit code as a shell would."""
    if not quiet:
        print("\n".join(_comments(emulator, has_role=True)[:1]), file=sys.stderr, flush=True)
    try:
        environment = {**os.environ, **variables(emulator, os.environ)}
        process = subprocess.Popen(command, env=environment)  # noqa: S603 - the user's own command
    except OSError as error:
        print(f"lakebase-emulator: {command[0]}: {error.strerror}", file=sys.stderr)
        return _NOT_EXECUTABLE
    # Ctrl-C reaches the command from the terminal; SIGTERM only reaches this process.
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    if stop.is_set():  # it came before this
        process.terminate()
    while process.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STEP_SECONDS)
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


if __name__ == "__main__":
    sys.exit(main())
