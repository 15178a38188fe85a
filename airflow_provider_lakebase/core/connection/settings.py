"""An Airflow connection of type ``lakebase``, checked once and frozen.

This module knows neither Airflow nor libpq: it takes the connection's fields as plain values and returns
:class:`LakebaseSettings`, or raises :class:`LakebaseSettingsError`, which names the field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from dataclasses import fields as dataclass_fields
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from airflow_provider_lakebase.core.connection.fields import (
    DBAPI_HOOK_EXTRAS,
    DEFAULT_DATABASE,
    DEFAULT_PORT,
    DEFAULT_SSLMODE,
    DEFAULT_WAKE_TIMEOUT,
    EXTRA_FIELDS,
    POSTGRES_HOOK_EXTRAS,
    refuse_reserved,
    unknown_field,
)
from airflow_provider_lakebase.core.connection.identity import (
    AUTH_FIELDS,
    DEFAULT_AUTH_TYPE,
    NATIVE,
    WorkspaceIdentity,
    read_authentication,
    read_databricks_identity,
    read_identity,
)
from airflow_provider_lakebase.core.connection.readers import (
    read_endpoint_name,
    read_project_id,
    read_text,
    whole_number,
    wrong_field,
)
from airflow_provider_lakebase.core.connection.resource_names import ENDPOINT_FORM, ResourceName
from airflow_provider_lakebase.exceptions import ErrorContext, LakebaseSettingsError


@dataclass(frozen=True)
class SessionSettings:
    """How a Postgres session is opened.

    :param database: Postgres database
    :param port: Postgres port
    :param pg_host: Postgres host; None looks it up from the endpoint
    :param user: Postgres role to log in as; None is the role of the identity
    :param password: password of a native Postgres login; None mints a credential. Left out of the repr
    :param group_name: group whose role the credential is for
    :param credential_ttl: seconds that a credential lives; None is the service's default
    :param read_only: whether sessions only read, on the read-only host where there is one
    :param sslmode: ``require``, ``verify-ca`` or ``verify-full``
    :param sslrootcert: path of a file with the certificate authorities to trust
    :param wake_timeout: seconds that opening a session may take, including the wake of a suspended endpoint
    :param libpq: further libpq keywords. Left out of the repr
    """

    database: str = DEFAULT_DATABASE
    port: int = DEFAULT_PORT
    pg_host: str | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    group_name: str | None = None
    credential_ttl: int | None = None
    read_only: bool = False
    sslmode: str = DEFAULT_SSLMODE
    sslrootcert: str | None = None
    wake_timeout: float = DEFAULT_WAKE_TIMEOUT
    libpq: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)


# The role also depends on the login, so it is not read like the others.
_SESSION_EXTRAS = EXTRA_FIELDS.keys() & {each.name for each in dataclass_fields(SessionSettings)} - {"user"}
_LOGIN_FIELDS = tuple(dict.fromkeys(("Host", "Login", "Password", "auth_type", *AUTH_FIELDS)))


@dataclass(frozen=True)
class SessionAddress:
    """Where a session is opened and as which role, once the endpoint has been looked up.

    :param endpoint: resource name of the endpoint, as the workspace writes it; None for a native Postgres login
    :param host: Postgres host
    :param user: Postgres role
    """

    endpoint: str | None
    host: str
    user: str


@dataclass(frozen=True)
class LakebaseSettings:
    """An Airflow connection, together with the arguments of a hook that override it.

    :param conn_id: Airflow connection id, for messages
    :param identity: who signs in to which workspace; None for a native Postgres login
    :param endpoint: an endpoint, or a branch, which means its read-write endpoint; None if not given
    :param session: how a session is opened
    :param project: ID of the project whose branches are managed; None is that of the endpoint
    """

    conn_id: str
    identity: WorkspaceIdentity | None
    endpoint: ResourceName | None = None
    session: SessionSettings = field(default_factory=SessionSettings)
    project: str | None = None

    @property
    def secrets(self) -> list[str]:
        """The values that no log may show."""
        own = filter(None, [self.session.password, self.session.libpq.get("sslpassword")])
        return [*own, *(self.identity.secrets if self.identity else ())]

    @property
    def context(self) -> ErrorContext:
        """The connection, endpoint, host, database and role, for messages."""
        session = self.session
        endpoint = str(self.endpoint or "")
        return ErrorContext(self.conn_id, endpoint, session.pg_host or "", session.database, session.user or "")

    @property
    def is_native(self) -> bool:
        """Whether sessions log in with a password of Postgres's own, so that no workspace is involved."""
        return self.identity is None

    def require_identity(self) -> WorkspaceIdentity:
        """Return the identity that signs in to the workspace.

        :raises LakebaseSettingsError: for a native Postgres login
        """
        if self.identity is None:
            raise LakebaseSettingsError(
                "A native Postgres login cannot use the workspace's API",
                context=self.context,
                hint="Use a {connection} with an identity of the workspace.",
            )
        return self.identity

    def require_endpoint(self) -> ResourceName:
        """Return the endpoint, or the branch whose read-write endpoint is meant.

        :raises LakebaseSettingsError: when none is named
        """
        if self.endpoint is None:
            hint = f"Name it, as {ENDPOINT_FORM}, in {{extra}}{{or_caller}}."
            raise wrong_field(self.conn_id, "endpoint", "is missing", hint)
        return self.endpoint

    def require_project(self, project: str | None = None) -> ResourceName:
        """Return the project whose branches are managed.

        :param project: ID or resource name, in place of the connection's
        :raises LakebaseSettingsError: when none is named, or the name is malformed
        """
        if project:
            return ResourceName(read_project_id(self.conn_id, "project", project))
        if self.endpoint is not None:
            return self.endpoint.up_to("project")
        if self.project:
            return ResourceName(self.project)
        hint = "Name it as 'project' in {extra}{or_caller}."
        raise wrong_field(self.conn_id, "project", "is missing", hint)

    def override(self, *, database: str | None = None, options: str | None = None) -> LakebaseSettings:
        """Return settings with another database or further options.

        :param database: database in place of the connection's
        :param options: libpq's ``options``, for example ``-c statement_timeout=5min``, added after the connection's
        """
        session = self.session
        if database:
            session = replace(session, database=database)
        if options:
            merged = " ".join(filter(None, [session.libpq.get("options"), options]))
            session = replace(session, libpq=MappingProxyType({**session.libpq, "options": merged}))
        return replace(self, session=session)

    def with_wake_timeout(self, seconds: float) -> LakebaseSettings:
        """Return settings that give a session another time to open.

        :param seconds: the time, including the wake of a suspended endpoint
        """
        return replace(self, session=replace(self.session, wake_timeout=seconds))


