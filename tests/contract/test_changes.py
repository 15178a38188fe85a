"""The workspace API: how its resources are made, changed and deleted."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from _clients import workspace_client
from databricks.sdk.errors import (
    AlreadyExists,
    BadRequest,
    DatabricksError,
    InvalidParameterValue,
    NotFound,
    PermissionDenied,
)
from databricks.sdk.service import iam
from databricks.sdk.service import postgres as sdk
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from airflow_provider_lakebase.emulator import LakebaseEmulator

PROJECT = "projects/demo"
PRODUCTION = f"{PROJECT}/branches/production"
FOREVER = sdk.Branch(spec=sdk.BranchSpec(no_expiry=True))
READER = sdk.EndpointType.ENDPOINT_TYPE_READ_ONLY
WRITER = sdk.EndpointType.ENDPOINT_TYPE_READ_WRITE


@pytest.fixture(scope="module")
def postgres(emulator: LakebaseEmulator) -> Any:
    return workspace_client(emulator).postgres


@pytest.fixture(scope="module")
def branch(emulator: LakebaseEmulator) -> Iterator[str]:
    """A branch of production."""
    name = emulator.create_branch("contract")
    yield name
    emulator.delete_branch(name)


def patch(postgres: Any, name: str, mask: str, spec: dict[str, Any]) -> Any:
    """Send an update as it is, without the SDK's classes."""
    return postgres._api.do("PATCH", f"/api/2.0/postgres/{name}", query={"update_mask": mask}, body={"spec": spec})


@pytest.mark.belief(
    "create_branch needs one of ttl, expire_time and no_expiry=true, at most 30 days from now",
    source="databricks-sdk-py service/postgres.py BranchSpec; Databricks docs, Lakebase: Manage branches; "
    "texts are ours",
    sure="documented",
)
def test_branch_says_how_long_it_lives(postgres: Any) -> None:
    both = {"no_expiry": True, "ttl": Duration(seconds=60)}
    for spec in ({}, both, {"no_expiry": False}, {"ttl": Duration(seconds=31 * 86400)}):
        with pytest.raises(InvalidParameterValue):
            postgres.create_branch(PROJECT, sdk.Branch(spec=sdk.BranchSpec(**spec)), "never")


@pytest.mark.belief(
    "a duration is `<N>s` and nothing else",
    source="terraform-provider-databricks#5330",
    sure="seen in the field",
)
def test_duration_is_in_seconds(postgres: Any, branch: str) -> None:
    for value in ("1h", "3600", 3600):
        with pytest.raises(InvalidParameterValue, match="is not a duration"):
            patch(postgres, branch, "spec.expiration", {"ttl": value})


@pytest.mark.belief(
    "an update mask names a choice of fields by its group, spec.expiration or spec.suspension; a field of the "
    "choice, or "
    "any other path, gets 400 `Unknown field path in update_mask: '…'`",
    source="databricks/cli libs/testserver/postgres.go (probed there)",
    sure="seen in the field",
)
def test_mask_names_groups(postgres: Any, branch: str) -> None:
    assert patch(postgres, branch, "spec.expiration", {"no_expiry": True})["done"]
    for path in ("spec.ttl", "spec.no_expiry", "spec.source_branch", "branch_id", "*"):
        with pytest.raises(InvalidParameterValue, match="Unknown field path in update_mask: '"):
            patch(postgres, branch, path, {"no_expiry": True})
    with pytest.raises(InvalidParameterValue, match="Unknown field path in update_mask: 'spec.no_suspension'"):
        patch(postgres, f"{branch}/endpoints/primary", "spec.no_suspension", {"no_suspension": True})


@pytest.mark.belief(
    "a path of the mask without a value in the body gets 400 `Field '…' is in update_mask but not provided in request`",
    source="databricks/cli libs/testserver/postgres.go (verified there)",
    sure="seen in the field",
)
def test_masked_field_is_in_the_body(postgres: Any, branch: str) -> None:
    with pytest.raises(
        InvalidParameterValue, match="'spec.is_protected' is in update_mask but not provided in request"
    ):
        patch(postgres, branch, "spec.is_protected", {"no_expiry": True})


