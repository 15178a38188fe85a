"""The parts of databricks-sdk that the provider uses, imported without the rest.

``import databricks.sdk`` runs an ``__init__`` that loads some fifty services, which takes a process longer than all
else until its first row. A task needs one of them.

So the package ``databricks.sdk`` begins as a stand-in, whose ``__init__`` has not run: modules below it are imported as
usual, and the first use of any other name, by anyone, runs the true ``__init__`` in the same module. Modules and
classes are the same ones in either case. A package that was imported before stays as it is, and an SDK whose modules
need what ``__init__`` defines is imported as usual.

This module can go when databricks-sdk imports its services when they are used; then import from it directly. No other
module of the provider imports databricks-sdk, except inside functions.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

PACKAGE = "databricks.sdk"
_PARTS = (f"{PACKAGE}.core", f"{PACKAGE}.service.postgres")


class _Initialisation:
    """Runs the package's ``__init__`` once, in one thread at a time."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Begin anew in a forked process, where no other thread is left to finish."""
        self._lock = threading.RLock()
        self._is_running = False

    def run(self, package: ModuleType) -> None:
        """Run ``__init__``; do nothing if it has run, or if it is what asks.

        :param package: the stand-in
        :raises Exception: whatever ``__init__`` raises; the next use then runs it again
        """
        with self._lock:
            if self._is_running or not isinstance(package, _StandIn):
                return
            self._is_running = True
            try:
                spec = package.__spec__
                # A package that was reloaded has another specification, and has run it.
                if spec is package.__dict__[_OWN_SPEC] and spec is not None and spec.loader is not None:
                    spec.loader.exec_module(package)
                package.__class__ = ModuleType  # type: ignore[assignment]
                del package.__dict__[_OWN_SPEC]
            finally:
                self._is_running = False


_OWN_SPEC = "_lakebase_stand_in_spec"
_INITIALISATION = _Initialisation()
os.register_at_fork(after_in_child=_INITIALISATION.restart)


class _StandIn(ModuleType):
    """A package whose ``__init__`` has not run."""

    def __getattr__(self, name: str) -> Any:
        """Return a module of the package, or what ``__init__`` defines."""
        if not name.startswith("__"):
            module = f"{PACKAGE}.{name}"
            try:
                return importlib.import_module(module)
            except ModuleNotFoundError as error:
                if error.name != module:
                    raise
        _INITIALISATION.run(self)
        # Of the object's own attributes: a name that is still missing must not lead here again.
        return object.__getattribute__(self, name)

    def __dir__(self) -> list[str]:
        """Return the names that ``__init__`` defines, too."""
        _INITIALISATION.run(self)
        return sorted(self.__dict__)


class _StandInLoader(Loader):
    """Loads the package without running its ``__init__``."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Create the module as the package's own loader does."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Turn the module into the stand-in, and leave all that comes after to the package's own loader."""
        spec = module.__spec__
        if spec is not None:
            spec.loader = module.__loader__ = self._loader
        module.__dict__[_OWN_SPEC] = spec
        module.__class__ = _StandIn


class _StandInFinder(MetaPathFinder):
    """Finds the package as usual, for :class:`_StandInLoader`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the specification of ``databricks.sdk``; None for everything else."""
        spec = PathFinder.find_spec(fullname, path, target) if fullname == PACKAGE else None
        if spec is not None and spec.loader is not None and spec.submodule_search_locations is not None:
            spec.loader = _StandInLoader(spec.loader)
        return spec


def _import_stand_in() -> None:
    """Import the package; it becomes the stand-in unless somebody has imported it before."""
    if PACKAGE in sys.modules:
        return
    # Through the import system, whose lock lets only one thread create the module.
    finder = _StandInFinder()
    sys.meta_path.insert(0, finder)
    try:
        importlib.import_module(PACKAGE)
    finally:
        sys.meta_path.remove(finder)


def _import_parts() -> None:
    """Import the modules that the provider uses; if one of them needs ``__init__`` first, run that."""
    _import_stand_in()
    try:
        for part in _PARTS:
            importlib.import_module(part)
    except (ImportError, AttributeError):
        _INITIALISATION.run(sys.modules[PACKAGE])


with suppress(ImportError):  # which the imports below report
    _import_parts()

from databricks.sdk.config import Config, ConfigAttribute  # noqa: E402
from databricks.sdk.core import ApiClient, DatabricksError  # noqa: E402
from databricks.sdk.errors import Unauthenticated  # noqa: E402
from databricks.sdk.oauth import OidcEndpoints  # noqa: E402
from databricks.sdk.service.postgres import DatabaseCredential, Endpoint, EndpointType, PostgresAPI  # noqa: E402
from databricks.sdk.version import __version__ as sdk_version  # noqa: E402

__all__ = [
    "ApiClient",
    "Config",
    "ConfigAttribute",
    "DatabaseCredential",
    "DatabricksError",
    "Endpoint",
    "EndpointType",
    "OidcEndpoints",
    "PostgresAPI",
    "Unauthenticated",
    "sdk_version",
]