@dataclass(frozen=True)
class ConnectionFields:
    """The fields of an Airflow connection, as plain values.

    Values may be strings, as in a connection given as a URI: numbers are read from them. None and the empty string
    count as absent, since Airflow's form saves fields that were left alone.

    :param conn_id: Airflow connection id
    :param host: workspace URL
    :param login: client ID, or a native Postgres role
    :param password: its OAuth secret, or the role's password
    :param schema: database
    :param port: Postgres port
    :param extra: the connection's extra fields
    """

    conn_id: str
    host: str | None = None
    login: str | None = None
    password: str | None = field(default=None, repr=False)
    schema: str | None = None
    port: int | str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def login_by_label(self) -> dict[str, Any]:
        """The form's own fields that say where to sign in and as whom, by the names that the form shows."""
        return {"Host": self.host, "Login": self.login, "Password": self.password}

    @property
    def by_label(self) -> dict[str, Any]:
        """All fields by the names that the form shows, and the extras by theirs."""
        return {**self.extra, **self.login_by_label}


def databricks_conn_id(fields: ConnectionFields) -> str | None:
    """Return the Databricks connection that a Lakebase connection takes its identity from, if any.

    :param fields: the Lakebase connection
    """
    return fields.extra.get("databricks_conn_id") or None


def read_settings(
    fields: ConnectionFields,
    *,
    endpoint: str | None = None,
    read_only: bool | None = None,
    databricks: ConnectionFields | None = None,
) -> LakebaseSettings:
    """Check the fields of an Airflow connection and return them as settings.

    :param fields: the Lakebase connection
    :param endpoint: endpoint in place of the connection's, whose ``pg_host`` and ``project`` then do not count
    :param read_only: whether sessions only read, in place of the connection's
    :param databricks: the Databricks connection that it names, if it names one
    :raises LakebaseSettingsError: for a field that is missing, wrong or unknown; the message names it
    """
    conn_id = fields.conn_id
    given = {name: value for name, value in fields.extra.items() if value is not None and value != ""}
    refuse_reserved(conn_id, given)
    known = {name: read(conn_id, name, given[name]) for name, read in EXTRA_FIELDS.items() if name in given}
    libpq = _read_libpq(conn_id, given)
    login = _read_login(fields, known, databricks)
    if endpoint:
        _override_endpoint(conn_id, known, endpoint, is_native=login["identity"] is None)
    if read_only is not None:
        known["read_only"] = read_only
    named = known.pop("endpoint", None)
    if named is not None and known.get("project", named.project) != named.project:
        hint = "Leave 'project' out: it is that of the endpoint."
        raise wrong_field(conn_id, "project", f"is {known['project']}, but 'endpoint' is {named}", hint)
    if login["identity"] is not None and named is None:
        _refuse_misspelt_endpoint(conn_id, libpq)
    session = SessionSettings(
        database=fields.schema or DEFAULT_DATABASE,
        port=whole_number(1, 65535)(conn_id, "Port", fields.port) if fields.port not in (None, "") else DEFAULT_PORT,
        user=login.get("user"),
        password=login.get("password"),
        libpq=MappingProxyType(libpq),
        **{name: known[name] for name in _SESSION_EXTRAS if name in known},
    )
    _check_host(conn_id, session, is_native=login["identity"] is None)
    return LakebaseSettings(conn_id, login["identity"], named, session, known.get("project"))


