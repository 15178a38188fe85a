"""Postgres sessions that know when a COMMIT was sent and no answer came."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from airflow_provider_lakebase.exceptions import NO_CONTEXT, LakebaseOutcomeUnknownError

CANCEL_SECONDS = 5.0
"""Seconds the server gets to act on a cancellation."""


class _ReportsLostCommit:
    """Raises LakebaseOutcomeUnknownError when the session is lost between a COMMIT and its answer."""

    context = NO_CONTEXT
    """The connection, endpoint and role of the session, for messages."""
    _commit_sent = False

    def _exec_command(self, command: Any, *args: Any, **keywords: Any) -> Any:
        # psycopg sends the COMMITs of commit(), ``with`` blocks and transaction() through here.
        if command == b"COMMIT":
            self.note_commit()
        return super()._exec_command(command, *args, **keywords)  # type: ignore[misc]

    def note_commit(self) -> None:
        """Remember that a COMMIT is being sent, unless the session is closed."""
        self._commit_sent = not cast(Any, self).closed

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        session = cast(Any, self)
        try:
            yield
        except psycopg.OperationalError as error:
            # A SQLSTATE means that the server answered, so the transaction did not commit.
            if self._commit_sent and session.closed and error.sqlstate is None:
                self._commit_sent = False
                raise LakebaseOutcomeUnknownError(
                    f"The session was lost after COMMIT was sent: {error}",
                    context=self.context,
                    hint="Check whether it was applied before you run it again, unless running it twice does no harm.",
                ) from error
            self._forget_commit()
            raise
        except psycopg.Error:
            self._forget_commit()
            raise
        else:
            self._forget_commit()

    def _forget_commit(self) -> None:
        pipeline = cast(Any, self)._pipeline
        # In a pipeline the answer to the COMMIT comes later.
        if pipeline is None or not (pipeline.command_queue or pipeline.result_queue):
            self._commit_sent = False


# A COMMIT at the start of a statement. END also ends a block, within a body in dollar quotes.
_COMMIT = re.compile(r"(?:^|;)(?:\s|--[^\n]*\n|/\*.*?\*/)*(?:commit|end(?![^$]*\$))\b", re.IGNORECASE | re.DOTALL)


def _is_commit(query: Any, session: Any) -> bool:
    if isinstance(query, sql.Composable):
        query = query.as_string(session)
    if isinstance(query, bytes):
        query = query.decode("utf-8", "replace")
    return isinstance(query, str) and _COMMIT.search(query) is not None


class _Cursor(psycopg.Cursor[Any]):
    def execute(self, query: Any, *args: Any, **keywords: Any) -> Any:
        if _is_commit(query, self.connection):
            cast(_ReportsLostCommit, self.connection).note_commit()
        return super().execute(query, *args, **keywords)


class _AsyncCursor(psycopg.AsyncCursor[Any]):
    async def execute(self, query: Any, *args: Any, **keywords: Any) -> Any:
        if _is_commit(query, self.connection):
            cast(_ReportsLostCommit, self.connection).note_commit()
        return await super().execute(query, *args, **keywords)


class LakebaseSession(_ReportsLostCommit, psycopg.Connection[tuple[Any, ...]]):
    """A ``psycopg.Connection`` that raises a typed error when the outcome of a COMMIT is unknown."""

    before_commit: Callable[[], None] = staticmethod(lambda: None)
    """Called before each commit. Raise an error in it to prevent the commit."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self.cursor_factory = _Cursor

    def commit(self) -> None:
        """Commit the transaction.

        :raises LakebaseOutcomeUnknownError: when the session was lost between COMMIT and its answer
        """
        self.before_commit()
        super().commit()

    def cancel_running(self) -> None:
        """Cancel the statement that the session is running, on the server; closing the session would not stop it."""
        if self.info.transaction_status is TransactionStatus.ACTIVE:
            self.cancel_safe(timeout=CANCEL_SECONDS)

    def wait(self, *args: Any, **keywords: Any) -> Any:
        """Wait for the server's answer; psycopg calls it for everything it sends.

        :raises LakebaseOutcomeUnknownError: when the session was lost between a COMMIT and its answer
        """
        with self._reporting():
            return super().wait(*args, **keywords)


class AsyncLakebaseSession(_ReportsLostCommit, psycopg.AsyncConnection[tuple[Any, ...]]):
    """The asynchronous :class:`LakebaseSession`: a ``psycopg.AsyncConnection``."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self.cursor_factory = _AsyncCursor

    async def wait(self, *args: Any, **keywords: Any) -> Any:
        """Wait for the server's answer; psycopg calls it for everything it sends.

        :raises LakebaseOutcomeUnknownError: when the session was lost between a COMMIT and its answer
        """
        with self._reporting():
            return await super().wait(*args, **keywords)
