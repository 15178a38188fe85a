"""What an Airflow connection of type ``lakebase`` says, checked once and frozen.

This module knows neither Airflow nor libpq: it gets the connection's fields as plain values and answers with
:class:`LakebaseSettings`, or with a :class:`LakebaseSettingsError` that names the field. Keywords of libpq are only
collected here; ``session`` checks them against the libpq it has at hand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_lakebase.exceptions import LakebaseSettingsError

CONNECTION_TYPE = "lakebase"
DEFAULT_CONN_ID = "lakebase_default"
DEFAULT_DATABASE = "databricks_postgres"
DEFAULT_PORT = 5432
DEFAULT_SSLMODE = "require"
DEFAULT_WAKE_TIMEOUT = 120.0
ENDPOINT_SHAPE = "projects/<project>/branches/<branch>/endpoints/<endpoint>"
SSLMODES = ("require", "verify-ca", "verify-full")

DBAPI_HOOK_EXTRAS = frozenset(
    {
        "dialect",
        "escape_column_names",
        "escape_word_format",
        "insert_statement_format",
        "placeholder",
        "replace_statement_format",
        "sqlalchemy_scheme",
    }
)
"""Extras that common-sql's ``DbApiHook`` reads itself."""

RESERVED_LIBPQ_KEYWORDS = frozenset(
    {
        "application_name",
        "connect_timeout",
        "dbname",
        "fallback_application_name",
        "host",
        "passfile",
        "password",
        "port",
        "require_auth",
        "service",
        "servicefile",
        "sslnegotiation",
    }
)
"""Keywords of libpq that the provider sets, or that would change where it connects, or as whom."""

_ID = r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?"
_ENDPOINT = re.compile(rf"projects/{_ID}/branches/{_ID}/endpoints/{_ID}")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class LakebaseSettings:
    """Hold everything that opening a session needs to know.

    :param conn_id: Airflow connection id, for messages
    :param host: workspace URL, ``https://…`` without a trailing slash
    :param client_id: the service principal's client ID
    :param client_secret: its OAuth secret; left out of the repr
    :param endpoint: ``projects/<project>/branches/<branch>/endpoints/<endpoint>``
    :param database: Postgres database
    :param port: Postgres port
    :param user: Postgres role to log in as
    :param pg_host: Postgres host, or None to look it up from the endpoint
    :param sslmode: ``require``, ``verify-ca`` or ``verify-full``
    :param sslrootcert: path of a file with the certificate authorities to trust, or None
    :param wake_timeout: seconds that opening a session may take, waking included
    :param credential_ttl: seconds that a minted credential lives, or None for the service's own
    :param libpq: further keywords for libpq, as given
    """

    conn_id: str
    host: str
    client_id: str
    client_secret: str = field(repr=False)
    endpoint: str
    database: str = DEFAULT_DATABASE
    port: int = DEFAULT_PORT
    user: str = ""
    pg_host: str | None = None
    sslmode: str = DEFAULT_SSLMODE
    sslrootcert: str | None = None
    wake_timeout: float = DEFAULT_WAKE_TIMEOUT
    credential_ttl: int | None = None
    libpq: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def where(self) -> str:
        """Name connection, endpoint, database and role for a message."""
        return f"connection '{self.conn_id}', endpoint {self.endpoint}, database {self.database}, role {self.user}"

    def override(
        self, *, endpoint: str | None = None, database: str | None = None, options: str | None = None
    ) -> LakebaseSettings:
        """Return settings with what a hook or an operator gave put in place of the connection's.

        :param endpoint: resource name of another endpoint; a ``pg_host`` of the connection's no longer applies
        :param database: another database
        :param options: libpq's ``options``, for example ``-c statement_timeout=5min``; added behind the connection's
        :raises LakebaseSettingsError: when the endpoint is malformed
        """
        changed = self
        if endpoint and endpoint != self.endpoint:
            changed = replace(changed, endpoint=_endpoint(self.conn_id, "endpoint", endpoint), pg_host=None)
        if database:
            changed = replace(changed, database=database)
        if options:
            merged = " ".join(filter(None, [self.libpq.get("options"), options]))
            changed = replace(changed, libpq=MappingProxyType({**self.libpq, "options": merged}))
        return changed


def read_settings(
    conn_id: str,
    *,
    host: str | None,
    login: str | None,
    password: str | None,
    schema: str | None,
    port: int | str | None,
    extra: Mapping[str, Any],
    endpoint: str | None = None,
) -> LakebaseSettings:
    """Check the fields of an Airflow connection and return them as settings.

    Values may be strings, as in a connection given as a URI: numbers are read from them. None and the empty string
    count as absent, as Airflow's form saves fields that were left alone.

    :param conn_id: Airflow connection id
    :param host: workspace URL
    :param login: the service principal's client ID
    :param password: its OAuth secret
    :param schema: database
    :param port: Postgres port
    :param extra: the connection's extra fields
    :param endpoint: endpoint named by the hook or operator, where the connection need not name one
    :raises LakebaseSettingsError: for a field that is missing, wrong or unknown; the message names it
    """
    given = {name: value for name, value in extra.items() if value is not None and value != ""}
    _refuse_reserved(conn_id, given)
    known = {name: read(conn_id, name, given[name]) for name, read in _EXTRA_FIELDS.items() if name in given}
    others = set(given) - set(_EXTRA_FIELDS) - DBAPI_HOOK_EXTRAS
    libpq = {name: _text(conn_id, name, given[name]) for name in sorted(others)}
    chosen_endpoint = _endpoint(conn_id, "endpoint", endpoint) if endpoint else known.pop("endpoint", None)
    known.pop("endpoint", None)
    if chosen_endpoint is None:
        raise _wrong(
            conn_id,
            "endpoint",
            "is missing",
            f"Name it, as {ENDPOINT_SHAPE}, in the connection's extra, or on the hook or operator.",
        )
    client_id = _required(conn_id, "Login", login, "Enter the service principal's client ID.").strip()
    return LakebaseSettings(
        conn_id=conn_id,
        host=_workspace_url(conn_id, _required(conn_id, "Host", host, "Enter the workspace URL, https://….")),
        client_id=client_id,
        client_secret=_required(conn_id, "Password", password, "Enter the service principal's OAuth secret."),
        endpoint=chosen_endpoint,
        database=schema or DEFAULT_DATABASE,
        port=_whole_number(1, 65535)(conn_id, "Port", port) if port else DEFAULT_PORT,
        libpq=MappingProxyType(libpq),
        **{"user": client_id, **known},
    )


