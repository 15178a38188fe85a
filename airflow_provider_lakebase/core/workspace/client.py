"""One databricks-sdk client an identity and process, shut off from the environment, under a deadline of our own."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies

from databricks.sdk import WorkspaceClient
from databricks.sdk.config import Config, ConfigAttribute
from databricks.sdk.errors import NotFound, PermissionDenied, Unauthenticated
from databricks.sdk.errors.base import DatabricksError

from airflow_provider_lakebase import __version__
from airflow_provider_lakebase.core.connection.settings import LakebaseSettings
from airflow_provider_lakebase.core.errors.catalog import describe, find_workspace_rule
from airflow_provider_lakebase.exceptions import (
    LakebaseEndpointNotFoundError,
    LakebaseError,
    LakebaseWorkspaceAccessError,
    LakebaseWorkspaceError,
    LakebaseWorkspaceRefusedError,
    LakebaseWorkspaceUnreachableError,
)

T = TypeVar("T")

UNREACHABLE_SECONDS = 10.0
"""Seconds after which a workspace that cannot be reached at all is given up."""
PROBE_SECONDS = 1.0
"""Seconds that finding out why a workspace does not answer may take."""

_PASSING_STATUSES = frozenset({408, 409, 425, 429})
"""Those from 400 to 499 after which the same request may succeed later."""

_answered = threading.local()
_clients: dict[str, WorkspaceClient] = {}
# One an identity: signing in to a workspace that does not answer must not hold up the others.
_locks: dict[str, threading.Lock] = {}
_lock = threading.Lock()


def call_workspace(settings: LakebaseSettings, request: Callable[[WorkspaceClient], T], *, timeout: float) -> T:
    """Send a request to the workspace's API and return its answer.

    :param settings: which workspace, as whom
    :param request: makes the call on the client
    :param timeout: seconds that it may take, signing in and the SDK's own retries included
    :raises LakebaseWorkspaceAccessError: when the identity is not accepted, or not for this
    :raises LakebaseEndpointNotFoundError: when the project, branch or endpoint does not exist
    :raises LakebaseSettingsError: when the workspace names a wrong value
    :raises LakebaseWorkspaceRefusedError: when it refused the request for another reason
    :raises LakebaseWorkspaceUnreachableError: when no connection to it can be opened
    :raises LakebaseWorkspaceError: when it failed otherwise or gave no answer in time
    """
    try:
        return _within(timeout, settings.workspace["host"], lambda: _send(settings, request))
    except LakebaseError:
        raise
    # The SDK has no root error: it raises DatabricksError, ValueError, KeyError, requests' errors and TimeoutError.
    except Exception as error:
        if isinstance(error, _NoAnswer):
            # The thread left behind holds the lock of its client: the next call gets a new one.
            _forget(settings.identity)
        raise _translate(settings, error) from _without_frames(error)


def _send(settings: LakebaseSettings, request: Callable[[WorkspaceClient], T]) -> T:
    _answered.status = 0
    try:
        try:
            return request(_client(settings))
        except Unauthenticated:
            # The token that the client keeps was revoked, or the clocks differ: sign in once more.
            _forget(settings.identity)
            return request(_client(settings))
    except DatabricksError as error:
        # The SDK's class follows from the code in the body, which may be any.
        error.http_status = _answered.status  # type: ignore[attr-defined]
        raise


def _forget(identity: str) -> None:
    with _lock:
        _clients.pop(identity, None)
        _locks.pop(identity, None)


def _client(settings: LakebaseSettings) -> WorkspaceClient:
    with _lock:
        lock = _locks.setdefault(settings.identity, threading.Lock())
    with lock:
        client = _clients.get(settings.identity)
        if client is None:
            client = WorkspaceClient(config=_PinnedConfig.of(settings))
            client.api_client._api_client._session.hooks["response"].append(_note_status)
            _clients[settings.identity] = client
        return client


def _note_status(response: Any, *_: Any, **__: Any) -> None:
    _answered.status = response.status_code


class _NoAnswer(TimeoutError):
    pass


class _PinnedConfig(Config):
    """The SDK's configuration with nothing in it but what the Airflow connection says.

    The SDK reads ``DATABRICKS_*``, ``ARM_*`` and ``~/.databrickscfg`` even beside explicit arguments; one of them,
    DATABRICKS_DISCOVERY_URL, decides where the secret is sent.
    """

    @classmethod
    def of(cls, settings: LakebaseSettings) -> _PinnedConfig:
        identity: dict[str, Any] = dict(settings.workspace)
        config = cls(
            **identity,
            # Beyond them it is tried again here, where the wait is told and has a deadline.
            http_timeout_seconds=20,
            retry_timeout_seconds=10,
            debug_headers=False,
            product="airflow-provider-lakebase",
            product_version=__version__,
        )
        with suppress(PackageNotFoundError):
            config.with_user_agent_extra("airflow", version("apache-airflow"))
        return config

    @classmethod
    def attributes(cls) -> Iterable[ConfigAttribute]:
        """Return the SDK's own fields: it finds them in the class itself, not in a subclass."""
        return Config.attributes()

    def _load_from_env(self) -> None:
        """Read nothing."""

    def _known_file_config_loader(self) -> None:
        """Read nothing."""


