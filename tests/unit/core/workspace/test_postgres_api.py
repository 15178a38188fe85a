"""Our requests and readings of answers are those of databricks-sdk's own classes, of whatever version is installed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from databricks.sdk.common.types.fieldmask import FieldMask
from databricks.sdk.service.postgres import (
    Branch,
    BranchSpec,
    CdfConfig,
    Database,
    DatabaseDatabaseSpec,
    Endpoint,
    EndpointSpec,
    EndpointStatusState,
    EndpointType,
    PostgresAPI,
    Role,
    RoleAuthMethod,
    RoleRoleSpec,
    Snapshot,
    SnapshotSchedule,
    SnapshotSpec,
)
from google.protobuf.duration_pb2 import Duration

from airflow_provider_lakebase.core.connection.identity import WorkspaceIdentity
from airflow_provider_lakebase.core.connection.resource_names import ResourceName
from airflow_provider_lakebase.core.connection.settings import SessionSettings
from airflow_provider_lakebase.core.workspace.client import Workspace
from airflow_provider_lakebase.core.workspace.credentials import mint_credential
from airflow_provider_lakebase.core.workspace.endpoints import read_endpoint
from airflow_provider_lakebase.core.workspace.postgres_api import PostgresApi
from airflow_provider_lakebase.exceptions import LakebaseWorkspaceError

NAME = "projects/shop/branches/production/endpoints/primary"
BRANCH = ResourceName("shop", "production")
SCHEDULE = f"{BRANCH}/snapshot-schedule"
FEED = f"{BRANCH}/databases/databricks-postgres/cdf-configs/f"


class Api:
    """Keeps the requests in place of databricks-sdk's client, and answers with the given pages."""

    def __init__(self, *answers: Any, workspace_id: str | None = None) -> None:
        self._cfg = SimpleNamespace(workspace_id=workspace_id)
        self._answers = list(answers)
        self.requests: list[Any] = []

    def do(self, method: str, path: str, **content: Any) -> Any:
        # The query of an earlier page is changed for the next one.
        self.requests.append((method, path, {name: dict(value) for name, value in content.items()}))
        return self._answers.pop(0)


class Clients:
    """Answers in place of a workspace."""

    def __init__(self, *answers: Any) -> None:
        self.api = Api(*answers)

    def send(self, identity: Any, request: Any) -> Any:
        return request(SimpleNamespace(postgres=PostgresApi(self.api)))  # type: ignore[arg-type]


def workspace(*answers: Any) -> Workspace:
    return Workspace(WorkspaceIdentity("https://w.example", "pat"), clients=Clients(*answers))  # type: ignore[arg-type]