@pytest.mark.belief(
    "a delete is soft: the ID stays taken, undelete brings the branch back, and delete with purge removes it",
    source="databricks/cli#5783; databricks-sdk-py service/postgres.py delete_branch",
    sure="seen in the field",
)
def test_delete_is_soft(emulator: LakebaseEmulator, postgres: Any) -> None:
    name = emulator.create_branch("soft")
    postgres.delete_branch(name).wait()
    with pytest.raises(AlreadyExists, match="branch with such id already exists"):
        postgres.create_branch(PROJECT, FOREVER, "soft")
    postgres.undelete_branch(name).wait()
    postgres.delete_branch(name, purge=True).wait()
    with pytest.raises(NotFound, match="branch id not found"):
        postgres.undelete_branch(name)


@pytest.mark.belief(
    "a deleted branch can be read: its state is DELETED, with delete_time and purge_time, a week later; it is "
    "listed with "
    "show_deleted only, and its endpoints are not found",
    source="databricks-sdk-py service/postgres.py BranchStatus, list_branches; Google AIP-164; the week is a guess",
    sure="inferred",
)
def test_deleted_branch_is_shown(emulator: LakebaseEmulator, postgres: Any) -> None:
    name = emulator.create_branch("deleted")
    postgres.delete_branch(name).wait()
    status = postgres.get_branch(name).status
    assert status.current_state == sdk.BranchStatusState.DELETED
    assert status.purge_time.ToSeconds() - status.delete_time.ToSeconds() == 7 * 86400
    assert name not in [each.name for each in postgres.list_branches(PROJECT)]
    assert name in [each.name for each in postgres.list_branches(PROJECT, show_deleted=True)]
    with pytest.raises(NotFound, match="branch id not found"):
        list(postgres.list_endpoints(name))
    emulator.delete_branch(name)


@pytest.mark.belief(
    "the root branch and a read-write endpoint are deleted with their parents only: 400 BAD_REQUEST with "
    "declarative_context MANAGED_BY_PARENT in its details",
    source="databricks/cli libs/testserver/postgres.go",
    sure="seen in the field",
)
def test_what_its_parent_manages_stays(postgres: Any, branch: str) -> None:
    for delete, name, text in (
        (postgres.delete_branch, PRODUCTION, "Root branches cannot be deleted independently"),
        (postgres.delete_endpoint, f"{branch}/endpoints/primary", "Read-write endpoints cannot be deleted"),
    ):
        with pytest.raises(BadRequest, match=text) as caught:
            delete(name)
        assert caught.value.get_error_details().error_info.metadata == {"declarative_context": "MANAGED_BY_PARENT"}


@pytest.mark.belief(
    "a protected branch cannot be deleted, nor its read-only endpoints, nor its project, and it cannot expire",
    source="databricks/cli libs/testserver/postgres.go; Databricks docs, Lakebase: Protected branches",
    sure="documented",
)
def test_protected_branch_stays(postgres: Any, branch: str) -> None:
    reader = sdk.Endpoint(spec=sdk.EndpointSpec(endpoint_type=READER))
    endpoint = postgres.create_endpoint(branch, reader, "reader").wait().name
    patch(postgres, branch, "spec.is_protected", {"is_protected": True})
    try:
        for refused in (
            lambda: postgres.delete_branch(branch, purge=True),
            lambda: postgres.delete_endpoint(endpoint),
            lambda: postgres.delete_project(PROJECT),
            lambda: patch(postgres, branch, "spec.expiration", {"ttl": "60s"}),
        ):
            with pytest.raises(BadRequest, match="protected branch"):
                refused()
    finally:
        patch(postgres, branch, "spec.is_protected", {"is_protected": False})
    postgres.delete_endpoint(endpoint).wait()


