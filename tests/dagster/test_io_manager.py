"""Assets as tables: a whole one or one partition, with the same values in every library."""

# Without `from __future__ import annotations`: Dagster reads the annotation of `context` of a function in a function.
import datetime
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pandas
import polars
import pyarrow
import pytest
from dagster import (
    AssetExecutionContext,
    AssetIn,
    AssetKey,
    AssetSpec,
    DailyPartitionsDefinition,
    Definitions,
    HourlyPartitionsDefinition,
    In,
    MultiPartitionsDefinition,
    Nothing,
    Out,
    RetryPolicy,
    StaticPartitionsDefinition,
    TimeWindowPartitionMapping,
    asset,
    define_asset_job,
    graph_asset,
    job,
    materialize,
    op,
)

from airflow_provider_lakebase.dagster import LakebaseIOManager, LakebaseResource, resource
from airflow_provider_lakebase.exceptions import LakebaseOutcomeUnknownError

ROWS = {
    "id": [1, 2, None],
    "big": [9007199254740993, None, 1],
    "ok": [True, None, False],
    "name": ["a", None, "ü"],
    "price": [Decimal("1.10"), None, Decimal("2.00")],
    "at": [
        datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC),
        None,
        datetime.datetime(2026, 7, 1, tzinfo=datetime.UTC),
    ],
    "day": [datetime.date(2026, 1, 1), None, datetime.date(9999, 12, 31)],
}
TABLE = pyarrow.table(
    ROWS,
    schema=pyarrow.schema(
        {
            "id": pyarrow.int32(),
            "big": pyarrow.int64(),
            "ok": pyarrow.bool_(),
            "name": pyarrow.string(),
            "price": pyarrow.decimal128(10, 2),
            "at": pyarrow.timestamp("us", "UTC"),
            "day": pyarrow.date32(),
        }
    ),
)


def query(lakebase: LakebaseResource, text: str) -> list[tuple]:
    with lakebase.get_connection() as session:
        return session.execute(text).fetchall()


def test_every_library_stores_and_returns_the_same_values(
    io_manager: LakebaseIOManager, lakebase: LakebaseResource, schema: str
):
    seen = {}

    @asset(key_prefix=schema)
    def from_arrow() -> pyarrow.Table:
        return TABLE

    @asset(key_prefix=schema)
    def from_pandas(from_arrow: pandas.DataFrame) -> pandas.DataFrame:
        seen["pandas"] = from_arrow
        return from_arrow

    @asset(key_prefix=schema)
    def from_polars(from_pandas: polars.DataFrame) -> polars.DataFrame:
        seen["polars"] = from_pandas
        return from_pandas

    @asset(key_prefix=schema)
    def from_lazy(from_polars: polars.LazyFrame) -> polars.LazyFrame:
        return from_polars

    @asset(key_prefix=schema)
    def from_batches(from_lazy: pyarrow.RecordBatchReader) -> pyarrow.RecordBatchReader:
        return from_lazy

    @asset(key_prefix=schema, ins={"from_batches": AssetIn(metadata={"columns": ["name", "id"]})})
    def names(from_batches: pyarrow.Table) -> pyarrow.Table:
        return from_batches

    assets = [from_arrow, from_pandas, from_polars, from_lazy, from_batches, names]
    result = materialize(assets, resources={"io_manager": io_manager})
    assert seen["pandas"]["big"].tolist()[0] == 9007199254740993
    assert str(seen["pandas"]["id"].dtype) == "Int32"
    assert seen["polars"].schema["price"].scale == 2
    for name in ("from_pandas", "from_polars", "from_lazy", "from_batches"):
        pairs = f"(TABLE {schema}.from_arrow EXCEPT ALL TABLE {schema}.{name})"
        assert query(lakebase, f"SELECT count(*) FROM {schema}.{name}") == [(3,)]
        assert query(lakebase, pairs) == []
    assert query(lakebase, f"SELECT * FROM {schema}.names ORDER BY id") == [("a", 1), (None, 2), ("ü", None)]
    (event,) = result.asset_materializations_for_node(f"{schema}__from_arrow")
    assert event.metadata["dagster/row_count"].value == 3
    assert event.metadata["dagster/column_schema"].value.columns[4].type == "numeric(10,2)"
    assert result.asset_value(AssetKey([schema, "names"])).num_rows == 3


