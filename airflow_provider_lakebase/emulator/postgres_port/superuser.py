"""What the documentation gives ``databricks_superuser`` and the owner of a project.

Lakebase grants the rights on others' objects by event triggers, whose names and tags are those below. So what they miss
is missed here too: a sequence that a column of type ``serial`` brings along, and the table of a ``SELECT INTO``.
"""

from __future__ import annotations

# For the cluster. Attributes are not inherited, so the owner has them too.
ROLES = (
    "CREATE ROLE databricks_superuser NOLOGIN CREATEDB CREATEROLE BYPASSRLS",
    "GRANT pg_read_all_data, pg_write_all_data TO databricks_superuser",
    "GRANT pg_monitor TO databricks_superuser WITH ADMIN OPTION",
    "CREATE ROLE {owner} LOGIN CREATEDB CREATEROLE REPLICATION BYPASSRLS IN ROLE databricks_superuser",
    "ALTER DATABASE {database} OWNER TO {owner}",
    "GRANT ALL ON DATABASE {database} TO databricks_superuser WITH GRANT OPTION",
)

_TRIGGER = """
CREATE FUNCTION public.{function}() RETURNS event_trigger LANGUAGE plpgsql AS $$
DECLARE
    created pg_catalog.text;
BEGIN
    FOR created IN
        SELECT object_identity FROM pg_catalog.pg_event_trigger_ddl_commands()
        WHERE object_type IN ({types}) AND schema_name IS DISTINCT FROM 'pg_temp'
    LOOP
        EXECUTE 'GRANT ALL ON {kind} ' || created || ' TO databricks_superuser WITH GRANT OPTION';
    END LOOP;
EXCEPTION
    -- The creator made it another role's.
    WHEN insufficient_privilege THEN NULL;
END
$$;
CREATE EVENT TRIGGER {trigger} ON ddl_command_end WHEN TAG IN ({tags}) EXECUTE FUNCTION public.{function}();
"""

#: For each database, and for the template of those that will be created.
DATABASE = (
    "GRANT ALL ON SCHEMA public TO databricks_superuser WITH GRANT OPTION;"
    # Extensions create their functions as this role. Some of these are for superusers: pg_stat_statements_reset().
    "ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO databricks_superuser;"
    + _TRIGGER.format(
        trigger="on_create_schema",
        function="grant_usage_on_new_schema",
        tags="'CREATE SCHEMA'",
        types="'schema'",
        kind="SCHEMA",
    )
    + _TRIGGER.format(
        trigger="on_create_sequence",
        function="grant_all_on_new_sequences",
        tags="'CREATE SEQUENCE'",
        types="'sequence'",
        kind="SEQUENCE",
    )
    + _TRIGGER.format(
        trigger="on_create_table_or_view",
        function="grant_select_on_new_objects",
        tags="'CREATE TABLE', 'CREATE TABLE AS', 'CREATE VIEW', 'CREATE MATERIALIZED VIEW'",
        types="'table', 'view', 'materialized view'",
        kind="TABLE",
    )
)
