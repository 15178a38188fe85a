"""Sessions of dbt: each with a new database credential, opened while the endpoint wakes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any, cast

import psycopg
import psycopg2
from dbt.adapters.contracts.connection import Connection, Credentials
from dbt.adapters.events.logging import AdapterLogger
from dbt.adapters.postgres.connections import PostgresConnectionManager
from dbt_common.dataclass_schema import ValidationError
from dbt_common.exceptions import DbtDatabaseError, DbtRuntimeError
from psycopg.pq import Conninfo

from airflow_provider_lakebase.core.connection.fields import EXTRA_FIELDS, RESERVED_LIBPQ_KEYWORDS, suggest
from airflow_provider_lakebase.core.connection.identity import (
    AUTH_FIELDS,
    DATABRICKS_FIELDS,
    read_databricks_identity,
)
from airflow_provider_lakebase.core.connection.readers import read_workspace_url, required, wrong_field
from airflow_provider_lakebase.core.connection.settings import ConnectionFields, LakebaseSettings, read_settings
from airflow_provider_lakebase.core.factory import SessionFactory
from airflow_provider_lakebase.core.session.application_name import name_application
from airflow_provider_lakebase.exceptions import (
    WORDS,
    LakebaseError,
    LakebaseOutcomeUnknownError,
    LakebaseSettingsError,
)

log = AdapterLogger("Lakebase")
_REQUIRED = ("database", "schema")
_TYPES = {
    "port": "Give a whole number from 1 to 65535.",
    "autocommit": "Give true or false.",
    "databricks": "Write the fields of the Databricks connection below it.",
    "extra": "Write fields below it, or remove it.",
}
_WHAT_TO_USE = {
    "databricks_conn_id": "Write the fields of that connection below 'databricks'.",
    "pass": "Use 'client_secret'.",
    "retries": "Use 'wake_timeout': opening a session repeats what can succeed later for so long.",
}
_TEXT = "Give a text: put the value in quotes."
DBT_WORDS = {
    **WORDS,
    "login": "client_id",
    "password": "client_secret",
    "connection": "target",
    "extra": "the profile",
    "libpq": "the profile",
}
"""dbt's words for what the errors of the core speak of."""


@dataclass
class LakebaseCredentials(Credentials):
    """A target of a profile: the fields of an Airflow connection of type ``lakebase``, by the same names.

    :param host: workspace URL
    :param client_id: client ID, or a native Postgres role
    :param client_secret: its OAuth secret, or the role's password
    :param port: Postgres port
    :param role: role that each session sets
    :param search_path: search path that each session sets
    :param application_name: name shown in ``pg_stat_activity``
    :param autocommit: as in dbt-postgres
    :param databricks: fields of a connection of Databricks that has the identity, in place of ``client_id``
    :param extra: the other fields: ``endpoint``, ``sslmode``, ``wake_timeout`` …, and libpq's keywords
    """

    host: str | None = None
    client_id: str | None = None
    client_secret: str | None = field(default=None, repr=False)
    port: int | str | None = None
    role: str | None = None
    search_path: str | None = None
    application_name: str | None = None
    autocommit: bool | None = False
    databricks: dict[str, Any] | None = field(default=None, repr=False)
    extra: dict[str, Any] = field(default_factory=dict, repr=False)

    _ALIASES = {"dbname": "database"}

    @classmethod
    def validate(cls, data: Any) -> None:
        """Check that what dbt needs is there, and that texts are texts.

        :param data: the fields of the target
        :raises ValidationError: for the first wrong field; it shows no value, since that may be a secret
        """
        for name in _REQUIRED:
            if data.get(name) in (None, ""):
                raise ValidationError(f"Field '{name}' is missing. Enter it in the target.")
        try:
            super().validate(data)
            return
        except ValidationError as error:
            name = str(error.absolute_path[0])
        # Out here, where dbt's error with the values is no longer the context.
        raise ValidationError(f"Field '{name}' holds a {type(data[name]).__name__}. {_TYPES.get(name, _TEXT)}")

    @classmethod
    def __pre_deserialize__(cls, data: dict[str, Any]) -> dict[str, Any]:
        data = super().__pre_deserialize__(data)  # type: ignore[no-untyped-call]
        known = {each.name for each in fields(cls)}
        extra = {**data.get("extra", {}), **{name: data[name] for name in data.keys() - known}}
        return {**{name: data[name] for name in data.keys() & known}, "extra": extra}

    def __post_init__(self) -> None:
        try:
            # A wrong field is named while dbt reads the profile.
            if not (settings := self.settings).is_native:
                settings.require_endpoint()
        except LakebaseSettingsError as error:
            error.words = DBT_WORDS
            raise DbtRuntimeError(str(error)) from None

    @property
    def type(self) -> str:
        """The adapter's name."""
        return "lakebase"

    @property
    def unique_field(self) -> str:
        """What dbt counts users by, hashed."""
        return self.host or str(self.extra.get("pg_host"))

    @property
    def settings(self) -> LakebaseSettings:
        """The fields, checked; the workspace is not asked."""
        self._refuse_unknown_fields()
        own = ConnectionFields(
            # The target is no connection of Airflow, and dbt names it.
            conn_id="",
            host=self.host,
            login=self.client_id,
            password=self.client_secret,
            schema=self.database,
            port=self.port,
            extra=self.extra,
        )
        databricks = None if self.databricks is None else _databricks(self.databricks)
        if databricks:
            self._refuse_two_identities()
        settings = read_settings(own, databricks=databricks)
        path = (self.search_path or "").replace("\\", "\\\\").replace(" ", "\\ ")
        return settings.override(options=f"-c search_path={path}" if path else None)

    def connection_info(self, *, with_aliases: bool = False) -> Iterable[tuple[str, Any]]:
        """Give what ``dbt debug`` shows, and macros see as ``target``.

        :param with_aliases: whether other names of the fields count too
        """
        yield from super().connection_info(with_aliases=with_aliases)
        # None of them is a secret. Those of libpq may be.
        yield from ((name, self.extra[name]) for name in EXTRA_FIELDS if name in self.extra)

    def _connection_keys(self) -> tuple[str, ...]:
        return ("host", "client_id", "port", "database", "schema", "role", "search_path", "application_name")

    def _refuse_unknown_fields(self) -> None:
        libpq = {each.keyword.decode() for each in Conninfo.get_defaults()} - RESERVED_LIBPQ_KEYWORDS
        known = {each.name for each in fields(self)} | EXTRA_FIELDS.keys() | libpq
        known -= {"databricks_conn_id", "extra"}
        # The core says what to use in place of a reserved keyword.
        given = {name for name, value in self.extra.items() if value not in (None, "")} - RESERVED_LIBPQ_KEYWORDS
        for name in sorted(given - known):
            hint = _WHAT_TO_USE.get(name) or suggest(name, known) or "Remove it."
            raise wrong_field("", name, "is unknown", hint)

    def _refuse_two_identities(self) -> None:
        own = {"host": self.host, "client_id": self.client_id, "client_secret": self.client_secret, **self.extra}
        for name in ("host", "client_id", "client_secret", "auth_type", *AUTH_FIELDS):
            if own.get(name):
                raise wrong_field("", name, "clashes with 'databricks'", "Give one of the two.")


