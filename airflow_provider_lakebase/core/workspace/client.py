"""Call the workspace's API through databricks-sdk, within a deadline of our own."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from airflow_provider_lakebase.core.connection.identity import WorkspaceIdentity
from airflow_provider_lakebase.core.connection.settings import LakebaseSettings
from airflow_provider_lakebase.core.errors.catalog_workspace import UNREACHABLE, find_workspace_rule
from airflow_provider_lakebase.core.workspace.light_sdk import ApiClient, DatabricksError, Unauthenticated
from airflow_provider_lakebase.core.workspace.pipelines_api import PipelinesApi
from airflow_provider_lakebase.core.workspace.postgres_api import PostgresApi
from airflow_provider_lakebase.core.workspace.reachability import NoAnswerError, call_within, find_obstacle
from airflow_provider_lakebase.core.workspace.sdk_config import KNOWN_SIGN_IN, DirectConfig, PinnedConfig
from airflow_provider_lakebase.core.workspace.unity_catalog_api import UnityCatalogApi
from airflow_provider_lakebase.exceptions import NO_CONTEXT, ErrorContext, LakebaseError, LakebaseWorkspaceError

T = TypeVar("T")

BEGIN_SECONDS = 5.0
"""Seconds within which requests that share a thread are begun."""


class WorkspaceClient:
    """What the provider uses in place of databricks-sdk's client of this name, which has every service.

    :param config: host and identity
    """

    def __init__(self, config: PinnedConfig) -> None:
        self.config = config
        self.api = ApiClient(config)
        session: Any = self.api._api_client._session
        session.auth = _counting(session.auth)
        session.hooks["response"].append(_record_status)
        self.postgres = PostgresApi(self.api)
        self.pipelines = PipelinesApi(self.api)
        self.unity_catalog = UnityCatalogApi(self.api)


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
        client = self._client(identity)
        try:
            return request(client)
        except Unauthenticated:
            # The token was revoked, the clocks differ, or it is for another place: this time ask where to sign in.
            self.forget(identity, client)
            return request(self._client(identity, sign_in=_sign_in_anew))

    def forget(self, identity: WorkspaceIdentity, client: WorkspaceClient | None = None) -> None:
        """Sign in anew at the next request of an identity.

        :param identity: the identity
        :param client: the client that failed: if another thread has signed in since, its client is kept
        """
        with self._lock:
            if client in (None, self._clients.get(identity.key)):
                self._clients.pop(identity.key, None)
                self._locks.pop(identity.key, None)

    def forget_all(self) -> None:
        """Sign in anew at the next request of every identity."""
        # A forked process must share neither its parent's sockets nor a lock that another thread held at the fork.
        self._lock = threading.Lock()
        self._clients.clear()
        self._locks.clear()

    def _client(
        self, identity: WorkspaceIdentity, sign_in: Callable[[WorkspaceIdentity], WorkspaceClient] | None = None
    ) -> WorkspaceClient:
        with self._lock:
            lock = self._locks.setdefault(identity.key, threading.Lock())
        with lock:
            client = self._clients.get(identity.key)
            if client is None:
                client = self._clients[identity.key] = (sign_in or _sign_in)(identity)
            return client


def _sign_in(identity: WorkspaceIdentity) -> WorkspaceClient:
    if identity.auth_type in KNOWN_SIGN_IN:
        # Whatever is wrong, discovery shows it as databricks-sdk would.
        with suppress(Exception):
            config = DirectConfig.of(identity)
            config.authenticate()
            return WorkspaceClient(config)
    return _sign_in_by_discovery(identity)


def _sign_in_by_discovery(identity: WorkspaceIdentity) -> WorkspaceClient:
    return WorkspaceClient(PinnedConfig.of(identity))


def _sign_in_anew(identity: WorkspaceIdentity) -> WorkspaceClient:
    """Sign in by discovery, and ask for the token at once, so that requests that run side by side do not all ask."""
    client = _sign_in_by_discovery(identity)
    client.config.authenticate()
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

    def about(self, resource: str) -> Workspace:
        """Return the same workspace, whose errors name a resource.

        :param resource: its name
        """
        return replace(self, context=replace(self.context, resource=resource, host="", database="", role=""))

    def call(self, request: Callable[[WorkspaceClient], T], *, timeout: float) -> T:
        """Send a request and return its answer.

        :param request: makes the call on the client
        :param timeout: seconds that it may take, signing in and the SDK's own retries included
        :raises LakebaseWorkspaceAccessError: when the workspace refuses the identity
        :raises LakebaseResourceNotFoundError: when the project, branch, endpoint or snapshot does not exist
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
            raise self._translate(error) from _without_frames(error)

    def call_each(
        self, requests: Mapping[str, Callable[[WorkspaceClient], T]], *, timeout: float
    ) -> dict[str, T | LakebaseError]:
        """Send requests one after another in one thread, because a thread for each costs as much as the request.

        :param requests: by the resource that each is about
        :param timeout: seconds that all may take, signing in and the SDK's own retries included
        :returns: the answer or the error of each. Those that were not begun within :data:`BEGIN_SECONDS` are left out,
            and so are those behind one that was not answered in time
        """
        answers: dict[str, T | LakebaseError] = {}

        def send_all() -> None:
            until = time.monotonic() + BEGIN_SECONDS
            for resource, request in requests.items():
                if answers and time.monotonic() > until:
                    return
                about = self.about(resource)
                try:
                    answers[resource] = about._send(request)
                except Exception as error:
                    answers[resource] = error if isinstance(error, LakebaseError) else about._translate(error)

        try:
            call_within(timeout, self.identity.host, send_all)
        except NoAnswerError as error:
            found = dict(answers)  # the thread left behind may still add an answer
            overdue = next((resource for resource in requests if resource not in found), None)
            return {**found, overdue: self.about(overdue)._translate(error)} if overdue else found
        return answers

    def require_reachable(self, *, timeout: float) -> None:
        """Raise an error unless the workspace answers; whether it accepts the identity does not matter.

        :param timeout: seconds that it may take
        :raises LakebaseError: as :meth:`call` does
        """
        # Some kinds of authentication ask nothing before the first request.
        if obstacle := find_obstacle(self.identity.host):
            raise UNREACHABLE.to_error(obstacle, self.context)
        self.call(lambda client: None, timeout=timeout)

    def require_sign_in(self, *, timeout: float) -> None:
        """Sign in to the workspace, without asking it for anything else.

        :param timeout: seconds that it may take
        :raises LakebaseError: as :meth:`call` does
        """
        self.call(lambda client: client.config.authenticate(), timeout=timeout)

    def user_name(self, *, timeout: float) -> str:
        """Return the identity's user name: an e-mail address, or a service principal's client ID.

        :param timeout: seconds that it may take
        :raises LakebaseError: as :meth:`call` does
        """
        # Its module is one of the large ones, and most identities have a client ID.
        from databricks.sdk.service.iam import CurrentUserAPI

        me = self.call(lambda client: CurrentUserAPI(client.api).me(), timeout=timeout)  # type: ignore[no-untyped-call]
        if not me.user_name:
            raise LakebaseWorkspaceError("The workspace did not return the identity's user name", context=self.context)
        return me.user_name

    def _send(self, request: Callable[[WorkspaceClient], T]) -> T:
        _answered.status, _answered.missing = 0, 0
        try:
            return self.clients.send(self.identity, request)
        except DatabricksError as error:
            # The SDK's class follows from the code in the body, which does not tell the HTTP status.
            error.http_status = _answered.status  # type: ignore[attr-defined]
            error.answers_missing = _answered.missing  # type: ignore[attr-defined]
            raise

    def _translate(self, error: Exception) -> LakebaseError:
        if isinstance(error, NoAnswerError):
            # The thread left behind holds the lock of its client: the next call gets a new one.
            self.clients.forget(self.identity)
        # A failed sign-in carries the SDK's dump of its configuration after the server's words.
        text = str(error).split(". Config: ")[0]
        if isinstance(error, TimeoutError) or "Invalid URL 'None'" in text:
            # The cause of a timeout is the last answer of the workspace, if there was one.
            text = f"{text}: {error.__cause__}" if error.__cause__ and isinstance(error, TimeoutError) else text
            obstacle = find_obstacle(self.identity.host)
            if obstacle:
                return UNREACHABLE.to_error(obstacle, self.context)
        classes = [kind.__name__ for kind in type(error).__mro__]
        code = getattr(error, "error_code", None) or ""
        rule = find_workspace_rule(text, classes, getattr(error, "http_status", 0), code)
        if rule is not None:
            return rule.to_error(text, self.context, code)
        hint = "Check Host of the connection; if it is right, try again later."
        problem = f"gave {text}" if isinstance(error, NoAnswerError) else f"failed: {type(error).__name__}: {text}"
        return LakebaseWorkspaceError(f"The workspace's API {problem}", context=self.context, hint=hint)


_answered = threading.local()


def _record_status(response: Any, *_: Any, **__: Any) -> None:
    _answered.status = response.status_code
    _answered.missing = getattr(_answered, "missing", 0) - 1


def _counting(sign: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Count the requests that databricks-sdk signs: it sends one again, unasked, if the connection breaks."""

    def count_and_sign(request: Any) -> Any:
        _answered.missing = getattr(_answered, "missing", 0) + 1
        return sign(request)

    return count_and_sign


def _without_frames(error: Exception) -> Exception:
    """Return the error without its tracebacks and those of its causes: databricks-sdk's frames hold secrets."""
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error
