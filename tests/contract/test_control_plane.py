"""The workspace API: projects, branches, endpoints, and the errors of refused requests."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

import pytest
from databricks.sdk.errors import DatabricksError, NotFound, PermissionDenied, Unauthenticated
from databricks.sdk.service.postgres import EndpointStatusState, EndpointType

from airflow_provider_lakebase.emulator import LakebaseEmulator


@pytest.mark.belief(
    "an endpoint's JSON has its state, host, pooled host, type and suspend timeout",
    source="databricks-sdk-py service/postgres.py Endpoint; databricks/cli libs/testserver/postgres.go",
    sure="documented",
)
def test_endpoint_is_shown(place: Any) -> None:
    endpoint = place.client().postgres.get_endpoint(place.endpoint)
    assert endpoint.name == place.endpoint
    assert endpoint.uid.startswith("ep-")
    assert endpoint.status.current_state in set(EndpointStatusState)
    assert endpoint.status.endpoint_type == EndpointType.ENDPOINT_TYPE_READ_WRITE
    assert endpoint.status.hosts.host
    assert endpoint.status.suspend_timeout_duration.seconds >= 60


@pytest.mark.belief(
    "project, branch and endpoint can be read and listed by name",
    source="databricks-sdk-py service/postgres.py",
    sure="documented",
)
def test_ancestors_are_shown_and_listed(place: Any) -> None:
    postgres = place.client().postgres
    branch = place.endpoint.split("/endpoints/")[0]
    project = branch.split("/branches/")[0]
    assert postgres.get_project(project).name == project
    assert postgres.get_branch(branch).parent == project
    assert branch in [each.name for each in postgres.list_branches(project)]
    assert place.endpoint in [each.name for each in postgres.list_endpoints(branch)]
    assert project in [each.name for each in postgres.list_projects()]


@pytest.mark.parametrize("missing", ["project", "branch", "endpoint"])
@pytest.mark.belief(
    "a name that does not exist gets 404 NOT_FOUND `<first missing ancestor> id not found [TraceId: …]`",
    source="databricks/cli libs/testserver/postgres.go",
    sure="seen in the field",
)
def test_first_missing_ancestor_is_named(place: Any, missing: str) -> None:
    parts = place.endpoint.split("/")
    for position in range(1 + 2 * ["project", "branch", "endpoint"].index(missing), 6, 2):
        parts[position] = "no-such-thing"
    with pytest.raises(NotFound, match=rf"^{missing} id not found \[TraceId: [^\]]+\]$"):
        place.client().postgres.get_endpoint("/".join(parts))


@pytest.mark.belief(
    "a credential for an endpoint that does not exist gets the same 404 as reading it",
    source="no source",
    sure="inferred",
)
def test_no_credential_for_a_missing_endpoint(place: Any) -> None:
    missing = place.endpoint.rsplit("/", 1)[0] + "/no-such-endpoint"
    with pytest.raises(NotFound, match="endpoint id not found"):
        place.client().postgres.generate_database_credential(missing)


@pytest.mark.belief(
    "a wrong client secret gets 401 invalid_client from the token endpoint",
    source="RFC 6749, section 5.2",
    sure="documented",
)
def test_wrong_secret_is_refused(place: Any) -> None:
    form = {"grant_type": "client_credentials", "scope": "all-apis", "client_id": place.client_id}
    body = urllib.parse.urlencode({**form, "client_secret": "dose-of-nothing"}).encode()
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{place.url}/oidc/v1/token", body)
    with caught.value as reply:
        assert reply.code == 401
        assert json.load(reply)["error"] == "invalid_client"


@pytest.mark.belief(
    "databricks-sdk raises ValueError for a wrong client secret, before it makes the call",
    source="databricks-sdk-py oauth.py retrieve_token",
    sure="seen in the field",
)
def test_wrong_secret_in_the_sdk(place: Any) -> None:
    with pytest.raises(ValueError, match="invalid_client"):
        place.client(client_secret="dose-of-nothing").postgres.get_endpoint(place.endpoint)


@pytest.mark.belief(
    "an unknown workspace token gets 401",
    source="Databricks docs, REST API: Authentication",
    sure="documented",
)
def test_unknown_workspace_token_is_refused(place: Any) -> None:
    client = place.client()
    client.config._header_factory = lambda: {"Authorization": "Bearer nothing"}
    with pytest.raises((Unauthenticated, PermissionDenied)):
        client.postgres.get_endpoint(place.endpoint)


@pytest.mark.belief(
    "an identity without the workspace-access entitlement gets 403 `This API is disabled for users without …`",
    source="Databricks docs, Lakebase: Connect external apps, table of errors; the wording from field reports",
    sure="documented",
)
def test_identity_without_workspace_access_is_refused(emulator: LakebaseEmulator, place_of: Any) -> None:
    stranger = emulator.add_principal("stranger", workspace_access=False)
    with pytest.raises(PermissionDenied, match="API is disabled for users without the workspace-access entitlement"):
        place_of(stranger).credential()


@pytest.mark.belief(
    "an identity without permission on the project gets 403 PERMISSION_DENIED, naming it and 'Can Use'",
    source="field reports of Lakebase Autoscaling",
    sure="seen in the field",
)
def test_identity_without_rights_on_the_project_is_refused(emulator: LakebaseEmulator, place_of: Any) -> None:
    stranger = emulator.add_principal("stranger", can_use_project=False)
    expected = f"assign the user {stranger.scim_id} 'Can Use' or 'Can Manage' for Database project"
    with pytest.raises(PermissionDenied, match=expected):
        place_of(stranger).credential()


@pytest.mark.belief(
    "errors carry error_code and message",
    source="databricks/cli libs/testserver/postgres.go",
    sure="seen in the field",
)
def test_errors_carry_a_code(place: Any) -> None:
    with pytest.raises(DatabricksError) as caught:
        place.client().postgres.get_project("projects/no-such-thing")
    assert caught.value.error_code == "NOT_FOUND"


@pytest.mark.belief(
    "the user name of a service principal is its application ID, which is also the name of its role",
    source="Databricks docs, SCIM; Lakebase: Manage Postgres roles",
    sure="documented",
)
def test_service_principal_knows_its_name(place: Any) -> None:
    assert place.client().current_user.me().user_name == place.client_id


@pytest.mark.parametrize(("status", "calls"), [(429, 2), (503, 2), (500, 1)])
@pytest.mark.belief(
    "databricks-sdk retries a call after 429 or 503, when Retry-After has passed, and not after 500",
    source="databricks-sdk-py _base_client.py, errors/customizer.py",
    sure="documented",
)
def test_sdk_repeats_what_is_worth_repeating(
    emulator: LakebaseEmulator, administrator: Any, status: int, calls: int
) -> None:
    client = administrator.client()
    client.current_user.me()
    emulator.faults.answer("/credentials", status=status, retry_after=1)
    start = len(emulator.requests)
    try:
        client.postgres.generate_database_credential(administrator.endpoint)
    except DatabricksError:
        assert calls == 1
    assert [each.status for each in emulator.requests[start:]] == [status, 200][:calls]


@pytest.mark.belief(
    "databricks-sdk never retries a call to the token endpoint",
    source="databricks-sdk-py oauth.py retrieve_token",
    sure="documented",
)
def test_sdk_does_not_repeat_the_token_call(emulator: LakebaseEmulator, administrator: Any) -> None:
    emulator.faults.answer("/oidc/v1/token", status=503, retry_after=1)
    with pytest.raises(ValueError, match="TEMPORARILY_UNAVAILABLE"):
        administrator.client().current_user.me()


@pytest.mark.belief(
    "the web page of a project is /lakebase/projects/<uid>, and that of a branch is /branches/<uid> below it",
    source="addresses in public repositories that use Lakebase",
    sure="seen in the field",
)
def test_pages_are_named_by_uid(administrator: Any) -> None:
    for page in branch_pages(administrator):
        with urllib.request.urlopen(page) as reply:
            assert reply.headers["Content-Type"].startswith("text/html")


@pytest.mark.belief(
    "the web page of a branch's SQL editor is /sql-editor below the branch's, with the database as a query parameter",
    source="Neon's console, which the pages of a Lakebase project resemble",
    sure="inferred",
)
def test_sql_editor_is_below_its_branch(administrator: Any) -> None:
    with urllib.request.urlopen(f"{branch_pages(administrator)[1]}/sql-editor?database=databricks_postgres") as reply:
        assert reply.status == 200


def branch_pages(place: Any) -> list[str]:
    """Return the addresses of the project and the branch."""
    branch = place.endpoint.split("/endpoints/")[0]
    postgres = place.client().postgres
    project = f"{place.url}/lakebase/projects/{postgres.get_project(branch.split('/branches/')[0]).uid}"
    return [project, f"{project}/branches/{postgres.get_branch(branch).uid}"]
