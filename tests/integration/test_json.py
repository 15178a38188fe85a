"""JSON: arrays and lines hold the same values, members of objects have paths, and what is no JSON is refused."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_lakebase.core.bulk.copy import BadValue
from airflow_provider_lakebase.core.bulk.formats import json_array
from airflow_provider_lakebase.core.bulk.formats.json_array import read_json_array
from airflow_provider_lakebase.core.bulk.formats.json_lines import read_json_lines
from airflow_provider_lakebase.exceptions import LakebaseLoadError, LakebaseSettingsError
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook

MIB = 1 << 20


@pytest.fixture(autouse=True)
def schema(hook: LakebaseHook) -> Iterator[None]:
    hook.run("DROP SCHEMA IF EXISTS js CASCADE; CREATE SCHEMA js; CREATE TABLE js.t (id int, note text, more jsonb)")
    yield
    hook.run("DROP SCHEMA js CASCADE")


def rows(hook: LakebaseHook, table: str = "js.t") -> list[Any]:
    return hook.get_records(f"SELECT * FROM {table} ORDER BY 1")


def files_of(folder: Path, objects: list[str]) -> dict[str, Path]:
    """Write objects as an array and as lines."""
    array, lines = folder / "t.json", folder / "t.jsonl"
    array.write_text("[" + ",".join(objects) + "]")
    lines.write_text("\n".join(objects))
    return {"json": array, "jsonl": lines}


# ── Reading an array ──

LAYOUTS = [
    b'[{"id": 1, "note": "a"}, {"id": 2, "note": null}]',
    b'\xef\xbb\xbf \r\n[\n  {"id":1,"note":"a"}\t,\n\n  {\n"id" : 2 , "note": null}\n]\n\n',
    b'[{"id": 1, "note": "a"},\n{"id": 2}]',
]


@pytest.mark.parametrize("content", LAYOUTS)
@pytest.mark.parametrize("mode", ["append", "replace"])
def test_an_array_of_objects_is_loaded(hook: LakebaseHook, content: bytes, mode: Any):
    hook.load(io.BytesIO(content), "js.t", format="json", mode=mode)
    assert rows(hook) == [(1, "a", None), (2, None, None)]


@pytest.mark.parametrize("content", [b"[]", b" [\n] \n"])
def test_an_empty_array_has_no_rows(hook: LakebaseHook, content: bytes):
    assert hook.load(io.BytesIO(content), "js.t", format="json").rows == 0


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "does not begin with an array.*format='jsonl'"),
        (b'{"rows": [{"id": 1}]}', "does not begin with an array.*a member of an object"),
        (b'{"id": 1}\n{"id": 2}\n', "does not begin with an array.*format='jsonl'"),
        (b'[{"id": 1}] x', "something follows its array"),
        (b'[{"id": 1}] \xff', "something follows its array"),
        (b'[{"id": 1}][{"id": 2}]', "something follows its array"),
        (b'[{"id": 1}', "row 1 .*the array is not closed"),
        (b'[{"id": 1},', "row 2 .*not JSON in UTF-8"),
        (b'[{"id": 1},]', "row 2 .*not JSON in UTF-8"),
        (b'[{"id": 1} {"id": 2}]', "row 1 .*the array is not closed"),
        (b'[{"id": 1}, {"id": 2', "row 2 .*not JSON in UTF-8"),
        (b'[{"id": 1}, {"note": "never closed}]', "row 2 .*not JSON in UTF-8"),
        (b'[{"id": 1}, {"note": "\xff"}]', "row 2 .*not JSON in UTF-8"),
        (b'[{"id": 1}, {"note": "\xc3', "row 2 .*not JSON in UTF-8"),
        (b'[{"id": 1}, 5]', "row 2 .*not a JSON object"),
        (b'[{"id": 1}, [5]]', "row 2 .*not a JSON object"),
        (b"[[1], [2]]", "row 1 .*not a JSON object"),
        (b'[{"id": 1}, {"id": 1, "id": 2}]', "row 2 .*the same name twice"),
        (b'[{"id": 1}, {"more": {"a": 1, "a": 2}}]', "row 2 .*the same name twice"),
        (b'[{"id": 1}, {"id": NaN}]', "row 2 .*NaN, which JSON does not have"),
        (b'[{"id": 1}, {"more": [-Infinity]}]', "row 2 .*Infinity"),
        (b'[{"id": 1}, {"id": 01}]', "row 2 .*not JSON"),
        (b"[{'id': 1}]", "row 1 .*not JSON"),
        (b'[{"id": 1}, /* no */ {"id": 2}]', "row 2 .*not JSON"),
        (b'[{"id": 1}, {"more": ' + b"[" * 100_000 + b"]" * 100_000 + b"}]", "row 2 .*(not JSON|nesting)"),
        ('[{"id": 1}]'.encode("utf-16"), "UTF-16, not UTF-8"),
    ],
)
@pytest.mark.parametrize("size", [1, 7, 1 << 18])
def test_what_is_no_array_of_objects_is_refused(
    hook: LakebaseHook, content: bytes, match: str, size: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(json_array, "BLOCK_BYTES", size)
    with pytest.raises(LakebaseLoadError, match=match):
        hook.load(io.BytesIO(content), "js.t", format="json", columns=["id", "note", "more"])
    assert rows(hook) == []


leaf = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.decimals(allow_nan=False, allow_infinity=False).map(lambda number: number + Decimal("0.1"))
)
values = st.recursive(leaf, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner), max_leaves=8)


def written(value: Any) -> str:
    """Return a value as JSON, with all digits of its numbers."""
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{written(item)}" for key, item in value.items()) + "}"
    return f"[{' , '.join(map(written, value))}]" if isinstance(value, list) else json.dumps(value, ensure_ascii=False)


@given(objects=st.lists(st.dictionaries(st.text(max_size=3), values)), size=st.sampled_from([1, 2, 3, 5, 16, 1 << 18]))
def test_arrays_hold_what_lines_hold_wherever_blocks_end(objects: list[dict[str, Any]], size: int):
    texts = [*map(written, objects)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_array, "BLOCK_BYTES", size)
        found = list(read_json_array(io.BytesIO(f"[{','.join(texts)}]".encode())))  # type: ignore[arg-type]
    lines = list(read_json_lines(io.BytesIO("\n".join(texts).encode())))  # type: ignore[arg-type]
    assert repr(found) == repr(lines)
    assert found == [json.loads(text, parse_float=Decimal) for text in texts]


@pytest.mark.parametrize("text", ["-0", "-0.0", "1" * 5000, "1e400", "1.10", "18446744073709551616"])
def test_numbers_are_those_of_lines(text: str):
    (found,) = read_json_array(io.BytesIO(f'[{{"n": {text}}}]'.encode()))  # type: ignore[arg-type]
    (line,) = read_json_lines(io.BytesIO(f'{{"n": {text}}}'.encode()))  # type: ignore[arg-type]
    assert repr(found) == repr(line)
    assert str(found["n"]) == str(Decimal(text))


class Generated(io.RawIOBase):
    """An array of a size that no disk need hold."""

    def __init__(self, size: int, element: bytes) -> None:
        self.left, self.element, self.pending = size, element, b"[" + element

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while len(self.pending) < size and self.left > 0:
            self.pending += b"," + self.element
            self.left -= len(self.element)
            if self.left <= 0:
                self.pending += b"]"
        data, self.pending = self.pending[:size], self.pending[size:]
        return data


MEMORY = """
import ast, sys, tracemalloc
from airflow_provider_lakebase.core.bulk.formats.json_array import read_json_array
from test_json import Generated

