"""What a task asks for is checked before anything is sent, and written as the API takes it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from airflow_provider_lakebase.core.workspace.specs import (
    compute_arguments,
    compute_spec,
    expiry_spec,
    resource_name,
    source_spec,
    update_paths,
)
from airflow_provider_lakebase.exceptions import LakebaseSettingsError

PROJECT = "projects/shop"
SOON = datetime.now(UTC) + timedelta(days=2)


@pytest.mark.parametrize("ttl", [timedelta(hours=2), 7200, 7200.0, "7200", " 7200 "])
def test_a_ttl_is_sent_in_seconds(ttl: Any):
    assert expiry_spec(ttl=ttl) == {"ttl": "7200s"}


def test_an_expiry_is_sent_in_utc():
    time = SOON.astimezone(timezone(timedelta(hours=5)))
    sent = expiry_spec(expire_time=time)["expire_time"]
    assert sent.endswith("Z")
    assert datetime.fromisoformat(sent) == SOON
    assert expiry_spec(expire_time=SOON.isoformat()) == {"expire_time": sent}
    assert expiry_spec(no_expiry=True) == {"no_expiry": True}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "No expiry is given"),
        ({"no_expiry": False}, "No expiry is given"),
        ({"ttl": 60, "no_expiry": True}, "ttl and no_expiry are given"),
        ({"ttl": 0}, "more than 0 and at most 30 days"),
        ({"ttl": -1}, "ttl is -1"),
        ({"ttl": timedelta(days=30, seconds=1)}, "at most 30 days"),
        ({"ttl": 1.5}, "whole seconds"),
        ({"ttl": True}, "a number"),
        ({"ttl": "720h"}, "ttl is '720h'"),
        ({"ttl": "2 hours"}, "ttl is '2 hours'"),
        ({"ttl": "nan"}, "a number"),
        ({"ttl": 10**400}, "a number"),
        ({"no_expiry": "False"}, "no_expiry is 'False'. It must be True or False"),
        ({"ttl": timedelta(milliseconds=1500)}, "whole seconds"),
        ({"expire_time": datetime(2026, 1, 1)}, "time zone"),
        ({"expire_time": "tomorrow"}, "time zone"),
        ({"expire_time": "2020-01-01T00:00:00Z"}, "in the future"),
        ({"expire_time": SOON + timedelta(days=40)}, "at most 30 days"),
    ],
)
def test_a_wrong_expiry_is_refused(arguments: dict[str, Any], words: str):
    with pytest.raises(LakebaseSettingsError, match=words):
        expiry_spec(**arguments)


@pytest.mark.parametrize("wrong", [0, False, [], "0001-01-01T00:00:00+12:00", "9999-12-31T23:59:59-12:00"])
def test_what_is_no_time_is_refused(wrong: Any):
    with pytest.raises(LakebaseSettingsError, match="expire_time is "):
        expiry_spec(expire_time=wrong, longest=None)
    with pytest.raises(LakebaseSettingsError, match="source_time is "):
        source_spec(PROJECT, source_time=wrong)


def test_a_snapshot_may_live_longer():
    assert expiry_spec(ttl=timedelta(days=90), longest=None) == {"ttl": "7776000s"}
    assert expiry_spec(expire_time=SOON + timedelta(days=400), longest=None)["expire_time"]


@pytest.mark.parametrize(
    ("arguments", "spec"),
    [
        ({}, {}),
        ({"source": "production"}, {"source_branch": "projects/shop/branches/production"}),
        ({"source": "projects/shop/branches/b"}, {"source_branch": "projects/shop/branches/b"}),
        ({"source_time": "2026-11-28T12:00:00+02:00"}, {"source_branch_time": "2026-11-28T10:00:00Z"}),
        ({"source_lsn": "16/B374D848"}, {"source_branch_lsn": "16/B374D848"}),
        ({"source_snapshot": "before"}, {"source_snapshot": "projects/shop/snapshots/before"}),
        ({"source": "", "source_time": None}, {}),
    ],
)
def test_a_source_is_written_by_its_full_name(arguments: dict[str, Any], spec: dict[str, Any]):
    assert source_spec(PROJECT, **arguments) == spec


@pytest.mark.parametrize(
    "arguments",
    [
        {"source_time": SOON, "source_lsn": "0/1"},
        {"source_snapshot": "s", "source_lsn": "0/1"},
        {"source_snapshot": "s", "source": "production"},
        {"source_lsn": "12345"},
        {"source_lsn": 7},
        {"source_lsn": 0},
        {"source_time": 0},
        {"source_time": False},
        {"source_snapshot": 0},
        {"source": False},
        {"source_time": "yesterday"},
        {"source": "Not an ID"},
        {"source": "projects/other/branches/production"},
        {"source_snapshot": "projects/other/snapshots/before"},
    ],
)
def test_a_wrong_source_is_refused(arguments: dict[str, Any]):
    with pytest.raises(LakebaseSettingsError):
        source_spec(PROJECT, **arguments)


@pytest.mark.parametrize("given", ["Try", "1st", "a_b", "a-", "a" * 64, "", "projects/shop/branches/", "a/b", None, 7])
def test_a_malformed_id_is_refused(given: Any):
    with pytest.raises(LakebaseSettingsError, match="is not the ID of a branch"):
        resource_name(PROJECT, "branches", given)


@pytest.mark.parametrize(
    ("collection", "given"),
    [("branches", "projects/p/branches/b/branches/c"), ("endpoints", "projects/p/endpoints/e")],
)
def test_a_full_name_of_another_form_is_refused(collection: str, given: str):
    with pytest.raises(LakebaseSettingsError, match="is not the ID of a"):
        resource_name(PROJECT, collection, given)


@pytest.mark.parametrize(
    ("arguments", "spec"),
    [
        ({}, {}),
        ({"min_cu": 0.5, "max_cu": "16.5"}, {"autoscaling_limit_min_cu": 0.5, "autoscaling_limit_max_cu": 16.5}),
        ({"suspend_timeout": timedelta(minutes=5)}, {"suspend_timeout_duration": "300s"}),
        ({"no_suspension": True, "disabled": False}, {"no_suspension": True, "disabled": False}),
    ],
)
def test_settings_of_an_endpoint_are_written_as_the_api_takes_them(arguments: dict[str, Any], spec: dict[str, Any]):
    assert compute_spec(**arguments) == spec


@pytest.mark.parametrize(
    "arguments",
    [
        {"min_cu": 0.25},
        {"max_cu": 65},
        {"min_cu": 8, "max_cu": 4},
        {"min_cu": 1, "max_cu": 17.5},
        {"min_cu": "large"},
        {"suspend_timeout": 59},
        {"suspend_timeout": timedelta(days=8)},
        {"suspend_timeout": 300, "no_suspension": True},
        {"no_suspension": False},
        {"no_suspension": "True"},
        {"disabled": "False"},
        {"disabled": 0},
    ],
)
def test_settings_out_of_range_are_refused(arguments: dict[str, Any]):
    with pytest.raises(LakebaseSettingsError):
        compute_spec(**arguments)


def test_an_update_mask_names_a_choice_by_what_it_is_about():
    assert update_paths({"ttl": "60s", "is_protected": True}) == ["spec.expiration", "spec.is_protected"]
    assert update_paths({"no_suspension": True, "disabled": True}) == ["spec.suspension", "spec.disabled"]
    assert update_paths({"group": {"min": 2, "max": 2}}) == ["spec.group.min", "spec.group.max"]


@pytest.mark.parametrize(
    "arguments",
    [
        {"min_cu": 1.0, "max_cu": 2.0},
        {"suspend_timeout": 300, "disabled": False},
        {"no_suspension": True},
    ],
)
def test_the_settings_of_an_endpoint_become_the_arguments_that_set_them_again(arguments: dict[str, Any]):
    spec = compute_spec(**arguments)
    assert compute_arguments(spec, spec) == arguments


def test_only_the_settings_that_are_asked_for_become_arguments():
    complete = compute_spec(min_cu=1, max_cu=2, no_suspension=True, disabled=False)
    assert compute_arguments(complete, {"autoscaling_limit_max_cu": 4}) == {"max_cu": 2}
    # Of the two that exclude each other, the one that holds.
    assert compute_arguments(complete, {"suspend_timeout_duration": "60s"}) == {"no_suspension": True}