@pytest.mark.belief(
    "a branch with children cannot be deleted, nor expire; an expiring branch has no children",
    source="Databricks docs, Lakebase: Manage branches; for the expiry Neon's docs, Branch expiration; the "
    "texts are ours",
    sure="documented",
)
def test_parent_stays(emulator: LakebaseEmulator, postgres: Any, branch: str) -> None:
    child = emulator.create_branch("child", source=branch)
    try:
        with pytest.raises(BadRequest, match="children"):
            postgres.delete_branch(branch)
        with pytest.raises(BadRequest, match="children"):
            patch(postgres, branch, "spec.expiration", {"ttl": "60s"})
        patch(postgres, child, "spec.expiration", {"ttl": "60s"})
        spec = sdk.BranchSpec(no_expiry=True, source_branch=child)
        with pytest.raises(BadRequest, match="children"):
            postgres.create_branch(PROJECT, sdk.Branch(spec=spec), "grandchild")
    finally:
        emulator.delete_branch(child)


@pytest.mark.belief(
    "a moment outside of the branch's history gets 400 INVALID_PARAMETER_VALUE",
    source="no source; the history is documented (Databricks docs, Lakebase: Point-in-time restore)",
    sure="inferred",
)
def test_history_has_bounds(postgres: Any) -> None:
    for seconds in (1, 4_000_000_000):
        spec = sdk.BranchSpec(no_expiry=True, source_branch_time=Timestamp(seconds=seconds))
        with pytest.raises(InvalidParameterValue, match="history"):
            postgres.create_branch(PROJECT, sdk.Branch(spec=spec), "never")


@pytest.mark.belief(
    "a new branch has an endpoint primary; a second one that writes gets `read_write endpoint already exists`",
    source="databricks/cli#5003; databricks/cli libs/testserver/postgres.go; the status 409 is a guess",
    sure="seen in the field",
)
def test_branch_has_one_that_writes(postgres: Any, branch: str) -> None:
    (primary,) = postgres.list_endpoints(branch)
    assert (primary.endpoint_id, primary.status.endpoint_type) == ("primary", WRITER)
    with pytest.raises(DatabricksError, match="^read_write endpoint already exists"):
        postgres.create_endpoint(branch, sdk.Endpoint(spec=sdk.EndpointSpec(endpoint_type=WRITER)), "second")


@pytest.mark.belief(
    "an endpoint has 0.5 to 64 CU, max − min ≤ 16, and suspends after 1 minute to 7 days or never; refusals are 400",
    source="databricks-sdk-py service/postgres.py EndpointSpec; the error code is a guess",
    sure="documented",
)
def test_sizes_have_bounds(postgres: Any, branch: str) -> None:
    primary = f"{branch}/endpoints/primary"
    for mask, spec in (
        ("spec.autoscaling_limit_max_cu", {"autoscaling_limit_max_cu": 65}),
        ("spec.autoscaling_limit_min_cu", {"autoscaling_limit_min_cu": 0.25}),
        ("spec.autoscaling_limit_max_cu", {"autoscaling_limit_max_cu": 32}),
        ("spec.suspension", {"suspend_timeout_duration": "59s"}),
        ("spec.suspension", {"suspend_timeout_duration": "604801s"}),
    ):
        with pytest.raises(InvalidParameterValue):
            patch(postgres, primary, mask, spec)
    assert patch(postgres, primary, "spec.suspension", {"no_suspension": True})["done"]


@pytest.mark.belief(
    "a taken ID gets 409 ALREADY_EXISTS for projects, branches and endpoints, and 400 BAD_REQUEST `… with that name "
    "already exists` for roles and databases",
    source="databricks/cli libs/testserver/postgres.go (verified there)",
    sure="seen in the field",
)
def test_taken_id_is_refused(postgres: Any, branch: str) -> None:
    reader = sdk.Endpoint(spec=sdk.EndpointSpec(endpoint_type=READER))
    for create in (
        lambda: postgres.create_project(sdk.Project(), "demo"),
        lambda: postgres.create_branch(PROJECT, FOREVER, "production"),
        lambda: postgres.create_endpoint(branch, reader, "primary"),
    ):
        with pytest.raises(AlreadyExists, match="with such id already exists"):
            create()
    role = next(postgres.list_roles(branch))
    same = sdk.Role(spec=sdk.RoleRoleSpec(postgres_role=role.status.postgres_role))
    with pytest.raises(BadRequest, match="role with that name already exists"):
        postgres.create_role(branch, same, role_id="other")
    spec = sdk.DatabaseDatabaseSpec(role=role.name, postgres_database="databricks_postgres")
    with pytest.raises(BadRequest, match="database with that name already exists"):
        postgres.create_database(branch, sdk.Database(spec=spec), database_id="other")


