"""Parameters mean the same on every path that takes SQL: hook, operators, sensors, triggers."""

from __future__ import annotations

import asyncio
import importlib
import json
import pickle
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import psycopg
import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, TaskDeferred
from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator
from airflow.providers.common.sql.sensors.sql import SqlSensor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql as composed

from airflow_provider_lakebase.emulator import LakebaseEmulator
from airflow_provider_lakebase.exceptions import LakebaseSettingsError
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook
from airflow_provider_lakebase.operators.load import LakebaseExportOperator, LakebaseLoadOperator
from airflow_provider_lakebase.operators.role import LakebaseRoleBootstrapOperator
from airflow_provider_lakebase.operators.sql import LakebaseSQLOperator
from airflow_provider_lakebase.sensors.endpoint import LakebaseEndpointSensor
from airflow_provider_lakebase.sensors.query import LakebaseQuerySensor
from airflow_provider_lakebase.triggers.query import LakebaseQuerySensorTrigger

CONTEXT: Any = {
    "ti": SimpleNamespace(dag_id="d", run_id="r", task_id="t", map_index=-1, xcom_push=lambda **_: None, try_number=1)
}
REFUSED = "refused"


def export(query: str, parameters: Any, path: Path) -> str:
    LakebaseHook().export(query, path / "out.csv", parameters=parameters, header=False)
    return (path / "out.csv").read_text().rstrip("\n").strip('"').replace('""', '"')


def defer(task: Any) -> Any:
    with pytest.raises(TaskDeferred) as deferred:
        task.execute(CONTEXT)
    path, arguments = deferred.value.trigger.serialize()
    module, _, name = path.rpartition(".")
    trigger = getattr(importlib.import_module(module), name)(**json.loads(json.dumps(arguments)))

    async def first() -> Any:
        return await anext(aiter(trigger.run()))

    return task.execute_complete(CONTEXT, json.loads(json.dumps(asyncio.run(first()).payload)))


def operator(query: Any, parameters: Any, **arguments: Any) -> LakebaseSQLOperator:
    return LakebaseSQLOperator(task_id="t", sql=query, parameters=parameters, **arguments)


class Undecided(LakebaseQuerySensor):
    """A sensor whose first look, before it is deferred, finds nothing."""

    def poke(self, context: Any) -> bool:
        return False


def by_sensor(query: str, parameters: Any, **arguments: Any) -> LakebaseQuerySensor:
    """Make a sensor that is done when the query gives what the hook's get_first does."""
    kind = Undecided if arguments.get("deferrable") else LakebaseQuerySensor
    return kind(task_id="t", sql=query, parameters=parameters, **arguments)


# Each gives the first cell of the query, or True where it gives whether that is true.
PATHS: dict[str, Callable[[str, Any, Path], Any]] = {
    "run": lambda q, p, _: LakebaseHook().run(q, parameters=p, handler=lambda cursor: cursor.fetchone()[0]),
    "run of a list": lambda q, p, _: LakebaseHook().run([q], parameters=p, handler=lambda c: c.fetchone()[0])[0],
    "run, split": lambda q, p, _: LakebaseHook().run(
        q, parameters=p, handler=lambda cursor: cursor.fetchone()[0], split_statements=True
    ),
    "run behind another": lambda q, p, _: LakebaseHook().run(
        f"SELECT 0;\n{q}", parameters=p, handler=lambda cursor: cursor.fetchone()[0]
    ),
    "get_records": lambda q, p, _: LakebaseHook().get_records(q, p)[0][0],
    "get_first": lambda q, p, _: LakebaseHook().get_first(q, p)[0],
    "get_df, pandas": lambda q, p, _: LakebaseHook().get_df(q, p).iloc[0, 0],
    "get_df, polars": lambda q, p, _: LakebaseHook().get_df(q, p, df_type="polars").row(0)[0],
    "chunks, pandas": lambda q, p, _: list(LakebaseHook().get_df_by_chunks(q, p, chunksize=9))[0].iloc[0, 0],
    "chunks, polars": lambda q, p, _: next(
        iter(LakebaseHook().get_df_by_chunks(q, p, chunksize=9, df_type="polars"))
    ).row(0)[0],
    "get_arrow": lambda q, p, _: LakebaseHook().get_arrow(q, p).column(0)[0].as_py(),
    "iter_arrow": lambda q, p, _: list(LakebaseHook().iter_arrow(q, p))[0].column(0)[0].as_py(),
    "export": export,
    "export operator": lambda q, p, path: (
        LakebaseExportOperator(task_id="t", sql=q, parameters=p, destination=path / "x.jsonl").execute(CONTEXT)
        and next(iter(json.loads((path / "x.jsonl").read_text()).values()))
    ),
    "operator": lambda q, p, _: operator(q, p).execute(CONTEXT)[0][0],
    "operator, deferred": lambda q, p, _: defer(operator(q, p, deferrable=True))[0][0],
    "operator, split and deferred": lambda q, p, _: defer(operator(q, p, deferrable=True, split_statements=True))[0][0],
    "common-sql's operator": lambda q, p, _: SQLExecuteQueryOperator(
        task_id="t", conn_id="lakebase_default", sql=q, parameters=p
    ).execute(CONTEXT)[0][0],
    "common-sql's sensor": lambda q, p, _: SqlSensor(task_id="t", conn_id="lakebase_default", sql=q, parameters=p).poke(
        CONTEXT
    ),
    "query sensor": lambda q, p, _: by_sensor(q, p).poke(CONTEXT),
    "query sensor, deferred": lambda q, p, _: defer(by_sensor(q, p, deferrable=True)) is None,
}
CONTEXTS = {
    "plain": ("SELECT {}", True),
    "a literal": ("SELECT '{}'", False),
    "an interval": ("SELECT interval '{} days'", False),
    "an escaped literal": (r"SELECT E'it\'s {}'", False),
    "a dollar quote": ("SELECT $${}$$", False),
    "a tagged dollar quote": ("SELECT $tag$ $$ {} $tag$", False),
    "a Unicode literal": ("SELECT U&'{}'", False),
    "an array": ("SELECT '{{{}}}'", False),
    "a quoted identifier": ('SELECT 1 AS "{}"', False),
    "a line comment": ("SELECT 1 -- {}\n", False),
    "a nested comment": ("SELECT 1 /* /* {} */ */", False),
    "an open literal": ("SELECT '{}", False),
    "behind a literal": ("SELECT 'a'{}", False),
}


