"""Read what an error says about its session from the session itself."""

from __future__ import annotations

from airflow_provider_lakebase.exceptions import NO_CONTEXT, ErrorContext


def session_context(connection: object) -> ErrorContext:
    """Return the context of a session; an empty one for a connection that was opened by other means.

    :param connection: an open ``psycopg`` connection
    """
    context = getattr(connection, "context", NO_CONTEXT)
    return context if isinstance(context, ErrorContext) else NO_CONTEXT