def peak(size):
    tracemalloc.start()
    count = sum(1 for _ in read_json_array(Generated(size, element)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count > size / len(element)
    return peak

element = ast.literal_eval(sys.argv[1])
print(peak(2 << 20), peak(8 << 20))
"""


@pytest.mark.parametrize("element", [b'{"id": 1, "note": "abc"}', b'{"note": "' + b"x" * 100_000 + b'"}'])
def test_memory_does_not_grow_with_the_array(element: bytes):
    """A process of its own is measured: the emulator and what other tests left run in this one."""
    command = [sys.executable, "-W", "ignore", "-c", MEMORY, repr(element)]
    here = Path(__file__).parent
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=here).stdout
    smaller, larger = map(int, output.split())
    assert larger < smaller + MIB


def test_an_error_early_in_the_file_is_found_without_reading_the_rest():
    file = Generated(1 << 40, b'{"id": 1 "note": 2}')
    with pytest.raises(BadValue, match="not JSON"):
        next(read_json_array(file))
    assert file.left > (1 << 40) - 4 * MIB


# ── Objects within objects ──

USERS = [
    '{"id": 1, "user": {"name": "Ann", "home": {"city": "Ulm"}}}',
    '{"id": 2, "user": {"name": null}}',
    '{"id": 3, "user": null}',
    '{"id": 4}',
    '{"id": 5, "user": {"name": "Bob"}, "user.name": "the key itself"}',
]


@pytest.mark.parametrize("kind", ["json", "jsonl", "dicts"])
@pytest.mark.parametrize("mode", ["append", "replace"])
def test_members_of_objects_are_loaded_by_their_paths(hook: LakebaseHook, tmp_path: Path, kind: str, mode: Any):
    source: Any = {**files_of(tmp_path, USERS), "dicts": list(map(json.loads, USERS))}[kind]
    columns = {"id": "id", "user.name": "name", "user.home.city": "city", "user": "all"}
    hook.run('CREATE TABLE js.users (id int, name text, city text, "all" jsonb)')
    hook.load(source, "js.users", columns=columns, mode=mode)
    assert rows(hook, "js.users") == [
        (1, "Ann", "Ulm", {"name": "Ann", "home": {"city": "Ulm"}}),
        (2, None, None, {"name": None}),
        (3, None, None, None),
        (4, None, None, None),
        (5, "the key itself", None, {"name": "Bob"}),
    ]


@pytest.mark.parametrize("kind", ["json", "jsonl", "dicts"])
def test_a_path_makes_a_column_of_a_new_table(hook: LakebaseHook, tmp_path: Path, kind: str):
    source: Any = {**files_of(tmp_path, USERS), "dicts": list(map(json.loads, USERS))}[kind]
    columns = {"user.name": "name", "id": "id"}
    hook.load(source, "js.made", columns=columns, create_table={"id": "int", "*": "text"}, key_columns=["id"])
    assert hook.get_records("SELECT * FROM js.made ORDER BY id LIMIT 2") == [("Ann", 1), (None, 2)]


@pytest.mark.parametrize("kind", ["json", "jsonl"])
def test_a_list_of_columns_selects_by_name_for_a_new_table(hook: LakebaseHook, tmp_path: Path, kind: str):
    source = files_of(tmp_path, ['{"b": 1}', '{"a": "x", "b": 2}'])[kind]
    hook.load(source, "js.made", columns=["a", "b"], create_table={"b": "int", "*": "text"})
    assert rows(hook, "js.made") == [("x", 2), (None, 1)]


@pytest.mark.parametrize(
    ("second", "path", "match"),
    [
        ('{"id": 2, "user": "Ann"}', "user.name", "2.* it has no object at 'user', as 'user.name' in 'columns' needs"),
        ('{"id": 2, "user": [{"name": "Ann"}]}', "user.name", "2.* it has no object at 'user'"),
        ('{"id": 2, "user": {"name": 5}}', "user.name.first", "2.* it has no object at 'user.name'"),
        ('{"id": 2, "user": {"name": "Ann"}}', "user.nam", "no row has a value for 'user.nam', which is in 'columns'"),
    ],
)
@pytest.mark.parametrize("kind", ["json", "jsonl", "dicts"])
def test_a_path_that_leads_nowhere_is_refused(
    hook: LakebaseHook, tmp_path: Path, second: str, path: str, match: str, kind: str
):
    texts = ['{"id": 1, "user": {}}', second]
    source: Any = {**files_of(tmp_path, texts), "dicts": list(map(json.loads, texts))}[kind]
    with pytest.raises(LakebaseLoadError, match=match):
        hook.load(source, "js.t", columns={path: "note"})


# ── Rows that are left out ──


def test_elements_that_are_no_objects_are_left_out_of_an_array(hook: LakebaseHook):
    good = ['{"id": 1}', '{"id": 2}']
    bad = ["5", "[1, [2]]", '{"id": 3, "id": 4}', '{"id": [NaN], "more": {"a": 1e9}}', '"text"', "null"]
    content = f"[{good[0]}, {', '.join(bad)}, {good[1]}]".encode()
    options: Any = {"format": "json", "columns": ["id"], "rejects_table": "js.rejects"}
    result = hook.load(io.BytesIO(content), "js.t", reject_limit=6, **options)
    assert (result.rows, result.rejected) == (2, 6)
    found = hook.get_records("SELECT number, raw FROM js.rejects ORDER BY number")
    assert found == list(enumerate(bad, 2))


def test_what_is_no_json_cannot_be_left_out_of_an_array(hook: LakebaseHook):
    with pytest.raises(LakebaseLoadError, match="row 2 .*not JSON"):
        hook.load(io.BytesIO(b'[{"id": 1}, {"id": x}, {"id": 2}]'), "js.t", format="json", reject_limit=5)


@pytest.mark.parametrize("kind", ["json", "jsonl", "dicts"])
def test_an_object_without_the_path_is_left_out(hook: LakebaseHook, tmp_path: Path, kind: str):
    texts = ['{"user": {"name": "Ann"}}', '{"user": "Bob"}', '{"user": {"name": "Eve"}}']
    source: Any = {**files_of(tmp_path, texts), "dicts": list(map(json.loads, texts))}[kind]
    hook.load(source, "js.t", columns={"user.name": "note"}, reject_limit=1, rejects_table="js.rejects")
    assert hook.get_records("SELECT note FROM js.t ORDER BY note") == [("Ann",), ("Eve",)]
    assert hook.get_records("SELECT number, raw::jsonb FROM js.rejects") == [(2, {"user": "Bob"})]


# ── Tables that an array makes ──


def test_an_array_makes_its_table_from_the_types_that_are_given(hook: LakebaseHook, tmp_path: Path):
    content = b'[{"sku": "a", "price": 1.10, "tags": ["x"]}, {"sku": "b", "price": null}]'
    types = {"price": "numeric", "tags": "jsonb", "*": "text"}
    (tmp_path / "t.json").write_bytes(content)
    for _ in range(2):
        hook.load(tmp_path / "t.json", "js.made", mode="upsert", key_columns=["sku"], create_table=types)
    assert rows(hook, "js.made") == [("a", Decimal("1.10"), ["x"]), ("b", None, None)]


@pytest.mark.parametrize(
    ("content", "types", "error", "match"),
    [
        (b'[{"id": 1}]', True, LakebaseSettingsError, "does not say the types"),
        (b"[5]", {"*": "text"}, LakebaseLoadError, "in row 1, it is not a JSON object"),
        (b'{"id": 1}', {"*": "text"}, LakebaseLoadError, "does not begin with an array"),
    ],
)
def test_an_array_that_makes_no_table_is_refused(
    hook: LakebaseHook, tmp_path: Path, content: bytes, types: Any, error: type[Exception], match: str
):
    (tmp_path / "t.json").write_bytes(content)
    with pytest.raises(error, match=match):
        hook.load(tmp_path / "t.json", "js.made", create_table=types)
    assert hook.get_first("SELECT to_regclass('js.made')") == (None,)


# ── Writing ──


@pytest.mark.parametrize("ending", ["json", "json.gz", "json.zst"])
@pytest.mark.parametrize("count", [0, 1, 2, 128, 129, 1000])
def test_an_exported_array_is_json_and_is_loaded_again(hook: LakebaseHook, tmp_path: Path, ending: str, count: int):
    query = f"""SELECT n AS id, e'a\\n"\\\\,' || n AS note, jsonb_build_array(n, 1.10) AS more
        FROM generate_series(1, {count}) n"""
    assert hook.export(query, tmp_path / f"t.{ending}").rows == count
    if ending == "json":
        found = json.loads((tmp_path / "t.json").read_text(), parse_float=Decimal)
        assert found == [{"id": n, "note": f'a\n"\\,{n}', "more": [n, Decimal("1.10")]} for n in range(1, count + 1)]
    hook.load(tmp_path / f"t.{ending}", "js.t")
    compared = f"SELECT count(*) FROM (SELECT * FROM js.t INTERSECT ALL {query}) AS same"
    assert hook.get_first(compared) == (count,)


@pytest.mark.parametrize("format", ["json", "jsonl"])
def test_line_breaks_within_a_json_value_do_not_end_a_line(hook: LakebaseHook, tmp_path: Path, format: Any):
    query = """SELECT e'{"a":\\n 1,\\r\\n"b":\\t2}'::json AS more"""
    hook.export(query, tmp_path / f"t.{format}")
    hook.load(tmp_path / f"t.{format}", "js.t")
    assert rows(hook) == [(None, None, {"a": 1, "b": 2})]