def _within(timeout: float, host: str, work: Callable[[], T]) -> T:
    """Run the work in a thread and wait for it, but for a workspace that cannot be reached only a short while.

    The SDK's token exchange has no timeout and its discovery retries for minutes, so only leaving the thread behind
    ends the wait in time; as a daemon it does not keep the process.
    """
    outcome: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run, name="lakebase-workspace", daemon=True)
    thread.start()
    thread.join(min(timeout, UNREACHABLE_SECONDS))
    seconds = timeout
    if thread.is_alive() and timeout > UNREACHABLE_SECONDS:
        if find_obstacle(host):
            seconds = UNREACHABLE_SECONDS
        else:
            thread.join(timeout - UNREACHABLE_SECONDS)
    if failure:
        raise failure[0]
    if not outcome:
        raise _NoAnswer(f"no answer in {seconds:.0f} s")
    return outcome[0]


def _translate(settings: LakebaseSettings, error: Exception) -> LakebaseError:
    context = replace(settings.context, workspace=settings.workspace["host"])
    # A failed sign-in carries the SDK's dump of its configuration behind the server's words.
    text = str(error).split(". Config: ")[0]
    if isinstance(error, TimeoutError):
        # Its cause is what the workspace answered last, if it answered at all.
        text = f"{text}: {error.__cause__}" if error.__cause__ else text
    if isinstance(error, TimeoutError) or "Invalid URL 'None'" in text:
        obstacle = find_obstacle(settings.workspace["host"])
        if obstacle:
            what = f"The workspace cannot be reached: {obstacle}"
            hint = "Check Host of the connection, and that the worker's network leads there."
            return LakebaseWorkspaceUnreachableError(what, context=context, hint=hint)
    if cause := find_workspace_rule(text):
        return cause.error(describe(cause, text), context=context, hint=cause.hint)
    if isinstance(error, _NoAnswer):
        what = f"The workspace's API gave {text}"
    else:
        what = f"The workspace's API failed: {type(error).__name__}: {text}"
    if isinstance(error, Unauthenticated | PermissionDenied):
        hint = "Check the identity's secret or token, and its permissions in the workspace."
        return LakebaseWorkspaceAccessError(what, context=context, hint=hint)
    if isinstance(error, NotFound):
        return LakebaseEndpointNotFoundError(
            what, context=context, hint="Correct 'endpoint', or Host of the connection."
        )
    if 400 <= (status := getattr(error, "http_status", 0)) < 500 and status not in _PASSING_STATUSES:
        hint = "Correct what it names; the same request would be refused again."
        return LakebaseWorkspaceRefusedError(what, context=context, hint=hint)
    return LakebaseWorkspaceError(
        what, context=context, hint="Check Host of the connection; if it is right, try again later."
    )


def find_obstacle(host: str) -> str:
    """Return why no connection to a workspace can be opened, which the SDK keeps to itself; nothing where one can.

    :param host: the workspace's address
    """
    url = urlsplit(host)
    if getproxies().get(url.scheme):
        return ""
    found: list[str] = []

    def probe() -> None:
        try:
            socket.create_connection((url.hostname or "", url.port or 443), timeout=PROBE_SECONDS).close()
        except OSError as error:
            found.append(str(error))

    # Name resolution has no deadline of its own.
    thread = threading.Thread(target=probe, name="lakebase-probe", daemon=True)
    thread.start()
    thread.join(2 * PROBE_SECONDS)
    if thread.is_alive():
        return "its name is not resolved"
    return found[0] if found else ""


def _without_frames(error: Exception) -> Exception:
    """Return the error without the SDK's frames, whose variables hold secrets; the same for what caused it."""
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error


def _forget_clients() -> None:
    # A forked task must not share its parent's sockets, nor a lock that another thread held at the fork.
    global _lock
    _lock = threading.Lock()
    _clients.clear()
    _locks.clear()


class _WithoutCredentials(logging.Filter):
    """Keep the replies that hold a credential out of the SDK's log, which prints them at DEBUG."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Leave nothing but the first line, which names the request."""
        text = record.getMessage()
        if "/postgres/credentials" in text:
            record.msg, record.args = f"{text.splitlines()[0]} (body withheld)", ()
        return True


logging.getLogger("databricks.sdk").addFilter(_WithoutCredentials())
os.register_at_fork(after_in_child=_forget_clients)
