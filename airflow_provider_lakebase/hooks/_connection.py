"""Read the fields of an Airflow connection as plain values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_lakebase.core.connection.settings import ConnectionFields
from airflow_provider_lakebase.exceptions import LakebaseSettingsError

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection


def connection_fields(conn_id: str, connection: Connection, conn_type: str) -> ConnectionFields:
    """Return the fields of a connection.

    :param conn_id: Airflow connection id, for messages
    :param connection: the connection
    :param conn_type: type that it has to have
    :raises LakebaseSettingsError: if it is of another type
    """
    if connection.conn_type != conn_type:
        name = f"Connection '{conn_id}'" if conn_id else "Connection"
        raise LakebaseSettingsError(
            f"{name} is of type '{connection.conn_type}'",
            hint=f"Use a connection of type '{conn_type}'.",
        )
    return ConnectionFields(
        conn_id=conn_id,
        host=connection.host,
        login=connection.login,
        password=connection.password,
        schema=connection.schema,
        port=connection.port,
        extra=connection.extra_dejson,
    )