def test_a_partition_replaces_only_itself(io_manager: LakebaseIOManager, lakebase: LakebaseResource, schema: str):
    days = DailyPartitionsDefinition("2026-01-01", end_date="2026-01-05")
    seen = []

    @asset(key_prefix=schema, partitions_def=days, metadata={"partition_expr": "day"})
    def flights(context: AssetExecutionContext) -> pandas.DataFrame:
        day = datetime.date.fromisoformat(context.partition_key)
        return pandas.DataFrame({"day": [day] * day.day, "run": [context.run.run_id] * day.day})

    @asset(key_prefix=schema, partitions_def=days, metadata={"partition_expr": "day"})
    def copied(flights: polars.DataFrame) -> polars.DataFrame:
        return flights

    @asset(key_prefix=schema)
    def counted(flights: pandas.DataFrame) -> pyarrow.Table:
        seen.append(len(flights))
        return pyarrow.table({"rows": [len(flights)]})

    resources = {"io_manager": io_manager}
    for day in ("2026-01-01", "2026-01-02", "2026-01-03"):
        first = materialize([flights, copied], partition_key=day, resources=resources)
    before = query(lakebase, f"SELECT day, run FROM {schema}.flights WHERE day <> '2026-01-02' ORDER BY 1")
    again = materialize([flights, copied], partition_key="2026-01-02", resources=resources)
    assert query(lakebase, f"SELECT day, run FROM {schema}.flights WHERE day <> '2026-01-02' ORDER BY 1") == before
    assert query(lakebase, f"SELECT run FROM {schema}.flights WHERE day = '2026-01-02'") == [(again.run_id,)] * 2
    assert query(lakebase, f"SELECT count(*) FROM {schema}.copied") == [(6,)]
    (event,) = first.asset_materializations_for_node(f"{schema}__flights")
    assert event.metadata["dagster/partition_row_count"].value == 3
    assert "dagster/row_count" not in event.metadata
    materialize([flights, counted], selection=[counted], resources=resources)
    assert seen == [6]


def test_partitions_of_several_dimensions(io_manager: LakebaseIOManager, lakebase: LakebaseResource, schema: str):
    dimensions = MultiPartitionsDefinition(
        {"day": DailyPartitionsDefinition("2026-01-01"), "carrier": StaticPartitionsDefinition(["O'Air", "B\\C"])}
    )

    @asset(
        key_prefix=schema,
        partitions_def=dimensions,
        metadata={"partition_expr": {"day": "at", "carrier": '"The Carrier"'}},
    )
    def flights(context: AssetExecutionContext) -> pyarrow.Table:
        keys = context.partition_key.keys_by_dimension
        at = datetime.datetime.fromisoformat(keys["day"]).replace(hour=23, tzinfo=datetime.UTC)
        return pyarrow.table({"at": [at], "The Carrier": [keys["carrier"]], "run": [context.run.run_id]})

    for key in ("2026-01-01", "2026-01-02", "2026-01-01"):
        for carrier in ("O'Air", "B\\C"):
            multi = dimensions.get_partition_key_from_str(f"{carrier}|{key}")
            assert materialize([flights], partition_key=multi, resources={"io_manager": io_manager}).success
    assert query(lakebase, f"SELECT count(*), count(DISTINCT run) FROM {schema}.flights") == [(4, 4)]


