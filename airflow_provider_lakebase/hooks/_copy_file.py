"""COPY between the server and a file, for the hook's ``copy_expert``, ``bulk_load`` and ``bulk_dump``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from airflow.providers.common.sql.hooks.lineage import send_sql_hook_lineage

from airflow_provider_lakebase.exceptions import LakebaseSettingsError
from airflow_provider_lakebase.hooks._storage import locate

if TYPE_CHECKING:
    from airflow_provider_lakebase.hooks.lakebase import LakebaseHook

_FROM_STDIN = re.compile(r"\bFROM\s+STDIN\b", re.IGNORECASE)
_TO_STDOUT = re.compile(r"\bTO\s+STDOUT\b", re.IGNORECASE)


def copy_file(hook: LakebaseHook, sql: str, filename: str) -> None:
    """Run a COPY between the server and a file.

    :param hook: opens the session
    :param sql: ``COPY … FROM STDIN`` or ``COPY … TO STDOUT``
    :param filename: path or URL of the file
    :raises FileNotFoundError: if there is no such file to read
    :raises LakebaseSettingsError: for another statement
    """
    from airflow_provider_lakebase.core.bulk.export import copy_in, copy_out

    reads = _FROM_STDIN.search(sql) is not None
    if reads == (_TO_STDOUT.search(sql) is not None):
        hint = "Write COPY … FROM STDIN to read the file, or COPY … TO STDOUT to write it."
        raise LakebaseSettingsError("The statement is not a COPY between the server and a file", hint=hint)
    with hook._create_autocommit_connection() as connection:
        rows = (copy_in if reads else copy_out)(connection, sql, locate(filename))
        connection.commit()
    send_sql_hook_lineage(context=hook, sql=sql, row_count=rows)
    hook.log.info("Rows copied: %d", rows)