def unknown_field(conn_id: str, name: str, known: Iterable[str]) -> LakebaseSettingsError:
    """Return the error for a field nobody knows, with the nearest known one.

    :param conn_id: Airflow connection id
    :param name: the field
    :param known: names to compare with, beside the provider's own
    """
    near = get_close_matches(name, {*_EXTRA_FIELDS, *DBAPI_HOOK_EXTRAS, *known} - RESERVED_LIBPQ_KEYWORDS, n=1)
    hint = f"Did you mean '{near[0]}'?" if near else "Remove it, or see the connection's fields in the documentation."
    return _wrong(conn_id, name, "is unknown", hint)


def _wrong(conn_id: str, name: str, what: str, remedy: str) -> LakebaseSettingsError:
    return LakebaseSettingsError(f"Field '{name}' {what}", where=f"connection '{conn_id}'", remedy=remedy)


def _required(conn_id: str, name: str, value: str | None, remedy: str) -> str:
    if not value or not value.strip():
        raise _wrong(conn_id, name, "is missing", remedy)
    return value


def _refuse_reserved(conn_id: str, given: Mapping[str, Any]) -> None:
    for name in sorted(RESERVED_LIBPQ_KEYWORDS & set(given)):
        own = {"dbname": "the field Schema", "port": "the field Port", "host": "the extra 'pg_host'"}.get(name)
        raise _wrong(
            conn_id, name, "is not for the extra", f"Use {own}." if own else "The provider sets it; remove it."
        )


def _workspace_url(conn_id: str, value: str) -> str:
    text = value.strip()
    url = urlsplit(text if "://" in text else f"https://{text}")
    if url.path.strip("/") or url.query or url.fragment or url.username or url.password:
        raise _wrong(
            conn_id,
            "Host",
            "holds more than the workspace's address",
            "Give scheme and host only, as https://my-workspace.cloud.databricks.com.",
        )
    if url.scheme == "http" and url.hostname in _LOOPBACK:
        return f"http://{url.netloc}"
    if url.scheme != "https" or not url.hostname or re.search(r"\s", url.netloc):
        raise _wrong(
            conn_id,
            "Host",
            "is not an https address",
            "Enter the workspace URL, as https://my-workspace.cloud.databricks.com.",
        )
    return f"https://{url.netloc}"


def _endpoint(conn_id: str, name: str, value: Any) -> str:
    if not isinstance(value, str) or not _ENDPOINT.fullmatch(value):
        raise _wrong(
            conn_id,
            name,
            f"is malformed: {value!r}",
            f"Write {ENDPOINT_SHAPE}, each name in lower-case letters, digits and hyphens.",
        )
    return value


def _pg_host(conn_id: str, name: str, value: Any) -> str:
    host = _text(conn_id, name, value)
    if "/" in host or ":" in host or "," in host:
        remedy = "Give the endpoint's host alone; the port is the field Port."
        raise _wrong(conn_id, name, f"is not one host name: {host!r}", remedy)
    if host.split(".")[0].endswith("-pooler"):
        raise _wrong(
            conn_id,
            name,
            "is a pooled host, which does not accept OAuth credentials",
            "Use the direct host: the same name without '-pooler'.",
        )
    return host


def _sslmode(conn_id: str, name: str, value: Any) -> str:
    if value not in SSLMODES:
        raise _wrong(
            conn_id,
            name,
            f"is {value!r}, which Lakebase does not accept or which would send the credential in the clear",
            f"Choose one of {', '.join(SSLMODES)}.",
        )
    return str(value)


def _text(conn_id: str, name: str, value: Any) -> str:
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise _wrong(conn_id, name, f"holds a {type(value).__name__}", "Give a string or a number.")
    return str(value)


def _number(conn_id: str, name: str, value: Any) -> float:
    text = _text(conn_id, name, value)
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not 0 < number < float("inf"):
        raise _wrong(conn_id, name, f"is not a positive number: {value!r}", "Give seconds.")
    return number


def _whole_number(least: int, most: int) -> Callable[[str, str, Any], int]:
    def read(conn_id: str, name: str, value: Any) -> int:
        text = _text(conn_id, name, value).strip()
        number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1
        if not least <= number <= most:
            raise _wrong(conn_id, name, f"is {value!r}", f"Give a whole number from {least} to {most}.")
        return number

    return read


_EXTRA_FIELDS: Mapping[str, Callable[[str, str, Any], Any]] = {
    "endpoint": _endpoint,
    "pg_host": _pg_host,
    "user": _text,
    "sslmode": _sslmode,
    "sslrootcert": _text,
    "wake_timeout": _number,
    "credential_ttl": _whole_number(300, 3600),
}
"""The provider's own extras and how each is read."""
