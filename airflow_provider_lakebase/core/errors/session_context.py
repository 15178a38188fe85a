"""Derive an error's context from a session."""

from __future__ import annotations

from airflow_provider_lakebase.exceptions import NO_CONTEXT, ErrorContext


def session_context(connection: object) -> ErrorContext:
    """Return the context of a session; an empty one for a connection that the provider did not open.

    :param connection: an open ``psycopg`` connection
    """
    context = getattr(connection, "context", NO_CONTEXT)
    return context if isinstance(context, ErrorContext) else NO_CONTEXT