@pytest.fixture
def schema(hook: LakebaseHook) -> Iterator[None]:
    hook.run("CREATE SCHEMA IF NOT EXISTS parameters")
    yield
    hook.run("DROP SCHEMA parameters CASCADE")


def outcome(path: Callable[[str, Any, Path], Any], query: str, parameters: Any, folder: Path) -> Any:
    try:
        return path(query, parameters, folder)
    except (LakebaseSettingsError, AirflowFailException) as error:
        assert "placeholder" in str(error).lower()
        return REFUSED


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_a_placeholder_is_bound_or_refused_alike_on_every_path(emulator: LakebaseEmulator, path: Any, tmp_path: Path):
    for text, is_bound in CONTEXTS.values():
        for mark, parameters in (("%s", ["it's"]), ("%(a)s", {"a": "it's"})):
            found = outcome(path, text.format(mark), parameters, tmp_path)
            assert found in (("it's", True) if is_bound else (REFUSED,)), text


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_a_doubled_percent_sign_is_text_on_every_path(emulator: LakebaseEmulator, path: Any, tmp_path: Path):
    assert outcome(path, "SELECT '%%s' || %s", [""], tmp_path) in ("%s", True)
    assert outcome(path, "SELECT '%s'", None, tmp_path) in ("%s", True)