def test_a_row_of_another_partition_is_refused(io_manager: LakebaseIOManager, lakebase: LakebaseResource, schema: str):
    @asset(
        key_prefix=schema,
        partitions_def=DailyPartitionsDefinition("2026-01-01", timezone="Europe/Berlin"),
        metadata={"partition_expr": "at"},
    )
    def flights(context: AssetExecutionContext) -> pyarrow.Table:
        return pyarrow.table({"at": [datetime.datetime(2026, 1, 1, 23, 30, tzinfo=datetime.UTC)]})

    # Half past eleven in UTC is the next day in Berlin.
    assert materialize([flights], partition_key="2026-01-02", resources={"io_manager": io_manager}).success
    failed = materialize(
        [flights], partition_key="2026-01-01", resources={"io_manager": io_manager}, raise_on_error=False
    )
    assert not failed.success
    assert query(lakebase, f"SELECT count(*) FROM {schema}.flights") == [(1,)]


def test_an_hour_that_comes_twice_is_two_partitions(
    io_manager: LakebaseIOManager, lakebase: LakebaseResource, schema: str
):
    hours = HourlyPartitionsDefinition("2026-11-01-00:00", timezone="America/New_York")

    @asset(
        key_prefix=schema,
        partitions_def=hours,
        metadata={"partition_expr": "at"},
    )
    def flights(context: AssetExecutionContext) -> pyarrow.Table:
        starts = [hours.time_window_for_partition_key(key).start for key in context.partition_keys]
        return pyarrow.table({"at": [start.astimezone(datetime.UTC) for start in starts]})

    # The clocks of New York go back at two, so the range ends with the first of two hours from one to two.
    tags = {
        "dagster/asset_partition_range_start": "2026-11-01-00:00",
        "dagster/asset_partition_range_end": "2026-11-01-01:00",
    }
    assert materialize([flights], tags=tags, resources={"io_manager": io_manager}).success
    assert materialize([flights], partition_key="2026-11-01-01:00-0500", resources={"io_manager": io_manager}).success
    assert query(lakebase, f"SELECT count(*) FROM {schema}.flights") == [(3,)]


def test_a_lost_answer_to_commit_is_retried(
    io_manager: LakebaseIOManager, lakebase: LakebaseResource, schema: str, monkeypatch: pytest.MonkeyPatch
):
    real, attempts = resource.run_load, []

    def lose_the_answer(*arguments: Any, **keywords: Any) -> Any:
        attempts.append(1)
        result = real(*arguments, **keywords)
        if len(attempts) == 1:
            raise LakebaseOutcomeUnknownError("The session was lost after COMMIT was sent")
        return result

    monkeypatch.setattr(resource, "run_load", lose_the_answer)

    @asset(key_prefix=schema, retry_policy=RetryPolicy(max_retries=1))
    def flights() -> pyarrow.Table:
        return TABLE

    assert materialize([flights], resources={"io_manager": io_manager}).success
    assert len(attempts) == 2
    assert query(lakebase, f"SELECT count(*) FROM {schema}.flights") == [(3,)]


def test_a_name_that_postgres_would_shorten_is_refused(io_manager: LakebaseIOManager):
    @asset(key_prefix="x", name="t" * 64)
    def flights() -> pyarrow.Table:
        return TABLE

    failed = materialize([flights], resources={"io_manager": io_manager}, raise_on_error=False)
    (failure,) = failed.filter_events(lambda event: event.is_step_failure)
    assert "Postgres would shorten the name" in str(failure.event_specific_data.error)


def test_an_index_with_a_name_is_not_lost_in_silence(io_manager: LakebaseIOManager):
    @asset
    def flights() -> pandas.DataFrame:
        return pandas.DataFrame({"carrier": ["UA"], "late": [1]}).groupby("carrier").sum()

    failed = materialize([flights], resources={"io_manager": io_manager}, raise_on_error=False)
    (failure,) = failed.filter_events(lambda event: event.is_step_failure)
    assert "does not store the frame's index 'carrier'" in str(failure.event_specific_data.error)


