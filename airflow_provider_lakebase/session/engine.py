"""SQLAlchemy engines whose sessions are opened by the provider, so that no URL holds a password."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import sqlalchemy
from sqlalchemy.engine import URL, Engine

from airflow_provider_lakebase.exceptions import LakebaseSettingsError
from airflow_provider_lakebase.settings import LakebaseSettings

DRIVER = "postgresql+psycopg"
RECYCLE_SECONDS = 45 * 60
"""Age at which a pooled session is replaced."""


def session_url(settings: LakebaseSettings, host: str) -> URL:
    """Return where and as whom a session is opened, without a password.

    :param settings: port, database and role
    :param host: Postgres host
    """
    return URL.create(
        DRIVER,
        username=settings.user,
        host=host,
        port=settings.port,
        database=settings.database,
        query={"sslmode": settings.sslmode},
    )


def create_engine(
    settings: LakebaseSettings,
    host: str,
    connect: Callable[[], psycopg.Connection[Any]],
    engine_options: dict[str, Any] | None = None,
) -> Engine:
    """Return an engine that opens every session through ``connect`` and survives a suspend of the endpoint.

    :param settings: port, database and role, for the engine's URL
    :param host: Postgres host, for the engine's URL
    :param connect: opens a session, with a credential of its own
    :param engine_options: further keywords of :func:`sqlalchemy.create_engine`
    :raises LakebaseSettingsError: on SQLAlchemy 1.4, which has no dialect for psycopg 3
    """
    if sqlalchemy.__version__.startswith("1."):
        raise LakebaseSettingsError(
            f"SQLAlchemy {sqlalchemy.__version__} cannot use psycopg 3",
            where=settings.where,
            remedy="Use the hook's own methods, which need no SQLAlchemy, or Airflow 3, which brings SQLAlchemy 2.",
        )
    options = {"pool_pre_ping": True, "pool_recycle": RECYCLE_SECONDS, **(engine_options or {}), "creator": connect}
    return sqlalchemy.create_engine(session_url(settings, host), **options)