@pytest.mark.parametrize("workspace_id", [None, "42"])
def test_requests_are_those_of_the_sdk(workspace_id: str | None):
    pages: list[Any] = [{"endpoints": [{"name": "a"}], "next_page_token": "p2"}, {"endpoints": [{"name": "b"}]}, {}]
    answers = [{}, {}, {}, *pages, *[{}] * 16, *[{}] * 2, {"cdf_statuses": [{"name": "a"}]}]
    ours, theirs = (Api(*answers, workspace_id=workspace_id) for _ in range(2))
    mine, sdk = PostgresApi(ours), PostgresAPI(theirs)  # type: ignore[arg-type,no-untyped-call]
    mine.get("projects/shop")
    mine.get(str(BRANCH))
    mine.get(NAME)
    listed = [mine.list_all(str(BRANCH), "endpoints") for _ in range(2)]
    mine.generate_credential({"endpoint": NAME})
    mine.generate_credential({"endpoint": NAME, "ttl": "600s"})
    mine.create(f"{BRANCH}", {"spec": {"no_expiry": True, "ttl": "60s"}})
    mine.create(NAME, {"spec": {"endpoint_type": "ENDPOINT_TYPE_READ_ONLY"}})
    mine.create("projects/shop/snapshots/s", {"spec": {"source_branch": str(BRANCH)}})
    mine.update(str(BRANCH), {"name": str(BRANCH), "spec": {"is_protected": True}}, ["spec.is_protected"])
    mine.update(SCHEDULE, {"name": SCHEDULE, "schedule": []}, ["schedule", "x"])
    mine.delete(str(BRANCH), purge=True)
    mine.delete(NAME)
    mine.undelete(str(BRANCH))
    mine.list_all("projects/shop", "branches", show_deleted=True)
    mine.get("operations/1")
    mine.create(f"{BRANCH}/roles/sp-1", {"spec": {"postgres_role": "1", "auth_method": "LAKEBASE_OAUTH_V1"}})
    mine.create(f"{BRANCH}/databases/d", {"spec": {"postgres_database": "D", "role": f"{BRANCH}/roles/sp-1"}})
    mine.delete(f"{BRANCH}/roles/sp-1", reassign_owned_to=f"{BRANCH}/roles/sp-2")
    mine.delete(f"{BRANCH}/databases/d")
    mine.create(FEED, {"catalog": "c", "schema": "s", "postgres_schema": "p"})
    mine.delete(FEED, force=True)
    statuses = mine.list_all(FEED, "cdf-statuses")
    sdk.get_project("projects/shop")
    sdk.get_branch(str(BRANCH))
    sdk.get_endpoint(NAME)
    theirs_listed = [[each.name for each in sdk.list_endpoints(str(BRANCH))] for _ in range(2)]
    sdk.generate_database_credential(endpoint=NAME)
    sdk.generate_database_credential(endpoint=NAME, ttl=Duration(seconds=600))
    sdk.create_branch("projects/shop", Branch(spec=BranchSpec(no_expiry=True, ttl=Duration(seconds=60))), BRANCH.branch)  # type: ignore[arg-type]
    sdk.create_endpoint(str(BRANCH), Endpoint(spec=EndpointSpec(EndpointType.ENDPOINT_TYPE_READ_ONLY)), "primary")
    sdk.create_snapshot("projects/shop", Snapshot(spec=SnapshotSpec(str(BRANCH))), "s")
    protected = Branch(name=str(BRANCH), spec=BranchSpec(is_protected=True))
    sdk.update_branch(str(BRANCH), protected, FieldMask(["spec.is_protected"]))
    sdk.update_snapshot_schedule(SCHEDULE, SnapshotSchedule(SCHEDULE, []), FieldMask(["schedule", "x"]))
    ours.requests[-13][2]["body"].pop("schedule")  # databricks-sdk leaves out an empty list
    sdk.delete_branch(str(BRANCH), purge=True)
    sdk.delete_endpoint(NAME)
    sdk.undelete_branch(str(BRANCH))
    list(sdk.list_branches("projects/shop", show_deleted=True))
    sdk.get_operation("operations/1")
    role = Role(spec=RoleRoleSpec(postgres_role="1", auth_method=RoleAuthMethod.LAKEBASE_OAUTH_V1))
    sdk.create_role(str(BRANCH), role, role_id="sp-1")
    database = Database(spec=DatabaseDatabaseSpec(postgres_database="D", role=f"{BRANCH}/roles/sp-1"))
    sdk.create_database(str(BRANCH), database, database_id="d")
    sdk.delete_role(f"{BRANCH}/roles/sp-1", reassign_owned_to=f"{BRANCH}/roles/sp-2")
    sdk.delete_database(f"{BRANCH}/databases/d")
    sdk.create_cdf_config(FEED.rsplit("/", 2)[0], CdfConfig("c", "s", "p"), cdf_config_id="f")
    sdk.delete_cdf_config(FEED, force=True)
    assert [each["name"] for each in statuses] == [each.name for each in sdk.list_cdf_statuses(FEED)] == ["a"]
    assert [[each["name"] for each in page] for page in listed] == theirs_listed == [["a", "b"], []]
    assert ours.requests == theirs.requests


@pytest.mark.parametrize(
    "status",
    [
        {"current_state": "ACTIVE", "hosts": {"host": "h", "read_only_host": "r"}, "suspend_timeout_duration": "300s"},
        {"current_state": "IDLE", "disabled": True, "hosts": {"host": "h"}, "endpoint_type": "ENDPOINT_TYPE_READ_ONLY"},
        {"current_state": "DEGRADED", "hosts": {}, "suspend_timeout_duration": "0.500s"},
        {"disabled": False},
    ],
)
def test_an_endpoint_is_read_as_the_sdk_reads_it(status: dict[str, Any]):
    answer = {"name": NAME, "status": status}
    found = read_endpoint(workspace(answer), ResourceName.parse(NAME), timeout=5)
    theirs = Endpoint.from_dict(answer)
    assert theirs.status is not None
    hosts, timeout = theirs.status.hosts, theirs.status.suspend_timeout_duration
    assert found.name == theirs.name
    assert found.state == (theirs.status.current_state.value if theirs.status.current_state else "INIT")
    assert found.disabled == bool(theirs.status.disabled)
    assert found.host == (hosts.host if hosts else None)
    assert found.read_only_host == (hosts.read_only_host if hosts else None)
    assert found.suspend_timeout == (timeout.ToTimedelta().total_seconds() if timeout else None)


def test_the_sdk_knows_the_words_that_are_compared():
    assert EndpointType.ENDPOINT_TYPE_READ_WRITE.value == "ENDPOINT_TYPE_READ_WRITE"
    assert {"ACTIVE", "IDLE", "INIT"} <= {state.value for state in EndpointStatusState}


@pytest.mark.parametrize("answer", [{}, {"name": NAME}, {"status": {"disabled": True}}, {"name": NAME, "status": {}}])
def test_an_answer_without_name_or_status_is_refused(answer: dict[str, Any]):
    with pytest.raises(LakebaseWorkspaceError, match="without the endpoint's status"):
        read_endpoint(workspace(answer), ResourceName.parse(NAME), timeout=5)


@pytest.mark.parametrize("answer", [{}, {"token": ""}, {"token": None}, []])
def test_an_answer_without_a_credential_is_refused(answer: Any):
    with pytest.raises(LakebaseWorkspaceError, match="without a credential"):
        mint_credential(workspace(answer), NAME, SessionSettings(), timeout=5)
