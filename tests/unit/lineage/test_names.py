"""How OpenLineage names tables and files."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest

from airflow_provider_lakebase.core.connection.identity import WorkspaceIdentity
from airflow_provider_lakebase.core.connection.resource_names import ResourceName
from airflow_provider_lakebase.core.connection.settings import LakebaseSettings, SessionSettings
from airflow_provider_lakebase.lineage.names import file_name, lakebase_database, other_database, split_name


def database(options: str = "") -> Any:
    identity = WorkspaceIdentity("https://w.cloud.databricks.com", "oauth-m2m")
    session = SessionSettings(database="sales", libpq=MappingProxyType({"options": options} if options else {}))
    return lakebase_database(LakebaseSettings("c", identity, ResourceName.parse("projects/p/branches/b"), session))


@pytest.mark.parametrize(
    ("options", "schema"),
    [
        ("", "public"),
        ("-c search_path=shop,public", "shop"),
        ("-c search_path=a -c search_path=b", "b"),
        ('-c search_path="$user",public', "public"),
        ("-c statement_timeout=5min", "public"),
    ],
)
def test_unqualified_names_are_in_the_first_schema_of_the_search_path(options: str, schema: str):
    assert database(options).schema == schema


def test_a_table_is_named_by_database_schema_and_table():
    found = database()
    assert found.namespace == "lakebase://w.cloud.databricks.com/p/b"
    assert found.full_name(("public", "orders")) == "sales.public.orders"


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("t", ("public", "t")),
        ("S.T", ("s", "t")),
        ('"S"."T"', ("S", "T")),
        ('"a ""b"""', ("public", 'a "b"')),
        ("d.s.t", ("s", "t")),
    ],
)
def test_a_name_is_split_as_postgres_splits_it(name: str, parts: tuple[str, str]):
    assert split_name(name, "public") == parts


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/data/x.csv", ("file", "/data/x.csv")),
        (Path("/data/x.csv"), ("file", "/data/x.csv")),
        ("file:///data/x.csv", ("file", "/data/x.csv")),
        ("s3://bucket/a/b.csv?versionId=1", ("s3://bucket", "a/b.csv")),
        ("s3a://conn@bucket/a.csv", ("s3://bucket", "a.csv")),
        ("gcs://bucket/a.csv", ("gs://bucket", "a.csv")),
        (
            "abfss://container@account.dfs.core.windows.net/a.csv",
            ("abfss://container@account.dfs.core.windows.net", "a.csv"),
        ),
        ("https://user:secret@host/a.csv", ("https://host", "a.csv")),
        ("s3://conn@bucket/a/", ("s3://bucket", "a")),
        ("s3://conn@bucket/a/day=*/b-?.csv", ("s3://bucket", "a")),
        ("s3://bucket/a/b-?.csv", ("s3://bucket", "a")),
        ("s3://bucket/**/*.csv", ("s3://bucket", "/")),
        ("/data/*/x.csv", ("file", "/data")),
        ("/*.csv", ("file", "/")),
        ("*.csv", ("file", str(Path.cwd()))),
        ("zip://a.csv::s3://bucket/b.zip", None),
        ("https://host/user:secret@other/a.csv", None),
        (None, None),
    ],
)
def test_a_file_is_named_without_secrets(path: Any, name: tuple[str, str] | None):
    assert file_name(path) == name


def test_another_database_is_named_without_a_connection_to_it():
    def connect() -> None:
        raise AssertionError("a connection was opened")

    class Hook:
        get_conn = staticmethod(connect)

        def get_openlineage_database_info(self, connection: Any) -> Any:
            return SimpleNamespace(scheme="mysql", authority="host:3306", database=None)

        def get_openlineage_database_dialect(self, connection: Any) -> str:
            return "mysql"

        def get_openlineage_default_schema(self) -> Any:
            return self.get_conn()

    found = other_database(Hook(), None)
    assert found is not None
    assert (found.namespace, found.dialect, found.schema) == ("mysql://host:3306", "mysql", "public")
