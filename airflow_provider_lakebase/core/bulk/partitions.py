"""Partition folders, such as ``day=2026-01-01``: the columns that they name, and the checks of their values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote

import psycopg
from psycopg import sql

from airflow_provider_lakebase.core.bulk.catalog import Column, Table
from airflow_provider_lakebase.core.bulk.copy import UnfitValue
from airflow_provider_lakebase.core.bulk.formats.date_text import text_check
from airflow_provider_lakebase.core.bulk.staged_checks import changes, staged_type
from airflow_provider_lakebase.core.errors.session_context import session_context
from airflow_provider_lakebase.exceptions import LakebaseLoadError, LakebaseSettingsError

_NULL = "__HIVE_DEFAULT_PARTITION__"


class Folder(NamedTuple):
    """A folder that names a column.

    :param name: its name in the path
    :param value: text of the value; None for NULL
    """

    name: str
    value: str | None


def read_folders(label: str) -> dict[str, Folder]:
    """Return the partition folders in the path of a file, by column.

    :param label: path or URL
    :raises LakebaseSettingsError: for a name that is not UTF-8, or two folders that disagree
    """
    folders: dict[str, Folder] = {}
    for part in label.split("/")[:-1]:
        key, is_partition, text = part.partition("=")
        if not key or not is_partition:
            continue
        try:
            name, value = unquote(key, errors="strict"), unquote(text, errors="strict")
        except UnicodeDecodeError:
            raise LakebaseSettingsError(f"The folder {part} of {label} is not UTF-8", hint="Rename it.") from None
        folder = Folder(part, None if value == _NULL else value)
        if folders.setdefault(name, folder).value != folder.value:
            what = f"Two folders of {label} give different values for '{name}'"
            raise LakebaseSettingsError(what, hint="Rename one of them.")
    return folders


class FolderCheck:
    """Reject the value of a folder that its column would change, as text in a CSV file is.

    :param connection: an open session
    :param casts: SQL type by column; text is cast to it, and checked, later
    """

    def __init__(self, connection: psycopg.Connection[Any], casts: Mapping[str, str]) -> None:
        self.connection = connection
        self.casts = casts
        self._passed: set[tuple[str, str | None]] = set()

    def check(self, table: Table, name: str, folder: Folder, label: str) -> None:
        """Check the value of a folder.

        :param table: the target
        :param name: of the column
        :param folder: the folder
        :param label: the file's name in messages
        :raises LakebaseLoadError: if the column cannot hold the value exactly
        """
        if (name, folder.value) in self._passed:
            return
        if reason := self._find_problem(table, table.loadable[name], folder.value):
            raise LakebaseLoadError(
                f"Table {table.name} rejects column {name} of the folder {folder.name} of {label}: {reason}",
                context=session_context(self.connection),
                hint="Nothing was loaded. Correct the folder or the table; or skip the folder with a mapping as "
                "'columns', which lists the names to load.",
                source=label,
                column=name,
            )
        self._passed.add((name, folder.value))

    def _find_problem(self, table: Table, column: Column, text: str | None) -> str:
        if text is None:
            # A trigger may fill it.
            return "it must not be NULL" if column.not_null and not table.has_triggers else ""
        if "\0" in text:
            return "it contains a null byte"
        if column.name in self.casts:
            return ""
        if check := text_check(column):
            try:
                check(text)
            except UnfitValue as unfit:
                return str(unfit)
        return self._ask_postgres(column, text)

    def _ask_postgres(self, column: Column, text: str) -> str:
        query = "SELECT sql_error_code FROM pg_input_error_info(%s, %s)"
        ((code,),) = self.connection.execute(query, [text, column.declared]).fetchall()
        if code is not None:
            return f"SQLSTATE {code}; the column is of type {column.declared}"
        if column.rounds or column.cuts:
            value = sql.SQL("{}::{}").format(sql.Literal(text), sql.SQL(staged_type(column)))
            query_change = sql.SQL("SELECT {}").format(changes(value, column))
            ((changed,),) = self.connection.execute(query_change).fetchall()
            if changed:
                return f"it is longer, or has more digits, than {column.declared} keeps"
        return ""
