"""Sessions of dbt: each with a new database credential, opened while the endpoint wakes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, cast

import psycopg
import psycopg2
from dbt.adapters.contracts.connection import Connection, Credentials
from dbt.adapters.events.logging import AdapterLogger
from dbt.adapters.postgres.connections import PostgresConnectionManager
from dbt_common.exceptions import DbtRuntimeError

from airflow_provider_lakebase.core.connection.settings import ConnectionFields, LakebaseSettings, read_settings
from airflow_provider_lakebase.core.factory import SessionFactory
from airflow_provider_lakebase.core.session.application_name import name_application
from airflow_provider_lakebase.exceptions import WORDS, LakebaseError, LakebaseSettingsError

log = AdapterLogger("Lakebase")
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
    port: int | None = None
    role: str | None = None
    search_path: str | None = None
    application_name: str | None = None
    autocommit: bool | None = False
    databricks: dict[str, Any] | None = field(default=None, repr=False)
    extra: dict[str, Any] = field(default_factory=dict, repr=False)

    _ALIASES = {"dbname": "database"}

    @classmethod
    def __pre_deserialize__(cls, data: dict[str, Any]) -> dict[str, Any]:
        data = super().__pre_deserialize__(data)  # type: ignore[no-untyped-call]
        known = {each.name for each in fields(cls)}
        extra = {**data.get("extra", {}), **{name: data[name] for name in data.keys() - known}}
        return {**{name: data[name] for name in data.keys() & known}, "extra": extra}

    def __post_init__(self) -> None:
        try:
            self.settings  # noqa: B018 - a wrong field is named while dbt reads the profile
        except LakebaseSettingsError as error:
            error.words = DBT_WORDS
            raise DbtRuntimeError(str(error)) from error

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
        own = ConnectionFields(
            conn_id="dbt",
            host=self.host,
            login=self.client_id,
            password=self.client_secret,
            schema=self.database,
            port=self.port,
            extra=self.extra,
        )
        settings = read_settings(own, databricks=_databricks(self.databricks) if self.databricks else None)
        path = (self.search_path or "").replace("\\", "\\\\").replace(" ", "\\ ")
        return settings.override(options=f"-c search_path={path}" if path else None)

    def _connection_keys(self) -> tuple[str, ...]:
        return ("host", "client_id", "port", "database", "schema", "role", "search_path", "application_name")


def _databricks(given: Mapping[str, Any]) -> ConnectionFields:
    extra = {name: value for name, value in given.items() if name not in ("host", "login", "password")}
    login = {name: given.get(name) for name in ("host", "login", "password")}
    return ConnectionFields(conn_id="databricks", **login, extra=extra)


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
            except LakebaseError as error:
                error.words = DBT_WORDS
                raise
            handle.autocommit = bool(credentials.autocommit)
            if credentials.role:
                handle.cursor().execute(f"set role {credentials.role}")  # as in dbt-postgres, quoted in the profile
            return handle

        # The factory has repeated what can succeed later.
        return cls.retry_connection(connection, connect, log, retryable_exceptions=(), retry_limit=0)


def _connect(conninfo: str, **keywords: Any) -> Any:
    """Connect by dbt-postgres's driver, with the errors of psycopg, which the factory tells apart."""
    try:
        return psycopg2.connect(conninfo, **keywords)
    except psycopg2.OperationalError as error:
        raise psycopg.OperationalError(str(error)) from None
