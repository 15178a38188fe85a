"""What is remembered survives as JSON, and what was added later joins it."""

from __future__ import annotations

import json

import pytest

from airflow_provider_lakebase.core.relations.memory import Item, Phase, PostgresTable
from airflow_provider_lakebase.core.relations.read import merge


def test_an_item_is_made_again_from_json():
    acl = {"relation": ["s", "t"], "owner": "o", "entries": [[None, "o", "r", "SELECT", True]], "is_exact": False}
    item = Item("the grants on s.t", Phase.TABLE, ["SELECT 1"], "o", acl, ["s", "i"], "DROP VIEW s.v")
    assert Item(**json.loads(json.dumps(item.as_dict()))) == item


@pytest.mark.parametrize("latest_wins", [True, False])
def test_what_was_added_since_joins_what_was_remembered(latest_wins: bool):
    former = [Item("a", 1, ["old"]), Item("b", 1)]
    latest = [Item("c", 1), Item("a", 1, ["new"])]
    merged = merge(former, latest, latest_wins=latest_wins)
    assert [item.name for item in merged] == ["a", "b", "c"]
    assert merged[0].sql == (["new"] if latest_wins else ["old"])


@pytest.mark.parametrize(("owner", "is_synced"), [("databricks_writer_16384", True), ("etl", False)])
def test_a_synced_table_belongs_to_a_role_of_the_service(owner: str, is_synced: bool):
    assert PostgresTable(owner).is_synced is is_synced
