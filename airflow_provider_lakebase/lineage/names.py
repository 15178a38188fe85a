"""OpenLineage names of databases, tables and files, without connecting to any of them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from airflow_provider_lakebase.assets import DEFAULT_SCHEMA, SCHEME, branch_of
from airflow_provider_lakebase.core.connection.settings import LakebaseSettings

_SEARCH_PATH = re.compile(r"search_path\s*=\s*([^\s,]+)")
_IDENTIFIER = re.compile(r'"((?:[^"]|"")+)"|([^\s".]+)')
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
_WILDCARD = re.compile(r"[*]|[?](?![\w-]+=)")
_S3 = ("s3a", "s3n")
_CONTAINERS = ("abfs", "abfss", "wasb", "wasbs")
"""Schemes whose URLs have a container in the place of the user."""

Name = tuple[str, str]
"""Schema and table, unquoted."""


@dataclass(frozen=True)
class Database:
    """The parts that the names of a database's tables share.

    :param namespace: OpenLineage namespace of the tables
    :param name: name of the database; None if table names do not contain it
    :param dialect: SQL dialect, as OpenLineage's parser names it
    :param schema: schema of unqualified names; None if there are no schemas
    """

    namespace: str
    name: str | None
    dialect: str
    schema: str | None

    def full_name(self, table: Name) -> str:
        """Return the OpenLineage name of a table.

        :param table: schema and name
        """
        return ".".join(filter(None, (self.name, *table)))


def namespace_of(settings: LakebaseSettings) -> str:
    """Return the OpenLineage namespace of a connection's tables.

    :param settings: settings of the connection
    :returns: ``postgres://host:port`` if the connection names the host; otherwise
        ``lakebase://workspace/project/branch``, because the host would have to be looked up
    """
    if settings.session.pg_host:
        return f"postgres://{settings.session.pg_host.lower()}:{settings.session.port}"
    return f"{SCHEME}://{'/'.join(branch_of(settings) or ())}"


def lakebase_database(settings: LakebaseSettings) -> Database:
    """Return the database of a connection of type ``lakebase``.

    Unqualified names are in the first schema of a ``search_path`` in ``options``, otherwise in ``public``.

    :param settings: settings of the connection
    """
    found = [schema for schema in _SEARCH_PATH.findall(settings.session.libpq.get("options", "")) if "$" not in schema]
    schema = found[-1].strip("\"'") if found else DEFAULT_SCHEMA
    return Database(namespace_of(settings), settings.session.database, "postgres", schema)


def other_database(hook: Any, connection: Any) -> Database | None:
    """Return the database of another connection, without connecting; None if OpenLineage does not name its kind.

    :param hook: a ``DbApiHook`` that is used for nothing else, because it can no longer connect afterwards
    :param connection: its Airflow connection
    """
    # Some hooks query the database for its default schema.
    hook.get_conn = hook.get_sqlalchemy_engine = _refuse
    info = hook.get_openlineage_database_info(connection)
    if info is None:
        return None
    dialect = hook.get_openlineage_database_dialect(connection)
    try:
        schema = hook.get_openlineage_default_schema()
    except _Refused:
        schema = "dbo" if dialect == "mssql" else DEFAULT_SCHEMA
    namespace = f"{info.scheme}://{info.authority}" if info.authority else info.scheme
    return Database(namespace, info.database, dialect, schema)


class _Refused(Exception):
    """A hook tried to connect."""


def _refuse(*_: Any, **__: Any) -> None:
    raise _Refused


def split_name(table: str, schema: str | None) -> Name:
    """Split the name of a table into schema and table, as Postgres does.

    :param table: the name as written in SQL: ``t``, ``s.t``, ``"S"."T"``
    :param schema: schema of unqualified names
    """
    parts = [quoted.replace('""', '"') if quoted else plain.lower() for quoted, plain in _IDENTIFIER.findall(table)]
    return (parts[-2] if len(parts) > 1 else schema or "", parts[-1])


def file_name(path: Any) -> tuple[str, str] | None:
    """Return OpenLineage namespace and name of a file or folder, without user, password or query.

    :param path: path or URL; of a pattern, the folder that holds all of its files is named
    :returns: None for anything else, and for a URL that may contain a secret in an unusual place
    """
    text = str(path)
    if path is None or not text or "::" in text:
        return None
    if pattern := _WILDCARD.search(text):
        text = text[: text.rfind("/", 0, pattern.start()) + 1] or "."
    if "://" not in text:
        return None if _SCHEME.match(text) else ("file", os.path.abspath(text))
    url = urlsplit(text)
    if "@" in url.path:
        return None
    scheme = "s3" if url.scheme in _S3 else "gs" if url.scheme == "gcs" else url.scheme
    if scheme == "file":
        return "file", url.path
    return f"{scheme}://{_authority(url, scheme)}", url.path.strip("/") or "/"


def _authority(url: SplitResult, scheme: str) -> str:
    user, _, host = url.netloc.rpartition("@")
    return url.netloc if scheme in _CONTAINERS and user and ":" not in user else host
