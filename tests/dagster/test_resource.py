"""The resource in runs on the emulator: loads happen once, errors are retried if that can help, secrets stay secret."""

# Without `from __future__ import annotations`: Dagster reads the annotation of `context` of a function in a function.
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from dagster import (
    AssetExecutionContext,
    AssetKey,
    AssetsDefinition,
    AssetSpec,
    DagsterInstance,
    Definitions,
    EnvVar,
    Failure,
    MaterializeResult,
    OpExecutionContext,
    RetryPolicy,
    StaticPartitionsDefinition,
    asset,
    build_asset_context,
    define_asset_job,
    job,
    materialize,
    multi_asset,
    op,
)
from pydantic import ValidationError

from airflow_provider_lakebase.dagster import LakebaseIOManager, LakebaseResource, PostgresPassword, ServicePrincipal
from airflow_provider_lakebase.emulator import LakebaseEmulator

ROWS = [(1, "a"), (2, "b")]


@pytest.fixture
def instance() -> Iterator[DagsterInstance]:
    with DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def table(lakebase: LakebaseResource, schema: str) -> str:
    lakebase.connect_and_execute(f"CREATE SCHEMA {schema}; CREATE TABLE {schema}.flights (id int, name text)")
    return f"{schema}.flights"


@pytest.fixture
def rows(lakebase: LakebaseResource, table: str) -> Callable[[], int]:
    def count() -> int:
        with lakebase.get_connection() as session:
            return session.execute(f"SELECT count(*) FROM {table}").fetchone()[0]

    return count


def test_a_load_returns_what_the_page_of_the_asset_shows(lakebase: LakebaseResource, table: str):
    @asset
    def flights(context: AssetExecutionContext, lakebase: LakebaseResource) -> MaterializeResult:
        return MaterializeResult(metadata=lakebase.load(context, ROWS, table))

    result = materialize([flights], resources={"lakebase": lakebase})
    (event,) = result.asset_materializations_for_node("flights")
    assert event.metadata["dagster/row_count"].value == 2
    assert event.metadata["dagster/table_name"].value == f"databricks_postgres.{table}"
    columns = event.metadata["dagster/column_schema"].value.columns
    assert [(column.name, column.type) for column in columns] == [("id", "integer"), ("name", "text")]


def test_a_retry_after_the_commit_loads_nothing_twice(lakebase: LakebaseResource, table: str, rows: Callable[[], int]):
    seen = []

    @asset(retry_policy=RetryPolicy(max_retries=1))
    def flights(context: AssetExecutionContext, lakebase: LakebaseResource) -> MaterializeResult:
        seen.append(lakebase.load(context, ROWS, table))
        if len(seen) == 1:
            raise RuntimeError("killed after the commit")
        return MaterializeResult(metadata=seen[-1])

    result = materialize([flights], resources={"lakebase": lakebase})
    (event,) = result.asset_materializations_for_node("flights")
    assert event.metadata["dagster/row_count"].value == 2
    assert event.metadata["lakebase/already_loaded"].value is True
    assert rows() == 2


def test_each_run_and_each_partition_loads_once(lakebase: LakebaseResource, table: str, rows: Callable[[], int]):
    @asset(partitions_def=StaticPartitionsDefinition(["a", "b"]))
    def flights(context: AssetExecutionContext, lakebase: LakebaseResource) -> MaterializeResult:
        return MaterializeResult(metadata=lakebase.load(context, ROWS, table))

    @asset
    def airports(context: AssetExecutionContext, lakebase: LakebaseResource) -> MaterializeResult:
        return MaterializeResult(metadata=lakebase.load(context, ROWS, table))

    for partition in ("a", "b", "a"):
        result = materialize([flights, airports], partition_key=partition, resources={"lakebase": lakebase})
        (event,) = result.asset_materializations_for_node("flights")
        assert event.metadata["dagster/partition_row_count"].value == 2
        (event,) = result.asset_materializations_for_node("airports")
        assert event.metadata["dagster/row_count"].value == 2
    assert rows() == 12


def test_names_that_look_alike_are_different_loads(lakebase: LakebaseResource, table: str, rows: Callable[[], int]):
    """Joined by a mark, these names of assets, partitions and parts would be one and the same."""

    @asset(key=["a", "b"], partitions_def=StaticPartitionsDefinition(["c", "c part=d"]))
    def of_a_partition(context: AssetExecutionContext, lakebase: LakebaseResource):
        lakebase.load(context, ROWS, table)
        lakebase.load(context, ROWS, table, part="d")

    @asset(key=["a", "b", "c"])
    def without_partitions(context: AssetExecutionContext, lakebase: LakebaseResource):
        lakebase.load(context, ROWS, table)
        lakebase.load(context, ROWS, table, part="d")

    @op(required_resource_keys={"lakebase"})
    def load(context: OpExecutionContext):
        context.resources.lakebase.load(context, ROWS, table)

    others = [AssetsDefinition.from_op(load, keys_by_output_name={"result": AssetKey(key)}) for key in (["x"], ["y"])]
    for partition in ("c", "c part=d"):
        assets = [of_a_partition, without_partitions, *others]
        assert materialize(assets, partition_key=partition, resources={"lakebase": lakebase}).success
    assert rows() == 24


