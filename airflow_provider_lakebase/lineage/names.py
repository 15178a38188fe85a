"""What databases, tables and files are called in OpenLineage, without asking any of them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from airflow_provider_lakebase.assets import DEFAULT_SCHEMA, namespace_of
from airflow_provider_lakebase.core.connection.settings import LakebaseSettings

_SEARCH_PATH = re.compile(r"search_path\s*=\s*([^\s,]+)")
_IDENTIFIER = re.compile(r'"((?:[^"]|"")+)"|([^\s".]+)')
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
_S3 = ("s3a", "s3n")
_CONTAINERS = ("abfs", "abfss", "wasb", "wasbs")
"""Schemes whose URLs have the container where others have a user."""

Name = tuple[str, str]
"""Schema and table, unquoted."""


@dataclass(frozen=True)
class Database:
    """Hold what the names of a database's tables are made of.

    :param namespace: OpenLineage's, of all its tables
    :param name: its name; None where tables are named without it
    :param dialect: of its SQL, as OpenLineage's parser names it
    :param schema: schema of names without one; None where there are no schemas
    """

    namespace: str
    name: str | None
    dialect: str
    schema: str | None

    def full_name(self, table: Name) -> str:
        """Return OpenLineage's name of a table.

        :param table: its schema and name
        """
        return ".".join(filter(None, (self.name, *table)))


def lakebase_database(settings: LakebaseSettings) -> Database:
    """Return the database of a connection of type ``lakebase``.

    Names without a schema are in the first one of a ``search_path`` among ``options``, else in ``public``.

    :param settings: of the connection
    """
    found = [schema for schema in _SEARCH_PATH.findall(settings.session.libpq.get("options", "")) if "$" not in schema]
    schema = found[-1].strip("\"'") if found else DEFAULT_SCHEMA
    return Database(namespace_of(settings), settings.session.database, "postgres", schema)


def other_database(hook: Any, connection: Any) -> Database | None:
    """Return the database of another connection, asking it nothing; None where OpenLineage has no names for its kind.

    :param hook: a ``DbApiHook`` that is used for nothing else: it is kept from connecting
    :param connection: its Airflow connection
    """
    # Some hooks ask the database for its default schema.
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
    """A hook was about to connect."""


def _refuse(*_: Any, **__: Any) -> None:
    raise _Refused


def split_name(table: str, schema: str | None) -> Name:
    """Return schema and table of a name, as Postgres reads it.

    :param table: the name as SQL writes it: ``t``, ``s.t``, ``"S"."T"``
    :param schema: schema of names without one
    """
    parts = [quoted.replace('""', '"') if quoted else plain.lower() for quoted, plain in _IDENTIFIER.findall(table)]
    return (parts[-2] if len(parts) > 1 else schema or "", parts[-1])


def file_name(path: Any) -> tuple[str, str] | None:
    """Return namespace and name of a file, as OpenLineage's naming has them, without user, password or query.

    :param path: path or URL
    :returns: None for what is neither, or may have a secret in an unusual place
    """
    text = str(path)
    if path is None or not text or "::" in text:
        return None
    if "://" not in text:
        return None if _SCHEME.match(text) else ("file", os.path.abspath(text))
    url = urlsplit(text)
    if "@" in url.path:
        return None
    scheme = "s3" if url.scheme in _S3 else "gs" if url.scheme == "gcs" else url.scheme
    if scheme == "file":
        return "file", url.path
    return f"{scheme}://{_authority(url, scheme)}", url.path.lstrip("/")


def _authority(url: SplitResult, scheme: str) -> str:
    user, _, host = url.netloc.rpartition("@")
    return url.netloc if scheme in _CONTAINERS and user and ":" not in user else host