def is_pooled(pg_host: str | None) -> bool:
    """Return whether a Postgres host is a pooled one, which accepts native passwords only.

    :param pg_host: host name, or None
    """
    return (pg_host or "").split(".")[0].lower().endswith("-pooler")


def _read_libpq(conn_id: str, given: Mapping[str, Any]) -> dict[str, str]:
    for name in POSTGRES_HOOK_EXTRAS:
        if name in given:
            raise unknown_field(conn_id, name, ())
    names = sorted(set(given) - set(EXTRA_FIELDS) - DBAPI_HOOK_EXTRAS)
    return {name: read_text(conn_id, name, given[name]) for name in names}


def _read_login(
    fields: ConnectionFields, known: Mapping[str, Any], databricks: ConnectionFields | None
) -> dict[str, Any]:
    """Return ``identity`` and ``user``; for a native Postgres login also ``password``, and None as identity."""
    conn_id, labelled = fields.conn_id, {**known, **fields.login_by_label}
    role = known.get("user")
    if databricks is not None:
        clash = next((name for name in _LOGIN_FIELDS if labelled.get(name)), None)
        if clash:
            raise wrong_field(conn_id, clash, "clashes with 'databricks_conn_id'", "Give one of the two.")
        identity = read_databricks_identity(conn_id, databricks.conn_id, databricks.by_label)
        return {"identity": identity, "user": role or known.get("group_name")}
    auth_type = known.get("auth_type", DEFAULT_AUTH_TYPE)
    if auth_type == NATIVE:
        keywords = read_authentication(conn_id, NATIVE, labelled)
        return {"identity": None, **keywords, "user": role or keywords["user"]}
    identity = read_identity(conn_id, auth_type, labelled)
    return {"identity": identity, "user": role or known.get("group_name") or identity.client_id}


def _override_endpoint(conn_id: str, known: dict[str, Any], endpoint: str, *, is_native: bool) -> None:
    named = read_endpoint_name(conn_id, "endpoint", endpoint)
    if named == known.get("endpoint"):
        return
    if is_native:
        raise wrong_field(
            conn_id,
            "endpoint",
            f"is not used with auth_type '{NATIVE}'",
            "A native Postgres login goes to 'pg_host': leave 'endpoint' out, or use a {connection} "
            "with an identity of the workspace.",
        )
    for of_connection in ("pg_host", "project"):
        known.pop(of_connection, None)
    known["endpoint"] = named


def _refuse_misspelt_endpoint(conn_id: str, libpq: Mapping[str, str]) -> None:
    for near in get_close_matches("endpoint", libpq, n=1, cutoff=0.75):
        raise unknown_field(conn_id, near, ())


def _check_host(conn_id: str, session: SessionSettings, *, is_native: bool) -> None:
    if is_native and not session.pg_host:
        raise wrong_field(conn_id, "pg_host", "is missing", "A native Postgres login needs the name of its host.")
    if is_native and session.read_only and is_pooled(session.pg_host):
        raise wrong_field(conn_id, "read_only", "does not work on a pooled host", "Use the direct host.")
    if not is_native and is_pooled(session.pg_host):
        raise wrong_field(
            conn_id,
            "pg_host",
            "is a pooled host, which does not accept OAuth credentials",
            f"Use the direct host, the same name without '-pooler', or a Postgres role with auth_type '{NATIVE}'.",
        )