@pytest.mark.parametrize("value", [[1, 2], "text"])
def test_a_value_without_rows_is_refused_without_a_retry(io_manager: LakebaseIOManager, value: object):
    @asset
    def flights():
        return value

    failed = materialize([flights], resources={"io_manager": io_manager}, raise_on_error=False)
    (failure,) = failed.filter_events(lambda event: event.is_step_failure)
    assert "does not store or return values of type" in str(failure.event_specific_data.error)


def failure_of(assets: list, **keywords: Any) -> str:
    """Materialize assets, and return the error of the one step that fails."""
    failed = materialize(assets, raise_on_error=False, **keywords)
    (failure,) = failed.filter_events(lambda event: event.is_step_failure)
    return str(failure.event_specific_data.error)


def test_two_assets_do_not_share_a_table(io_manager: LakebaseIOManager, lakebase: LakebaseResource, schema: str):
    @asset(key=["crm", schema, "customers"])
    def first() -> pyarrow.Table:
        return pyarrow.table({"x": [1]})

    @asset(key=["erp", schema, "customers"])
    def second() -> pyarrow.Table:
        return pyarrow.table({"x": [2]})

    @asset(key=["erp", schema, "customers"], metadata={"table": "erp customers"})
    def third() -> pyarrow.Table:
        return pyarrow.table({"x": [3]})

    @asset(ins={"customers": AssetIn(key=["erp", schema, "customers"])})
    def read(customers: pyarrow.Table) -> None:
        assert customers["x"].to_pylist() == [3]

    resources = {"io_manager": io_manager}
    for _ in range(2):
        assert materialize([first], resources=resources).success
    error = failure_of([second], resources=resources)
    assert f'Table "{schema}"."customers" belongs to asset crm/{schema}/customers' in error
    assert f"so asset erp/{schema}/customers cannot be stored in it" in error
    assert "metadata 'table'" in error
    assert query(lakebase, f"SELECT x FROM {schema}.customers") == [(1,)]
    assert materialize([third, read], resources=resources).success
    lakebase.connect_and_execute(f"COMMENT ON TABLE {schema}.customers IS NULL")
    assert materialize([second], resources=resources).success
    assert materialize([first], resources=resources).success


def test_what_people_add_to_the_comment_is_kept(io_manager: LakebaseIOManager, lakebase: LakebaseResource, schema: str):
    @asset(key_prefix=schema)
    def flights() -> pyarrow.Table:
        return TABLE

    materialize([flights], resources={"io_manager": io_manager})
    comment = f"Stored by LakebaseIOManager for asset {schema}/flights"
    text = f"SELECT obj_description('{schema}.flights'::regclass)"
    assert query(lakebase, text) == [(comment,)]
    lakebase.connect_and_execute(f"COMMENT ON TABLE {schema}.flights IS E'{comment}\\nFlights of all days'")
    assert materialize([flights], resources={"io_manager": io_manager}).success
    assert query(lakebase, text) == [(f"{comment}\nFlights of all days",)]


def test_outputs_of_two_ops_do_not_share_a_table(lakebase: LakebaseResource, schema: str):
    @op
    def left():
        return pyarrow.table({"x": [1]})

    @op(ins={"after": In(Nothing)})
    def right():
        return pyarrow.table({"x": [2]})

    @op(ins={"after": In(Nothing)}, out=Out(metadata={"table": "right"}))
    def named():
        return pyarrow.table({"x": [3]})

    @op
    def both(left: pyarrow.Table, right: pyarrow.Table) -> None:
        assert (left["x"].to_pylist(), right["x"].to_pylist()) == ([1], [3])

    def run(second: Any) -> Any:
        @job(resource_defs={"io_manager": LakebaseIOManager(lakebase=lakebase, schema=schema)})
        def compare():
            first = left()
            both(first, second(first))

        return compare.execute_in_process(raise_on_error=False)

    failed = run(right)
    (failure,) = failed.filter_events(lambda event: event.is_step_failure)
    error = str(failure.event_specific_data.error)
    assert f'Table "{schema}"."result" belongs to output result of step left in job compare' in error
    assert "so output result of step right in job compare cannot" in error
    for _ in range(2):
        assert run(named).success