@pytest.mark.belief(
    "replace_existing changes production and its endpoint primary in place",
    source="databricks/cli#5264",
    sure="seen in the field",
)
def test_existing_is_replaced(postgres: Any, branch: str) -> None:
    endpoint = f"{branch}/endpoints/primary"
    spec = sdk.EndpointSpec(endpoint_type=WRITER, suspend_timeout_duration=Duration(seconds=600))
    replaced = postgres.create_endpoint(branch, sdk.Endpoint(spec=spec), "primary", replace_existing=True).wait()
    assert replaced.status.suspend_timeout_duration.seconds == 600
    assert replaced.uid == postgres.get_endpoint(endpoint).uid
    replaced = postgres.create_branch(PROJECT, FOREVER, "production", replace_existing=True).wait()
    assert replaced.uid == postgres.get_branch(PRODUCTION).uid


@pytest.mark.belief(
    "role_id matches ^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$, so that the ID of many a service principal is refused",
    source="databricks/cli#5742",
    sure="seen in the field",
)
def test_role_id_begins_with_a_letter(postgres: Any, branch: str) -> None:
    role = sdk.Role(spec=sdk.RoleRoleSpec(postgres_role="x"))
    with pytest.raises(InvalidParameterValue, match=r"Field role_id must match pattern \^\[a-z\].*, got '17a31436"):
        postgres.create_role(branch, role, role_id="17a31436-08aa-456e-8ec3-d22f5bd6f83a")


@pytest.mark.belief(
    "a role with auth_method NO_LOGIN is refused, though documented",
    source="terraform-provider-databricks#5634",
    sure="seen in the field",
)
def test_no_login_is_refused(postgres: Any, branch: str) -> None:
    role = sdk.Role(spec=sdk.RoleRoleSpec(postgres_role="owner", auth_method=sdk.RoleAuthMethod.NO_LOGIN))
    with pytest.raises(DatabricksError, match="^Creating roles with auth_method NO_LOGIN is not currently supported"):
        postgres.create_role(branch, role, role_id="owner")


@pytest.mark.belief(
    "an update of a role with the mask spec or *, or replace_existing, replaces its memberships: without any it loses "
    "DATABRICKS_SUPERUSER",
    source="databricks-sdk-py service/postgres.py create_role, update_role",
    sure="documented",
)
def test_memberships_are_replaced(postgres: Any, branch: str) -> None:
    member = [sdk.RoleMembershipRole.DATABRICKS_SUPERUSER]
    spec = sdk.RoleRoleSpec(postgres_role="member", membership_roles=member)
    role = postgres.create_role(branch, sdk.Role(spec=spec), role_id="member").wait()
    assert role.status.membership_roles == member
    bare = sdk.Role(spec=sdk.RoleRoleSpec(postgres_role="member"))
    assert not postgres.update_role(role.name, bare, sdk.FieldMask(["spec"])).wait().status.membership_roles


@pytest.mark.belief(
    "a role without an identity type gets a password, which the API reveals; on a branch made from a "
    "protected one it is "
    "another password",
    source="databricks-sdk-py service/postgres.py reveal_role_password; Databricks docs, Lakebase: Protected branches",
    sure="documented",
)
@pytest.mark.skipif(not hasattr(sdk, "RevealRolePasswordResponse"), reason="this SDK does not reveal passwords")
def test_password_is_revealed(emulator: LakebaseEmulator, postgres: Any, branch: str) -> None:
    role = sdk.Role(spec=sdk.RoleRoleSpec(postgres_role="native"))
    name = postgres.create_role(branch, role, role_id="native").wait().name
    password = postgres.reveal_role_password(name).password
    patch(postgres, branch, "spec.is_protected", {"is_protected": True})
    child = emulator.create_branch("child-of-protected", source=branch)
    try:
        assert postgres.reveal_role_password(f"{child}/roles/native").password not in (None, password)
    finally:
        emulator.delete_branch(child)
        patch(postgres, branch, "spec.is_protected", {"is_protected": False})


