"""The libpq keywords of a session.

Keywords: https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import certifi
from psycopg.pq import Conninfo

from airflow_provider_lakebase.core.connection.fields import RESERVED_LIBPQ_KEYWORDS, unknown_field
from airflow_provider_lakebase.core.connection.settings import LakebaseSettings, SessionSettings, is_pooled
from airflow_provider_lakebase.exceptions import LakebaseSettingsError

_DEFAULT_KEYWORDS: Mapping[str, str] = {
    "gssencmode": "disable",
    "keepalives": "1",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "5",
    "tcp_user_timeout": "30000",
}
# No libpq keyword overrides these: PGSERVICE selects another server, the others change how values are read.
_VARIABLES_WITHOUT_KEYWORD = ("PGSERVICE", "PGDATESTYLE", "PGTZ", "PGGEQO")
# libpq accepts no empty value for these, and does not publish its defaults.
_NEUTRAL_KEYWORDS: Mapping[str, str] = {
    "connect_timeout": "0",
    "max_protocol_version": "3.0",
    "min_protocol_version": "3.0",
    "require_auth": "password,scram-sha-256,md5",
    "sslcertmode": "allow",
}
_ZERO_IS_THE_SYSTEMS = ("keepalives_idle", "keepalives_interval", "keepalives_count")
_NO_FILE = os.path.join(os.devnull, "none")
# Without it, a statement of a killed worker runs on until it next writes to the lost session.
_ABANDONED_SESSION_OPTION = "-c client_connection_check_interval=2s"
_READ_ONLY_OPTION = "-c default_transaction_read_only=on"


def libpq_keywords(settings: LakebaseSettings, application_name: str) -> dict[str, str]:
    """Return every libpq keyword of a session but host, user and password.

    ``PG*`` variables of the environment change nothing: each is overridden by libpq's own default.

    :param settings: database, TLS and libpq keywords
    :param application_name: name shown in ``pg_stat_activity``
    :raises LakebaseSettingsError: for a keyword that libpq does not know, or when a variable like PGSERVICE is set
    """
    session = settings.session
    defaults = Conninfo.get_defaults()
    known = {option.keyword.decode() for option in defaults}
    for name in session.libpq:
        if name not in known:
            raise unknown_field(settings.conn_id, name, known - RESERVED_LIBPQ_KEYWORDS)
    for variable in _VARIABLES_WITHOUT_KEYWORD:
        if variable in os.environ:
            raise LakebaseSettingsError(
                f"{variable} is set in the environment, and libpq obeys it for every connection",
                context=settings.context,
                hint=f"Unset {variable} in the worker's environment.",
            )
    overridden = {
        (keyword := option.keyword.decode()): (option.compiled or b"").decode() or _NEUTRAL_KEYWORDS.get(keyword, "")
        for option in defaults
        if option.envvar and option.envvar.decode() in os.environ
    }
    given = {**overridden, **_DEFAULT_KEYWORDS, **session.libpq}
    # libpq documents 0 as the system's default, and passes it to the socket, which refuses it.
    zeros = [name for name in _ZERO_IS_THE_SYSTEMS if given[name].strip() == "0"]
    return {
        **{name: value for name, value in given.items() if name not in zeros},
        **_tls_keywords(session),
        **_options(session),
        "dbname": session.database,
        "port": str(session.port),
        "application_name": application_name,
        # psycopg and the files of a load use it, whatever the default of the role or database is.
        "client_encoding": "UTF8",
    }


def _tls_keywords(session: SessionSettings) -> dict[str, str]:
    # Files in ~/.postgresql, which libpq reads by default, are not part of the connection.
    files = {name: session.libpq.get(name, _NO_FILE) for name in ("sslcert", "sslkey", "sslcrl")}
    keywords = {"sslmode": session.sslmode, "sslrootcert": _NO_FILE, **files}
    if session.sslrootcert:
        keywords["sslrootcert"] = session.sslrootcert
    elif session.sslmode != "require":
        keywords["sslrootcert"] = certifi.where()
    return keywords


def _options(session: SessionSettings) -> dict[str, str]:
    # A pooled host refuses start-up options.
    own = (
        []
        if is_pooled(session.pg_host)
        else [_ABANDONED_SESSION_OPTION, *([_READ_ONLY_OPTION] if session.read_only else [])]
    )
    return {"options": " ".join(filter(None, [*own, session.libpq.get("options", "")]))}
