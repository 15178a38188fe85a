"""The parts of databricks-sdk that the provider uses, imported without the rest.

``import databricks.sdk`` runs an ``__init__`` that loads some fifty services, which takes a process longer than all
else until its first row. A task needs one of them.

So the package ``databricks.sdk`` begins as a stand-in, whose ``__init__`` has not run: modules below it are imported as
usual, and the first use of any other name, by anyone, runs the true ``__init__`` in the same module. Modules and
classes are the same ones in either case. A package that was imported before stays as it is, and an SDK whose modules
need what ``__init__`` defines is imported as usual. So do three modules that databricks-sdk imports and that only
kinds of authentication use which the provider does not have.

This module can go when databricks-sdk imports its services and Google's libraries when they are used; then import from
it directly. No other module of the provider imports databricks-sdk, except inside functions.
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
STAND_INS = (
    # It imports every service.
    PACKAGE,
    # It imports a service, which only Azure's managed resources need.
    f"{PACKAGE}.azure",
    # They import the x509 part of cryptography, which only Google's identities need.
    "google.auth.impersonated_credentials",
    "google.oauth2.service_account",
)
"""The modules that begin as stand-ins."""
_SPEC = "_lakebase_stand_in_spec"


class _Execution:
    """Executes the modules, each once, in one thread at a time."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Begin anew in a forked process, where no other thread is left to finish."""
        self.lock = threading.RLock()
        self.running: set[str] = set()

    def run(self, module: ModuleType) -> None:
        """Execute a module; do nothing if it was executed, or if it is what asks.

        :param module: a stand-in
        :raises Exception: whatever the module raises; the next use then executes it again
        """
        with self.lock:
            name, spec = module.__name__, module.__spec__
            if name in self.running or not isinstance(module, _StandIn):
                return
            self.running.add(name)
            try:
                # A module that was reloaded has another specification, and was executed.
                if spec is module.__dict__[_SPEC] and spec is not None and spec.loader is not None:
                    spec.loader.exec_module(module)
                module.__class__ = ModuleType  # type: ignore[assignment]
                del module.__dict__[_SPEC]
            finally:
                self.running.discard(name)


_EXECUTION = _Execution()
os.register_at_fork(after_in_child=_EXECUTION.restart)


class _StandIn(ModuleType):
    """A module that was not executed."""

    def __getattr__(self, name: str) -> Any:
        """Return a module of the package, or what executing the module defines."""
        if "__path__" in self.__dict__ and not name.startswith("__"):
            module = f"{self.__name__}.{name}"
            try:
                return importlib.import_module(module)
            except ModuleNotFoundError as error:
                if error.name != module:
                    raise
        _EXECUTION.run(self)
        # Of the object's own attributes: a name that is still missing must not lead here again.
        return object.__getattribute__(self, name)

    def __dir__(self) -> list[str]:
        """Return the names that executing the module defines, too."""
        _EXECUTION.run(self)
        return sorted(self.__dict__)


class _StandInLoader(Loader):
    """Loads a module without executing it."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Create the module as its own loader does."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Turn the module into a stand-in, and leave all that comes after to its own loader."""
        spec = module.__spec__
        if spec is not None:
            spec.loader = module.__loader__ = self._loader
        module.__dict__[_SPEC] = spec
        module.__class__ = _StandIn


class _StandInFinder(MetaPathFinder):
    """Finds modules as usual, for :class:`_StandInLoader`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the specification of one of :data:`STAND_INS`; None for everything else."""
        spec = PathFinder.find_spec(fullname, path, target) if fullname in STAND_INS else None
        if spec is not None and spec.loader is not None:
            spec.loader = _StandInLoader(spec.loader)
        return spec


def _import_core() -> None:
    """Import the module that needs all others; if it needs the package's ``__init__`` first, run that."""
    # By the import system, whose lock lets only one thread create a module.
    finder = _StandInFinder()
    sys.meta_path.insert(0, finder)
    try:
        importlib.import_module(f"{PACKAGE}.core")
    except (ImportError, AttributeError):
        if PACKAGE in sys.modules:
            _EXECUTION.run(sys.modules[PACKAGE])
    finally:
        sys.meta_path.remove(finder)


with suppress(ImportError):  # which the imports below report
    _import_core()

from databricks.sdk.config import Config, ConfigAttribute  # noqa: E402
from databricks.sdk.core import ApiClient, DatabricksError  # noqa: E402
from databricks.sdk.errors import Unauthenticated  # noqa: E402
from databricks.sdk.oauth import OidcEndpoints  # noqa: E402

__all__ = [
    "ApiClient",
    "Config",
    "ConfigAttribute",
    "DatabricksError",
    "OidcEndpoints",
    "Unauthenticated",
]