def test_a_run_again_of_one_of_several_assets_finds_what_was_loaded(
    lakebase: LakebaseResource, table: str, rows: Callable[[], int], instance: DagsterInstance
):
    failing = [True]

    @multi_asset(specs=[AssetSpec("first", skippable=True), AssetSpec("second", skippable=True)], can_subset=True)
    def both(context: AssetExecutionContext, lakebase: LakebaseResource):
        lakebase.load(context, ROWS, table)
        if failing.pop() if failing else False:
            raise RuntimeError("killed after the commit")
        yield from (MaterializeResult(key) for key in context.selected_asset_keys)

    definitions = Definitions([both], jobs=[define_asset_job("load", [both])], resources={"lakebase": lakebase})
    load = definitions.resolve_job_def("load")
    first = load.execute_in_process(instance=instance, raise_on_error=False)
    assert not first.success
    tags = {"dagster/parent_run_id": first.run_id, "dagster/root_run_id": first.run_id}
    again = load.execute_in_process(instance=instance, tags=tags, asset_selection=[AssetKey("second")])
    assert again.success
    assert rows() == 2


@pytest.mark.parametrize(("fails", "expected"), [(True, 2), (False, 4)])
def test_a_failed_run_is_completed_and_a_successful_one_repeated(
    lakebase: LakebaseResource,
    table: str,
    rows: Callable[[], int],
    instance: DagsterInstance,
    fails: bool,
    expected: int,
):
    failing = [fails]

    @asset
    def flights(context: AssetExecutionContext, lakebase: LakebaseResource) -> MaterializeResult:
        result = MaterializeResult(metadata=lakebase.load(context, ROWS, table))
        if failing.pop() if failing else False:
            raise RuntimeError("killed after the commit")
        return result

    definitions = Definitions([flights], jobs=[define_asset_job("load", [flights])], resources={"lakebase": lakebase})
    load = definitions.resolve_job_def("load")
    first = load.execute_in_process(instance=instance, raise_on_error=False)
    assert first.success is not fails
    tags = {"dagster/parent_run_id": first.run_id, "dagster/root_run_id": first.run_id}
    assert load.execute_in_process(instance=instance, tags=tags).success
    assert rows() == expected


def test_several_sources_need_names(lakebase: LakebaseResource, table: str, rows: Callable[[], int]):
    @asset
    def flights(context: AssetExecutionContext, lakebase: LakebaseResource):
        lakebase.load(context, ROWS, table, part="first")
        lakebase.load(context, ROWS, table, part="second")
        lakebase.load(context, ROWS, table, exactly_once=False)
        lakebase.load(context, ROWS, table)
        with pytest.raises(Failure, match="already loaded into"):
            lakebase.load(context, ROWS, table)

    assert materialize([flights], resources={"lakebase": lakebase}).success
    assert rows() == 8


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"part": ""}, "part is empty"),
        ({"part": "a", "load_id": "L"}, "part and load_id are both given"),
        ({"part": "a", "exactly_once": False}, "part is given with exactly_once=False"),
        ({"load_id": "L", "exactly_once": False}, "load_id is given with exactly_once=False"),
        ({"part": "a", "mode": "replace"}, "delete the rows of the other parts"),
    ],
    ids=str,
)
def test_a_name_that_would_not_count_is_refused(
    lakebase: LakebaseResource, table: str, rows: Callable[[], int], names: dict[str, Any], message: str
):
    @asset
    def flights(context: AssetExecutionContext, lakebase: LakebaseResource):
        lakebase.load(context, ROWS, table)
        with pytest.raises(Failure, match=message):
            lakebase.load(context, [(3, "c")], table, **names)

    assert materialize([flights], resources={"lakebase": lakebase}).success
    assert rows() == 2


def test_each_part_may_replace_its_own_rows(lakebase: LakebaseResource, table: str, rows: Callable[[], int]):
    @asset
    def flights(context: AssetExecutionContext, lakebase: LakebaseResource):
        for number, name in ROWS:
            lakebase.load(context, [(number, name)], table, mode="replace", part=name, replace_where=f"id = {number}")

    for _ in range(2):
        assert materialize([flights], resources={"lakebase": lakebase}).success
    assert rows() == 2


