"""The plan of a load is decided from options and table alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_lakebase.core.bulk.catalog import Column, Table
from airflow_provider_lakebase.core.bulk.heads import Head
from airflow_provider_lakebase.core.bulk.options import LoadOptions
from airflow_provider_lakebase.core.bulk.plan import LoadPlan, make_plan
from airflow_provider_lakebase.exceptions import LakebaseLoadError, LakebaseSettingsError

ID = Column("id", "integer", "integer", -1, "int4", not_null=True)
DAY = Column("day", "date", "date", -1, "date")
PRICE = Column("price", "numeric(10,2)", "numeric", (10 << 16 | 2) + 4, "numeric")
MADE = Column("made", "integer", "integer", -1, "int4", generated=True)
TABLE = Table(
    name="shop.prices",
    oid=1,
    path=("shop", "prices"),
    columns=(ID, DAY, PRICE, MADE),
    keys=(("id",), ("id", "day")),
    primary_key=("id",),
    rows_estimate=0,
    owned=True,
    row_security=False,
    has_incoming_fks=False,
    has_triggers=False,
    has_rules=False,
)


def head(*columns: Column, label: str = "a.csv") -> Head:
    return Head(label, frozenset(column.name for column in columns), frozenset())


def plan(table: Table = TABLE, has_raw_text: bool = False, **options: Any) -> LoadPlan:
    return make_plan(LoadOptions(**options), table, [head(ID, DAY, PRICE)], has_raw_text=has_raw_text)


def test_an_append_goes_straight_into_the_table():
    assert not plan().is_staged


@pytest.mark.parametrize(
    "given",
    [
        {"mode": "replace"},
        {"mode": "upsert"},
        {"casts": {"day": "date"}},
        {"has_raw_text": True},  # Postgres would round the price
        {"has_raw_text": True, "columns": {"x": "id"}},
        {"table": replace(TABLE, row_security=True)},
    ],
)
def test_other_loads_are_staged(given: dict[str, Any]):
    assert plan(**given).is_staged


def test_an_upsert_matches_rows_by_the_primary_key_and_updates_the_rest():
    found = plan(mode="upsert")
    assert (found.key_columns, found.update_columns) == (("id",), ["day", "price"])


def test_key_columns_are_taken_in_the_order_of_the_index():
    assert plan(mode="upsert", key_columns=["day", "id"]).key_columns == ("id", "day")


def test_an_empty_list_of_updates_leaves_existing_rows_unchanged():
    assert plan(mode="upsert", update_columns=[]).update_columns == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"key_columns": ["day"]}, "no unique index on exactly day"),
        ({"update_columns": ["id"]}, "update_columns contains 'id'.*day, price"),
        ({"version_column": "nope"}, "version_column contains 'nope'"),
        ({"table": replace(TABLE, primary_key=())}, "no primary key"),
    ],
)
def test_columns_that_an_upsert_cannot_use_are_rejected(given: dict[str, Any], said: str):
    with pytest.raises(LakebaseSettingsError, match=said):
        plan(mode="upsert", **given)


def test_a_key_that_the_source_does_not_fill_is_rejected():
    with pytest.raises(LakebaseSettingsError, match="key_columns contains 'id'"):
        make_plan(LoadOptions(mode="upsert"), TABLE, [head(DAY)])


def test_a_source_that_fills_no_column_is_rejected():
    with pytest.raises(LakebaseLoadError, match="fills no column") as rejected:
        make_plan(LoadOptions(), TABLE, [head()])
    assert rejected.value.table == "shop.prices"


@pytest.mark.parametrize(("has_fks", "key"), [(False, ()), (True, ("id",))])
def test_a_replace_keeps_rows_in_place_if_foreign_keys_reference_them(has_fks: bool, key: tuple[str, ...]):
    table = replace(TABLE, has_incoming_fks=has_fks)
    assert make_plan(LoadOptions(mode="replace"), table, [head(ID, DAY)]).stable_key == key
