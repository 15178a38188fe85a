"""Dagster's words for what the errors of the core speak of."""

from __future__ import annotations

from airflow_provider_lakebase.exceptions import WORDS

DAGSTER_WORDS = {
    **WORDS,
    "login": "client_id",
    "password": "client_secret",
    "schema": "database",
    "connection": "resource",
    "extra": "the resource's configuration",
    "libpq": "the field 'libpq'",
    "tasks": "assets",
    "pool": " (a concurrency pool limits them)",
    "create_schema": ", for example with connect_and_execute()",
}

# Who uses the I/O manager gives it rows and metadata, not the options of a load.
IO_MANAGER_WORDS = {
    **DAGSTER_WORDS,
    "rename_or_add": "Rename or drop others in the rows, or add them with ALTER TABLE",
    "name_a_column": "Return rows with at least one of its columns, also where there are no rows.",
    "rename_column": "Rename it in the rows.",
    "or_list_columns": "",
    "name_type": "give it a type in the rows",
    "skip_column": "drop the column from the rows",
    "correct_creation": "Rename the asset or give it the metadata 'table', or create the table first.",
    "other_row": "by the metadata 'partition_expr' it belongs to no partition that is written",
    "kept_row": "a row of a partition that is not written",
    "cast_to_text": "Leave its column out with the input's metadata 'columns', or read it as text in SQL",
}
