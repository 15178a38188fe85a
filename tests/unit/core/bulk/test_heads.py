"""Whether what the parts of a source fill suits the table and the options."""

from __future__ import annotations

from dataclasses import replace

import pytest

from airflow_provider_lakebase.core.bulk.catalog import Column, Table
from airflow_provider_lakebase.core.bulk.heads import Head, check_complete, check_lacking, find_lacking, unite
from airflow_provider_lakebase.exceptions import NO_CONTEXT, LakebaseLoadError

ID = Column("id", "integer", "integer", -1, "int4", not_null=True)
DAY = Column("day", "date", "date", -1, "date")
MADE = Column("made", "integer", "integer", -1, "int4", generated=True)
NUMBER = Column("number", "integer", "integer", -1, "int4", not_null=True, identity="a", default="nextval('n')")
TABLE = Table("t", 1, ("public", "t"), (ID, DAY, MADE, NUMBER), (), (), 0, True, False, False, False, False)


def head(label: str, *sent: str, folders: tuple[str, ...] = (), is_empty: bool = False) -> Head:
    return Head(label, frozenset(sent), frozenset(folders), is_empty)


def test_the_columns_of_all_parts_are_united_in_the_order_of_the_table():
    heads = [head("a", "day", "left out 1"), head("b", "id"), head("c", folders=("day",))]
    assert unite(heads, TABLE) == [ID, DAY]
    assert find_lacking(heads, [ID, DAY]) == {"id": "a", "day": "b"}


def test_a_part_without_rows_counts_only_if_all_are_such():
    empty = head("e", "id", "day", "number", is_empty=True)
    assert unite([empty, head("a", "id")], TABLE) == [ID]
    assert unite([empty], TABLE) == [ID, DAY, NUMBER]
    assert find_lacking([empty, head("a", "id")], [ID]) == {}
    check_complete([head("e", is_empty=True)], TABLE, NO_CONTEXT)


def test_a_part_lacks_only_what_has_a_default_and_what_no_upsert_changes():
    check_lacking({"day": "a", "number": "a"}, TABLE, (), NO_CONTEXT)
    check_lacking({"id": "a"}, replace(TABLE, has_triggers=True), (), NO_CONTEXT)
    with pytest.raises(LakebaseLoadError, match="a has no column 'id', which other files.*must not be NULL") as caught:
        check_lacking({"id": "a"}, TABLE, (), NO_CONTEXT)
    assert (caught.value.source, caught.value.column) == ("a", "id")
    with pytest.raises(LakebaseLoadError, match="a has no column 'day'.*existing rows to its default"):
        check_lacking({"day": "a"}, TABLE, {"day"}, NO_CONTEXT)


def test_a_complete_part_fills_all_but_identity_and_generated_columns():
    check_complete([head("a", "id", folders=("day",))], TABLE, NO_CONTEXT)
    with pytest.raises(LakebaseLoadError, match="b does not fill column 'day' of table t"):
        check_complete([head("a", "id", "day"), head("b", "id")], TABLE, NO_CONTEXT)
