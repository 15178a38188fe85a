"""Our requests and readings of answers are those of databricks-sdk's own classes, of whatever version is installed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from databricks.sdk.service.postgres import Endpoint, EndpointStatusState, EndpointType, PostgresAPI
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
    answers = [{}, {}, {}, *pages, {}, {}]
    ours, theirs = (Api(*answers, workspace_id=workspace_id) for _ in range(2))
    mine, sdk = PostgresApi(ours), PostgresAPI(theirs)  # type: ignore[arg-type,no-untyped-call]
    mine.get("projects/shop")
    mine.get(str(BRANCH))
    mine.get(NAME)
    listed = [mine.list_endpoints(str(BRANCH)) for _ in range(2)]
    mine.generate_credential({"endpoint": NAME})
    mine.generate_credential({"endpoint": NAME, "ttl": "600s"})
    sdk.get_project("projects/shop")
    sdk.get_branch(str(BRANCH))
    sdk.get_endpoint(NAME)
    theirs_listed = [[each.name for each in sdk.list_endpoints(str(BRANCH))] for _ in range(2)]
    sdk.generate_database_credential(endpoint=NAME)
    sdk.generate_database_credential(endpoint=NAME, ttl=Duration(seconds=600))
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
