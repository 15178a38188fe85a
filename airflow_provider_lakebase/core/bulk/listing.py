"""List the files of a source: those in a folder, those that match a pattern, and those that are named."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from airflow_provider_lakebase.core.bulk.files import describe_file, has_known_ending, is_path, translating
from airflow_provider_lakebase.exceptions import LakebaseSettingsError

_WILDCARD = re.compile(r"[*?]")
_LISTED_BY_PREFIX = ("s3", "s3a", "gs", "gcs")
# As Spark does: `_delta_log`, but not the partition folder `_day=2026-01-01`.
_VISIBLE = r"(?!\.|_[^/=]*(?:/|\Z))"
_ANYTHING = ("**",)
_HINT = "Write '*' for any characters of one name, '?' for one character, and '/**/' for any folders."


def list_files(sources: Iterable[Any], *, allow_empty: bool = False) -> list[Any]:
    """Return the files to load, in the order of the sources. The files of a folder or pattern are sorted by path.

    Names that start with ``_`` or ``.`` are left out of folders and patterns, unless a pattern begins with that
    character. A file that a source names is always returned, whatever its name, and also if it does not exist.

    :param sources: paths of files and folders, patterns with ``*``, ``?`` and ``**``, and open files
    :param allow_empty: whether there may be no file in a folder or for a pattern
    :raises FileNotFoundError: if there is none
    :raises LakebaseSettingsError: for an invalid pattern, or one that only folders match
    :raises LakebaseStorageError: if the storage fails
    """
    files: list[Any] = []
    listed: set[str] = set()
    for source in sources:
        found = _expand(source, allow_empty) if is_path(source) else None
        if found is None:
            files += [source] if str(source) not in listed else []
            continue
        known = {*listed, *map(str, files)}
        files += [file for file in found if str(file) not in known]
        listed.update(map(str, found))
    return files


def _expand(source: Any, allow_empty: bool) -> list[Any] | None:
    """Return the files of a folder or pattern; None for anything else."""
    path, label = _local(source), describe_file(source)
    root, pattern = _split(path)
    if _WILDCARD.search(label.partition("://")[2].partition("/")[0].rpartition("@")[2]):
        raise LakebaseSettingsError(f"The pattern {label} has a wildcard in the name of its bucket", hint=_HINT)
    with translating(label):
        kind = _kind_of(path)
        # Object storage has no empty folders. A name without an ending is that of one.
        if kind == "folder" or (not kind and not pattern and allow_empty and not has_known_ending(label)):
            what, found = "There is no file in the folder", _match(path, _ANYTHING)
        elif kind or not pattern:
            return None
        else:
            what, found = "No file matches the pattern", _match_pattern(root, pattern, label)
    if not found and not allow_empty:
        raise FileNotFoundError(errno.ENOENT, f"{what}; allow_empty=True loads nothing instead", label)
    return found


def _local(source: Any) -> Any:
    """Return a path whose files are on this machine as a ``pathlib.Path``; any other path unchanged."""
    if isinstance(source, str):
        return Path(source)
    return Path(source.path) if str(getattr(source, "protocol", None)) in ("", "file", "local") else source


def _is_local(path: Any) -> bool:
    # Paths of object storage are Paths, too, in Airflow 2.
    return not hasattr(path, "fs")


def _kind_of(path: Any) -> str:
    if _is_local(path):
        return "folder" if path.is_dir() else "file" if path.exists() else ""
    path.fs.invalidate_cache(path.path)  # or it tells what was there when this process last looked
    try:
        return "folder" if path.fs.info(path.path)["type"] == "directory" else "file"
    except FileNotFoundError:
        return ""


def _split(path: Any) -> tuple[Any, Sequence[str]]:
    """Split a path before its first part with a wildcard."""
    pattern: list[str] = []
    root = path
    while _WILDCARD.search(str(getattr(root, "path", root))) and root.parent != root:
        pattern.insert(0, root.name)
        root = root.parent
    return root, pattern


def _match_pattern(root: Any, pattern: Sequence[str], label: str) -> list[Any]:
    if any("**" in part and part != "**" for part in pattern):
        raise LakebaseSettingsError(f"In the pattern {label}, '**' is not a whole name", hint=_HINT)
    found = _match(root, pattern)
    if not found and pattern[-1] != "**" and _match(root, (*pattern, "**")):
        what = f"The pattern {label} matches folders only"
        raise LakebaseSettingsError(what, hint="To load the files in them, add '/**' to it.")
    return found


def _match(root: Any, pattern: Sequence[str]) -> list[Any]:
    matches = _compile(pattern).fullmatch
    depth = None if "**" in pattern else len(pattern)
    if _is_local(root):
        return [root / name for name in sorted(filter(matches, _walk(root, depth)))]
    return [_child(root, name) for name in sorted(filter(matches, _find(root, pattern, depth)))]


def _compile(pattern: Sequence[str]) -> re.Pattern[str]:
    parts = []
    for number, part in enumerate(pattern, 1):
        if part == "**":
            parts.append(rf"(?:{_VISIBLE}[^/]*/)*" + (rf"{_VISIBLE}[^/]+" if number == len(pattern) else ""))
            continue
        text = re.escape(part).replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
        parts.append((_VISIBLE if part[0] in "*?" else "") + text + ("/" if number < len(pattern) else ""))
    return re.compile("".join(parts), re.DOTALL)


def _walk(root: Path, depth: int | None) -> Iterator[str]:
    """Yield the paths of files below a folder, relative to it."""

    def fail(error: OSError) -> None:
        raise error

    for folder, folders, names in os.walk(root, onerror=fail, followlinks=True) if root.is_dir() else ():
        place = Path(folder).relative_to(root)
        yield from ((place / name).as_posix() for name in names)
        if depth is not None and len(place.parts) + 1 >= depth:
            folders.clear()
        # A link to a folder above it would be followed without end.
        above = os.path.join(os.path.realpath(folder), "")
        folders[:] = [
            name for name in folders if not above.startswith(os.path.join(os.path.realpath(f"{folder}/{name}"), ""))
        ]


def _find(root: Any, pattern: Sequence[str], depth: int | None) -> Iterator[str]:
    """Yield the paths of objects below a folder of object storage, relative to it."""
    root.fs.invalidate_cache(root.path)
    options: dict[str, Any] = {}
    if depth == 1:
        options["maxdepth"] = 1
    elif str(root.protocol) in _LISTED_BY_PREFIX and (prefix := _WILDCARD.split(pattern[0])[0]):
        options["prefix"] = prefix
    base = str(root.path).rstrip("/") + "/"
    for name in root.fs.find(root.path, **options):
        if not name.endswith("/"):  # which marks a folder
            yield name.removeprefix(base)


def _child(root: Any, name: str) -> Any:
    # The operator / warns in Airflow 2.
    path = type(root)(f"{str(root).rstrip('/')}/{name}", **root.storage_options)
    if path.path != str(root.path).rstrip("/") + "/" + name:
        what = f"The name of an object in {describe_file(root)} cannot be written as a path"
        raise LakebaseSettingsError(what, hint="Rename it, or list the files to load.")
    return path
