"""Call the workspace's API through databricks-sdk, within a deadline of our own."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import Unauthenticated
from databricks.sdk.errors.base import DatabricksError

from airflow_provider_lakebase.core.connection.identity import WorkspaceIdentity
from airflow_provider_lakebase.core.connection.settings import LakebaseSettings
from airflow_provider_lakebase.core.errors.catalog_workspace import UNREACHABLE, find_workspace_rule
from airflow_provider_lakebase.core.workspace.reachability import NoAnswerError, call_within, find_obstacle
from airflow_provider_lakebase.core.workspace.sdk_config import PinnedConfig
from airflow_provider_lakebase.exceptions import NO_CONTEXT, ErrorContext, LakebaseError, LakebaseWorkspaceError

T = TypeVar("T")


class WorkspaceClients:
    """One client per identity, each with the workspace token that databricks-sdk renews.

    Threads may share it. It holds no connection open between calls that must be closed.
    """

    def __init__(self) -> None:
        self._clients: dict[str, WorkspaceClient] = {}
        # One per identity: signing in to a workspace that does not answer must not hold up the others.
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def send(self, identity: WorkspaceIdentity, request: Callable[[WorkspaceClient], T]) -> T:
        """Send a request on the identity's client, and once more where its workspace token is no longer accepted.

        :param identity: who sends it
        :param request: makes the call on the client
        """
        try:
            return request(self._client(identity))
        except Unauthenticated:
            # The token was revoked, or the clocks differ.
            self.forget(identity)
            return request(self._client(identity))

    def forget(self, identity: WorkspaceIdentity) -> None:
        """Sign in anew at the next request of an identity."""
        with self._lock:
            self._clients.pop(identity.key, None)
            self._locks.pop(identity.key, None)

    def forget_all(self) -> None:
        """Sign in anew at the next request of every identity."""
        # A forked process must share neither its parent's sockets nor a lock that another thread held at the fork.
        self._lock = threading.Lock()
        self._clients.clear()
        self._locks.clear()

    def _client(self, identity: WorkspaceIdentity) -> WorkspaceClient:
        with self._lock:
            lock = self._locks.setdefault(identity.key, threading.Lock())
        with lock:
            client = self._clients.get(identity.key)
            if client is None:
                client = WorkspaceClient(config=PinnedConfig.of(identity))
                client.api_client._api_client._session.hooks["response"].append(_record_status)
                self._clients[identity.key] = client
            return client


PROCESS_CLIENTS = WorkspaceClients()
"""The clients of this process. They end with it; a forked process begins with none."""
os.register_at_fork(after_in_child=PROCESS_CLIENTS.forget_all)


@dataclass(frozen=True)
class Workspace:
    """A workspace, called as one identity.

    :param identity: which workspace, as whom
    :param context: context for errors
    :param clients: keeps the client
    """

    identity: WorkspaceIdentity
    context: ErrorContext = NO_CONTEXT
    clients: WorkspaceClients = PROCESS_CLIENTS

    @classmethod
    def of(cls, settings: LakebaseSettings) -> Workspace:
        """Return the workspace of a connection.

        :raises LakebaseSettingsError: for a native Postgres login
        """
        identity = settings.require_identity()
        return cls(identity, replace(settings.context, workspace=identity.host))

    def call(self, request: Callable[[WorkspaceClient], T], *, timeout: float) -> T:
        """Send a request and return its answer.

        :param request: makes the call on the client
        :param timeout: seconds that it may take, signing in and the SDK's own retries included
        :raises LakebaseWorkspaceAccessError: when the workspace refuses the identity
        :raises LakebaseEndpointNotFoundError: when the project, branch or endpoint does not exist
        :raises LakebaseSettingsError: when the workspace names a wrong value
        :raises LakebaseWorkspaceRefusedError: when it refuses the request for another reason
        :raises LakebaseWorkspaceUnreachableError: when no connection to it can be opened
        :raises LakebaseWorkspaceError: when it fails otherwise or does not answer in time
        """
        try:
            return call_within(timeout, self.identity.host, lambda: self._send(request))
        except LakebaseError:
            raise
        # databricks-sdk has no root error: it raises DatabricksError, ValueError, KeyError, requests' and TimeoutError.
        except Exception as error:
            if isinstance(error, NoAnswerError):
                # The thread left behind holds the lock of its client: the next call gets a new one.
                self.clients.forget(self.identity)
            raise self._translate(error) from _without_frames(error)

    def require_sign_in(self, *, timeout: float) -> None:
        """Sign in to the workspace, without asking it for anything.

        :param timeout: seconds that it may take
        :raises LakebaseError: as :meth:`call` does
        """
        self.call(lambda client: client.config.host, timeout=timeout)

    def user_name(self, *, timeout: float) -> str:
        """Return the identity's user name: an e-mail address, or a service principal's client ID.

        :param timeout: seconds that it may take
        :raises LakebaseError: as :meth:`call` does
        """
        me = self.call(lambda client: client.current_user.me(), timeout=timeout)
        if not me.user_name:
            raise LakebaseWorkspaceError("The workspace did not return the identity's user name", context=self.context)
        return me.user_name

    def _send(self, request: Callable[[WorkspaceClient], T]) -> T:
        _answered.status = 0
        try:
            return self.clients.send(self.identity, request)
        except DatabricksError as error:
            # The SDK's class follows from the code in the body, which does not tell the HTTP status.
            error.http_status = _answered.status  # type: ignore[attr-defined]
            raise

    def _translate(self, error: Exception) -> LakebaseError:
        # A failed sign-in carries the SDK's dump of its configuration after the server's words.
        text = str(error).split(". Config: ")[0]
        if isinstance(error, TimeoutError) or "Invalid URL 'None'" in text:
            # The cause of a timeout is the last answer of the workspace, if there was one.
            text = f"{text}: {error.__cause__}" if error.__cause__ and isinstance(error, TimeoutError) else text
            obstacle = find_obstacle(self.identity.host)
            if obstacle:
                return UNREACHABLE.to_error(obstacle, self.context)
        classes = [kind.__name__ for kind in type(error).__mro__]
        rule = find_workspace_rule(text, classes, getattr(error, "http_status", 0))
        if rule is not None:
            return rule.to_error(text, self.context)
        hint = "Check Host of the connection; if it is right, try again later."
        problem = f"gave {text}" if isinstance(error, NoAnswerError) else f"failed: {type(error).__name__}: {text}"
        return LakebaseWorkspaceError(f"The workspace's API {problem}", context=self.context, hint=hint)


_answered = threading.local()


def _record_status(response: Any, *_: Any, **__: Any) -> None:
    _answered.status = response.status_code


def _without_frames(error: Exception) -> Exception:
    """Return the error without its tracebacks and those of its causes: databricks-sdk's frames hold secrets."""
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error