def test_several_sources_need_names_in_whatever_way_resource_and_table_are_named(
    lakebase: LakebaseResource, table: str, rows: Callable[[], int]
):
    schema = table.partition(".")[0]
    fields = {name: getattr(lakebase, name) for name in LakebaseResource.model_fields}
    by_branch = LakebaseResource(**{**fields, "endpoint": lakebase.endpoint.partition("/endpoints/")[0]})
    in_schema = LakebaseResource(**{**fields, "libpq": {"options": f"-c search_path={schema}"}})
    tries = []

    @asset(retry_policy=RetryPolicy(max_retries=1))
    def flights(
        context: AssetExecutionContext,
        lakebase: LakebaseResource,
        by_branch: LakebaseResource,
        in_schema: LakebaseResource,
    ):
        lakebase.load(context, ROWS, table)
        for resource, name in [(lakebase, f'{schema}."flights"'), (by_branch, table), (in_schema, "FLIGHTS")]:
            with pytest.raises(Failure, match=f"already loaded into {table}"):
                resource.load(context, ROWS, name)
        in_schema.load(context, ROWS, table, part="second")
        lakebase.load(context, ROWS, table, ledger_schema=schema)
        tries.append(1)
        if len(tries) == 1:
            raise RuntimeError("killed after the commits")

    resources = {"lakebase": lakebase, "by_branch": by_branch, "in_schema": in_schema}
    for _ in range(2):
        assert materialize([flights], resources=resources).success
    assert len(tries) == 3
    assert rows() == 12


def test_an_op_and_an_asset_that_is_called_directly_load_too(
    lakebase: LakebaseResource, table: str, rows: Callable[[], int]
):
    @op
    def load_flights(context: OpExecutionContext, lakebase: LakebaseResource):
        lakebase.load(context, ROWS, table)

    @job(resource_defs={"lakebase": lakebase})
    def load_job():
        load_flights()

    @asset
    def flights(context: AssetExecutionContext, lakebase: LakebaseResource):
        return lakebase.load(context, ROWS, table)

    assert load_job.execute_in_process().success
    for _ in range(2):
        assert flights(build_asset_context(), lakebase)["dagster/row_count"] == 2
    assert rows() == 6


@pytest.mark.parametrize(
    ("work", "retried"),
    [
        (lambda lakebase: lakebase.connect_and_execute("SELECT * FROM no_such_table"), False),
        (lambda lakebase: lakebase.connect_and_execute("SELECT 1/0"), True),
        (lambda lakebase: lakebase.export("SELECT 1", "/tmp/x.unknown"), False),
    ],
    ids=["no table", "division by zero", "no format"],
)
def test_only_an_error_that_may_pass_is_retried(lakebase: LakebaseResource, work: Callable, retried: bool):
    attempts = []

    @asset(retry_policy=RetryPolicy(max_retries=1))
    def flights(lakebase: LakebaseResource):
        attempts.append(1)
        work(lakebase)

    assert not materialize([flights], resources={"lakebase": lakebase}, raise_on_error=False).success
    assert len(attempts) == 1 + retried


def test_an_export_is_read_by_a_load(lakebase: LakebaseResource, table: str, rows: Callable[[], int], tmp_path: Path):
    @asset
    def flights(context: AssetExecutionContext, lakebase: LakebaseResource) -> MaterializeResult:
        lakebase.load(context, ROWS, table)
        file = str(tmp_path / "flights.csv")
        result = lakebase.export(f"SELECT * FROM {table} WHERE id >= %(least)s", file, parameters={"least": 2})
        lakebase.load(context, file, table, mode="replace")
        return MaterializeResult(metadata=result)

    result = materialize([flights], resources={"lakebase": lakebase})
    (event,) = result.asset_materializations_for_node("flights")
    assert event.metadata["dagster/row_count"].value == 1
    assert event.metadata["lakebase/files"].value == [str(tmp_path / "flights.csv")]
    assert rows() == 1


def test_engine_status_and_environment(lakebase: LakebaseResource, emulator: LakebaseEmulator):
    engine = lakebase.get_engine()
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1
    engine.dispose()
    assert lakebase.endpoint_status().state == "ACTIVE"
    variables = lakebase.libpq_environment()
    assert variables["PGUSER"] == emulator.service_principal.client_id


def test_an_unknown_option_is_refused(lakebase: LakebaseResource):
    with pytest.raises(TypeError, match="mod"):
        lakebase.load(build_asset_context(), ROWS, "t", mod="append")


