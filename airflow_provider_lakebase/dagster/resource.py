"""The resource: settings from Dagster's configuration, and sessions opened with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Union, Unpack

from dagster import ConfigurableResource, EnvVar, InitResourceContext, ResourceDefinition

# SqlComponent accepts subclasses of this class only, and Dagster exports it nowhere else.
from dagster.components.lib.sql_component.sql_client import SQLClient
from pydantic import Field, PrivateAttr

from airflow_provider_lakebase.core.bulk.export import export
from airflow_provider_lakebase.core.bulk.load import BeforeRows, LoadResult, run_load
from airflow_provider_lakebase.core.bulk.option_signature import takes_options
from airflow_provider_lakebase.core.bulk.options import ExportKeywords, ExportOptions, LoadKeywords, LoadOptions
from airflow_provider_lakebase.core.connection.fields import (
    DEFAULT_DATABASE,
    DEFAULT_PORT,
    DEFAULT_SSLMODE,
    DEFAULT_WAKE_TIMEOUT,
    LEDGER_SCHEMA,
)
from airflow_provider_lakebase.core.connection.settings import ConnectionFields, LakebaseSettings, read_settings
from airflow_provider_lakebase.core.errors.classify import add_context
from airflow_provider_lakebase.core.factory import SessionFactory
from airflow_provider_lakebase.core.ledger import delete_record
from airflow_provider_lakebase.core.session.application_name import PRODUCT, name_statements
from airflow_provider_lakebase.core.session.connections import LakebaseSession
from airflow_provider_lakebase.core.sql.binding import hide_values
from airflow_provider_lakebase.core.sql.last_query import run_up_to_last
from airflow_provider_lakebase.core.workspace.client import Workspace
from airflow_provider_lakebase.core.workspace.endpoints import EndpointStatus, read_endpoint
from airflow_provider_lakebase.dagster._failures import fail_without_retry
from airflow_provider_lakebase.dagster._identity import StepContext, name_attempt, name_load, name_partition, op_context
from airflow_provider_lakebase.dagster._metadata import describe_export, describe_load
from airflow_provider_lakebase.dagster._storage import locate
from airflow_provider_lakebase.dagster._words import DAGSTER_WORDS
from airflow_provider_lakebase.dagster.authentication import (
    STRICT,
    AzureDevOpsOidc,
    EnvironmentOidc,
    FileOidc,
    GitHubOidc,
    PostgresPassword,
    ServicePrincipal,
    read_value,
)
from airflow_provider_lakebase.exceptions import LakebaseOutcomeUnknownError, LakebaseSettingsError

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

# Dagster 1.11 takes no other kind of union.
AnyAuthentication = Union[  # noqa: UP007
    ServicePrincipal, EnvironmentOidc, FileOidc, GitHubOidc, AzureDevOpsOidc, PostgresPassword
]
_TEXTS = ("endpoint", "project", "pg_host", "group_name", "sslmode", "sslrootcert")
_NUMBERS = ("read_only", "wake_timeout", "credential_ttl")
_LOADED: set[tuple[Any, ...]] = set()
"""The ledger's loads in this process: attempt at a step, load, ledger, database and table. A step may have several
resources, and write the name of a table in several ways."""


class LakebaseResource(ConfigurableResource, SQLClient):  # type: ignore[type-arg] # it is its own value
    """Databricks Lakebase: SQL, loads and exports, each on a session with a database credential of its own.

    Give secrets as ``EnvVar``, since Dagster stores and shows configuration. With a secret as text, it learns nothing
    of the resource's configuration.
    """

    model_config = STRICT

    host: str | None = Field(default=None, description="URL of the workspace.")
    endpoint: str | None = Field(
        default=None,
        description="projects/<project>/branches/<branch>/endpoints/<endpoint>, or a branch, whose read-write endpoint "
        "is meant.",
    )
    project: str | None = Field(default=None, description="Project whose branches are managed, without an endpoint.")
    authentication: AnyAuthentication = Field(
        discriminator="auth_type", description="Who signs in: a service principal, or a Postgres role."
    )
    database: str = Field(default=DEFAULT_DATABASE, description="Postgres database.")
    port: int = Field(default=DEFAULT_PORT, description="Postgres port.")
    pg_host: str | None = Field(default=None, description="Postgres host; by default it is looked up.")
    user: str | None = Field(default=None, description="Postgres role; by default that of the identity.")
    group_name: str | None = Field(default=None, description="Group whose role the credential is for.")
    read_only: bool = Field(default=False, description="Only read, on the read-only host where there is one.")
    sslmode: str = Field(default=DEFAULT_SSLMODE, description="require, verify-ca or verify-full.")
    sslrootcert: str | None = Field(default=None, description="File with the certificate authorities to trust.")
    wake_timeout: float = Field(
        default=DEFAULT_WAKE_TIMEOUT, description="Seconds that opening a session may take, waking included."
    )
    credential_ttl: int | None = Field(default=None, description="Seconds that a credential lives, 300 to 3600.")
    libpq: dict[str, str] = Field(
        default={}, repr=False, description="Further keywords of libpq, such as options: -c statement_timeout=5min."
    )

    _job_name: str = PrivateAttr(default="")
    _run_id: str = PrivateAttr(default="")

    def setup_for_execution(self, context: InitResourceContext) -> None:
        """Take the names of job and run for ``application_name``.

        :param context: of the resource, by Dagster
        """
        if context.run:
            self._job_name, self._run_id = context.run.job_name, context.run.run_id

    @property
    def stores_secret(self) -> bool:
        """Whether a secret is text, which Dagster would store and show, and not an ``EnvVar``."""
        name = self.authentication.secret_field
        secrets = [getattr(self.authentication, name) if name else None, self.libpq.get("sslpassword")]
        return any(each is not None and not isinstance(each, EnvVar) for each in secrets)

    def get_resource_definition(self) -> Any:
        """Return what Dagster stores about the resource: nothing of its configuration, if a secret is among it."""
        return self.without_config() if self.stores_secret else super().get_resource_definition()

    def without_config(self) -> ResourceDefinition:
        """Return the resource as one whose configuration Dagster does not know."""

        @contextmanager
        def initialize(context: InitResourceContext) -> Iterator[Any]:
            with self.yield_for_execution(context) as value:
                yield value

        return ResourceDefinition(initialize, description=type(self).__doc__)

    @property
    def settings(self) -> LakebaseSettings:
        """The configuration, checked.

        :raises LakebaseSettingsError: if a field is missing or wrong
        """
        kind = self.authentication
        user = {"user": read_value(self.user)} if kind.login_field != "user" else {}
        return read_settings(
            ConnectionFields(
                conn_id="",
                host=read_value(self.host),
                login=kind.login,
                password=kind.secret,
                schema=read_value(self.database),
                port=read_value(self.port),
                extra={
                    **{name: read_value(value) for name, value in self.libpq.items()},
                    **{name: read_value(getattr(self, name)) for name in _TEXTS},
                    **{name: getattr(self, name) for name in _NUMBERS},
                    **kind.others,
                    **user,
                    "auth_type": kind.auth_type,
                },
            )
        )

    @contextmanager
    def get_connection(self) -> Iterator[LakebaseSession]:
        """Open a session, waiting for a suspended endpoint to wake; commit after the ``with`` block, or roll back.

        :raises Failure: for an error that a retry cannot help
        :raises LakebaseError: if no session could be opened; the class says why
        :returns: a ``psycopg.Connection``
        """
        with fail_without_retry(), self._open() as session:
            yield session
            if not session.closed:
                session.commit()

    def get_engine(self, **options: Any) -> Engine:
        """Return a SQLAlchemy engine that opens every session with a new credential.

        :param options: keywords of :func:`sqlalchemy.create_engine`
        """
        with fail_without_retry():
            return self._factory().engine(options)

    def connect_and_execute(self, sql: str) -> None:
        """Run SQL in one transaction.

        :param sql: one or more statements
        """
        with self.get_connection() as session:
            session.execute(sql.encode())

    def endpoint_status(self, *, timeout: float = 30.0) -> EndpointStatus:
        """Return the endpoint's state from the workspace, without waking it.

        :param timeout: seconds to wait for the workspace
        """
        with fail_without_retry():
            settings = self.settings
            return read_endpoint(Workspace.of(settings), settings.require_endpoint(), timeout=timeout)

    def libpq_environment(self) -> dict[str, str]:
        """Return ``PGHOST … PGPASSWORD`` for psql, pg_dump or dbt, with a new credential; the endpoint is not woken.

        The credential opens sessions until it expires, after at most 60 minutes. Pass the variables only to the program
        that needs them.
        """
        with fail_without_retry():
            return self._factory().libpq_environment()

    @takes_options(LoadOptions)
    def load(
        self,
        context: StepContext,
        source: Any,
        table: str,
        *,
        part: str | None = None,
        exactly_once: bool = True,
        **options: Unpack[LoadKeywords],
    ) -> dict[str, Any]:
        """Load rows, files or Arrow data into a table by COPY, in one transaction: all of it, or nothing.

        A repeated ``replace`` or ``upsert`` leaves the same rows. A repeated ``append`` would not, so its transaction
        also writes run, asset and partition to a ledger, and a load into the same table that is found there writes
        nothing. A retry and the re-execution of a failed run count as the run that they repeat; the re-execution of a
        successful run loads again.

        :param context: of the asset or op
        :param source: iterable of tuples or dicts; path or URL of a file or folder, pattern with ``*``, ``?`` or
            ``**``, or a list of them; file opened for reading bytes; pyarrow ``Table``, ``RecordBatchReader``, or
            iterable of tables or record batches; data frame of pandas or polars; object with ``__arrow_c_stream__``,
            such as a relation of DuckDB; or an iterable of those
        :param table: target, as in SQL: ``schema.table``, quoted where necessary
        :param part: name of this load, where one asset loads several sources into one table; without ``load_id``
        :param exactly_once: use the ledger for ``append``; if not, there is neither ``part`` nor ``load_id``
        :param options: fields of ``LoadOptions``
        :raises Failure: for an error that a retry cannot help
        :returns: metadata for ``MaterializeResult``: rows as ``dagster/row_count``, of a partition as
            ``dagster/partition_row_count``; ``dagster/table_name`` and ``dagster/column_schema``
        """
        with fail_without_retry():
            step = op_context(context)
            checked = LoadOptions(**options)
            _check_names(part, exactly_once, checked)
            name = name_load(context, part)
            if checked.load_id is None and exactly_once and checked.mode == "append":
                checked = replace(checked, load_id=name)
        attempt = name_attempt(context)
        result = self._load(source, table, checked, rejects_id=name, step_name=step.op_def.name, attempt=attempt)
        if result.already_loaded:
            context.log.warning(
                f"The ledger has a record of this load into {table}, so nothing was written. It does not know whether "
                f"the rows are still there. To load again, run forget_load({checked.load_id!r}) of the resource."
            )
        settings = self.settings
        return describe_load(result, settings.session.database, is_partition=bool(name_partition(step)))

    def _load(
        self,
        source: Any,
        table: str,
        options: LoadOptions,
        *,
        rejects_id: str | None = None,
        step_name: str = "",
        attempt: tuple[Any, ...] | None = None,
        before_rows: BeforeRows | None = None,
        words: Mapping[str, str] = DAGSTER_WORDS,
    ) -> LoadResult:
        retry_finds_out = options.load_id is not None or options.mode != "append"
        try:
            with fail_without_retry(words), self._open(step_name) as session:
                rejects_id = rejects_id if options.rejects_table else None
                source = locate(source)
                result = run_load(session, source, table, options, rejects_id=rejects_id, before_rows=before_rows)
                if attempt is not None and options.load_id is not None:
                    _refuse_same_load(session, attempt, options, result)
                return result
        except Exception as error:
            cause = error.__cause__
            if retry_finds_out and isinstance(cause, LakebaseOutcomeUnknownError):
                # A person would have to look; a retry finds it out, and loads nothing twice.
                raise cause from None
            raise

    @takes_options(ExportOptions)
    def export(
        self,
        query_or_table: str,
        destination: Any,
        *,
        parameters: Sequence[Any] | Mapping[str, Any] | None = None,
        **options: Unpack[ExportKeywords],
    ) -> dict[str, Any]:
        """Write the rows of a query or table to a file by COPY. The file appears under its name once it is complete.

        With ``max_rows_per_file`` it is a folder of files. What the query writes is committed.

        :param query_or_table: a query, or a table name as in SQL; of several statements, the last one returns the rows
        :param destination: path or URL; a final ``.gz`` or ``.zst`` compresses CSV and JSON
        :param parameters: of the query
        :param options: fields of ``ExportOptions``
        :raises Failure: for an error that a retry cannot help
        :returns: metadata for ``MaterializeResult``: ``dagster/row_count``, ``lakebase/files`` and ``lakebase/bytes``
        """
        with fail_without_retry():
            checked, path = ExportOptions(**options), locate(destination)
            with hide_values(parameters), self._open() as session:
                query = run_up_to_last(session, query_or_table, parameters)
                result = export(session, query, path, checked)
                session.commit()
        return describe_export(result)

    def forget_load(self, load_id: str, *, ledger_schema: str = LEDGER_SCHEMA) -> int:
        """Delete the records of one load from the ledger, so that it can be repeated.

        :param load_id: identity of the load, as the warning of :meth:`load` names it
        :param ledger_schema: schema of the ledger
        :returns: how many records were deleted: one per table that the load filled
        """
        with self.get_connection() as session:
            return delete_record(session, ledger_schema, load_id)

    @contextmanager
    def _open(self, step_name: str = "") -> Iterator[LakebaseSession]:
        """Open a session for the ``with`` block, and cancel its running statement if the block raises."""
        with closing(self._factory(step_name).open(LakebaseSession)) as session:
            try:
                yield session
            except BaseException as error:
                # A terminated run arrives as an exception. A failure to cancel must not replace it.
                with suppress(Exception):
                    session.cancel_running()
                add_context(error, session.context)
                raise

    def _factory(self, step_name: str = "") -> SessionFactory:
        return SessionFactory(self.settings, application_name=self._application_name(step_name))

    def _application_name(self, step_name: str) -> str:
        return name_statements(self._job_name, step_name or "resource", self._run_id) if self._run_id else PRODUCT


def _check_names(part: str | None, exactly_once: bool, options: LoadOptions) -> None:
    """Refuse names of a load that would not count."""
    if part is not None and not part.strip():
        raise LakebaseSettingsError("part is empty", hint="Give each load a name of its own, or None.")
    if part is not None and options.load_id is not None:
        what = "part and load_id are both given, and each is the name of the load"
        raise LakebaseSettingsError(what, hint="Leave one of them out.")
    if not exactly_once and (part is not None or options.load_id is not None):
        given = "load_id" if part is None else "part"
        what = f"{given} is given with exactly_once=False, and names the load in a ledger that is not used"
        raise LakebaseSettingsError(what, hint=f"Leave out '{given}', or 'exactly_once'.")
    if part is not None and options.mode == "replace" and options.replace_where is None:
        raise LakebaseSettingsError(
            "part is given with mode 'replace', which would delete the rows of the other parts",
            hint="Load all sources at once, select the rows of this part with 'replace_where', or use mode 'append'.",
        )


def _refuse_same_load(
    session: LakebaseSession, attempt: tuple[Any, ...], options: LoadOptions, result: LoadResult
) -> None:
    """Refuse a load that the ledger took for another one of the same attempt, and so did not write."""
    place = (session.info.host, session.info.port, session.info.dbname, result.target)
    load = (attempt, options.load_id, options.ledger_schema, place)
    if result.already_loaded and load in _LOADED:
        raise LakebaseSettingsError(
            f"This step already loaded into {'.'.join(result.target or ())}, so the ledger takes this load for a "
            "repetition, and nothing of it was written",
            hint="Give each load a name of its own, as 'part' or 'load_id', or load all sources at once.",
        )
    _LOADED.add(load)
