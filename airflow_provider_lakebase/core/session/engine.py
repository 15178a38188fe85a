"""SQLAlchemy engines that open their sessions through the provider, so that no URL holds a password."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import sqlalchemy
from sqlalchemy.engine import URL, Engine

from airflow_provider_lakebase.core.connection.settings import LakebaseSettings, SessionAddress
from airflow_provider_lakebase.exceptions import LakebaseSettingsError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

DRIVER = "postgresql+psycopg"
RECYCLE_SECONDS = 45 * 60
"""Seconds after which a pooled session is replaced."""

_NOT_FOR_THE_ENGINE = ("connect_args", "creator", "async_creator", "url")
_POOL_OPTIONS = {"pool_pre_ping": True, "pool_recycle": RECYCLE_SECONDS}


def session_url(settings: LakebaseSettings, address: SessionAddress) -> URL:
    """Return the URL of a server, database and role, without a password.

    :param settings: port and database
    :param address: host and role
    """
    return URL.create(
        DRIVER,
        username=address.user,
        host=address.host,
        port=settings.session.port,
        database=settings.session.database,
        query={"sslmode": settings.session.sslmode},
    )


def create_engine(
    settings: LakebaseSettings,
    address: SessionAddress,
    connect: Callable[[], psycopg.Connection[Any]],
    engine_options: Mapping[str, Any] | None = None,
) -> Engine:
    """Return an engine that opens each session through ``connect`` and survives a suspend of the endpoint.

    :param settings: port and database, for the engine's URL
    :param address: host and role, for the engine's URL
    :param connect: opens a session, with a credential of its own
    :param engine_options: further keywords of :func:`sqlalchemy.create_engine`
    :raises LakebaseSettingsError: on SQLAlchemy 1.4, which has no dialect for psycopg 3; for
        ``connect_args``, ``creator`` and keywords that SQLAlchemy refuses
    """
    options = {**_POOL_OPTIONS, **_checked(settings, engine_options), "creator": connect}
    url = _url(settings, address)
    with _naming_bad_arguments(settings):
        return sqlalchemy.create_engine(url, **options)


def create_async_engine(
    settings: LakebaseSettings,
    address: SessionAddress,
    connect: Callable[[], Awaitable[psycopg.AsyncConnection[Any]]],
    engine_options: Mapping[str, Any] | None = None,
) -> AsyncEngine:
    """Return an asynchronous engine; arguments and errors are those of :func:`create_engine`."""
    from sqlalchemy.ext.asyncio import create_async_engine

    async def open_session(*_: Any, **__: Any) -> psycopg.AsyncConnection[Any]:
        return await connect()

    options = {**_POOL_OPTIONS, **_checked(settings, engine_options), "async_creator": open_session}
    url = _url(settings, address)
    with _naming_bad_arguments(settings):
        return create_async_engine(url, **options)


def _checked(settings: LakebaseSettings, engine_options: Mapping[str, Any] | None) -> Mapping[str, Any]:
    for name in _NOT_FOR_THE_ENGINE:
        if engine_options and name in engine_options:
            raise LakebaseSettingsError(
                f"engine_kwargs holds '{name}', but the provider opens the engine's sessions",
                context=settings.context,
                hint="Set libpq keywords in {extra}, and search_path or timeouts in its 'options'.",
            )
    return engine_options or {}


@contextmanager
def _naming_bad_arguments(settings: LakebaseSettings) -> Iterator[None]:
    try:
        yield
    except (TypeError, sqlalchemy.exc.ArgumentError) as error:
        hint = "Give keywords of sqlalchemy.create_engine."
        raise LakebaseSettingsError(
            f"SQLAlchemy refuses engine_kwargs: {error}", context=settings.context, hint=hint
        ) from error


def _url(settings: LakebaseSettings, address: SessionAddress) -> URL:
    if sqlalchemy.__version__.startswith("1."):
        raise LakebaseSettingsError(
            f"SQLAlchemy {sqlalchemy.__version__} cannot use psycopg 3",
            context=settings.context,
            hint="Use SQLAlchemy 2, or a method that does not need SQLAlchemy.",
        )
    return session_url(settings, address)
