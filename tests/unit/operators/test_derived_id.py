"""The ID of a branch or snapshot that a task derives from its DAG, its name and its run."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_lakebase.operators._derived_id import derive_id

PATTERN = r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?"
"""What the API accepts: docs of create_branch, and https://github.com/databricks/cli/issues/5742."""

texts = st.text(min_size=1, max_size=250)
instances = st.tuples(texts, texts, texts, st.none() | st.integers(-1, 5000))


@given(instances)
def test_it_is_valid_and_stable_whatever_the_names(instance: tuple[str, str, str, int | None]):
    derived = derive_id(*instance)
    assert re.fullmatch(PATTERN, derived), derived
    assert derive_id(*instance) == derived


@given(instances, instances)
def test_different_task_instances_have_different_ids(
    one: tuple[str, str, str, int | None], other: tuple[str, str, str, int | None]
):
    same = (*one[:3], -1 if one[3] is None else one[3]) == (*other[:3], -1 if other[3] is None else other[3])
    assert (derive_id(*one) == derive_id(*other)) is same


@given(texts, st.lists(texts, min_size=2, max_size=2, unique=True))
def test_runs_of_a_task_with_a_long_name_differ(name: str, runs: list[str]):
    long = name * 100
    assert len({derive_id(long, long, run, None) for run in runs}) == 2


def test_it_is_readable():
    derived = derive_id("Nightly_ETL", "tests.create_branch", "scheduled__2026-11-28T00:00:00+00:00")
    assert re.fullmatch(r"nightly-etl-tests-create-branch-[0-9a-f]{10}", derived)
