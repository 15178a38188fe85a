"""The environment variables with which psql, pg_dump, pg_restore and dbt open a session.

Variables: https://www.postgresql.org/docs/current/libpq-envars.html
"""

from __future__ import annotations

from psycopg.pq import Conninfo

from airflow_provider_lakebase.core.connection.settings import LakebaseSettings, SessionAddress
from airflow_provider_lakebase.core.session.libpq import libpq_keywords


def libpq_environment(
    settings: LakebaseSettings, address: SessionAddress, password: str, application_name: str
) -> dict[str, str]:
    """Return ``PGHOST … PGPASSWORD``, for the environment of a program.

    :param settings: database, TLS and libpq keywords
    :param address: host and role
    :param password: a credential; it opens sessions until it expires
    :param application_name: name shown in ``pg_stat_activity``
    :raises LakebaseSettingsError: for a keyword that libpq does not know, or when PGSERVICE is set
    """
    keywords = libpq_keywords(settings, application_name)
    # Empty ones stay, so that they override the variables of the environment.
    variables = {option.keyword.decode(): option.envvar.decode() for option in Conninfo.get_defaults() if option.envvar}
    return {
        **{variables[name]: value for name, value in keywords.items() if name in variables},
        "PGHOST": address.host,
        "PGUSER": address.user,
        "PGPASSWORD": password,
    }