def test_every_job_may_run_the_graph_behind_an_asset(lakebase: LakebaseResource, schema: str):
    @op
    def fetch():
        return pyarrow.table({"x": [1]})

    @op(out=Out(metadata={"table": "final"}))
    def double(fetched: pyarrow.Table):
        return pyarrow.table({"x": [2 * value for value in fetched["x"].to_pylist()]})

    @graph_asset
    def doubled():
        return double(fetch())

    definitions = Definitions(
        assets=[doubled],
        jobs=[define_asset_job("one", [doubled]), define_asset_job("two", [doubled])],
        resources={"io_manager": LakebaseIOManager(lakebase=lakebase, schema=schema)},
    )
    for name in ("one", "two"):
        assert definitions.resolve_job_def(name).execute_in_process().success
    assert query(lakebase, f"SELECT obj_description('{schema}.result'::regclass)") == [
        ("Stored by LakebaseIOManager for output result of step fetch in asset doubled",)
    ]


DAYS = DailyPartitionsDefinition("2026-01-01", end_date="2026-01-05")


def test_a_time_partition_of_a_column_of_another_type_is_refused(
    io_manager: LakebaseIOManager, lakebase: LakebaseResource, schema: str
):
    lakebase.connect_and_execute(f"""
        CREATE SCHEMA {schema};
        CREATE TABLE {schema}.texts AS SELECT '2026-01-0' || n AS day FROM generate_series(1, 3) AS n;
        CREATE DOMAIN {schema}.a_day AS date; CREATE TABLE {schema}.days (day {schema}.a_day);
    """)
    seen = []

    @asset(key_prefix=schema, partitions_def=DAYS, metadata={"partition_expr": "day"})
    def texts(context: AssetExecutionContext) -> pyarrow.Table:
        return pyarrow.table({"day": [context.partition_key]})

    def reader(expression: str) -> list:
        @asset(partitions_def=DAYS, ins={"texts": AssetIn(key=[schema, "texts"])})
        def read(texts: pyarrow.Table) -> None:
            seen.append(texts["day"].to_pylist())

        spec = AssetSpec([schema, "texts"], partitions_def=DAYS, metadata={"partition_expr": expression})
        return [spec, read]

    @asset(key_prefix=schema, partitions_def=DAYS, metadata={"partition_expr": "day"})
    def days(context: AssetExecutionContext) -> pyarrow.Table:
        return pyarrow.table({"day": [datetime.date.fromisoformat(context.partition_key)]})

    run = {"resources": {"io_manager": io_manager}, "partition_key": "2026-01-01"}
    for assets in ([texts], reader("day")):
        error = failure_of(assets, **run)
        assert f"The partitions of asset {schema}/texts are of time" in error
        assert "'partition_expr', day, is of type text" in error
    assert query(lakebase, f"SELECT count(*) FROM {schema}.texts") == [(3,)]
    assert materialize(reader("to_date(day, 'YYYY-MM-DD')"), **run).success
    assert seen == [["2026-01-01"]]
    assert materialize([days], **run).success


def test_an_expression_of_lower_precedence_is_compared_as_a_whole(
    io_manager: LakebaseIOManager, lakebase: LakebaseResource, schema: str
):
    @asset(
        key_prefix=schema,
        partitions_def=StaticPartitionsDefinition(["true", "false"]),
        metadata={"partition_expr": "a OR b"},
    )
    def flags() -> pyarrow.Table:
        return pyarrow.table({"a": [True], "b": [False]})

    resources = {"io_manager": io_manager}
    for _ in range(2):
        assert materialize([flags], resources=resources, partition_key="true").success
    assert query(lakebase, f"SELECT count(*) FROM {schema}.flags") == [(1,)]
    assert "it belongs to no partition that is written" in failure_of(
        [flags], resources=resources, partition_key="false"
    )


