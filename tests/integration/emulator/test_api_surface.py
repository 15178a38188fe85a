"""Every method of ``w.postgres`` in the installed SDK: what the emulator answers, by the SDK and over HTTP.

A method without a row fails the first test, so that a new SDK's methods are noticed.
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pyarrow
import pytest
from _clients import workspace_client
from databricks.sdk.errors import BadRequest, NotFound, NotImplemented
from databricks.sdk.service import postgres as sdk
from psycopg import sql

from airflow_provider_lakebase.emulator import LakebaseEmulator

PROJECT = "projects/demo"
BRANCH = f"{PROJECT}/branches/production"
DATABASE = f"{BRANCH}/databases/databricks-postgres"
_numbers = itertools.count(1)


class World:
    """A client, and things to call methods on. Each call of a method makes a new one."""

    def __init__(self, emulator: LakebaseEmulator) -> None:
        self.emulator = emulator
        self.unlisted: list[tuple[str, str]] = []
        self.postgres: Any = workspace_client(emulator).postgres

    def new_id(self) -> str:
        return f"thing-{next(_numbers)}"

    def branch(self) -> Any:
        spec = sdk.BranchSpec(no_expiry=True)
        return self.postgres.create_branch(PROJECT, sdk.Branch(spec=spec), self.new_id())

    def project(self) -> Any:
        return self.postgres.create_project(sdk.Project(spec=sdk.ProjectSpec()), self.new_id())

    def endpoint(self) -> Any:
        spec = sdk.EndpointSpec(endpoint_type=sdk.EndpointType.ENDPOINT_TYPE_READ_ONLY)
        return self.postgres.create_endpoint(BRANCH, sdk.Endpoint(spec=spec), self.new_id())

    def snapshot(self) -> Any:
        spec = sdk.SnapshotSpec(source_branch=BRANCH)
        return self.postgres.create_snapshot(PROJECT, sdk.Snapshot(spec=spec), self.new_id())

    def role(self) -> Any:
        role_id = self.new_id()
        spec = sdk.RoleRoleSpec(postgres_role=role_id)
        return self.postgres.create_role(BRANCH, sdk.Role(spec=spec), role_id=role_id)

    def database(self) -> Any:
        owner = next(self.postgres.list_roles(BRANCH)).name
        spec = sdk.DatabaseDatabaseSpec(role=owner, postgres_database=self.new_id())
        return self.postgres.create_database(BRANCH, sdk.Database(spec=spec), database_id=self.new_id())

    def catalog(self) -> Any:
        spec = sdk.CatalogCatalogSpec(branch=BRANCH, postgres_database="databricks_postgres")
        return self.noted("catalog", self.postgres.create_catalog(sdk.Catalog(spec=spec), self.new_id()))

    def synced_table(self) -> Any:
        name = f"main.gold.{self.new_id().replace('-', '_')}"
        self.emulator.publish("main.gold.source", pyarrow.table({"id": [1]}))
        spec = sdk.SyncedTableSyncedTableSpec(
            source_table_full_name="main.gold.source",
            primary_key_columns=["id"],
            scheduling_policy=sdk.SyncedTableSyncedTableSpecSyncedTableSchedulingPolicy.SNAPSHOT,
            branch=BRANCH,
            postgres_database="databricks_postgres",
            create_database_objects_if_missing=True,
            new_pipeline_spec=sdk.NewPipelineSpec(storage_catalog="main", storage_schema="gold"),
        )
        return self.noted("synced_table", self.postgres.create_synced_table(sdk.SyncedTable(spec=spec), name))

    def cdf_config(self) -> Any:
        schema = self.new_id().replace("-", "_")
        with psycopg.connect(self.emulator.superuser_conninfo, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
            connection.execute(sql.SQL("CREATE TABLE {}.things (n int)").format(sql.Identifier(schema)))
        config = sdk.CdfConfig(catalog="main", schema="feeds", postgres_schema=schema)
        return self.noted("cdf_config", self.postgres.create_cdf_config(DATABASE, config))

    def cdf_statuses(self) -> list[Any]:
        """Return the states of the tables of a new feed, which it shows soon."""
        feed, deadline = self.cdf_config().wait().name, time.monotonic() + 60
        while not (found := list(self.postgres.list_cdf_statuses(feed))):
            assert time.monotonic() < deadline, "waited a minute"
        return found

    def noted(self, kind: str, operation: Any) -> Any:
        """Remember what is not listed, so that it can be removed."""
        self.unlisted.append((kind, operation.name().split("/operations/")[0]))
        return operation

    def some(self, kind: str) -> str:
        """Return the name of a thing to read or change: a new one, unless that takes long."""
        return {"project": PROJECT, "branch": BRANCH}.get(kind) or str(getattr(self, kind)().wait().name)

    def deleted(self, made: Any) -> str:
        """Delete a project or branch, and return its name."""
        kind = type(made).__name__.lower()
        getattr(self.postgres, f"delete_{kind}")(made.name).wait()
        return str(made.name)


@dataclass(frozen=True)
class Row:
    """A call and what comes of it: the type of the result or of a list's items, None for nothing, or an error."""

    call: Callable[[World], Any]
    result: type | None
    text: str = ""