def test_a_session_names_job_and_run(lakebase: LakebaseResource):
    names = []

    @asset
    def flights(lakebase: LakebaseResource):
        with lakebase.get_connection() as session:
            names.append(session.execute("SHOW application_name").fetchone()[0])

    materialize([flights], resources={"lakebase": lakebase})
    assert names[0].startswith("airflow-provider-lakebase/")
    assert "job__.resource#" in names[0]


@pytest.mark.parametrize("given", ["EnvVar", "text"])
def test_dagster_stores_and_shows_no_secret(
    lakebase: LakebaseResource,
    emulator: LakebaseEmulator,
    instance: DagsterInstance,
    schema: str,
    given: str,
    capfd: pytest.CaptureFixture[str],
):
    secret = emulator.service_principal.client_secret
    authentication = ServicePrincipal(
        client_id=emulator.service_principal.client_id,
        client_secret=EnvVar("LAKEBASE_CLIENT_SECRET") if given == "EnvVar" else secret,
    )
    resource = LakebaseResource(
        host=emulator.workspace_url,
        endpoint=emulator.endpoint,
        port=emulator.port,
        authentication=authentication,
        libpq={"sslpassword": authentication.client_secret},
    )
    assert resource.settings.session.libpq["sslpassword"] == secret
    shown = []

    @asset
    def flights(context: AssetExecutionContext, lakebase: LakebaseResource) -> pyarrow.Table:
        lakebase.connect_and_execute("SELECT 1")
        shown.extend([repr(lakebase), str(lakebase.authentication)])
        context.log.info("%s", lakebase)
        return pyarrow.table({"id": [1]})

    resources = {"lakebase": resource, "io_manager": LakebaseIOManager(lakebase=resource, schema=schema)}
    definitions = Definitions([flights], jobs=[define_asset_job("load", [flights])], resources=resources)
    load = definitions.resolve_job_def("load")
    result = load.execute_in_process(instance=instance)
    run = instance.get_run_by_id(result.run_id)
    snapshot = instance.get_job_snapshot(run.job_snapshot_id)
    stored = [str(snapshot), str(run), *(str(record) for record in instance.all_logs(result.run_id))]
    printed = "".join(capfd.readouterr())
    assert emulator.service_principal.client_id in "".join(shown)
    assert [text for text in [*stored, *shown, printed, repr(resources)] if secret in text] == []


def test_a_secret_among_libpqs_keywords_hides_the_configuration(lakebase: LakebaseResource):
    fields = {name: getattr(lakebase, name) for name in LakebaseResource.model_fields}
    assert not LakebaseResource(**{**fields, "libpq": {"sslpassword": EnvVar("X"), "options": "-c x"}}).stores_secret
    assert LakebaseResource(**{**fields, "libpq": {"sslpassword": "s3cret"}}).stores_secret


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (LakebaseResource, {"wake_timout": "s3cret"}),
        (LakebaseIOManager, {"shema": "s3cret"}),
        (ServicePrincipal, {"client_id": "x", "client_secret": "s3cret", "cient_secret": "s3cret"}),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_an_unknown_field_is_named_without_its_value(lakebase: LakebaseResource, kind: type, fields: dict[str, str]):
    known = {
        LakebaseResource: {"authentication": lakebase.authentication},
        LakebaseIOManager: {"lakebase": lakebase},
    }.get(kind, {})
    with pytest.raises(ValidationError, match=[*fields][-1]) as refused:
        kind(**known, **fields)
    assert "s3cret" not in str(refused.value)


def test_an_error_speaks_dagsters_words(emulator: LakebaseEmulator, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LAKEBASE_CLIENT_SECRET", "wrong")
    resource = LakebaseResource(
        host=emulator.workspace_url,
        endpoint=emulator.endpoint,
        port=emulator.port,
        authentication=ServicePrincipal(
            client_id=emulator.service_principal.client_id, client_secret=EnvVar("LAKEBASE_CLIENT_SECRET")
        ),
    )
    with pytest.raises(Failure) as refused:
        resource.connect_and_execute("SELECT 1")
    assert "Check client_id (client ID), client_secret (OAuth secret; it may have expired)" in refused.value.description
    assert "Login" not in refused.value.description
    missing = LakebaseResource(host="", authentication=resource.authentication)
    with pytest.raises(Failure, match="Field 'host' is missing"):
        missing.endpoint_status()
    native = PostgresPassword(user="someone", password=EnvVar("LAKEBASE_CLIENT_SECRET"))
    with pytest.raises(Failure, match="Use a resource with an identity of the workspace"):
        LakebaseResource(pg_host="localhost", authentication=native).endpoint_status()