@pytest.mark.parametrize("kind", [pandas.DataFrame, polars.DataFrame, polars.LazyFrame, pyarrow.Table])
def test_the_first_partition_of_an_asset_that_depends_on_itself_gets_no_rows(
    io_manager: LakebaseIOManager, lakebase: LakebaseResource, schema: str, kind: type
):
    seen = []
    before = AssetIn(
        key=[schema, "running"], partition_mapping=TimeWindowPartitionMapping(start_offset=-1, end_offset=-1)
    )

    @asset(key_prefix=schema, partitions_def=DAYS, metadata={"partition_expr": "day"}, ins={"running": before})
    def running(context: AssetExecutionContext, running: kind) -> pyarrow.Table:
        frame = running.collect() if kind is polars.LazyFrame else running
        names = list(frame.schema.names if kind is pyarrow.Table else frame.columns)
        seen.append((names, len(frame)))
        return pyarrow.table({"day": [datetime.date.fromisoformat(context.partition_key)]})

    # The first partition is materialized again once the table is there.
    for day in ("2026-01-01", "2026-01-02", "2026-01-01"):
        assert materialize([running], partition_key=day, resources={"io_manager": io_manager}).success
    assert seen == [([], 0), (["day"], 1), (["day"], 0)]


def test_a_table_that_is_not_there_is_named(io_manager: LakebaseIOManager, schema: str):
    @asset(ins={"flights": AssetIn(key=[schema, "flights"])})
    def read(flights: pyarrow.Table) -> None: ...

    error = failure_of([AssetSpec([schema, "flights"]), read], resources={"io_manager": io_manager})
    assert f'There is no table "{schema}"."flights"' in error
    assert "Materialize what it stores first" in error


def test_rows_without_the_partition_column_are_refused(
    io_manager: LakebaseIOManager, lakebase: LakebaseResource, schema: str
):
    rows: dict[str, Any] = {"Day": [datetime.date(2026, 1, 1)], "n": [1]}

    def flights(expression: str, frame: Any) -> list:
        @asset(key_prefix=schema, partitions_def=DAYS, metadata={"partition_expr": expression})
        def flights():
            return frame

        return [flights]

    run = {"resources": {"io_manager": io_manager}, "partition_key": "2026-01-01"}
    for expression, frame in (("Day", pyarrow.table(rows)), ('"Day"', pandas.DataFrame({"n": [1]}))):
        error = failure_of(flights(expression, frame), **run)
        assert f"The metadata 'partition_expr' of asset {schema}/flights is {expression}, which is no column" in error
        assert "double quotes" in error
    assert materialize(flights('"Day"', pyarrow.table(rows)), **run).success
    for frame in (pandas.DataFrame({"n": [1]}), polars.LazyFrame({"n": [1]}), pyarrow.table({"n": [1]})):
        error = failure_of(flights('"Day"', frame), **run)
        assert f"The rows of asset {schema}/flights lack the column 'Day', which its metadata 'partition_expr'" in error
    lakebase.connect_and_execute(f"""ALTER TABLE {schema}.flights ALTER "Day" SET DEFAULT '2026-01-01'""")
    assert materialize(flights('"Day"', pyarrow.table({"n": [2]})), **run).success
    assert query(lakebase, f'SELECT n, "Day"::text FROM {schema}.flights') == [(2, "2026-01-01")]


def test_partitions_that_create_their_table_at_the_same_time_are_all_stored(
    io_manager: LakebaseIOManager, lakebase: LakebaseResource, schema: str
):
    @asset(key_prefix=schema, partitions_def=DAYS, metadata={"partition_expr": "day"})
    def flights(context: AssetExecutionContext) -> pyarrow.Table:
        return pyarrow.table({"day": [datetime.date.fromisoformat(context.partition_key)]})

    def run() -> bool:
        return materialize([flights], partition_key="2026-01-02", resources={"io_manager": io_manager}).success

    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'"
    lakebase.connect_and_execute(f"CREATE SCHEMA {schema}")
    with ThreadPoolExecutor() as pool:
        with lakebase.get_connection() as session:
            session.execute(f"CREATE TABLE {schema}.flights AS SELECT date '2026-01-01' AS day")
            comment = f"Stored by LakebaseIOManager for asset {schema}/flights"
            session.execute(f"COMMENT ON TABLE {schema}.flights IS '{comment}'")
            second = pool.submit(run)
            until = time.monotonic() + 60
            while query(lakebase, waiting) == [(0,)] and time.monotonic() < until:
                time.sleep(0.05)
        assert second.result()
    assert query(lakebase, f"SELECT count(*) FROM {schema}.flights") == [(2,)]


