"""What a load or an export tells Dagster, under the keys that its pages know."""

from __future__ import annotations

from typing import Any

from dagster import TableColumn, TableSchema

from airflow_provider_lakebase.core.bulk.export import ExportResult
from airflow_provider_lakebase.core.bulk.load import LoadResult


def describe_load(result: LoadResult, database: str, *, is_partition: bool) -> dict[str, Any]:
    """Return the metadata of a load.

    :param result: of the load
    :param database: its database
    :param is_partition: whether the rows are a part of the asset, so that they must not count as all of it
    """
    schema, table = result.target or ("", "")
    rows = "dagster/partition_row_count" if is_partition else "dagster/row_count"
    return {
        rows: result.rows,
        "dagster/table_name": f"{database}.{schema}.{table}",
        "dagster/column_schema": TableSchema([TableColumn(name, kind) for name, kind in result.columns]),
        "lakebase/seconds": round(result.seconds, 3),
        **({"lakebase/rejected": result.rejected} if result.rejected else {}),
        **({"lakebase/already_loaded": True} if result.already_loaded else {}),
    }


def describe_export(result: ExportResult) -> dict[str, Any]:
    """Return the metadata of an export.

    :param result: of the export
    """
    return {
        "dagster/row_count": result.rows,
        "lakebase/files": list(result.files),
        "lakebase/bytes": result.bytes,
        "lakebase/seconds": round(result.seconds, 3),
    }
