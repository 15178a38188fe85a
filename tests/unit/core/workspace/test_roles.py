"""A resource ID is derived from any name of Postgres, and is one that the API takes."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_lakebase.core.connection.resource_names import RESOURCE_ID
from airflow_provider_lakebase.core.workspace.roles import CreateRole, derive_id
from airflow_provider_lakebase.exceptions import LakebaseSettingsError

NAMES = st.text(min_size=1, max_size=63) | st.uuids().map(str) | st.emails()


@given(name=NAMES, prefix=st.sampled_from(["", "sp", "user", "group"]))
def test_any_name_gives_an_id_that_the_api_takes_and_the_same_each_time(name: str, prefix: str):
    found = derive_id(name, prefix=prefix)
    assert re.fullmatch(RESOURCE_ID, found)
    assert len(found) >= 4
    assert derive_id(name, prefix=prefix) == found


@given(names=st.lists(NAMES, min_size=2, max_size=2, unique=True))
def test_different_names_give_different_ids(names: list[str]):
    assert derive_id(names[0]) != derive_id(names[1])


def test_a_name_that_is_an_id_is_kept_and_one_that_begins_with_a_digit_gets_a_prefix():
    assert derive_id("sales") == "sales"
    assert derive_id("9f0e-1", prefix="sp") == "sp-9f0e-1"
    assert derive_id("Sales_2026").startswith("sales-2026-")


@pytest.mark.parametrize(("identity", "identity_type"), [("", "USER"), (" ", "USER"), (None, "USER"), ("x", "ROBOT")])
def test_a_wrong_identity_is_refused(identity: str, identity_type: str):
    with pytest.raises(LakebaseSettingsError):
        CreateRole("projects/p/branches/b", identity, identity_type)
