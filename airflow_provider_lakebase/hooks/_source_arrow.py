"""Run a query on a database whose driver gives results as Arrow data.

DuckDB and ADBC are tested with their drivers. The other readers follow the documented interfaces of their drivers and
were not run on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from itertools import chain
from typing import Any

BATCH_ROWS = 10_000
"""Rows fetched at a time, the most that are held in memory."""

_INEXACT = frozenset(("time with time zone", "uhugeint", "bit", "bignum", "varint", "union"))
"""Types of DuckDB of which Arrow data has less than rows have."""
_NESTED_INEXACT = _INEXACT | {"interval"}


def run_query(cursor: Any, query: str, parameters: Mapping[str, Any] | Sequence[Any] | None) -> Any:
    """Run a query and return its result as Arrow data, which is read as it arrives.

    :param cursor: of any driver
    :param query: one query
    :param parameters: of the query
    :returns: a RecordBatchReader or an iterator of tables or batches; None if the rows must be fetched from the cursor,
        because the driver gives no Arrow data, the data is less exact than rows are, there is none, or the extra
        ``[arrow]`` is not installed
    """
    # Given parameters, even empty ones, a driver interprets every % of the query.
    given = [parameters] if parameters else []
    offered = set(dir(cursor)) if find_spec("pgpq") and find_spec("pyarrow") else set()
    if "extract_statements" in offered and (relation := _relation(cursor, query, given)) is not None:
        return relation.to_arrow_reader(BATCH_ROWS)
    if "fetch_arrow_batches" in offered:
        _keep_decimals(cursor.connection)
    cursor.execute(query, *given)
    return next((read(cursor) for name, read in _READERS.items() if name in offered), None)


def _relation(cursor: Any, query: str, given: Sequence[Any]) -> Any:
    """Return a query as a relation of DuckDB 2, whose cursors hold the Arrow data of a whole result in memory.

    :returns: None if rows must be fetched, or the statement would be run by asking for its types
    """
    if hasattr(cursor, "fetch_record_batch"):
        return None
    if [statement.type.name for statement in cursor.extract_statements(query)] != ["SELECT"]:
        return None
    relation = cursor.sql(query, params=given[0] if given else None)
    return relation if all(map(_is_exact, relation.types)) else None


def _is_exact(kind: Any, inexact: frozenset[str] = _INEXACT) -> bool:
    """Return whether a type of DuckDB is in Arrow data what it is in rows, or more exact."""
    if kind.id in inexact:
        return False
    if kind.id not in ("list", "array", "struct", "map"):
        return True
    children = [child for name, child in kind.children if hasattr(child, "id")]
    return all(_is_exact(child, _NESTED_INEXACT) for child in children)


def _read_record_batches(cursor: Any) -> Any:
    """Read from DuckDB before version 2, or ADBC."""
    types = [column[1] for column in cursor.description or ()]
    if not any(type(kind).__name__ == "DuckDBPyType" for kind in types):
        return cursor.fetch_record_batch()
    return cursor.fetch_record_batch(BATCH_ROWS) if all(map(_is_exact, types)) else None


def _keep_decimals(connection: Any) -> None:
    """Tell Snowflake's connector to give numbers with decimal places as such, which it gives as floats by default."""
    try:
        connection.arrow_number_to_decimal = True
    except AttributeError:  # goes with snowflake-connector-python before 5
        connection.arrow_number_to_decimal_setter = True


def _read_snowflake(cursor: Any) -> Any:
    try:
        batches = cursor.fetch_arrow_batches()
    except Exception as error:
        if type(error).__name__ != "NotSupportedError":
            raise
        return None  # the results of some commands, such as SHOW, are no Arrow data
    return _unless_empty(map(_widen_integers, batches))


def _widen_integers(table: Any) -> Any:
    """Return a table of Snowflake, which sends integers in as few bytes as a batch needs, with integers of 64 bits."""
    import pyarrow as pa

    fields = [field.with_type(pa.int64()) if pa.types.is_integer(field.type) else field for field in table.schema]
    return table.cast(pa.schema(fields))


def _read_databricks(cursor: Any) -> Any:
    first = cursor.fetchmany_arrow(BATCH_ROWS)
    return chain([first], _until_empty(lambda: cursor.fetchmany_arrow(BATCH_ROWS))) if first.num_columns else None


def _until_empty(fetch: Callable[[], Any]) -> Iterator[Any]:
    while (table := fetch()).num_rows:
        yield table


def _read_bigquery(cursor: Any) -> Any:
    """Read from the cursor of google-cloud-bigquery, which may have run the query without a job."""
    job = cursor.query_job
    return job and _unless_empty(job.result().to_arrow_iterable())


def _read_bigquery_hook(cursor: Any) -> Any:
    """Read from the cursor of Airflow's own BigQueryHook."""
    job = cursor.hook.get_job(job_id=cursor.job_id, project_id=cursor.project_id, location=cursor.location)
    return _unless_empty(job.result().to_arrow_iterable())


def _unless_empty(batches: Any) -> Iterator[Any] | None:
    """Return batches; None if there are none, since only batches tell their columns."""
    found = iter(batches)
    first = next(found, None)
    return None if first is None else chain([first], found)


_READERS: dict[str, Callable[[Any], Any]] = {
    "fetch_record_batch": _read_record_batches,
    "fetch_arrow_batches": _read_snowflake,
    "fetchmany_arrow": _read_databricks,
    "query_job": _read_bigquery,
    "running_job_id": _read_bigquery_hook,
}
"""How to read, by the attribute of a cursor that only such drivers have."""
