from __future__ import annotations

import pytest

from airflow_provider_lakebase.emulator.model.catalog import Column, UnityCatalog
from airflow_provider_lakebase.emulator.model.errors import ApiError

ID = Column("id", "bigint", nullable=False)


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def catalog(clock: Clock) -> UnityCatalog:
    return UnityCatalog(clock)


def test_each_publication_is_the_next_version_with_its_own_rows_and_time(catalog: UnityCatalog, clock: Clock) -> None:
    assert catalog.publish("main.gold.customers", [ID], [(1,)]) == 0
    clock.now = 2_000.0
    assert catalog.publish("main.gold.customers", [ID], [(1,), (2,)]) == 1
    first, second = catalog.require("main.gold.customers").versions
    assert (first.rows, first.committed_at) == ([(1,)], 1_000.0)
    assert (second.rows, second.committed_at) == ([(1,), (2,)], 2_000.0)


def test_the_change_data_feed_is_off_until_it_is_set_and_stays_as_it_is(catalog: UnityCatalog) -> None:
    catalog.publish("main.gold.customers", [ID], [])
    assert catalog.require("main.gold.customers").change_data_feed is False
    catalog.publish("main.gold.customers", [ID], [], change_data_feed=True)
    catalog.publish("main.gold.customers", [ID], [])
    assert catalog.require("main.gold.customers").change_data_feed is True


def test_the_id_of_a_table_stays_the_same(catalog: UnityCatalog) -> None:
    catalog.publish("main.gold.customers", [ID], [])
    table_id = catalog.require("main.gold.customers").table_id
    catalog.publish("main.gold.customers", [ID], [])
    assert catalog.require("main.gold.customers").table_id == table_id


@pytest.mark.parametrize("name", ["customers", "gold.customers", "main..customers", "a.b.c.d", "main.gold.my table"])
def test_a_name_without_three_parts_is_refused(catalog: UnityCatalog, name: str) -> None:
    with pytest.raises(ValueError, match="catalog.schema.table"):
        catalog.publish(name, [ID], [])


def test_two_columns_with_the_same_name_are_refused(catalog: UnityCatalog) -> None:
    with pytest.raises(ValueError, match="same name"):
        catalog.publish("main.gold.customers", [ID, Column("ID", "int")], [])


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("other.gold.customers", "CATALOG_DOES_NOT_EXIST", "Catalog 'other' does not exist."),
        ("main.silver.customers", "SCHEMA_DOES_NOT_EXIST", "Schema 'main.silver' does not exist."),
        ("main.gold.orders", "TABLE_DOES_NOT_EXIST", "Table 'main.gold.orders' does not exist."),
    ],
)
def test_the_error_for_a_missing_table_names_the_first_missing_part(
    catalog: UnityCatalog, name: str, code: str, message: str
) -> None:
    catalog.publish("main.gold.customers", [ID], [])
    with pytest.raises(ApiError) as caught:
        catalog.require(name)
    assert (caught.value.status, caught.value.body) == (404, {"error_code": code, "message": message})


def test_a_table_tells_its_columns_its_version_and_its_properties(catalog: UnityCatalog) -> None:
    price = Column("price", "decimal(10,2)")
    catalog.publish("main.gold.customers", [ID, price], [], change_data_feed=True)
    body = catalog.require("main.gold.customers").json()
    assert (body["catalog_name"], body["schema_name"], body["name"]) == ("main", "gold", "customers")
    assert body["columns"] == [
        {"name": "id", "type_text": "bigint", "type_name": "LONG", "position": 0, "nullable": False},
        {
            "name": "price",
            "type_text": "decimal(10,2)",
            "type_name": "DECIMAL",
            "position": 1,
            "nullable": True,
            "type_precision": 10,
            "type_scale": 2,
        },
    ]
    assert body["properties"] == {
        "delta.enableChangeDataFeed": "true",
        "delta.lastCommitTimestamp": "1000000",
        "delta.lastUpdateVersion": "0",
    }
