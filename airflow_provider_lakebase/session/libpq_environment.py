"""The environment in which libpq's own programs and dbt open a session: psql, pg_dump, pg_restore."""

from __future__ import annotations

from airflow_provider_lakebase.session.connect import libpq_keywords
from airflow_provider_lakebase.settings import LakebaseSettings, Location

VARIABLES = {
    "application_name": "PGAPPNAME",
    "dbname": "PGDATABASE",
    "gssencmode": "PGGSSENCMODE",
    "hostaddr": "PGHOSTADDR",
    "options": "PGOPTIONS",
    "port": "PGPORT",
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
}
"""libpq's keywords and their variables, https://www.postgresql.org/docs/current/libpq-envars.html"""


def libpq_environment(
    settings: LakebaseSettings, location: Location, password: str, application_name: str
) -> dict[str, str]:
    """Return ``PGHOST … PGPASSWORD``, to be added to the environment of a program.

    :param settings: database, TLS and libpq keywords
    :param location: host and role
    :param password: a credential; it opens sessions until it expires
    :param application_name: what ``pg_stat_activity`` shows
    :raises LakebaseSettingsError: for a keyword that libpq does not know, or when PGSERVICE is set
    """
    keywords = libpq_keywords(settings, application_name)
    return {
        **{variable: keywords[name] for name, variable in VARIABLES.items() if keywords.get(name)},
        "PGHOST": location.host,
        "PGUSER": location.user,
        "PGPASSWORD": password,
    }