def sdk_class(kind: str) -> type:
    """Return the SDK's class of a kind such as ``synced_table``."""
    return getattr(sdk, kind.title().replace("_", ""))


def created(kind: str) -> Row:
    """The creation of a thing, an operation that returns it."""
    return Row(lambda world: getattr(world, kind)().wait(), sdk_class(kind))


def got(kind: str) -> Row:
    """The reading of a thing."""
    return Row(lambda w: getattr(w.postgres, f"get_{kind}")(w.some(kind)), sdk_class(kind))


def removed(kind: str) -> Row:
    """The deletion of a new thing, an operation that returns nothing."""
    delete = f"delete_{kind}"
    return Row(lambda w: getattr(w.postgres, delete)(getattr(w, kind)().wait().name).wait(), None)


def not_imitated(call: Callable[[World], Any], route: str) -> Row:
    """A call of a route that the emulator does not imitate."""
    return Row(call, NotImplemented, f"The emulator does not imitate {route}")


def changed(kind: str, mask: str, **spec: Any) -> Row:
    """The update of a thing, an operation that returns it."""
    specs = {"role": "RoleRoleSpec", "database": "DatabaseDatabaseSpec"}
    make = getattr(sdk, specs.get(kind, f"{kind.capitalize()}Spec"), None)
    resource = sdk_class(kind)

    def call(world: World) -> Any:
        name = world.some(kind)
        body = resource(name=name, spec=make(**spec))
        return getattr(world.postgres, f"update_{kind}")(name, body, sdk.FieldMask(mask.split(","))).wait()

    return Row(call, resource)


API = f"{DATABASE}/data-api"
READER = sdk.EndpointType.ENDPOINT_TYPE_READ_ONLY

ROWS: dict[str, Row] = {
    "create_project": created("project"),
    "get_project": got("project"),
    "list_projects": Row(lambda w: list(w.postgres.list_projects()), sdk.Project),
    "update_project": changed("project", "spec.display_name", display_name="Shop"),
    "delete_project": removed("project"),
    "undelete_project": Row(lambda w: w.postgres.undelete_project(w.deleted(w.project().wait())).wait(), None),
    "create_branch": created("branch"),
    "get_branch": got("branch"),
    "list_branches": Row(lambda w: list(w.postgres.list_branches(PROJECT)), sdk.Branch),
    "update_branch": changed("branch", "spec.is_protected", is_protected=False),
    "delete_branch": removed("branch"),
    "undelete_branch": Row(lambda w: w.postgres.undelete_branch(w.deleted(w.branch().wait())).wait(), None),
    "create_endpoint": created("endpoint"),
    "get_endpoint": got("endpoint"),
    "list_endpoints": Row(lambda w: list(w.postgres.list_endpoints(BRANCH)), sdk.Endpoint),
    "update_endpoint": changed("endpoint", "spec.suspension", endpoint_type=READER, no_suspension=True),
    "delete_endpoint": removed("endpoint"),
    "create_role": created("role"),
    "get_role": got("role"),
    "list_roles": Row(lambda w: list(w.postgres.list_roles(BRANCH)), sdk.Role),
    "update_role": changed("role", "spec.attributes.createdb", attributes=sdk.RoleAttributes(createdb=True)),
    "delete_role": removed("role"),
    "create_database": created("database"),
    "get_database": got("database"),
    "list_databases": Row(lambda w: list(w.postgres.list_databases(BRANCH)), sdk.Database),
    "update_database": changed("database", "spec.postgres_database", role="", postgres_database="renamed"),
    "delete_database": removed("database"),
    "generate_database_credential": Row(
        lambda w: w.postgres.generate_database_credential(w.emulator.endpoint), sdk.DatabaseCredential
    ),
    "get_operation": Row(lambda w: w.postgres.get_operation(w.role().name()), sdk.Operation),
    "create_catalog": created("catalog"),
    "get_catalog": got("catalog"),
    "delete_catalog": removed("catalog"),
    "create_synced_table": created("synced_table"),
    "get_synced_table": got("synced_table"),
    "delete_synced_table": removed("synced_table"),
    # -- not imitated
    "create_data_api": not_imitated(
        lambda w: w.postgres.create_data_api(API.removesuffix("/data-api"), sdk.DataApi()), "POST .*/data-api"
    ),
    "get_data_api": not_imitated(lambda w: w.postgres.get_data_api(API), "GET .*/data-api"),
    "update_data_api": not_imitated(
        lambda w: w.postgres.update_data_api(API, sdk.DataApi(), sdk.FieldMask(["spec"])), "PATCH .*/data-api"
    ),
    "delete_data_api": not_imitated(lambda w: w.postgres.delete_data_api(API), "DELETE .*/data-api"),
}