@pytest.mark.long
@given(
    parts=st.lists(
        st.sampled_from(["%s", "'%s'", "'%%s'", "$$%s$$", '"%s"', "/* %s */", "-- %s\n", "'a'"]), max_size=4
    ),
    glue=st.sampled_from([" || ", ", ", " ", "\n", ""]),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_path_makes_the_same_of_a_text(emulator: LakebaseEmulator, tmp_path: Path, parts: list[str], glue: str):
    query = "SELECT concat(" + glue.join(["%s", *parts]) + "\n)"
    parameters = ["v"] * query.replace("%%", "").count("%s")
    seen = {}
    for name in ("run", "run behind another", "run, split", "get_df, polars", "export", "operator, deferred"):
        try:
            seen[name] = PATHS[name](query, parameters, tmp_path)
        except (LakebaseSettingsError, AirflowFailException):
            seen[name] = REFUSED
        except psycopg.Error:
            seen[name] = "refused by Postgres"
    assert len(set(seen.values())) == 1, (query, seen)


# ── what a value may be ──


class MappedOutputs(Sequence[Any]):
    """The outputs of mapped tasks, as Airflow hands them over: read one by one."""

    def __init__(self, *values: Any) -> None:
        self._values = values

    def __getitem__(self, index: Any) -> Any:
        return self._values[index]

    def __len__(self) -> int:
        return len(self._values)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_the_outputs_of_mapped_tasks_are_parameters_on_every_path(
    emulator: LakebaseEmulator, path: Any, tmp_path: Path
):
    assert outcome(path, "SELECT %s || %s", MappedOutputs("a", "b"), tmp_path) in ("ab", True)
    query = "SELECT array_to_string(%(a)s::text[], '')"
    assert outcome(path, query, MappingProxyType({"a": MappedOutputs("a", "b")}), tmp_path) in ("ab", True)
    assert outcome(path, "SELECT array_to_string(%s::text[], '')", [deque("ab")], tmp_path) in ("ab", True)


@pytest.mark.parametrize(
    ("query", "parameters", "value"),
    [
        ("SELECT %s::text", [-5], "-5"),
        ("SELECT %s::int2", [-32768], -32768),
        ("SELECT %s :: text", [-1.5], "-1.5"),
        ("SELECT 5 -%s", [-3], 8),
        ("SELECT %(a)s::text || %(a)s ::text", {"a": -1}, "-1-1"),
        ("SELECT '%%s::' || %s::text", [1], "%s::1"),
    ],
)
def test_the_sign_of_a_number_belongs_to_it(hook: LakebaseHook, query: str, parameters: Any, value: Any):
    assert hook.get_first(query, parameters) == (value,)
    assert hook.get_first(f"SELECT 0; {query}", parameters) == (value,)
    assert defer(operator(query, parameters, deferrable=True)) == [(value,)]


def test_a_tuple_is_a_row_and_does_not_become_an_array_in_the_triggerer(hook: LakebaseHook):
    query = "SELECT %(a)s::text"
    assert hook.get_first(query, {"a": (1, "x")}) == ("(1,x)",)
    with pytest.raises(AirflowFailException, match="cannot be deferred"):
        operator(query, {"a": (1, "x")}, deferrable=True).execute(CONTEXT)


def test_backslashes_are_refused_where_they_may_end_a_string(hook: LakebaseHook):
    with pytest.raises(LakebaseSettingsError, match="standard_conforming_strings is off"):
        LakebaseHook(options="-c standard_conforming_strings=off").get_first(r"SELECT 'a\'' || %s", ["x"])


# ── several statements, kills, encodings ──


def test_the_last_result_counts_with_and_without_the_triggerer(emulator: LakebaseEmulator):
    for arguments in ({}, {"split_statements": True}):
        query = "SELECT %(a)s::int; SELECT 2; SELECT %(a)s::int + 2"
        assert operator(query, {"a": 1}, **arguments).execute(CONTEXT) == [(3,)]
        assert defer(operator(query, {"a": 1}, deferrable=True, **arguments)) == [(3,)]


@pytest.mark.usefixtures("schema")
@pytest.mark.parametrize("autocommit", [False, True])
def test_a_kill_between_two_statements_stops_the_rest(hook: LakebaseHook, autocommit: bool):
    hook.run("CREATE TABLE parameters.killed (a int)")
    killed = LakebaseHook()
    statements = ["INSERT INTO parameters.killed VALUES (1) RETURNING a", "INSERT INTO parameters.killed VALUES (2)"]
    with pytest.raises(AirflowException, match="The hook was cancelled"):
        killed.run(statements, autocommit=autocommit, handler=lambda _: killed.cancel())
    assert hook.get_records("SELECT a FROM parameters.killed") == ([(1,)] if autocommit else [])


@pytest.fixture
def latin_role(emulator: LakebaseEmulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Another encoding as the default of the role, of the database and of the environment."""
    role = composed.Identifier(emulator.service_principal.client_id)
    owners = [composed.SQL("ROLE {}").format(role), composed.SQL("DATABASE databricks_postgres")]
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    with psycopg.connect(emulator.superuser_conninfo, autocommit=True) as superuser:
        for owner in owners:
            superuser.execute(composed.SQL("ALTER {} SET client_encoding = 'LATIN1'").format(owner))
        yield
        for owner in owners:
            superuser.execute(composed.SQL("ALTER {} RESET client_encoding").format(owner))


def test_a_session_is_utf8_whatever_the_defaults_are(latin_role: None, hook: LakebaseHook):
    query = "SELECT current_setting('client_encoding') || '€' || %s || length('€')"
    assert hook.get_first(query, ["€"]) == ("UTF8€€1",)
    assert LakebaseHook(options="-c client_encoding=LATIN1").get_first(query, ["€"]) == ("UTF8€€1",)
    assert defer(operator(query, ["€"], deferrable=True)) == [("UTF8€€1",)]


@pytest.mark.usefixtures("schema")
def test_a_statement_that_changes_the_encoding_is_refused_before_anything_is_committed(hook: LakebaseHook):
    hook.run("CREATE TABLE parameters.words (a text)")
    text = "SET LOCAL client_encoding = 'LATIN1'; INSERT INTO parameters.words VALUES ('ü')"
    for work in (
        lambda: hook.run(text),
        lambda: hook.run(text.split(";")),
        lambda: hook.get_df(f"{text}; SELECT 1"),
        lambda: defer(operator(text, None, deferrable=True)),
    ):
        with pytest.raises((LakebaseSettingsError, AirflowException), match="changed client_encoding to LATIN1"):
            work()
    assert hook.get_records("SELECT a FROM parameters.words") == []


# ── the hook's arguments ──

CLASH: list[tuple[Callable[..., Any], dict[str, Any], dict[str, Any]]] = [
    (LakebaseSQLOperator, {"sql": "SELECT 1"}, {"read_only": True}),
    (LakebaseQuerySensor, {"sql": "SELECT 1"}, {"read_only": True}),
    (LakebaseEndpointSensor, {}, {"read_only": True}),
    (LakebaseLoadOperator, {"source": "x.csv", "table": "t"}, {"read_only": False}),
    (LakebaseExportOperator, {"destination": "x.csv", "table": "t"}, {"read_only": True}),
    (LakebaseRoleBootstrapOperator, {"identity": "etl"}, {"read_only": False}),
]


@pytest.mark.parametrize(("task", "arguments", "more"), CLASH, ids=lambda each: getattr(each, "__name__", ""))
def test_an_argument_of_the_hook_is_given_once(task: Any, arguments: Any, more: Any):
    for name, value in {"endpoint": "e", "database": "d", **more}.items():
        with pytest.raises(LakebaseSettingsError, match=f"{name} is given twice"):
            task(task_id="t", **arguments, **{name: value}, hook_params={name: value})
    with pytest.raises(LakebaseSettingsError, match="database is given twice"):
        task(task_id="t", **arguments, database="d", hook_params={"schema": "d"})
    with pytest.raises(LakebaseSettingsError, match="hook_params contains lakebase_conn_id"):
        task(task_id="t", **arguments, hook_params={"lakebase_conn_id": "other"})


def test_hook_params_mean_the_same_in_the_worker_and_the_triggerer(emulator: LakebaseEmulator):
    query = "SELECT current_database() || current_setting('default_transaction_read_only')"
    params = {"database": "postgres", "read_only": True}
    first = operator(query, None, hook_params=params).execute(CONTEXT)
    assert first == [("postgreson",)]
    assert defer(operator(query, None, hook_params=params, deferrable=True)) == first
    query = "SELECT current_database() = 'postgres'"
    assert by_sensor(query, None, hook_params={"schema": "postgres"}).poke(CONTEXT)
    assert defer(by_sensor(query, None, hook_params={"schema": "postgres"}, deferrable=True)) is None


@pytest.mark.usefixtures("schema")
def test_hook_params_that_are_rendered_into_a_clash_run_nothing(hook: LakebaseHook):
    task = operator("CREATE TABLE parameters.never (a int)", None, deferrable=True)
    task.endpoint, task.hook_params = "e", {"endpoint": "f"}
    with pytest.raises(AirflowFailException, match="endpoint is given twice"):
        task.execute(CONTEXT)
    assert hook.get_first("SELECT to_regclass('parameters.never')") == (None,)


@pytest.mark.parametrize("name", ["conn_id", "postgres_conn_id"])
def test_the_connection_argument_of_another_hook_is_refused_at_once(name: str):
    with pytest.raises(LakebaseSettingsError, match=f"{name} is not an argument of LakebaseHook.*lakebase_conn_id"):
        LakebaseHook(**{name: "x"})


def test_a_hook_with_an_open_session_can_be_pickled(hook: LakebaseHook):
    with hook._create_autocommit_connection():
        copied = pickle.loads(pickle.dumps(hook))
    assert copied.get_first("SELECT 2") == (2,)


def test_a_trigger_checks_parameters_as_the_hook_does(emulator: LakebaseEmulator):
    async def first() -> Any:
        trigger = LakebaseQuerySensorTrigger("SELECT '%s'", ["x"], lakebase_conn_id="lakebase_default")
        return (await anext(aiter(trigger.run()))).payload

    assert "is inside a string literal" in json.dumps(asyncio.run(first()))


@pytest.mark.parametrize("is_mapped", [False, True])
def test_a_template_reads_the_parameters_and_nothing_else_does(is_mapped: bool):
    from airflow.providers.common.compat.sdk import DAG

    text = "SELECT * FROM {{ task.parameters.table }} WHERE a = %(a)s"
    with DAG("templates", schedule=None):
        task = LakebaseSQLOperator(task_id="t", sql=text, parameters={"table": "x", "a": "{{ word }}"})
        mapped = LakebaseSQLOperator.partial(task_id="m", sql=text).expand(parameters=[{"table": "x", "a": "y"}])
    if is_mapped:
        task = mapped.unmap({"parameters": {"table": "x", "a": "{{ word }}"}})
    assert task.parameters is None
    task._do_render_template_fields(
        task, task.template_fields, {"task": task, "word": "y"}, task.get_template_env(), set()
    )
    assert task.sql == "SELECT * FROM x WHERE a = %(a)s"
    assert (task.sql_parameters, task.parameters) == ({"table": "x", "a": "y"}, None)