def _databricks(given: Mapping[str, Any]) -> ConnectionFields:
    """Return the fields below ``databricks``; they are checked here, where errors speak of the profile."""
    for name, value in given.items():
        if name not in DATABRICKS_FIELDS:
            hint = f"The fields below 'databricks' are {', '.join(sorted(DATABRICKS_FIELDS))}."
            raise wrong_field("", f"databricks.{name}", "is unknown", hint)
        if value is not None and not isinstance(value, str | bool):
            raise wrong_field("", f"databricks.{name}", f"holds a {type(value).__name__}", _TEXT)
    host = required("", "databricks.host", given.get("host"), "Enter the workspace URL, https://….")
    read_workspace_url("", "databricks.host", host)
    login = {name: given.get(name) for name in ("host", "login", "password")}
    extra = {name: value for name, value in given.items() if name not in login}
    found = ConnectionFields(conn_id="", **login, extra=extra)
    try:
        read_databricks_identity("", "", found.by_label)
    except LakebaseSettingsError:
        raise LakebaseSettingsError(
            "Field 'databricks' holds no identity: no 'login' and 'password' with 'service_principal_oauth', none with "
            "'azure_tenant_id', no 'token'",
            hint="Complete it, or give {login} and {password} in its place.",
        ) from None
    return found


class LakebaseConnectionManager(PostgresConnectionManager):
    """dbt-postgres's sessions, each opened with a new credential."""

    TYPE = "lakebase"

    @classmethod
    def open(cls, connection: Connection) -> Connection:
        """Open a session; wait for a suspended endpoint to wake, for ``wake_timeout`` seconds at most."""
        if connection.state == "open":
            return connection
        credentials = cast(LakebaseCredentials, connection.credentials)
        name = credentials.application_name or name_application(os.environ)
        factory = SessionFactory(credentials.settings, application_name=name)

        def connect() -> Any:
            try:
                handle = factory.open_with(_connect)
                try:
                    _prepare(handle, credentials)
                except BaseException:
                    handle.close()
                    raise
            except LakebaseError as error:
                error.words = DBT_WORDS
                raise
            return handle

        # The factory has repeated what can succeed later.
        return cls.retry_connection(connection, connect, log, retryable_exceptions=(), retry_limit=0)

    @contextmanager
    def exception_handler(self, sql: str) -> Iterator[None]:
        """Turn errors into dbt's, as dbt-postgres does; that of a lost session says what to do.

        :param sql: the statement
        """
        connection = self.get_thread_connection()
        try:
            with super().exception_handler(sql):
                yield
        except DbtRuntimeError as error:
            if connection.state != "open" or not connection.handle.closed:
                raise
            lost = LakebaseOutcomeUnknownError(
                f"The session was lost: the endpoint suspended or restarted, or the network failed ({error.msg})",
                context=cast(LakebaseCredentials, connection.credentials).settings.context,
                hint="Whether the statement had its effect is unknown. `dbt retry` runs what failed or was skipped.",
            )
            lost.words = DBT_WORDS
            raise DbtDatabaseError(str(lost)) from error


def _prepare(handle: Any, credentials: LakebaseCredentials) -> None:
    handle.autocommit = bool(credentials.autocommit)
    if not credentials.role:
        return
    try:
        with handle.cursor() as cursor:
            cursor.execute(f"set role {credentials.role}")  # as in dbt-postgres, quoted in the profile
    except (psycopg2.DataError, psycopg2.ProgrammingError) as error:
        raise LakebaseSettingsError(
            f"Field 'role' is {credentials.role!r}, which a session cannot set: {error.diag.message_primary}",
            context=credentials.settings.context,
            hint="Correct it, with double quotes within the text unless the name is in lower case; or have the role "
            "granted to the one that logs in.",
            sqlstate=error.pgcode,
        ) from error


def _connect(conninfo: str, **keywords: Any) -> Any:
    """Connect by dbt-postgres's driver, with the errors of psycopg, which the factory tells apart."""
    try:
        return psycopg2.connect(conninfo, **keywords)
    except psycopg2.OperationalError as error:
        raise psycopg.OperationalError(str(error)) from None
