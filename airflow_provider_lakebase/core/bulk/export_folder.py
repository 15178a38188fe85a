"""Write the numbered files of an export into a folder: all of them, or none.

They are written into a hidden folder beside it. On a local disk that folder takes the place of the old one. An object
storage has no folders to rename: the files are copied by the storage itself, between the removal of the old
``_SUCCESS`` and the writing of the new one, so that a reader who asks for it never takes a part of the files for all.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Protocol
from uuid import uuid4

from airflow_provider_lakebase.core.bulk.compression import compression_of_name
from airflow_provider_lakebase.core.bulk.copy_out import NextFile
from airflow_provider_lakebase.core.bulk.files import compressed, describe_file, translating
from airflow_provider_lakebase.core.bulk.formats import FORMATS, FormatName
from airflow_provider_lakebase.exceptions import LakebaseSettingsError

MARKER = "_SUCCESS"
"""Name of the empty file that is written last."""
_GRACE_SECONDS = 1.0
"""How long the old folder is kept, so that a reader who has begun to list its files sees all of them."""
_ENDINGS = "|".join(re.escape(row.endings[0]) for row in FORMATS.values())
_OURS = re.compile(rf"part-\d{{5,}}(?:{_ENDINGS})(?:\.gz|\.zst)?|{MARKER}")


@contextmanager
def open_folder(destination: Any, format: FormatName) -> Iterator[tuple[NextFile, list[str]]]:
    """Yield a function that opens the next file, and the list of files; at the end, put them into the folder.

    :param destination: path of the folder; the ending of its name decides how the files are compressed
    :param format: of the files
    :raises LakebaseSettingsError: if the folder contains files that no export wrote
    :raises LakebaseStorageError: if the storage fails
    """
    label = describe_file(destination).rstrip("/")
    compression = Path(label).suffix.lower() if compression_of_name(label) else ""
    names: list[str] = []
    files: list[str] = []
    with translating(label, writes=True):
        folder = _folder(destination)
        _check(folder, label)
        folder.begin()

        @contextmanager
        def next_file() -> Iterator[IO[bytes]]:
            name = f"part-{len(names):05}{FORMATS[format].endings[0]}{compression}"
            names.append(name)
            files.append(f"{label}/{name}")
            path = folder.hidden / name
            with compressed(path.open("wb"), path) as file:
                yield file

        try:
            yield next_file, files
            _check(folder, label)
            folder.publish(names)
        finally:
            with suppress(Exception):  # whatever it is, the files are there, or the first error says more
                folder.discard()


class _Folder(Protocol):
    hidden: Any

    def begin(self) -> None: ...

    def is_file(self) -> bool: ...

    def names(self) -> list[str]: ...

    def publish(self, names: list[str]) -> None: ...

    def discard(self) -> None: ...


def _folder(destination: Any) -> _Folder:
    if isinstance(destination, str | Path) or str(destination.protocol) in ("", "file", "local"):
        return _LocalFolder(Path(str(getattr(destination, "path", destination))))
    return _StoredFolder(destination)


def _check(folder: _Folder, label: str) -> None:
    """Reject a destination whose content is not that of an earlier export, which would be lost."""
    if folder.is_file():
        hint = "Name a folder, or leave out max_rows_per_file."
        raise LakebaseSettingsError(f"{label} is a file, but max_rows_per_file writes a folder", hint=hint)
    if any(not _OURS.fullmatch(name) for name in folder.names()):
        what = f"{label} contains other files than those of an export, which replaces all files of its folder"
        raise LakebaseSettingsError(what, hint="Name another folder, which need not exist.")


def _hidden_name(name: str) -> str:
    return f".{name}.{uuid4().hex}.partial"


class _LocalFolder:
    """A folder on a local disk."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.hidden = self.path.with_name(_hidden_name(path.name))
        self._old = self.path.with_name(_hidden_name(path.name))

    def begin(self) -> None:
        self.hidden.mkdir()

    def is_file(self) -> bool:
        return self.path.exists() and not self.path.is_dir()

    def names(self) -> list[str]:
        return os.listdir(self.path) if self.path.exists() else []

    def publish(self, names: list[str]) -> None:
        (self.hidden / MARKER).touch()
        if not self.path.exists():
            self.hidden.rename(self.path)
            return
        self.path.rename(self._old)
        try:
            self.hidden.rename(self.path)
        except BaseException:
            self._old.rename(self.path)
            raise
        time.sleep(_GRACE_SECONDS)
        shutil.rmtree(self._old)

    def discard(self) -> None:
        shutil.rmtree(self.hidden, ignore_errors=True)


class _StoredFolder:
    """A prefix on an object storage."""

    def __init__(self, path: Any) -> None:
        self.path = path.parent / path.name
        self.fs = path.fs
        self.hidden = path.with_name(_hidden_name(path.name))

    def begin(self) -> None:
        """Do nothing: a prefix exists with its first object."""

    def is_file(self) -> bool:
        return bool(self.fs.isfile(self.path.path))

    def names(self) -> list[str]:
        self.fs.invalidate_cache()
        found = self.fs.find(self.path.path)
        return [name.removeprefix(self._key("")) for name in found]

    def publish(self, names: list[str]) -> None:
        old = self.names()
        if MARKER in old:
            self.fs.rm_file(self._key(MARKER))
        for name in names:
            self.fs.cp_file((self.hidden / name).path, self._key(name))
        for name in {*old} - {*names, MARKER}:
            self.fs.rm_file(self._key(name))
        self.fs.pipe_file(self._key(MARKER), b"")

    def discard(self) -> None:
        self.fs.invalidate_cache()
        for name in self.fs.find(self.hidden.path):
            self.fs.rm_file(name)

    def _key(self, name: str) -> str:
        return f"{self.path.path.rstrip('/')}/{name}"
