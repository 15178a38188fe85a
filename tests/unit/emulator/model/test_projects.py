"""What may be done with projects, and by whom."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_lakebase.emulator.model.errors import ApiError, Json
from airflow_provider_lakebase.emulator.model.identities import Principal
from airflow_provider_lakebase.emulator.model.permissions import CAN_MANAGE, CAN_USE
from airflow_provider_lakebase.emulator.model.workspace import PROJECT, Workspace

SHOP = "projects/shop"


@pytest.fixture
def owner(workspace: Workspace) -> Principal:
    return workspace.identities.add_principal("owner")


def create(workspace: Workspace, owner: Principal, project_id: str = "shop", **body: Any) -> Json:
    return workspace.projects.create(project_id, body, owner).wait()


def test_new_project_has_a_branch_and_an_endpoint(workspace: Workspace, owner: Principal, clusters: Any) -> None:
    endpoint = {"autoscaling_limit_max_cu": 2, "no_suspension": True}
    spec = {"display_name": "Shop", "history_retention_duration": "172800s", "custom_tags": [{"key": "a"}]}
    body = create(
        workspace, owner, spec=spec, initial_branch_spec={"is_protected": True}, initial_endpoint_spec=endpoint
    )
    status = body["status"]
    assert (status["display_name"], status["owner"], status["pg_version"]) == ("Shop", owner.role, 18)
    assert (status["history_retention_duration"], status["custom_tags"]) == ("172800s", [{"key": "a"}])
    branch = workspace.branches[f"{SHOP}/branches/production"]
    assert status["default_branch"] == branch.name
    assert (branch.is_root, branch.is_protected) == (True, True)
    assert clusters.sources[branch.uid][0] is None
    primary = workspace.endpoints[f"{branch.name}/endpoints/primary"].json()["status"]
    assert primary["autoscaling_limit_max_cu"] == 2
    assert "suspend_timeout_duration" not in primary
    assert status["default_endpoint_settings"]["suspend_timeout_duration"] == "300s"


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"pg_version": 12}, "must be 18, the version that this emulator was started with, not 12"),
        ({"display_name": "x" * 257}, "between 1 and 256 characters"),
        ({"history_retention_duration": "86400s"}, "between 172800s and"),
        ({"default_branch": f"{SHOP}/branches/x"}, "before the branch exists"),
        ({"default_endpoint_settings": {"autoscaling_limit_max_cu": 99}}, "between 0.5 and 64"),
        ({"default_endpoint_settings": {"pg_settings": {"a": "b"}}}, "does not imitate"),
        ({"color": "red"}, "does not imitate the field 'project.spec.color'"),
    ],
)
def test_spec_that_makes_no_sense_is_refused(workspace: Workspace, owner: Principal, spec: Json, text: str) -> None:
    with pytest.raises(ApiError, match=text):
        create(workspace, owner, spec=spec)
    assert SHOP not in workspace.projects


def test_id_is_taken(workspace: Workspace, owner: Principal) -> None:
    create(workspace, owner)
    with pytest.raises(ApiError, match="project with such id already exists in the workspace"):
        create(workspace, owner)


def test_mask_says_what_changes(workspace: Workspace, owner: Principal) -> None:
    create(workspace, owner, spec={"custom_tags": [{"key": "a"}]})

    def update(mask: str, **spec: Any) -> Json:
        return workspace.projects.update(SHOP, {"spec": spec}, mask).wait()["status"]

    assert update("spec.display_name", display_name="S", enable_pg_native_login=True)["display_name"] == "S"
    assert not workspace.projects[SHOP].native_login
    settings = {"no_suspension": True, "autoscaling_limit_max_cu": 4}
    status = update("spec.default_endpoint_settings.suspension", default_endpoint_settings=settings)
    assert status["default_endpoint_settings"]["no_suspension"]
    assert status["default_endpoint_settings"]["autoscaling_limit_max_cu"] == 1
    assert update("spec.enable_pg_native_login", enable_pg_native_login=True)["enable_pg_native_login"]
    assert "custom_tags" not in update("spec.custom_tags")
    # Terraform's mask names the initial specs too.
    assert update("spec,initial_branch_spec,initial_endpoint_spec", display_name="T")["display_name"] == "T"
    for mask, text in (
        ("spec.pg_version", "version of a project cannot change"),
        ("spec.default_endpoint_settings.no_suspension", "names together as"),
        ("spec.display_name", "in update_mask but not provided"),
    ):
        with pytest.raises(ApiError, match=text):
            update(mask)


def test_another_branch_becomes_the_default(workspace: Workspace, owner: Principal) -> None:
    create(workspace, owner)
    for branch_id, spec in (("main", {"no_expiry": True}), ("short", {"ttl": "60s"})):
        workspace.branches.create(SHOP, branch_id, {"spec": spec}).wait()

    def make_default(name: str) -> None:
        workspace.projects.update(SHOP, {"spec": {"default_branch": name}}, "spec.default_branch").wait()

    make_default(f"{SHOP}/branches/main")
    assert workspace.branches[f"{SHOP}/branches/main"].json()["status"]["default"]
    for name, text in (("short", "expires"), ("none", "branch id not found")):
        with pytest.raises(ApiError, match=text):
            make_default(f"{SHOP}/branches/{name}")
    with pytest.raises(ApiError, match=f"a branch of {SHOP}"):
        make_default(f"{PROJECT}/branches/production")


def test_project_goes_with_all_that_is_in_it(
    workspace: Workspace, owner: Principal, clusters: Any, computes: Any
) -> None:
    before, open_before = set(clusters.sources), set(computes.open_addresses)
    create(workspace, owner)
    production = f"{SHOP}/branches/production"
    workspace.snapshots.create(SHOP, "s", {"spec": {"source_branch": production}}).wait()
    workspace.projects.delete(SHOP, purge=False).wait()
    assert computes.open_addresses == open_before
    assert "purge_time" in workspace.projects[SHOP].json()
    with pytest.raises(ApiError, match="project id not found"):
        workspace.branches.require_ready(production)
    workspace.projects.undelete(SHOP).wait()
    assert computes.open_addresses != open_before
    workspace.branches.update(production, {"spec": {"is_protected": True}}, "spec.is_protected").wait()
    with pytest.raises(ApiError, match="project with a protected branch"):
        workspace.projects.delete(SHOP, purge=True)
    workspace.branches.update(production, {"spec": {"is_protected": False}}, "spec.is_protected").wait()
    workspace.projects.delete(SHOP, purge=True).wait()
    assert SHOP not in workspace.projects
    assert production not in workspace.branches
    assert set(clusters.sources) == before


def test_deleted_project_is_purged_after_a_week(workspace: Workspace, owner: Principal, clock: Any) -> None:
    create(workspace, owner)
    with pytest.raises(ApiError, match="is not deleted"):
        workspace.projects.undelete(SHOP)
    workspace.projects.delete(SHOP, purge=False).wait()
    clock.now += 7 * 86400
    workspace.expire()
    assert SHOP not in workspace.projects


# -- permissions


def test_levels_include_the_lower_ones(workspace: Workspace, owner: Principal) -> None:
    create(workspace, owner)
    admin = workspace.identities.add_principal("admin", is_admin=True)
    user = workspace.identities.add_principal("user")
    access = workspace.projects[SHOP].access
    assert [access.level(each) for each in (owner, admin, user)] == [CAN_MANAGE, CAN_MANAGE, None]
    access.grant(user, CAN_USE)
    assert (access.allows(user, CAN_USE), access.allows(user, CAN_MANAGE)) == (True, False)
    assert [principal for principal, _ in access.entries()] == [owner, admin, user]


def test_group_passes_its_level_on(workspace: Workspace, owner: Principal) -> None:
    create(workspace, owner)
    group = workspace.identities.add_principal("g", identity_type="GROUP")
    user = workspace.identities.add_principal("user")
    workspace.identities.add_member(group, user)
    workspace.projects[SHOP].access.grant(group, CAN_MANAGE)
    workspace.projects[SHOP].access.grant(user, CAN_USE)
    assert workspace.projects[SHOP].access.level(user) == CAN_MANAGE


def test_replacing_takes_away_what_is_not_named(workspace: Workspace, owner: Principal) -> None:
    access = workspace.projects[PROJECT].access
    stranger = workspace.identities.add_principal("s", can_use_project=False)
    assert (access.level(owner), access.level(stranger)) == (CAN_MANAGE, None)
    access.replace({stranger.client_id: CAN_USE})
    assert (access.level(owner), access.level(stranger)) == (None, CAN_USE)
