"""The SQL behind roles and databases of the API. It runs through ``Clusters``, as the superuser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, LiteralString

from airflow_provider_lakebase.emulator.model.errors import refused

if TYPE_CHECKING:
    from airflow_provider_lakebase.emulator.model.data_plane import Clusters

SUPERUSER = "databricks_superuser"
ADMINISTRATION = "postgres"
ATTRIBUTES = ("createdb", "createrole", "bypassrls")

_ROLES = """
SELECT r.rolname, s.label, r.rolcreatedb, r.rolcreaterole, r.rolbypassrls,
       EXISTS (SELECT FROM pg_auth_members m WHERE m.member = r.oid AND m.roleid = 'databricks_superuser'::regrole)
FROM pg_roles r
LEFT JOIN pg_shseclabel s ON s.objoid = r.oid AND s.classoid = 'pg_authid'::regclass AND s.provider = 'databricks_auth'
WHERE r.rolcanlogin AND NOT r.rolsuper
ORDER BY r.oid
"""
_DATABASES = """
SELECT d.datname, r.rolname FROM pg_database d JOIN pg_roles r ON r.oid = d.datdba
WHERE NOT d.datistemplate AND d.datname <> 'postgres' ORDER BY d.oid
"""
# One statement, so that nobody sees the role of an identity without its label.
_CREATE_LABELLED: LiteralString = """
DO $do$
BEGIN
    CREATE ROLE {name} LOGIN;
    INSERT INTO pg_shseclabel (objoid, classoid, provider, label)
    SELECT oid, 'pg_authid'::regclass, 'databricks_auth', {label} FROM pg_roles WHERE rolname = {text};
END
$do$
"""


@dataclass(frozen=True)
class PostgresRole:
    """A role as PostgreSQL has it. ``label`` is that of its identity, or None."""

    name: str
    label: str | None
    attributes: dict[str, bool]
    is_superuser: bool


class Statements:
    """Runs statements in one cluster; raises ``ApiError`` with PostgreSQL's message if one fails."""

    def __init__(self, clusters: Clusters, cluster: str) -> None:
        self._clusters = clusters
        self._cluster = cluster

    # -- roles

    def roles(self) -> list[PostgresRole]:
        """Return the roles that can log in, but for the superuser."""
        return [
            PostgresRole(name, label, dict(zip(ATTRIBUTES, flags, strict=True)), is_superuser)
            for name, label, *flags, is_superuser in self._clusters.execute(self._cluster, ADMINISTRATION, _ROLES)
        ]

    def create_role(self, name: str, *, label: str | None, password: str | None) -> None:
        """Create a role that logs in with a credential of its identity, or with a password."""
        if password is None:
            self._run(_CREATE_LABELLED, name=name, literals={"label": label, "text": name})
        else:
            self._run("CREATE ROLE {name} LOGIN PASSWORD {password}", name=name, literals={"password": password})

    def set_password(self, name: str, password: str) -> None:
        """Change a role's password."""
        self._run("ALTER ROLE {name} PASSWORD {password}", name=name, literals={"password": password})

    def change_role(self, name: str, *, attributes: dict[str, bool], is_superuser: bool | None) -> None:
        """Set attributes, and make the role a member of ``databricks_superuser`` or not; None leaves that."""
        for attribute, wanted in attributes.items():
            self._run(_SWITCHES[attribute, wanted], name=name)
        if is_superuser is not None:
            self._run(_MEMBERSHIP[is_superuser], name=name, superuser=SUPERUSER)

    def drop_role(self, name: str, *, heir: str | None) -> None:
        """Drop a role. With an heir, its objects become the heir's, and its grants go."""
        for database, _ in self.databases() if heir else ():
            self._run("REASSIGN OWNED BY {name} TO {heir}", database=database, name=name, heir=str(heir))
            self._run("DROP OWNED BY {name}", database=database, name=name)
        self._run("DROP ROLE {name}", name=name)

    # -- databases

    def databases(self) -> list[tuple[str, str]]:
        """Return the databases and their owners."""
        return [(name, owner) for name, owner in self._clusters.execute(self._cluster, ADMINISTRATION, _DATABASES)]

    def create_database(self, name: str, owner: str) -> None:
        """Create a database in which identities can log in."""
        self._run("CREATE DATABASE {name} OWNER {owner}", name=name, owner=owner)
        self._run("CREATE EXTENSION databricks_auth", database=name)

    def rename_database(self, name: str, new_name: str) -> None:
        """Rename a database."""
        self._run("ALTER DATABASE {name} RENAME TO {new_name}", name=name, new_name=new_name)

    def give_database(self, name: str, owner: str) -> None:
        """Change a database's owner."""
        self._run("ALTER DATABASE {name} OWNER TO {owner}", name=name, owner=owner)

    def drop_database(self, name: str) -> None:
        """Drop a database and end its sessions."""
        self._run("DROP DATABASE {name} WITH (FORCE)", name=name)

    def _run(
        self,
        statement: LiteralString,
        *,
        database: str = ADMINISTRATION,
        literals: dict[str, Any] | None = None,
        **names: str,
    ) -> None:
        # Imported only now: who imports the emulator does not need a driver.
        from psycopg import Error, sql

        parts: dict[str, sql.Composable] = {key: sql.Identifier(name) for key, name in names.items()}
        parts |= {key: sql.Literal(value) for key, value in (literals or {}).items()}
        try:
            self._clusters.execute(self._cluster, database, sql.SQL(statement).format(**parts))
        except Error as error:
            told = [error.diag.message_primary or str(error), error.diag.message_detail]
            raise refused(": ".join(each for each in told if each)) from None


_SWITCHES: dict[tuple[str, bool], LiteralString] = {
    ("createdb", True): "ALTER ROLE {name} CREATEDB",
    ("createdb", False): "ALTER ROLE {name} NOCREATEDB",
    ("createrole", True): "ALTER ROLE {name} CREATEROLE",
    ("createrole", False): "ALTER ROLE {name} NOCREATEROLE",
    ("bypassrls", True): "ALTER ROLE {name} BYPASSRLS",
    ("bypassrls", False): "ALTER ROLE {name} NOBYPASSRLS",
}
_MEMBERSHIP: dict[bool, LiteralString] = {
    True: "GRANT {superuser} TO {name}",
    False: "REVOKE {superuser} FROM {name}",
}
