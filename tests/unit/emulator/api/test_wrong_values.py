"""Whatever a request contains, the answer says what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_lakebase.emulator.api.messages import Call, Reply
from airflow_provider_lakebase.emulator.api.router import answer
from airflow_provider_lakebase.emulator.model.catalog import Column
from airflow_provider_lakebase.emulator.model.endpoints import READ_ONLY
from airflow_provider_lakebase.emulator.model.workspace import BRANCH, ENDPOINT, PROJECT, Workspace

POSTGRES = "/api/2.0/postgres/"
SIZE = {"autoscaling_limit_min_cu": 1, "autoscaling_limit_max_cu": 2, "suspend_timeout_duration": "60s"}
GROUP = {"min": 2, "max": 2, "enable_readable_secondaries": True}
SYNCED = {
    "source_table_full_name": "main.gold.customers",
    "primary_key_columns": ["id"],
    "scheduling_policy": "SNAPSHOT",
    "branch": BRANCH,
    "postgres_database": "databricks_postgres",
    "create_database_objects_if_missing": True,
    "timeseries_key": "at",
    "type_overrides": [{"column_name": "v", "pg_type": "PG_SPECIFIC_TYPE_VECTOR", "size": 3}],
    "extra_columns": [{"column_name": "w", "column_type": "text", "compute": "v", "maintenance": "STORED_GENERATED"}],
    "new_pipeline_spec": {"storage_catalog": "main", "storage_schema": "gold"},
}
# Method, path, query and a body with all fields.
REQUESTS: list[tuple[str, str, dict[str, str], dict[str, Any]]] = [
    (
        "POST",
        f"{POSTGRES}projects",
        {"project_id": "other"},
        {
            "spec": {
                "display_name": "Other",
                "pg_version": 18,
                "history_retention_duration": "172800s",
                "default_endpoint_settings": SIZE,
                "custom_tags": [{"key": "a", "value": "b"}],
            },
            "initial_branch_spec": {"is_protected": True},
            "initial_endpoint_spec": {**SIZE, "group": GROUP},
        },
    ),
    (
        "POST",
        f"{POSTGRES}{PROJECT}/branches",
        {"branch_id": "dev"},
        {"spec": {"ttl": "600s", "is_protected": False, "source_branch": BRANCH, "source_branch_lsn": "1/0"}},
    ),
    ("PATCH", f"{POSTGRES}{BRANCH}", {"update_mask": "spec"}, {"spec": {"is_protected": False, "no_expiry": True}}),
    (
        "POST",
        f"{POSTGRES}{BRANCH}/endpoints",
        {"endpoint_id": "replica"},
        {"spec": {"endpoint_type": READ_ONLY, "disabled": False, **SIZE, "group": GROUP}},
    ),
    ("PATCH", f"{POSTGRES}{ENDPOINT}", {"update_mask": "spec"}, {"spec": {"disabled": False, **SIZE, "group": GROUP}}),
    (
        "POST",
        f"{POSTGRES}{PROJECT}/snapshots",
        {"snapshot_id": "s"},
        {"spec": {"source_branch": BRANCH, "source_branch_time": "2026-11-28T10:00:00Z", "ttl": "3600s"}},
    ),
    (
        "PATCH",
        f"{POSTGRES}{BRANCH}/snapshot-schedule",
        {"update_mask": "schedule"},
        {"schedule": [{"retention": "3600s", "weekly_schedule": {"hour": 1, "day_of_week": "MONDAY"}}]},
    ),
    (
        "POST",
        f"{POSTGRES}{BRANCH}/roles",
        {"role_id": "role-1"},
        {"spec": {"postgres_role": "app", "membership_roles": [], "attributes": {"createdb": True}}},
    ),
    (
        "POST",
        f"{POSTGRES}{BRANCH}/databases",
        {"database_id": "db-1"},
        {"spec": {"postgres_database": "app", "role": f"{BRANCH}/roles/app"}},
    ),
    (
        "POST",
        f"{POSTGRES}credentials",
        {},
        {"endpoint": ENDPOINT, "ttl": "600s", "group_name": "g", "claims": [{"permission_set": "READ_ONLY"}]},
    ),
    ("POST", f"{POSTGRES}synced_tables", {"synced_table_id": "main.gold.copy"}, {"spec": SYNCED}),
    ("POST", f"{POSTGRES}catalogs", {"catalog_id": "c"}, {"spec": {"branch": BRANCH, "postgres_database": "app"}}),
    (
        "PATCH",
        "/api/2.0/permissions/database-projects/demo",
        {},
        {"access_control_list": [{"service_principal_name": "x", "permission_level": "CAN_USE"}]},
    ),
]
WRONG: list[Any] = [5, -1, "x", "", True, [], [5], ["x"], {}, {"x": 5}, None, "\0", "é" * 40, "9" * 400]


def ask(workspace: Workspace, method: str, path: str, query: dict[str, str], body: object) -> Reply:
    (administrator,) = workspace.identities.principals()
    token = workspace.identities.issue_workspace_token(administrator)
    return answer(workspace, Call(method, "http://x", path, f"Bearer {token}", json.dumps(body).encode(), query))


class NoPostgres:
    def prepare(self, *args: Any, **keywords: Any) -> None:
        raise LookupError("no Postgres")


@pytest.fixture(autouse=True)
def administrator(workspace: Workspace) -> None:
    workspace.identities.add_principal("a", is_admin=True)
    workspace.synced_tables.writer = NoPostgres()  # type: ignore[assignment]
    columns = [Column("id", "int"), Column("at", "timestamp"), Column("v", "array<float>")]
    workspace.catalog.publish("main.gold.customers", columns, [])


def changed(value: Any) -> Iterator[Any]:
    """Yield copies of a value in which one part is wrong."""
    yield from WRONG
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        for other in changed(value[key]):
            copied = value.copy()
            copied[key] = other
            yield copied


@pytest.mark.parametrize(("method", "path", "query", "body"), REQUESTS, ids=[request[1] for request in REQUESTS])
def test_a_value_of_another_type_is_refused_and_not_stumbled_over(
    workspace: Workspace, method: str, path: str, query: dict[str, str], body: dict[str, Any]
) -> None:
    for wrong in changed(body):
        reply = ask(workspace, method, path, query, wrong)
        said = json.dumps(reply.body)
        assert reply.status < 500 or reply.status == 501, (wrong, said)
        assert "INTERNAL_ERROR" not in said, (wrong, said)


def test_a_defect_is_answered_and_not_hidden_by_a_closed_connection(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workspace.projects, "require", lambda name: 1 // 0)
    reply = ask(workspace, "GET", f"{POSTGRES}{PROJECT}", {}, {})
    assert (reply.status, reply.body["error_code"]) == (500, "INTERNAL_ERROR")  # type: ignore[index]


@pytest.mark.parametrize(("method", "path", "query", "body"), REQUESTS, ids=[request[1] for request in REQUESTS])
def test_a_field_that_nobody_knows_is_refused(
    workspace: Workspace, method: str, path: str, query: dict[str, str], body: dict[str, Any]
) -> None:
    wrong = [{**body, "bogus": 1}, *({**body, "spec": {**body["spec"], "bogus": 1}} for _ in body if "spec" in body)]
    for each in wrong:
        reply = ask(workspace, method, path, query, each)
        assert (reply.status, "bogus" in json.dumps(reply.body)) == (501, True), each


@pytest.mark.parametrize(
    "moment",
    ["2026-11-28", "20261128T100000Z", "2026-11-28T10:00:00", "2026-11-28 10:00:00Z", "9999-12-31T23:59:59-12:00"],
)
def test_a_time_is_in_the_form_of_rfc_3339(workspace: Workspace, moment: str) -> None:
    body = {"spec": {"source_branch": BRANCH, "expire_time": moment}}
    reply = ask(workspace, "POST", f"{POSTGRES}{PROJECT}/snapshots", {"snapshot_id": "s"}, body)
    assert (reply.status, list(workspace.snapshots)) == (400, [])


def test_a_credential_has_one_end(workspace: Workspace) -> None:
    body = {"endpoint": ENDPOINT, "ttl": "600s", "expire_time": "2026-11-28T10:00:00Z"}
    reply = ask(workspace, "POST", f"{POSTGRES}credentials", {}, body)
    assert (reply.status, "may be set" in json.dumps(reply.body)) == (400, True)


@pytest.mark.parametrize("kind", ["roles", "databases"])
def test_a_name_that_postgres_would_cut_is_refused(workspace: Workspace, kind: str) -> None:
    singular = kind.removesuffix("s")
    body = {"spec": {f"postgres_{singular}": "a" * 64}}
    reply = ask(workspace, "POST", f"{POSTGRES}{BRANCH}/{kind}", {f"{singular}_id": "an-id"}, body)
    assert (reply.status, "at most 63 bytes" in json.dumps(reply.body)) == (400, True)
