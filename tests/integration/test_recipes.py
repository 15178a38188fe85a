"""Every recipe of the documentation does what its page says, with a file such as the page describes."""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fastavro
import pandas
import psycopg
import pyarrow
import pyarrow.orc
import pyarrow.parquet
import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_lakebase.emulator import LakebaseEmulator
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook
from airflow_provider_lakebase.operators.load import LakebaseExportOperator, LakebaseLoadOperator, list_files
from airflow_provider_lakebase.transfers.sql_to_lakebase import SqlToLakebaseOperator

PAGE = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text()
RECIPES = dict(re.findall(r"```{code-block} python\n:name: (\S+)\n\n(.*?)```", PAGE, re.DOTALL))
COLUMNS = """SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
    WHERE attrelid = %s::regclass AND attnum > 0 ORDER BY attnum"""


@pytest.fixture(autouse=True)
def shop(hook: LakebaseHook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A schema, and a directory of its own for the files, whose names on the page are relative."""
    monkeypatch.chdir(tmp_path)
    hook.run("DROP SCHEMA IF EXISTS shop CASCADE; CREATE SCHEMA shop")
    yield
    hook.run("DROP SCHEMA shop CASCADE")


class Runs:
    """In place of an operator: runs the task at once, and keeps what it returns."""

    def __init__(self, operator: type[Any], results: list[Any]) -> None:
        self.operator, self.results = operator, results

    def __call__(self, **arguments: Any) -> None:
        keep = lambda key, value: None  # noqa: E731
        ti = SimpleNamespace(dag_id="d", run_id="r", task_id=arguments["task_id"], map_index=-1, xcom_push=keep)
        self.results.append(self.operator(**arguments).execute({"ti": ti}))


def cook(name: str) -> list[Any]:
    """Run a recipe, and return what its tasks return."""
    results: list[Any] = []
    operators = (LakebaseLoadOperator, LakebaseExportOperator, SqlToLakebaseOperator)
    names: dict[str, Any] = {each.__name__: Runs(each, results) for each in operators}
    tasks: list[Callable[[], Any]] = []
    libraries = {"pandas": pandas, "pyarrow": pyarrow, "fastavro": fastavro}
    exec(
        compile(RECIPES[name], name, "exec"),
        {**names, **libraries, "LakebaseHook": LakebaseHook, "task": lambda function: tasks.append(function)},
    )
    return [*results, *(each() for each in tasks)]


def table(hook: LakebaseHook, name: str) -> list[Any]:
    return hook.get_records(f"SELECT * FROM shop.{name} ORDER BY 1")


def test_semicolons(hook: LakebaseHook):
    text = (
        "# exported 2026-11-28\n# by a person\nid;ordered;customer;amount\n"
        '1;2026-11-01;Müller;1.234,50\n2;2026-11-02;"A;B";-0,75\n'
    )
    for _ in range(2):
        Path("orders.csv").write_text(text, encoding="latin-1")
        cook("semicolons")
        assert table(hook, "orders") == [
            (1, date(2026, 11, 1), "Müller", Decimal("1234.50")),
            (2, date(2026, 11, 2), "A;B", Decimal("-0.75")),
        ]


def test_the_order_of_a_date_is_told_to_the_session(hook: LakebaseHook):
    """As the page says of dates that are not in ISO form."""
    assert """hook_params={"options": "-c DateStyle=ISO,DMY"}""" in PAGE
    Path("orders.csv").write_text("id,ordered\n1,02.11.2026\n")
    hook.run("CREATE TABLE shop.dates (id int, ordered date)")
    operator = Runs(LakebaseLoadOperator, [])
    casts = {"casts": {"ordered": "date"}, "hook_params": {"options": "-c DateStyle=ISO,DMY"}}
    operator(task_id="t", source="orders.csv", table="shop.dates", **casts)
    assert table(hook, "dates") == [(1, date(2026, 11, 2))]


def test_comments_that_are_not_counted(hook: LakebaseHook):
    """As the page says in place of ``skip_lines``."""
    assert 'write `comment="#"`' in PAGE
    Path("orders.csv").write_text("# one\nid,ordered\n# two\n# three\n1,2026-11-02\n")
    hook.run("CREATE TABLE shop.commented (id int, ordered date)")
    Runs(LakebaseLoadOperator, [])(task_id="t", source="orders.csv", table="shop.commented", comment="#")
    assert table(hook, "commented") == [(1, date(2026, 11, 2))]


def test_commas(hook: LakebaseHook):
    Path("invoices.csv").write_text("id;amount\n1;1.234,50\n2;n/a\n3;-\n4;0,5\n5;\n")
    cook("commas")
    amounts = [Decimal("1234.50"), None, None, Decimal("0.50"), None]
    assert table(hook, "invoices") == list(enumerate(amounts, 1))


def test_unknown(hook: LakebaseHook):
    text = "id;name;city\n" + "".join(f"{n};Müller {n};Köln\n" for n in range(20))
    Path("contacts.csv").write_text(text, encoding="cp1252")
    cook("unknown")
    assert hook.get_first("SELECT count(*), max(name), max(city) FROM shop.contacts") == (20, "Müller 9", "Köln")


def test_rejects(hook: LakebaseHook):
    hook.run("CREATE TABLE shop.payments (id int PRIMARY KEY, amount numeric(8,2) NOT NULL)")
    bad = {100: "x,1.00", 200: "200,1.005", 300: "299,1.00"}
    lines = [bad.get(n, f"{n},1.25") for n in range(1, 1001)]
    Path("payments.csv").write_text("\n".join(["id,amount", *lines]))
    (result,) = cook("rejects")
    assert (result["rows"], result["rejected"]) == (997, 3)
    found = hook.get_records("SELECT number, column_name, sqlstate FROM shop.rejects ORDER BY number")
    assert found == [(101, "id", "22P02"), (201, "amount", "22000"), (301, "id", "23505")]
    assert all("1.0" in raw for (raw,) in hook.get_records("SELECT raw FROM shop.rejects"))


def test_spark(hook: LakebaseHook):
    for day in ("2026-11-01", "2026-11-02"):
        folder = Path(f"events/dt={day}")
        folder.mkdir(parents=True)
        for part in range(3):
            data = pyarrow.table({"id": [part, part + 10], "kind": ["click", None]})
            pyarrow.parquet.write_table(data, folder / f"part-0000{part}-c000.snappy.parquet", compression="snappy")
        (folder / ".part-00000.crc").write_bytes(b"x")
    Path("events/_SUCCESS").touch()
    cook("spark")
    assert hook.get_records(COLUMNS, ["shop.events"]) == [("id", "bigint"), ("kind", "text"), ("dt", "date")]
    assert hook.get_first("SELECT count(*), sum(id), count(kind), min(dt), max(dt) FROM shop.events") == (
        *(12, 72, 6),
        *(date(2026, 11, 1), date(2026, 11, 2)),
    )


def test_mapped(hook: LakebaseHook):
    Path("clicks").mkdir()
    for number in range(3):
        Path(f"clicks/{number}.csv.gz").write_bytes(gzip.compress(f"id\n{number}\n".encode()))
    with DAG("mapped", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
        exec(RECIPES["mapped"], {"LakebaseLoadOperator": LakebaseLoadOperator, "list_files": list_files})
    listing: Any = dag.get_task("list_files")
    load: Any = dag.get_task("load")
    assert load.upstream_task_ids == {"list_files"}
    files = listing.python_callable(*listing.op_args, **listing.op_kwargs)
    hook.run("CREATE TABLE shop.clicks (id int)")
    for number, file in enumerate(files):
        Runs(LakebaseLoadOperator, [])(source=file, task_id=f"load_{number}", table=load.partial_kwargs["table"])
    assert table(hook, "clicks") == [(0,), (1,), (2,)]


def test_frame(hook: LakebaseHook):
    for _ in range(2):
        cook("frame")
        assert table(hook, "prices") == [("a", 1.5), ("b", 2.5)]
    assert hook.get_records(COLUMNS, ["shop.prices"]) == [("sku", "text"), ("price", "double precision")]


def test_json_and_answer(hook: LakebaseHook):
    users = [
        {"id": 1, "profile": {"name": "Ann", "address": {"city": "Ulm"}}, "tags": ["a", {"b": 1}], "other": 1},
        {"id": 2, "profile": {"name": "Bob", "address": None}},
    ]
    Path("users.json").write_text(json.dumps(users))
    cook("json")
    assert table(hook, "users") == [(1, "Ann", "Ulm", ["a", {"b": 1}]), (2, "Bob", None, None)]
    kinds = [("id", "bigint"), ("name", "text"), ("city", "text"), ("tags", "jsonb")]
    assert hook.get_records(COLUMNS, ["shop.users"]) == kinds
    cook("answer")
    assert table(hook, "users") == [(1, "Ann", "Ulm", ["a", {"b": 1}]), (2, None, None, None)]


def test_query(hook: LakebaseHook, emulator: LakebaseEmulator, monkeypatch: pytest.MonkeyPatch):
    where: dict[str, Any] = psycopg.conninfo.conninfo_to_dict(emulator.superuser_conninfo)
    connection = {"conn_type": "postgres", "host": where["host"], "login": where["user"], "schema": where.get("dbname")}
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(connection | {"port": int(where.get("port", 5432))}))
    with psycopg.connect(emulator.superuser_conninfo, autocommit=True) as warehouse:
        warehouse.execute("CREATE TABLE public.customers (id int, name varchar(40), balance numeric(10,2), ssn text)")
        try:
            warehouse.execute("INSERT INTO public.customers VALUES (1, 'Ann', 1.50, 'secret')")
            cook("query")
        finally:
            warehouse.execute("DROP TABLE public.customers")
    assert table(hook, "customers") == [(1, "Ann", Decimal("1.50"))]
    kinds = [("id", "integer"), ("name", "character varying(40)"), ("balance", "numeric(10,2)")]
    assert hook.get_records(COLUMNS, ["shop.customers"]) == kinds


def test_grows(hook: LakebaseHook):
    pyarrow.parquet.write_table(pyarrow.table({"id": [1]}), "measures.parquet")
    cook("grows")
    hook.run("DELETE FROM airflow_lakebase.loads WHERE load_id LIKE '%measures%'")
    pyarrow.parquet.write_table(pyarrow.table({"id": [2], "humidity": [0.5]}), "measures.parquet")
    cook("grows")
    assert table(hook, "measures") == [(1, None), (2, 0.5)]


def test_excel(hook: LakebaseHook):
    pandas.DataFrame({"id": [1, 2], "name": ["a", None]}).to_excel("sheet.xlsx", index=False)
    cook("excel")
    assert table(hook, "sheet") == [(1, "a"), (2, None)]


def test_xml(hook: LakebaseHook):
    Path("items.xml").write_text("<items><item><id>1</id><name>a</name></item><item><id>2</id><name/></item></items>")
    cook("xml")
    assert table(hook, "items") == [(1, "a"), (2, None)]


def test_orc(hook: LakebaseHook):
    pyarrow.orc.write_table(pyarrow.table({"id": [1, 2], "at": [date(2026, 11, 1), None]}), "visits.orc")
    cook("orc")
    assert table(hook, "visits") == [(1, date(2026, 11, 1)), (2, None)]


def test_avro(hook: LakebaseHook):
    fields = [{"name": "id", "type": "int"}, {"name": "name", "type": ["null", "string"]}]
    with open("sensors.avro", "wb") as file:
        records = [{"id": 1, "name": "a"}, {"id": 2, "name": None}]
        fastavro.writer(file, {"type": "record", "name": "sensor", "fields": fields}, records)
    cook("avro")
    assert table(hook, "sensors") == [(1, "a"), (2, None)]


def test_parts(hook: LakebaseHook):
    hook.run("CREATE TABLE shop.orders AS SELECT n AS id FROM generate_series(1, 1000001) AS n")
    (result,) = cook("parts")
    names = ["part-00000.csv.gz", "part-00001.csv.gz"]
    assert result["files"] == [f"orders.csv.gz/{name}" for name in names]
    assert sorted(os.listdir("orders.csv.gz")) == ["_SUCCESS", *names]
    with gzip.open("orders.csv.gz/part-00001.csv.gz", "rt") as file:
        assert list(csv.reader(file)) == [["id"], ["1000001"]]


def test_every_recipe_is_run_by_a_test():
    source = Path(__file__).read_text()
    run = set(re.findall(r'cook\("(\w+)"\)|RECIPES\["(\w+)"\]', source))
    assert {first or second for first, second in run} == set(RECIPES)
    assert len(RECIPES) > 10
