"""Resource names: parsed, printed, and walked up and down."""

from __future__ import annotations

import pytest

from airflow_provider_lakebase.core.connection.resource_names import ResourceName

ENDPOINT = "projects/shop/branches/main/endpoints/primary"


@pytest.mark.parametrize("text", ["projects/shop", "projects/shop/branches/main", ENDPOINT])
def test_a_name_is_printed_as_it_was_parsed(text: str):
    assert str(ResourceName.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "projects",
        "projects/",
        "projects/shop/",
        "projects/Shop",
        "projects/shop/branches",
        "projects/shop/endpoints/primary",
        "branches/main",
        f"{ENDPOINT}/x/y",
        f"{ENDPOINT}\n",
        "projects/-shop",
        f"projects/{'a' * 64}",
        "projects/shop?x=1",
    ],
)
def test_another_form_is_refused(text: str):
    with pytest.raises(ValueError):
        ResourceName.parse(text)


def test_a_name_knows_its_kind_its_parent_and_its_children():
    project = ResourceName("shop")
    branch = project.child("main")
    endpoint = branch.child("primary")
    assert [each.kind for each in (project, branch, endpoint)] == ["project", "branch", "endpoint"]
    assert (str(endpoint), endpoint.parent, branch.parent, project.parent) == (ENDPOINT, branch, project, None)
    assert (endpoint.up_to("project"), endpoint.up_to("branch"), branch.up_to("branch")) == (project, branch, branch)


def test_an_endpoint_has_no_children_and_a_project_no_branch():
    with pytest.raises(ValueError, match="has no children"):
        ResourceName.parse(ENDPOINT).child("x")
    with pytest.raises(ValueError, match="names no branch"):
        ResourceName("shop").up_to("branch")


def test_an_endpoint_without_a_branch_is_refused():
    with pytest.raises(ValueError, match="belongs to a branch"):
        ResourceName("shop", None, "primary")
