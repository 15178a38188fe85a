"""Write rows into a table: append, replace or upsert, within the session's current transaction.

Rows are copied straight into the table where the mode permits it. Otherwise they are copied into a staging
table, and one INSERT moves them: for a replace, whose locks then do not wait for the source; for an upsert; for casts;
for skipped columns; under row-level security; and for values that a column would round.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg import sql

from airflow_provider_lakebase.core.bulk import mode_sql
from airflow_provider_lakebase.core.bulk.copy import BadValue, CopyTarget, Part
from airflow_provider_lakebase.core.bulk.plan import LoadPlan
from airflow_provider_lakebase.core.bulk.progress import Progress
from airflow_provider_lakebase.core.bulk.rejects import Rejects
from airflow_provider_lakebase.core.bulk.staging import Staging


class LoadExecution:
    """Carry out a plan: copy the parts of a source to :meth:`prepare`'s targets, then :meth:`finish`.

    :param connection: an open session
    :param plan: how rows get into the table
    :param progress: counts rows and bytes
    :param rejects: takes the rows that are left out; None if a bad row ends the load
    """

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        plan: LoadPlan,
        progress: Progress,
        rejects: Rejects | None = None,
    ) -> None:
        self.connection = connection
        self.plan = plan
        self.progress = progress
        self.rejects = rejects
        self._targets: list[CopyTarget] = []
        self._staging: Staging | None = None
        if plan.is_staged:
            required = [*plan.key_columns, *([plan.version_column] if plan.version_column else [])]
            self._staging = Staging(
                connection, plan.table, plan.columns, plan.casts, required, is_text=rejects is not None
            )

    def prepare(self, part: Part) -> CopyTarget:
        """Return the relation to copy a part into.

        :param part: the next part
        """
        if self._staging:
            self._staging.expect(part, self._rows)
        path = self._staging.path if self._staging else self.plan.table.path
        target = CopyTarget(self.connection, path, part.columns, self.progress, self.rejects)
        self._targets.append(target)
        return target

    def finish(self) -> int:
        """Move staged rows into the table, and return the number of rows written.

        :raises LakebaseLoadError: for a row that cannot be stored exactly, or that the mode does not allow
        :raises BadValue: if it is not known which row
        :raises psycopg.Error: if Postgres rejects a row
        """
        staging = self._staging
        if staging is None:
            return self._rows
        if self.rejects is None:
            staging.check_rounding()
        if self.plan.mode == "replace":
            self._execute(mode_sql.lock_table(self.plan))
        if self.rejects is not None:
            self.rejects.remove_from(staging, self.plan, self._rows)
        if self.plan.mode == "upsert":
            return self._upsert(staging)
        if self.plan.mode == "append":
            return self._insert(staging)
        if self.plan.stable_key:
            return self._replace_keeping(staging)
        if self.plan.table.has_incoming_fks:
            return self._insert(staging, deletion=mode_sql.delete_replaced(self.plan))
        self._execute(mode_sql.delete_replaced(self.plan))
        return self._insert(staging)

    @property
    def _rows(self) -> int:
        return sum(target.rows for target in self._targets)

    def _insert(
        self,
        staging: Staging,
        action: sql.Composable = mode_sql.NOTHING,
        deletion: sql.Composable | None = None,
    ) -> int:
        statement = mode_sql.insert_staged(self.plan, staging, action=action, deletion=deletion)
        condition = self.plan.replace_where
        with self._locating_repeats(staging), staging.locating():
            if condition is None:
                return self._execute(statement).rowcount
            ((written, others),) = self._execute(statement).fetchall()
        if others:
            staging.check_condition(condition)
            raise BadValue("{other_row}", None)
        return int(written)

    @contextmanager
    def _locating_repeats(self, staging: Staging) -> Iterator[None]:
        """If the block fails because two staged rows have one key, raise an error that names the second row."""
        try:
            yield
        except psycopg.errors.UniqueViolation:
            given = {column.name for column in self.plan.columns}
            for key in self.plan.table.keys:
                if given.issuperset(key):
                    staging.check_repeats(key)
            raise

    def _upsert(self, staging: Staging) -> int:
        plan = self.plan
        if plan.duplicates == "error":
            staging.check_repeats(plan.key_columns)
        self._check_identity(staging, plan.key_columns)
        with staging.locating():
            # Optimistic: looking for repeated keys costs more than trying again after CardinalityViolation.
            if plan.update_columns:
                with suppress(psycopg.errors.CardinalityViolation), self.connection.transaction():
                    return self._execute(mode_sql.upsert_staged(plan, staging, deduplicate=False)).rowcount
            return self._execute(mode_sql.upsert_staged(plan, staging, deduplicate=True)).rowcount

    def _check_identity(self, staging: Staging, key: Sequence[str]) -> None:
        """Reject a row that would change a GENERATED ALWAYS identity column, which no UPDATE can change."""
        for column in self.plan.columns:
            if column.identity == "a" and column.name not in key and column.name not in self.plan.casts:
                query = mode_sql.find_other_identity(self.plan, staging, key, column.name)
                if self._execute(query).fetchone() is not None:
                    reason = "it is GENERATED ALWAYS AS IDENTITY, and the existing row has another value"
                    raise BadValue(reason, None, column.name)

    def _replace_keeping(self, staging: Staging) -> int:
        """Replace rows, but update in place those whose key is in the source too: foreign keys may reference them."""
        plan = self.plan
        staging.check_repeats(plan.stable_key)
        self._check_identity(staging, plan.stable_key)
        if plan.replace_where is not None:
            if self._execute(mode_sql.find_kept_outside(plan, staging)).fetchone() is not None:
                raise BadValue("the table has its key in {kept_row}", None)
        try:
            with self.connection.transaction():
                gone = sql.SQL("NOT {}").format(mode_sql.has_staged_row(plan, staging))
                deletion = mode_sql.delete_replaced(plan, gone)
                return self._insert(staging, mode_sql.keep_stable_rows(plan), deletion)
        except psycopg.errors.UniqueViolation as error:
            # Rows that swap values must be deleted and inserted. Foreign keys with an action would then act.
            self._check_foreign_key_actions(error)
        return self._insert(staging, deletion=mode_sql.delete_replaced(plan))

    def _check_foreign_key_actions(self, error: psycopg.Error) -> None:
        acts = """
            SELECT FROM pg_catalog.pg_constraint
            WHERE confrelid = %s::oid AND contype = 'f' AND confdeltype <> 'a' LIMIT 1
        """
        if self.connection.execute(acts, [self.plan.table.oid]).fetchone() is not None:
            reason = (
                f"its value of the unique constraint {error.diag.constraint_name} belongs to another row. If rows swap "
                "values, make the constraint DEFERRABLE INITIALLY DEFERRED, or the foreign keys that reference the "
                "table ON DELETE NO ACTION"
            )
            raise BadValue(reason, None) from None

    def _execute(self, statement: sql.Composable) -> psycopg.Cursor[Any]:
        return self.connection.execute(sql.Composed([statement]))
