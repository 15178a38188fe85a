"""What append, replace and upsert leave in a table, whatever the order of the rows and whatever the table checks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_provider_lakebase.exceptions import LakebaseError, LakebaseLoadError, LakebaseSettingsError
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook


@pytest.fixture(autouse=True)
def schema(hook: LakebaseHook) -> Iterator[None]:
    hook.run("DROP SCHEMA IF EXISTS modes CASCADE; CREATE SCHEMA modes")
    yield
    hook.run("DROP SCHEMA modes CASCADE")


def found(hook: LakebaseHook, table: str = "modes.t") -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = hook.get_records(f"SELECT * FROM {table} ORDER BY 1")
    return rows


@pytest.mark.parametrize("on_delete", ["NO ACTION", "RESTRICT", "CASCADE"])
def test_replace_of_a_tree_sees_all_rows_together(hook: LakebaseHook, on_delete: str):
    hook.run(f"CREATE TABLE modes.t (id int PRIMARY KEY, parent int REFERENCES modes.t ON DELETE {on_delete})")
    hook.run("INSERT INTO modes.t VALUES (1, NULL), (2, 1)")
    hook.load([(2, None), (3, 2)], "modes.t", mode="replace")
    assert found(hook) == [(2, None), (3, 2)]


@pytest.mark.parametrize("replace_where", [None, "id < 10"])
def test_replace_swaps_unique_values_of_rows_that_others_refer_to(hook: LakebaseHook, replace_where: str | None):
    hook.run("CREATE TABLE modes.t (id int PRIMARY KEY, place int UNIQUE)")
    hook.run("CREATE TABLE modes.child (id int REFERENCES modes.t)")
    hook.run("INSERT INTO modes.t VALUES (1, 1), (2, 2); INSERT INTO modes.child VALUES (1)")
    hook.load([(1, 2), (2, 1)], "modes.t", mode="replace", replace_where=replace_where)
    assert (found(hook), found(hook, "modes.child")) == ([(1, 2), (2, 1)], [(1,)])


def test_a_swap_never_deletes_rows_that_cascade(hook: LakebaseHook):
    hook.run("CREATE TABLE modes.t (id int PRIMARY KEY, place int UNIQUE)")
    hook.run("CREATE TABLE modes.child (id int REFERENCES modes.t ON DELETE CASCADE)")
    hook.run("INSERT INTO modes.t VALUES (1, 1), (2, 2); INSERT INTO modes.child VALUES (1)")
    with pytest.raises(LakebaseLoadError, match=r"t_place_key.*DEFERRABLE"):
        hook.load([(1, 2), (2, 1)], "modes.t", mode="replace")
    assert (found(hook), found(hook, "modes.child")) == ([(1, 1), (2, 2)], [(1,)])


def test_a_version_that_is_null_is_refused_with_casts_as_without(hook: LakebaseHook):
    hook.run("CREATE TABLE modes.t (id int PRIMARY KEY, v int)")
    for casts in ({}, {"v": "int"}):
        with pytest.raises(LakebaseLoadError, match=r"row 2, column v,.*must not be NULL"):
            values: list[Any] = [(1, "5" if casts else 5), (1, None)]
            hook.load(values, "modes.t", mode="upsert", version_column="v", casts=casts)
        assert found(hook) == []


def test_the_last_row_of_a_key_wins_whatever_the_sizes_of_rows(hook: LakebaseHook):
    hook.run("CREATE TABLE modes.t (id int PRIMARY KEY, n int, note text)")
    hook.run("ALTER TABLE modes.t ALTER note SET STORAGE PLAIN")
    batches = [[(n % 97, n, "x" * (7000 if n % 3 else 10)) for n in range(b, b + 500)] for b in range(0, 3000, 500)]
    rows = [row for batch in batches for row in batch]
    hook.load(rows, "modes.t", mode="upsert")
    assert [row[:2] for row in found(hook)] == sorted({id: n for id, n, _ in rows}.items())


@pytest.mark.parametrize("mode", ["append", "replace", "upsert"])
def test_each_mode_takes_what_an_insert_takes(hook: LakebaseHook, mode: Any):
    hook.run("""
        CREATE TABLE modes.t (id int PRIMARY KEY, note text NOT NULL CHECK (note <> 'raw'), place text COLLATE "C"
            CHECK (place > 'Z'), n int);
        CREATE FUNCTION modes.fill() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN NEW.note := coalesce(nullif(NEW.note, 'raw'), 'filled'); RETURN NEW; END $$;
        CREATE TRIGGER fill BEFORE INSERT ON modes.t FOR EACH ROW EXECUTE FUNCTION modes.fill();
    """)
    hook.load([(1, "raw", "a", -1), (2, None, "b", 2)], "modes.t", mode=mode)
    assert found(hook) == [(1, "filled", "a", -1), (2, "filled", "b", 2)]


@pytest.mark.parametrize("mode", ["append", "replace", "upsert"])
def test_a_check_in_a_collation_is_that_of_the_column(hook: LakebaseHook, mode: Any):
    hook.run(
        """CREATE TABLE modes.t (id int PRIMARY KEY, place text COLLATE "C" CHECK (upper(place) = place), n int)"""
    )
    hook.load([(1, "ä", 1)], "modes.t", mode=mode)
    assert found(hook) == [(1, "ä", 1)]


@pytest.mark.parametrize("mode", ["append", "replace", "upsert"])
def test_a_check_that_is_not_enforced_is_not_enforced(hook: LakebaseHook, mode: Any):
    if int(hook.get_first("SHOW server_version_num")[0]) < 180000:
        pytest.skip("PostgreSQL 18 has constraints that are not enforced")
    hook.run("CREATE TABLE modes.t (id int PRIMARY KEY, n int CHECK (n > 0) NOT ENFORCED)")
    hook.load([(1, -1)], "modes.t", mode=mode)
    assert found(hook) == [(1, -1)]


def test_a_replace_blocks_no_writer_while_its_source_is_read(hook: LakebaseHook):
    hook.run("CREATE TABLE modes.t (id int PRIMARY KEY, note text); INSERT INTO modes.t VALUES (1, 'old')")
    asked, go = threading.Event(), threading.Event()

    def slow() -> Iterator[tuple[int, str]]:
        yield 5, "new"
        asked.set()
        assert go.wait(60)
        yield 6, "new"

    loading = threading.Thread(target=lambda: hook.load(slow(), "modes.t", mode="replace"))
    loading.start()
    try:
        assert asked.wait(60)
        hook.run("SET lock_timeout = '2s'; INSERT INTO modes.t VALUES (2, 'written meanwhile')")
        assert [row[0] for row in found(hook)] == [1, 2]
    finally:
        go.set()
        loading.join()
    assert found(hook) == [(5, "new"), (6, "new")]


def test_a_key_that_is_there_is_answered_with_the_mode_that_takes_it(hook: LakebaseHook):
    hook.run("CREATE TABLE modes.t (id int PRIMARY KEY, n int); INSERT INTO modes.t VALUES (1, 1)")
    with pytest.raises(LakebaseLoadError, match="mode='upsert'"):
        hook.load([(1, 2)], "modes.t")


def test_a_load_that_is_forgotten_loads_again(hook: LakebaseHook):
    hook.run("CREATE TABLE modes.t (id int PRIMARY KEY)")
    hook.load([(1,)], "modes.t", load_id="day 1", ledger_schema="modes")
    hook.run("TRUNCATE modes.t")
    assert hook.load([(1,)], "modes.t", load_id="day 1", ledger_schema="modes").already_loaded
    assert hook.forget_load("day 1", ledger_schema="modes") == 1
    assert hook.forget_load("day 1", ledger_schema="modes") == 0
    assert not hook.load([(1,)], "modes.t", load_id="day 1", ledger_schema="modes").already_loaded
    assert found(hook) == [(1,)]


# ── Tables that a load makes ──

PRICES = [("a", 1), ("b", None)]


def made_from(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "t.csv").write_text("sku;amount\na;1\nb;\n")
    (tmp_path / "t.jsonl").write_text('{"sku": "a", "amount": 1}\n{"sku": "b", "amount": null}\n')
    pq.write_table(pa.table({"sku": ["a", "b"], "amount": [1, None]}), tmp_path / "t.parquet")
    return {
        "csv": (tmp_path / "t.csv", {"delimiter": ";"}),
        "jsonl": (tmp_path / "t.jsonl", {}),
        "parquet": (tmp_path / "t.parquet", {}),
        "dicts": ([{"sku": sku, "amount": amount} for sku, amount in PRICES], {}),
        "tuples": (PRICES, {}),
        "arrow": (pa.table({"sku": ["a", "b"], "amount": [1, None]}), {}),
    }


@pytest.mark.parametrize("types", [{"sku": "text", "amount": "int"}, {"amount": "int", "*": "text"}, {"*": "text"}])
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "dicts", "tuples", "arrow"])
def test_a_table_is_made_with_the_types_that_are_given(
    hook: LakebaseHook, tmp_path: Path, kind: str, types: dict[str, str]
):
    source, options = made_from(tmp_path)[kind]
    if kind == "tuples" and "*" in types:
        with pytest.raises(LakebaseSettingsError, match="does not name its columns.*List every column"):
            hook.load(source, "modes.made", create_table=types)
        return
    if kind in ("parquet", "arrow", "dicts", "jsonl", "tuples") and types == {"*": "text"}:
        source = [{"sku": sku, "amount": amount and str(amount)} for sku, amount in PRICES]
    hook.load(source, "modes.made", mode="upsert", key_columns=["sku"], create_table=types, **options)
    whole = types.get("amount") == "int"
    assert hook.get_records("SELECT * FROM modes.made ORDER BY sku") == [("a", 1 if whole else "1"), ("b", None)]
    query = "SELECT attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute"
    found = hook.get_records(f"{query} WHERE attrelid = 'modes.made'::regclass AND attnum > 0 ORDER BY attnum")
    assert found == [("sku", "text", True), ("amount", "integer" if whole else "text", False)]
    # A table that exists is used as it is.
    hook.load(source, "modes.made", mode="upsert", create_table={"sku": "int", "amount": "date"}, **options)
    assert hook.get_first("SELECT count(*) FROM modes.made") == (2,)


@pytest.mark.parametrize(
    ("types", "options", "match"),
    [
        ({"sku": "tekst", "*": "text"}, {}, "create_table maps column .sku. to .tekst., which is not a type"),
        ({"sku": "text); DROP TABLE x; --"}, {}, "which is not a type"),
        ("text", {}, "create_table is a str"),
        (True, {}, "does not say the types.*create_table=.'id': 'bigint'"),
        ({"sku": "text"}, {}, "is no column of table modes.made"),
        ({"*": "text"}, {"header": False}, "does not name its columns"),
        ({"*": "text"}, {"key_columns": ["nope"], "mode": "upsert"}, "key_columns contains 'nope'"),
    ],
)
def test_types_that_make_no_table_are_refused(
    hook: LakebaseHook, tmp_path: Path, types: Any, options: dict[str, Any], match: str
):
    source, dialect = made_from(tmp_path)["csv"]
    with pytest.raises(LakebaseError, match=match):
        hook.load(source, "modes.made", create_table=types, **{**dialect, **options})
    assert hook.get_first("SELECT to_regclass('modes.made')") == (None,)


def test_a_load_that_fails_leaves_no_table_of_its_own(hook: LakebaseHook):
    broken = pa.table({"id": [1, 1]})
    with pytest.raises(LakebaseLoadError, match="same key|duplicate"):
        hook.load(broken, "modes.made", create_table=True, key_columns=["id"])
    assert hook.get_first("SELECT to_regclass('modes.made')") == (None,)


@pytest.mark.parametrize("mode", ["append", "replace", "upsert"])
def test_a_table_with_rules_is_refused_in_each_mode_since_copy_does_not_run_them(hook: LakebaseHook, mode: str):
    hook.run("CREATE TABLE modes.t (id int PRIMARY KEY)")
    hook.run("CREATE RULE r AS ON INSERT TO modes.t WHERE NEW.id = 2 DO INSTEAD NOTHING")
    with pytest.raises(LakebaseLoadError, match=r"modes\.t has rules, which COPY does not run.*DISABLE RULE"):
        hook.load([(1,), (2,)], "modes.t", mode=mode)
    hook.run("ALTER TABLE modes.t DISABLE RULE r")
    hook.load([(1,), (2,)], "modes.t", mode=mode)
    assert found(hook) == [(1,), (2,)]
