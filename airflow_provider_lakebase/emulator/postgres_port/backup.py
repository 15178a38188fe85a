"""Base backups: make them, and start a server from one, up to a moment or a log sequence number.

A base backup is one tar file, since it costs far more to create and remove a thousand files than to write their bytes.
"""

from __future__ import annotations

import json
import shlex
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from airflow_provider_lakebase.emulator.postgres_port.keeper import Keeper
from airflow_provider_lakebase.emulator.postgres_port.server_process import ServerProcess

# GNU tar ends with 1 if a file vanished or changed while it was read; the log of changes makes up for that.
_ARCHIVE = """
tar -C {data} -c -f {archive} --exclude=./postmaster.pid --exclude=./postmaster.opts --exclude='./pg_wal/*'
--warning=no-file-changed --warning=no-file-removed --warning=no-file-ignored . || [ $? = 1 ]
"""


#: The file in a cluster's folder that tells where its history begins. Only a complete cluster has it.
BASE = "base.json"


@dataclass(frozen=True)
class BaseBackup:
    """Where the history of a cluster begins.

    :param lsn: the log sequence number at its end
    :param real: its end in seconds since 1970, in real time
    :param first_segment: the oldest WAL file that is needed to recover from it
    """

    lsn: int
    real: float
    first_segment: str


def read_base(folder: Path) -> BaseBackup | None:
    """Return where the history of the cluster in a folder begins; None if it is not complete."""
    file = folder / BASE
    return BaseBackup(**json.loads(file.read_text())) if file.exists() else None


def write_base(folder: Path, base: BaseBackup) -> None:
    """Write where the history of the cluster in a folder begins."""
    draft = folder / f"{BASE}.new"
    draft.write_text(json.dumps(asdict(base)))
    draft.replace(folder / BASE)


def parse_lsn(lsn: str) -> int:
    """Return a log sequence number such as ``0/16B3748`` as an integer; raise ``ValueError`` if it is none."""
    high, _, low = lsn.partition("/")
    return (int(high, 16) << 32) + int(low, 16)


def format_lsn(lsn: int) -> str:
    """Return a log sequence number in PostgreSQL's form."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def archive_stopped(data: Path, archive: Path, keeper: Keeper, log: Path) -> None:
    """Make a base backup of files that no server uses."""
    keeper.run(f"tar -C {quote(data)} -c -f {quote(archive)} .", log)


def extract(archive: Path, data: Path, keeper: Keeper, log: Path) -> None:
    """Create the files of a cluster from a base backup."""
    draft = quote(data.with_name("data.new"))
    unpack = f"mkdir -m 700 {draft} && tar -C {draft} -x -p -f {quote(archive)}"
    # Renamed at the end: a process may be killed while it unpacks, and the files of a data directory are used again.
    keeper.run(f"rm -rf {draft} && {unpack} && mv {draft} {quote(data)}", log)


def copy_archive(archive: Path, copy: Path, keeper: Keeper, log: Path) -> None:
    """Copy a base backup."""
    keeper.run(f"cp --reflink=auto {quote(archive)} {quote(copy)}", log)


def back_up(server: ServerProcess, archive: Path, keeper: Keeper) -> BaseBackup:
    """Make a base backup of a running server, with the WAL that makes it complete."""
    label_file, log = server.run / "backup_label", server.run / "log"
    with server.connect() as session:
        (started,) = session.execute("SELECT pg_walfile_name(pg_backup_start('lakebase', true))").fetchone() or ("",)
        command = _ARCHIVE.format(data=quote(server.data), archive=quote(archive))
        keeper.run(command.replace("\n", " ").strip(), log)
        stopped, label, segment = session.execute(
            "SELECT lsn::text, labelfile, pg_walfile_name(lsn) FROM pg_backup_stop(false)"
        ).fetchone() or ("0/0", "", "")
    label_file.write_text(label)
    keeper.give(label_file)
    segments = " ".join(f"./pg_wal/{each}" for each in _segments(server.data) if started <= each <= segment)
    # Most of the last segment is zeros.
    more = f"tar -r -S --hole-detection=raw -f {quote(archive)}"
    keeper.run(f"{more} -C {quote(label_file.parent)} ./backup_label -C {quote(server.data)} {segments}", log)
    return BaseBackup(parse_lsn(stopped), time.time(), started)


def remove_wal_before(segment: str, data: Path) -> None:
    """Remove the WAL files older than a segment."""
    for each in _segments(data):
        if each[8:] < segment[8:]:
            (data / "pg_wal" / each).unlink(missing_ok=True)


def wal_size(data: Path) -> int:
    """Return the size of the WAL that a cluster keeps, in bytes."""
    return sum((data / "pg_wal" / each).stat().st_size for each in _segments(data))


def recover(server: ServerProcess, wal: Path, keeper: Keeper, *, real: float | None, lsn: int | None) -> None:
    """Start a server on a copied base backup with the WAL in a folder, up to a real time or a log sequence number."""
    target = {}
    if lsn is not None:
        target = {"recovery_target_lsn": format_lsn(lsn), "recovery_target_inclusive": "off"}
    elif real is not None:
        target = {"recovery_target_time": datetime.fromtimestamp(real, UTC).isoformat()}
    signal = server.data / "recovery.signal"
    signal.touch()
    keeper.give(signal)
    server.start(
        restore_command=f'cp --reflink=auto "{wal}/%f" "%p"',
        recovery_target_action="promote",
        recovery_target_timeline="current",
        # Without it, a server accepts connections only when it has been promoted.
        hot_standby="off",
        **target,
    )


def quote(path: Path) -> str:
    """Return a path as a word of a shell command."""
    return shlex.quote(str(path))


def _segments(data: Path) -> list[str]:
    return sorted(each.name for each in (data / "pg_wal").iterdir() if len(each.name) == 24)
