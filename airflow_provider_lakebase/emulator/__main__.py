"""``python -m airflow_provider_lakebase.emulator``: run the emulator until SIGINT or SIGTERM."""

from __future__ import annotations

import argparse
import signal
import sys
import threading

from airflow_provider_lakebase.emulator import LakebaseEmulator


def main() -> int:
    """Run the emulator; return 0 after SIGINT or SIGTERM, 1 if it cannot start."""
    arguments = _parse()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    emulator = LakebaseEmulator(
        wake_seconds=arguments.wake_seconds, suspend_timeout=arguments.suspend_timeout, asleep=arguments.asleep
    )
    try:
        emulator.start()
    except (RuntimeError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    try:
        print(_greeting(emulator), flush=True)
        stop.wait()
    finally:
        emulator.stop()
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_lakebase.emulator",
        description="Run an emulator of a Databricks workspace with one Lakebase project on this machine.",
    )
    parser.add_argument("--wake-seconds", type=float, default=0.5, metavar="S", help="seconds that a wake takes (0.5)")
    parser.add_argument(
        "--suspend-timeout", type=float, default=300.0, metavar="S", help="seconds of idle time until a suspend (300)"
    )
    parser.add_argument("--asleep", action="store_true", help="start with the endpoint suspended")
    return parser.parse_args()


def _greeting(emulator: LakebaseEmulator) -> str:
    exports = (f"export AIRFLOW_CONN_{name.upper()}='{value}'" for name, value in emulator.connections.items())
    return "\n".join(
        [
            f"# Lakebase emulator: workspace API {emulator.workspace_url}, Postgres localhost:{emulator.port}.",
            "# lakebase_admin owns the database; lakebase_default has no Postgres role yet: create it first.",
            "# Stop it with Ctrl-C; it removes all its files.",
            *exports,
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
