"""The flow of a pipeline for one synced table: what an update does to its rows and its state. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from airflow_provider_lakebase.emulator.model.catalog import Column, Row, UnityCatalog, Version
from airflow_provider_lakebase.emulator.model.data_plane import SyncedTableWriter
from airflow_provider_lakebase.emulator.model.pipelines import SyncError
from airflow_provider_lakebase.emulator.model.synced_table import Progress, SyncedTable
from airflow_provider_lakebase.emulator.model.synced_table_spec import CONTINUOUS, SNAPSHOT, Spec


class Sync:
    """The flow of a pipeline for one synced table."""

    def __init__(
        self, table: SyncedTable, catalog: UnityCatalog, writer: SyncedTableWriter, clock: Callable[[], float]
    ) -> None:
        self._table = table
        self._catalog = catalog
        self._writer = writer
        self._clock = clock

    def prepare(self) -> None:
        """Provision the pipeline's resources."""
        self._table.move("prepare", "The pipeline is starting.")

    def load(self, *, full_refresh: bool) -> None:
        """Rebuild the Postgres table, or apply to it what changed since the last update."""
        table = self._table
        table.move("load", "The pipeline is running.")
        started_at = self._clock()
        version, old = self._latest(), table.view.synced
        if old is None or full_refresh or table.spec.policy == SNAPSHOT:
            self._rebuild(version)
        elif version is not old:
            self._apply_changes(old, version)
        table.note_sync(version, started_at, self._clock())
        table.move("loaded", "")

    def finish(self) -> None:
        """Settle, or go on as a stream in a continuous pipeline."""
        self._table.move("stream" if self._table.spec.policy == CONTINUOUS else "settle")

    def follow(self) -> None:
        """Apply what was published since."""
        old, version, started_at = self._table.view.synced, self._latest(), self._clock()
        if old is not None and version is not old:
            self._apply_changes(old, version)
            self._table.note_sync(version, started_at, self._clock())

    def fail(self, message: str) -> None:
        """Show the pipeline's error."""
        self._table.move("fail", message)

    def cancel(self) -> None:
        """Restore the table's previous state."""
        self._table.move("cancel", "The update was canceled.")

    def _latest(self) -> Version:
        source = self._catalog.table(self._table.spec.source)
        if source is None:
            raise SyncError(f"[TABLE_OR_VIEW_NOT_FOUND] The table {self._table.spec.source} cannot be found.")
        return source.latest

    def _rebuild(self, version: Version) -> None:
        spec = self._table.spec
        rows = keyed_rows(spec, version)
        columns = spec.postgres_columns(version.columns)
        self._writer.rebuild(self._table.place, columns, spec.primary_key, self._counted(version, rows.values()))

    def _apply_changes(self, old: Version, new: Version) -> None:
        spec = self._table.spec
        added = added_columns(spec, old.columns, new.columns)
        before, after = keyed_rows(spec, old), keyed_rows(spec, new)
        # Rows compare by position: if the columns are others, every row counts as changed.
        same_columns = [column.name for column in old.columns] == [column.name for column in new.columns]
        changed = {key: row for key, row in after.items() if not same_columns or before.get(key) != row}
        gone = [key for key in before if key not in after or key in changed]
        self._writer.apply(
            self._table.place,
            spec.postgres_columns(added),
            [column.name for column in new.columns],
            spec.primary_key,
            gone,
            self._counted(new, changed.values()),
        )

    def _counted(self, version: Version, rows: Iterable[Row]) -> Iterator[Row]:
        """Yield the rows, and show how many the writer has taken."""
        rows = list(rows)
        for number, row in enumerate(rows):
            if number % 1000 == 0:
                self._table.show_progress(Progress(version.number, number, len(rows)))
            yield row


def keyed_rows(spec: Spec, version: Version) -> dict[Row, Row]:
    """Return the rows by primary key. Rows with a null in the key are left out, as the service does.

    With a time series key the latest row of each key stays; without one, raise ``SyncError`` for a second row.
    """
    names = [column.name for column in version.columns]
    missing = [name for name in spec.primary_key if name not in names]
    if missing:
        raise user_error("CHANGED_PRIMARY_KEY", f"The source table {spec.source} has no column {missing[0]} any more.")
    positions = [names.index(name) for name in spec.primary_key]
    series = names.index(spec.timeseries_key) if spec.timeseries_key in names else None
    rows: dict[Row, Row] = {}
    for row in version.rows:
        key = tuple(row[position] for position in positions)
        if None in key:
            continue
        other = rows.get(key)
        if other is not None and series is None:
            raise _duplicate(spec, key)
        if other is None or series is None or _is_later(row[series], other[series]):
            rows[key] = row
    return rows


def added_columns(spec: Spec, old: Sequence[Column], new: Sequence[Column]) -> list[Column]:
    """Return the columns that were added to a source; raise ``SyncError`` if one was changed or removed."""
    old_types = {column.name: column.type_text for column in old}
    for column in new:
        before = old_types.pop(column.name, column.type_text)
        if before != column.type_text:
            raise user_error(
                "COLUMN_TYPE_CHANGE_NOT_SUPPORTED",
                f"Changing the column type is currently not supported. Source Delta table: {spec.source}. Destination "
                f"synced table: {spec.synced_table_id}. Column: {column.name}. Existing type: {before}. New type: "
                f"{column.type_text}.",
            )
    if old_types:
        raise SyncError(
            f"[DELTA_STREAMING_INCOMPATIBLE_SCHEMA_CHANGE] The source table {spec.source} lost the column "
            f"{next(iter(old_types))}. Perform a full refresh."
        )
    known = {column.name for column in old}
    return [column for column in new if column.name not in known]


def user_error(condition: str, text: str) -> SyncError:
    """Return an error of the class ``SYNCED_TABLE_USER_ERROR``."""
    return SyncError(f"[SYNCED_TABLE_USER_ERROR.{condition}] Synced table pipeline user error. {text} SQLSTATE: 42000")


def _duplicate(spec: Spec, key: Row) -> SyncError:
    columns, values = ", ".join(spec.primary_key), ", ".join(map(str, key))
    return user_error(
        "PRIMARY_KEY_CONSTRAINT_VIOLATION",
        f"Duplicate rows detected based on primary key. Detail: Key ({columns})=({values}) already exists. "
        f"Source Delta table: {spec.source}.",
    )


def _is_later(value: object, other: object) -> bool:
    """Return whether a value of the time series key is later; a null is the earliest."""
    return value is not None and (other is None or value > other)  # type: ignore[operator]