def test_a_column_of_an_input_that_the_table_lacks_is_refused(io_manager: LakebaseIOManager, schema: str):
    @asset(key_prefix=schema)
    def flights() -> pyarrow.Table:
        return TABLE

    @asset(ins={"flights": AssetIn(key=[schema, "flights"], metadata={"columns": ["nope"]})})
    def read(flights: pyarrow.Table) -> None: ...

    error = failure_of([flights, read], resources={"io_manager": io_manager})
    assert f'The metadata \'columns\' of the input does not suit table "{schema}"."flights"' in error
    assert "DECLARE" not in error.partition("Stack Trace")[0]


OPTIONS = (
    "new_columns",
    "replace_where",
    "create_table",
    "with 'columns'",
    "in 'columns'",
    "as 'columns'",
    "the query",
)


@pytest.mark.parametrize(
    ("rows", "advice"),
    [
        ({"a": [1], "more": [1]}, "Rename or drop others in the rows, or add them with ALTER TABLE"),
        ({}, "Return rows with at least one of its columns"),
        ({"a": [1], "twice": [1]}, "Leave it to the table: drop the column from the rows"),
        ({"a": [1], "b" * 64: [1]}, "Rename or drop others in the rows"),
    ],
)
def test_errors_name_what_the_asset_can_do(
    io_manager: LakebaseIOManager, lakebase: LakebaseResource, schema: str, rows: dict, advice: str
):
    lakebase.connect_and_execute(f"""
        CREATE SCHEMA {schema};
        CREATE TABLE {schema}.flights (a bigint, twice bigint GENERATED ALWAYS AS (a * 2) STORED)
    """)

    @asset(key_prefix=schema)
    def flights() -> pandas.DataFrame:
        return pandas.DataFrame(rows)

    error = failure_of([flights], resources={"io_manager": io_manager})
    message = error.partition("Stack Trace")[0]
    assert advice in message
    assert not [name for name in OPTIONS if name in message]


def test_an_error_of_a_new_table_names_what_the_asset_can_do(io_manager: LakebaseIOManager, schema: str):
    @asset(key_prefix=schema)
    def flights() -> pyarrow.Table:
        return pyarrow.table({"b" * 64: [1]})

    @asset(key_prefix=schema)
    def odd() -> pyarrow.Table:
        return pyarrow.table({"n": pyarrow.array([1], pyarrow.run_end_encoded(pyarrow.int32(), pyarrow.int8()))})

    resources = {"io_manager": io_manager}
    assert "Rename it in the rows." in failure_of([flights], resources=resources)
    error = failure_of([odd], resources=resources)
    assert "Create the table first, give it a type in the rows, or drop the column from the rows." in error


def test_an_error_of_reading_names_what_the_asset_can_do(
    io_manager: LakebaseIOManager, lakebase: LakebaseResource, schema: str
):
    lakebase.connect_and_execute(
        f"CREATE SCHEMA {schema}; CREATE TABLE {schema}.flights AS SELECT 'infinity'::date AS day"
    )

    @asset(ins={"flights": AssetIn(key=[schema, "flights"])})
    def read(flights: pyarrow.Table) -> None: ...

    error = failure_of([AssetSpec([schema, "flights"]), read], resources={"io_manager": io_manager})
    assert "Leave its column out with the input's metadata 'columns', or read it as text in SQL" in error
