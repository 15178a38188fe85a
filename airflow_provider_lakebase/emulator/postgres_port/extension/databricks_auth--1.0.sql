\echo Use "CREATE EXTENSION databricks_auth" to load this file. \quit

-- Creates a role that a Databricks identity can log in as. The emulator writes the workspace's identities into
-- lakebase_identities.json in the data directory; only the owner of this function, a superuser, may read it.
CREATE FUNCTION public.databricks_create_role(identity_name text, identity_type text) RETURNS void
LANGUAGE plpgsql STRICT SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    creator oid := (SELECT oid FROM pg_roles WHERE rolname = session_user);
    identity_id text;
BEGIN
    IF NOT (SELECT rolcreaterole OR rolsuper FROM pg_roles WHERE oid = creator)
       OR NOT has_database_privilege(session_user, current_database(), 'CREATE') THEN
        RAISE insufficient_privilege
            USING MESSAGE = 'permission denied to create role',
                  DETAIL = 'CREATEROLE and the CREATE privilege on the database are needed.';
    END IF;
    IF NOT EXISTS (SELECT FROM pg_shseclabel
                   WHERE classoid = 'pg_authid'::regclass AND objoid = creator AND provider = 'databricks_auth') THEN
        RAISE insufficient_privilege
            USING MESSAGE = 'only a session of a Databricks identity can create roles for Databricks identities';
    END IF;
    IF identity_type NOT IN ('USER', 'SERVICE_PRINCIPAL', 'GROUP') THEN
        RAISE invalid_parameter_value
            USING MESSAGE = format('invalid identity type "%s"', identity_type),
                  HINT = 'Use USER, SERVICE_PRINCIPAL or GROUP.';
    END IF;
    SELECT item ->> 'id' INTO identity_id
    FROM json_array_elements(pg_read_file('lakebase_identities.json')::json) AS item
    WHERE item ->> 'name' = identity_name AND item ->> 'type' = identity_type;
    IF identity_id IS NULL THEN
        RAISE invalid_parameter_value
            USING MESSAGE = format('identity "%s" of type %s was not found in the workspace', identity_name, identity_type);
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = identity_name) THEN
        RAISE duplicate_object
            USING MESSAGE = 'role already exists', DETAIL = format('The role is "%s".', identity_name);
    END IF;
    EXECUTE format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE INHERIT', identity_name);
    INSERT INTO pg_shseclabel (objoid, classoid, provider, label)
    VALUES (format('%I', identity_name)::regrole, 'pg_authid'::regclass, 'databricks_auth',
            format('id=%s,type=%s', identity_id, lower(identity_type)));
    EXECUTE format('GRANT %I TO %I WITH ADMIN TRUE, INHERIT FALSE, SET FALSE', identity_name, session_user);
END
$$;
