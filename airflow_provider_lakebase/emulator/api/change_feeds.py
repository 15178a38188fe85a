"""Change feeds over HTTP."""

from __future__ import annotations

from airflow_provider_lakebase.emulator.api.messages import Call
from airflow_provider_lakebase.emulator.api.paging import page
from airflow_provider_lakebase.emulator.api.routes import Route
from airflow_provider_lakebase.emulator.model.change_feeds import DATABASE, ChangeFeed
from airflow_provider_lakebase.emulator.model.errors import Json, refused
from airflow_provider_lakebase.emulator.model.fields import read_object, read_text
from airflow_provider_lakebase.emulator.model.identities import Principal
from airflow_provider_lakebase.emulator.model.operations import EMPTY
from airflow_provider_lakebase.emulator.model.resources import parent_of
from airflow_provider_lakebase.emulator.model.workspace import Workspace

_DATABASE = "projects/*/branches/*/databases/*"
_FEED = f"{_DATABASE}/cdf-configs/*"


def _create(workspace: Workspace, call: Call, caller: Principal) -> Json:
    _require_database(workspace, call.parent)
    body = read_object("cdf_config", call.json(), {"catalog", "schema", "postgres_schema", "name", "cdf_config_id"})
    postgres_schema = read_text("cdf_config.postgres_schema", body.get("postgres_schema", ""))
    feed_id = call.query.get("cdf_config_id") or postgres_schema
    branch = workspace.branches.require_ready(parent_of(call.parent))
    feeds = workspace.change_feeds

    def work() -> Json:
        feeds.check_schema(feed, workspace.clusters)
        return feed.json()

    with workspace.lock:
        feed = feeds.make(
            f"{call.parent}/cdf-configs/{feed_id}",
            cluster=branch.uid,
            postgres_version=workspace.pg_version,
            postgres_schema=postgres_schema,
            catalog=read_text("cdf_config.catalog", body.get("catalog", "")),
            schema=read_text("cdf_config.schema", body.get("schema", "")),
        )
        return workspace.operations.submit(
            feed.name,
            "create_cdf_config",
            work,
            begin=lambda: feeds.add(feed),
            undo=lambda: feeds.discard(feed),
        ).json()


def _get(workspace: Workspace, call: Call, caller: Principal) -> Json:
    return _require(workspace, call.name).json()


def _list(workspace: Workspace, call: Call, caller: Principal) -> Json:
    _require_database(workspace, call.parent)
    return page(call, "cdf_configs", [each.json() for each in workspace.change_feeds.of(call.parent)])


def _delete(workspace: Workspace, call: Call, caller: Principal) -> Json:
    feed = _require(workspace, call.name)
    # It says whether the Delta tables go as well, and there are none here.
    call.flag("force")

    def work() -> Json:
        workspace.change_feeds.discard(feed)
        return EMPTY

    return workspace.operations.submit(feed.name, "delete_cdf_config", work).json()


def _get_status(workspace: Workspace, call: Call, caller: Principal) -> Json:
    _require(workspace, parent_of(call.name))
    return workspace.change_feeds.status(call.name, workspace.clusters).json()


def _list_statuses(workspace: Workspace, call: Call, caller: Principal) -> Json:
    feed = _require(workspace, call.parent)
    statuses = workspace.change_feeds.statuses(feed, workspace.clusters)
    return page(call, "cdf_statuses", [status.json() for status in statuses])


def _require(workspace: Workspace, name: str) -> ChangeFeed:
    workspace.branches.require_ready(name.split("/databases/")[0])
    return workspace.change_feeds.require(name)


def _require_database(workspace: Workspace, name: str) -> None:
    if workspace.databases.require(name).postgres_name != DATABASE:
        raise refused(f"A change data feed is supported for the database '{DATABASE}' only")


ROUTES = [
    Route("POST", f"/api/2.0/postgres/{{parent={_DATABASE}}}/cdf-configs", _create),
    Route("GET", f"/api/2.0/postgres/{{parent={_DATABASE}}}/cdf-configs", _list),
    Route("GET", f"/api/2.0/postgres/{{name={_FEED}}}", _get),
    Route("DELETE", f"/api/2.0/postgres/{{name={_FEED}}}", _delete),
    Route("GET", f"/api/2.0/postgres/{{parent={_FEED}}}/cdf-statuses", _list_statuses),
    Route("GET", f"/api/2.0/postgres/{{name={_FEED}/cdf-statuses/*}}", _get_status),
]