@pytest.mark.belief(
    "create_database needs spec.role: 400 `Field 'database.spec.role' is required, expected non-default value "
    '(not "")!`',
    source="databricks/cli libs/testserver/postgres.go (verified there)",
    sure="seen in the field",
)
def test_database_has_an_owner(postgres: Any, branch: str) -> None:
    database = sdk.Database(spec=sdk.DatabaseDatabaseSpec(role="", postgres_database="x"))
    with pytest.raises(InvalidParameterValue, match="Field 'database.spec.role' is required, expected non-default"):
        postgres.create_database(branch, database, database_id="some-database")


@pytest.mark.belief(
    "an operation is named <resource>/operations/<id>, has an empty metadata of its resource's type, and is "
    "found by its "
    "name; that of a delete responds with google.protobuf.Empty",
    source="databricks/cli libs/testserver/postgres.go; databricks-sdk-py service/postgres.py",
    sure="seen in the field",
)
def test_operation_is_stored(emulator: LakebaseEmulator, postgres: Any) -> None:
    name = emulator.create_branch("operated")
    started = postgres.delete_branch(name, purge=True)
    assert started.name().startswith(f"{name}/operations/")
    started.wait()
    found = postgres.get_operation(started.name())
    assert found.metadata == {"@type": "type.googleapis.com/databricks.postgres.v1.BranchOperationMetadata"}
    assert found.response == {"@type": "type.googleapis.com/google.protobuf.Empty"}


@pytest.mark.belief(
    "databricks-sdk raises a bare Exception `operation failed: [CODE] message` for a failed operation",
    source="databricks-sdk-py service/postgres.py, wait",
    sure="documented",
)
def test_failed_operation_in_the_sdk(emulator: LakebaseEmulator, postgres: Any) -> None:
    emulator.faults.fail_operations("create_branch", error_code="RESOURCE_EXHAUSTED", message="full")
    with pytest.raises(Exception, match=r"^operation failed: \[.*RESOURCE_EXHAUSTED\] full$") as caught:
        postgres.create_branch(PROJECT, FOREVER, "failed").wait()
    assert type(caught.value) is Exception


@pytest.mark.belief(
    "while an operation runs, another one on the same resource, or on one above or below it, gets 409 ABORTED",
    source="Databricks docs and field reports name conflicts of operations; the code and the text are guesses",
    sure="inferred",
)
def test_operations_exclude_each_other(emulator: LakebaseEmulator, postgres: Any, branch: str) -> None:
    emulator.operation_seconds = 0.3
    try:
        spec = sdk.Branch(spec=sdk.BranchSpec(is_protected=False))
        started = postgres.update_branch(branch, spec, sdk.FieldMask(["spec.is_protected"]))
        with pytest.raises(DatabricksError, match="conflicting operation") as caught:
            patch(postgres, f"{branch}/endpoints/primary", "spec.disabled", {"disabled": False})
        assert caught.value.error_code == "ABORTED"
        started.wait()
    finally:
        emulator.operation_seconds = 0


