"""All clusters of an emulator, one for each branch and snapshot; implements ``model.data_plane.Clusters``."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import threading
import time
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from airflow_provider_lakebase.emulator.model.clock import ObservedClock
from airflow_provider_lakebase.emulator.model.identities import Principal
from airflow_provider_lakebase.emulator.postgres_port import binaries
from airflow_provider_lakebase.emulator.postgres_port.backup import BASE, BaseBackup, archive_stopped, parse_lsn
from airflow_provider_lakebase.emulator.postgres_port.cluster import Cluster
from airflow_provider_lakebase.emulator.postgres_port.keeper import Keeper, PostgresError
from airflow_provider_lakebase.emulator.postgres_port.roles import create_administrator
from airflow_provider_lakebase.emulator.postgres_port.server_process import (
    DATABASE,
    ServerProcess,
    initdb_command,
    write_settings,
)

IDENTITIES = "lakebase_identities.json"


@dataclass(frozen=True)
class Kept:
    """What is kept when the emulator ends.

    :param folder: the folder of all clusters
    :param clusters: the names of the clusters that an earlier run has left
    :param lock: a file descriptor that is to stay open until the last server has ended
    """

    folder: Path
    clusters: frozenset[str]
    lock: int


class Clusters:
    """The clusters. They are in the keeper's directory, which is removed with them, or in a folder that stays."""

    def __init__(
        self,
        version: int,
        bindir: str | os.PathLike[str] | None,
        clock: ObservedClock,
        owner: Principal,
        kept: Kept | None = None,
    ) -> None:
        """Create the directory; raise ``ValueError`` if PostgreSQL is missing, ``PostgresError`` if it does not work.

        :param owner: owner of the database in a new cluster
        :param kept: where the clusters are if they stay, and which of them are there already
        """
        installation = binaries.find(version, bindir)
        self._version = version
        self._clock = clock
        self._owner = owner
        self._clusters: dict[str, Cluster] = {}
        self._numbers = 0
        self._lock = threading.Lock()
        self._tending = threading.Lock()
        self._unpacked: Path | None = None
        self._keeper = Keeper(kept.lock if kept else None)
        self._home = self.directory
        try:
            if kept:
                self._home = self._open_home(kept.folder)
            self._binaries = binaries.install(installation, self._keeper)
            write_settings(self.directory / "postgresql.conf", binaries.preloaded(installation))
            self._template = self._home / "template.tar"
            if kept and kept.clusters:
                self._find_clusters(kept.clusters)
            else:
                self._create_template()
        except BaseException:
            self.stop()
            raise

    @property
    def directory(self) -> Path:
        """Return the directory that exists until ``stop``."""
        return self._keeper.directory

    def stop(self) -> None:
        """Stop all servers and remove the directory."""
        for cluster in self._clusters.values():
            cluster.disconnect()
        self._keeper.stop()

    def __contains__(self, cluster: str) -> bool:
        """Return whether there is a cluster of this name."""
        return cluster in self._clusters

    def get(self, cluster: str) -> Cluster:
        """Return a cluster; raise ``KeyError`` if there is none of this name."""
        return self._clusters[cluster]

    def tend(self) -> None:
        """Do periodic work; see ``Cluster.tend``."""
        with self._tending:
            self._clock()
            for cluster in list(self._clusters.values()):
                # It may be deleted or stopped meanwhile; what is still due is done the next time.
                with contextlib.suppress(PostgresError, psycopg.Error, OSError):
                    cluster.tend()

    def write_identities(self, identities: list[dict[str, str]]) -> None:
        """Write the identities to the file that ``databricks_create_role`` reads."""
        final = self._home / IDENTITIES
        draft = final.with_suffix(".draft")
        draft.write_text(json.dumps(identities))
        self._keeper.give(draft)
        draft.replace(final)

    # -- model.data_plane.Clusters

    def create(self, cluster: str) -> None:
        """Create an empty cluster with the database ``databricks_postgres``, its owner and the system roles."""
        with self._adding(cluster, self._template) as added:
            with self._lock:
                unpacked, self._unpacked = self._unpacked, None
            if unpacked:
                unpacked.rename(added.folder / "data")
            with added.in_use():
                # In use all the time, so that the server starts once.
                added.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
                create_administrator(added, self._owner, DATABASE)
                added.begin_history(BaseBackup(parse_lsn(added.current_lsn()), time.time(), ""))
            self._clock()

    def copy(self, source: str, target: str, *, time: float | None = None, lsn: str | None = None) -> None:
        """Copy a cluster with all its data, roles and labels, as of now, of a moment or of a log sequence number."""
        original, now = self.get(source), self._clock()
        if time is not None and not self.oldest_time(source) <= time <= now:
            raise ValueError(f"time {time} is out of the history that is kept: {self.oldest_time(source)} to {now}")
        real = math.inf if time is None else self._clock.real_time(time)
        with self._adding(target) as added:
            if lsn is not None:
                original.copy_at_lsn(added, _parse_lsn(lsn))
            elif real < math.inf:
                original.copy_at_time(added, real)
            else:
                original.copy_now(added)
            self._clock()

    def delete(self, cluster: str) -> None:
        """Stop a cluster and remove its files; do nothing if it does not exist."""
        with self._lock:
            found = self._clusters.pop(cluster, None)
        if found:
            found.remove()

    def oldest_time(self, cluster: str) -> float:
        """Return the earliest moment that ``copy`` accepts, in seconds since 1970 by the emulator's clock."""
        base = self.get(cluster).base
        return self._clock.at_real_time(base.real) if base else self._clock()

    def current_lsn(self, cluster: str) -> str:
        """Return the log sequence number of the last write."""
        return self.get(cluster).current_lsn()

    def size(self, cluster: str) -> int:
        """Return the size of its databases in bytes; 0 if it does not exist."""
        found = self._clusters.get(cluster)
        return found.size() if found else 0

    def execute(
        self, cluster: str, database: str, query: LiteralString | sql.Composed, params: tuple[Any, ...] = ()
    ) -> list[tuple[Any, ...]]:
        """Run one statement as the superuser, outside a transaction block, and return its rows."""
        return self.get(cluster).execute_in(database, query, params)

    def _create_template(self) -> None:
        """Create the files that every new cluster begins with."""
        log, files = self.directory / "log", self._home / "template"
        self._keeper.run(initdb_command(self._binaries, self._version, files), log)
        # A server reads it as if it lay in its own directory, clusters/NAME/data; all share it.
        (files / IDENTITIES).symlink_to(f"../../../{IDENTITIES}")
        archive_stopped(files, self._template, self._keeper, log)
        # The first cluster gets the files themselves.
        self._unpacked = files

    def _open_home(self, kept: Path) -> Path:
        """Return a path of the folder that needs no quoting; create the folder if it does not exist."""
        account = self._keeper.account
        if not self._keeper.can_read(kept):
            raise PostgresError(
                f"{kept.parent}: PostgreSQL runs as {account.pw_name if account else 'you'}, which may not enter this "
                "directory; choose one that every account may enter"
            )
        self._keeper.make_folder(kept)
        owner = account.pw_uid if account else os.geteuid()
        if kept.stat().st_uid != owner:
            raise PostgresError(f"{kept} belongs to another account, by which the emulator ran before")
        home = self.directory / "kept"
        home.symlink_to(kept)
        return home

    def _find_clusters(self, names: Container[str]) -> None:
        """Find the clusters of an earlier run. Remove those that were being made or removed when it ended."""
        for folder in (self._home / "clusters").iterdir():
            if folder.name in names:
                # No server of the earlier run is left, but if the machine went down, another process may have its PID.
                (folder / "data/postmaster.pid").unlink(missing_ok=True)
                self._add(folder.name, self._template)
            else:
                shutil.rmtree(folder)

    def _add(self, name: str, template: Path | None) -> Cluster:
        self._numbers += 1
        folder, run = self._home / "clusters" / name, self.directory / "run" / str(self._numbers)
        self._keeper.make_folder(folder)
        server = ServerProcess(self._keeper, self._binaries, folder / "data", run)
        cluster = self._clusters[name] = Cluster(folder, server, self._keeper, template=template)
        return cluster

    @contextlib.contextmanager
    def _adding(self, name: str, template: Path | None = None) -> Iterator[Cluster]:
        with self._lock:
            if name in self._clusters:
                raise ValueError(f"the cluster {name} already exists")
            cluster = self._add(name, template)
        try:
            yield cluster
        except BaseException:
            self.delete(name)
            raise


def clusters_in(kept: Path) -> set[str]:
    """Return the names of the clusters in a folder that an earlier run has left complete."""
    return {file.parent.name for file in kept.glob(f"clusters/*/{BASE}")}


def _parse_lsn(lsn: str) -> int:
    try:
        return parse_lsn(lsn)
    except ValueError:
        raise ValueError(f"lsn is such as 0/16B3748, not {lsn!r}") from None