if hasattr(sdk, "CdfConfig"):
    ROWS |= {
        "create_cdf_config": created("cdf_config"),
        "get_cdf_config": got("cdf_config"),
        "list_cdf_configs": Row(
            lambda w: [w.cdf_config().wait(), *w.postgres.list_cdf_configs(DATABASE)], sdk.CdfConfig
        ),
        "delete_cdf_config": removed("cdf_config"),
        "get_cdf_status": Row(lambda w: w.postgres.get_cdf_status(w.cdf_statuses()[0].name), sdk.CdfStatus),
        "list_cdf_statuses": Row(lambda w: w.cdf_statuses(), sdk.CdfStatus),
    }
if hasattr(sdk, "Snapshot"):
    SCHEDULE = f"{BRANCH}/snapshot-schedule"
    ROWS |= {
        "create_snapshot": created("snapshot"),
        "get_snapshot": got("snapshot"),
        "list_snapshots": Row(lambda w: [w.snapshot().wait(), *w.postgres.list_snapshots(PROJECT)], sdk.Snapshot),
        "delete_snapshot": removed("snapshot"),
        "get_snapshot_schedule": Row(lambda w: w.postgres.get_snapshot_schedule(SCHEDULE), sdk.SnapshotSchedule),
        "update_snapshot_schedule": Row(
            lambda w: w.postgres.update_snapshot_schedule(
                SCHEDULE, sdk.SnapshotSchedule(), sdk.FieldMask(["schedule"])
            ).wait(),
            sdk.SnapshotSchedule,
        ),
    }
if hasattr(sdk, "RevealRolePasswordResponse"):
    ROWS["reveal_role_password"] = Row(
        lambda w: w.postgres.reveal_role_password(w.role().wait().name), sdk.RevealRolePasswordResponse
    )

METHODS = sorted(
    name for name, _ in inspect.getmembers(sdk.PostgresAPI, inspect.isfunction) if not name.startswith("_")
)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with LakebaseEmulator(wake_seconds=0) as emulator:
        yield World(emulator)


@pytest.fixture(autouse=True)
def tidy(world: World) -> Iterator[None]:
    """Remove what a test made, since a project has only so many branches and snapshots."""
    yield
    for branch in world.postgres.list_branches(PROJECT, show_deleted=True):
        if branch.name != BRANCH:
            world.emulator.delete_branch(branch.name)
    for project in world.postgres.list_projects():
        if project.name != PROJECT:
            world.postgres.delete_project(project.name, purge=True).wait()
    for snapshot in world.postgres.list_snapshots(PROJECT) if hasattr(sdk, "Snapshot") else ():
        world.postgres.delete_snapshot(snapshot.name).wait()
    while world.unlisted:
        kind, name = world.unlisted.pop()
        with contextlib.suppress(NotFound):
            getattr(world.postgres, f"delete_{kind}")(name).wait()


def test_every_method_has_a_row() -> None:
    assert sorted(ROWS) == METHODS


@pytest.mark.parametrize("method", METHODS)
def test_method_is_answered(world: World, method: str) -> None:
    row = ROWS[method]
    if row.result and issubclass(row.result, Exception):
        with pytest.raises(row.result, match=row.text):
            row.call(world)
        return
    result = row.call(world)
    if row.result is None:
        assert result is None
        return
    items = result if isinstance(result, list) else [result]
    assert items, "an empty list proves nothing"
    for item in items:
        assert isinstance(item, row.result)
        # A GET of the service shows the status only.
        assert getattr(item, "spec", None) is None
        if hasattr(item, "status"):
            assert item.name
            assert item.status


def test_route_of_another_api_is_named_too(world: World) -> None:
    with pytest.raises(NotImplemented, match="does not imitate GET /api/2.1/jobs/list"):
        world.postgres._api.do("GET", "/api/2.1/jobs/list")


def test_answers_name_the_workspace(world: World) -> None:
    headers = world.postgres._api.do("GET", "/api/2.0/postgres/projects", response_headers=["x-databricks-org-id"])
    assert headers["x-databricks-org-id"].isdecimal()


def test_lists_come_in_pages(world: World) -> None:
    names = [world.role().wait().name for _ in range(3)]
    pages = [world.postgres._api.do("GET", f"/api/2.0/postgres/{BRANCH}/roles", query={"page_size": 2})]
    while "next_page_token" in pages[-1]:
        query = {"page_size": 2, "page_token": pages[-1]["next_page_token"]}
        pages.append(world.postgres._api.do("GET", f"/api/2.0/postgres/{BRANCH}/roles", query=query))
    assert [len(page["roles"]) for page in pages[:-1]] == [2] * (len(pages) - 1)
    found = [role["name"] for page in pages for role in page["roles"]]
    assert found == [role.name for role in world.postgres.list_roles(BRANCH, page_size=1)]
    assert set(names) <= set(found)
    for query in ({"page_size": -1}, {"page_token": "x"}):
        with pytest.raises(BadRequest, match="Field 'page_"):
            list(world.postgres.list_roles(BRANCH, **query))