@pytest.mark.belief(
    "changes of branches need 'Can Manage' on the project; reading, databases and roles need 'Can Use'",
    source="Databricks docs, Lakebase: Manage branches (about permissions)",
    sure="documented",
)
def test_changes_need_more(emulator: LakebaseEmulator, place_of: Any, administrator: Any, branch: str) -> None:
    user = emulator.add_principal("reader")
    permissions = administrator.client().permissions
    level = iam.AccessControlRequest(service_principal_name=user.role, permission_level=iam.PermissionLevel.CAN_USE)
    permissions.update("database-projects", "demo", access_control_list=[level])
    mine = place_of(user).client().postgres
    assert mine.get_branch(branch).name == branch
    with pytest.raises(PermissionDenied, match="'Can Manage' for Database project"):
        mine.create_branch(PROJECT, FOREVER, "never")
    spec = sdk.RoleRoleSpec(postgres_role=user.role, identity_type=sdk.RoleIdentityType.SERVICE_PRINCIPAL)
    mine.create_role(branch, sdk.Role(spec=spec), role_id="reader").wait()


@pytest.mark.belief(
    "a credential is a JWT whose subject is the identity",
    source="Databricks docs, Lakebase: Authentication; field reports (an error text speaks of its JWT encoding)",
    sure="seen in the field",
)
def test_credential_is_a_jwt(place: Any) -> None:
    header, payload, _ = place.credential().split(".")
    assert json.loads(base64.urlsafe_b64decode(header + "=="))["alg"]
    assert json.loads(base64.urlsafe_b64decode(payload + "=="))["sub"]


@pytest.mark.belief(
    "a session with a credential of the claim READ_ONLY cannot write: 25006; the emulator begins it "
    "read-only, and does "
    "not keep it from switching that off",
    source="databricks-sdk-py service/postgres.py RequestedClaims; the SQLSTATE is a guess",
    sure="inferred",
)
def test_read_only_claim(emulator: LakebaseEmulator, administrator: Any, postgres: Any) -> None:
    claims = [sdk.RequestedClaims(permission_set=sdk.RequestedClaimsPermissionSet.READ_ONLY)]
    token = postgres.generate_database_credential(emulator.endpoint, claims=claims).token
    options = "-c default_transaction_read_only=off"
    with administrator.connect(password=token, options=options) as connection:
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute("CREATE TABLE never (n int)")


if hasattr(sdk, "Snapshot"):

    @pytest.mark.belief(
        "snapshots are taken of root branches only, and a branch is made from one with source_snapshot alone",
        source="Databricks docs, Lakebase: Snapshots; databricks-sdk-py service/postgres.py BranchSpec.source_snapshot",
        sure="documented",
    )
    def test_snapshots_are_of_root_branches(emulator: LakebaseEmulator, postgres: Any, branch: str) -> None:
        wrong = sdk.Snapshot(spec=sdk.SnapshotSpec(source_branch=branch))
        with pytest.raises(BadRequest, match="root branches only"):
            postgres.create_snapshot(PROJECT, wrong, "never")
        right = sdk.Snapshot(spec=sdk.SnapshotSpec(source_branch=PRODUCTION))
        name = postgres.create_snapshot(PROJECT, right, "contract").wait().name
        both = sdk.BranchSpec(no_expiry=True, source_snapshot=name, source_branch=PRODUCTION)
        with pytest.raises(InvalidParameterValue, match="must be empty"):
            postgres.create_branch(PROJECT, sdk.Branch(spec=both), "never")
        postgres.delete_snapshot(name).wait()

    @pytest.mark.belief(
        "a branch's snapshot schedule is empty until it is set, and an update replaces the whole list",
        source="databricks-sdk-py service/postgres.py get_snapshot_schedule, update_snapshot_schedule",
        sure="documented",
    )
    def test_schedule_is_replaced(postgres: Any, branch: str) -> None:
        name = f"{branch}/snapshot-schedule"
        assert not postgres.get_snapshot_schedule(name).schedule
        for hours in ([3, 4], [5], []):
            cadences = [
                sdk.ScheduleCadence(retention=Duration(seconds=3600), daily_schedule=sdk.DailySchedule(hour=hour))
                for hour in hours
            ]
            schedule = sdk.SnapshotSchedule(schedule=cadences)
            postgres.update_snapshot_schedule(name, schedule, sdk.FieldMask(["schedule"])).wait()
            found = postgres.get_snapshot_schedule(name).schedule or []
            assert [each.daily_schedule.hour for each in found] == hours
