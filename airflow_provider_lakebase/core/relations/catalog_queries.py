"""Queries for what hangs on a table. They run with an empty ``search_path``, so that all names are qualified."""

from __future__ import annotations

RELATIONS = """
    WITH RECURSIVE found(oid, depth) AS (
        SELECT %(table)s::oid, 0
        UNION
        SELECT r.ev_class, f.depth + 1
        FROM found f
        JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = f.oid
            AND d.classid = 'pg_rewrite'::regclass
        JOIN pg_rewrite r ON r.oid = d.objid AND r.rulename = '_RETURN' AND r.ev_class <> f.oid
    )
    SELECT c.oid, c.relkind::text, nspname::text, relname::text, format('%%I.%%I', nspname, relname),
        pg_get_userbyid(relowner)::text,
        coalesce(c.reloptions, '{}') || coalesce((
            SELECT array_agg('toast.' || option) FROM pg_class t, unnest(t.reloptions) AS option
            WHERE t.oid = c.reltoastrelid
        ), '{}'),
        relispopulated, coalesce(rtrim(pg_get_viewdef(c.oid), ';'), ''), obj_description(c.oid, 'pg_class'),
        relreplident::text
    FROM (SELECT oid, max(depth) AS depth FROM found GROUP BY oid) f
    JOIN pg_class c ON c.oid = f.oid JOIN pg_namespace n ON n.oid = c.relnamespace
    ORDER BY f.depth, c.oid
"""
"""The table, and all views that depend on it, in order of dependency."""

ACL = """
    SELECT attname::text, pg_get_userbyid(grantor)::text,
        CASE grantee WHEN 0 THEN NULL ELSE pg_get_userbyid(grantee)::text END, privilege_type, is_grantable
    FROM (
        SELECT NULL::name AS attname, 0 AS attnum, coalesce(relacl, acldefault('r', relowner)) AS acl
        FROM pg_class WHERE oid = %(oid)s
        UNION ALL
        SELECT attname, attnum, attacl FROM pg_attribute WHERE attrelid = %(oid)s AND attacl IS NOT NULL
            AND NOT attisdropped
    ) AS object, aclexplode(acl) WITH ORDINALITY
    ORDER BY attnum, ordinality
"""
"""The access control lists of a relation and of its columns."""

INDEXES = """
    SELECT nspname::text, relname::text, pg_get_indexdef(indexrelid),
        CASE indrelid WHEN %(table)s::oid THEN '' ELSE pg_get_userbyid(relowner)::text END
    FROM pg_index JOIN pg_class c ON c.oid = indexrelid JOIN pg_namespace n ON n.oid = relnamespace
    WHERE indrelid = ANY (%(oids)s::oid[]) AND NOT (indrelid = %(table)s::oid AND indisprimary)
        AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid AND contype IN ('u', 'x'))
    ORDER BY indexrelid
"""
"""Indexes, without that of the primary key, which the service makes."""

COLUMN_COMMENTS = """
    SELECT format('the comment of column %%I.%%I.%%I', nspname, relname, attname),
        ARRAY[format('COMMENT ON COLUMN %%I.%%I.%%I IS %%L', nspname, relname, attname, description)],
        CASE c.oid WHEN %(table)s::oid THEN '' ELSE pg_get_userbyid(relowner)::text END
    FROM pg_description JOIN pg_attribute ON attrelid = objoid AND attnum = objsubid
    JOIN pg_class c ON c.oid = attrelid JOIN pg_namespace n ON n.oid = relnamespace
    WHERE classoid = 'pg_class'::regclass AND objoid = ANY (%(oids)s::oid[]) AND objsubid > 0
    ORDER BY attrelid, attnum
"""

COLUMN_SETTINGS = """
    SELECT format('the settings of column %%I.%%I.%%I', nspname, relname, attname), ARRAY[
        CASE WHEN attstattarget >= 0 THEN
            format('ALTER TABLE %%I.%%I ALTER COLUMN %%I SET STATISTICS %%s', nspname, relname, attname, attstattarget)
        END,
        CASE WHEN attoptions IS NOT NULL THEN
            format('ALTER TABLE %%I.%%I ALTER COLUMN %%I SET (%%s)', nspname, relname, attname,
                array_to_string(attoptions, ', '))
        END,
        CASE WHEN attstorage <> typstorage THEN
            format('ALTER TABLE %%I.%%I ALTER COLUMN %%I SET STORAGE %%s', nspname, relname, attname,
                CASE attstorage WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL' WHEN 'm' THEN 'MAIN' ELSE 'EXTENDED' END)
        END,
        CASE WHEN attcompression <> '' THEN
            format('ALTER TABLE %%I.%%I ALTER COLUMN %%I SET COMPRESSION %%s', nspname, relname, attname,
                CASE attcompression WHEN 'l' THEN 'lz4' ELSE 'pglz' END)
        END
    ], CASE c.oid WHEN %(table)s::oid THEN '' ELSE pg_get_userbyid(relowner)::text END
    FROM pg_attribute JOIN pg_type t ON t.oid = atttypid
    JOIN pg_class c ON c.oid = attrelid JOIN pg_namespace n ON n.oid = relnamespace
    WHERE attrelid = ANY (%(oids)s::oid[]) AND attnum > 0 AND NOT attisdropped
        AND (attstattarget >= 0 OR attoptions IS NOT NULL OR attstorage <> typstorage OR attcompression <> '')
    ORDER BY attrelid, attnum
"""
"""Statistics targets, options, storage and compression of the columns of the table and of materialized views."""

STATISTICS = """
    SELECT format('statistics %%I.%%I', nspname, stxname), ARRAY[
        pg_get_statisticsobjdef(s.oid),
        CASE WHEN stxstattarget >= 0 THEN
            format('ALTER STATISTICS %%I.%%I SET STATISTICS %%s', nspname, stxname, stxstattarget)
        END,
        CASE WHEN stxowner <> (SELECT oid FROM pg_roles WHERE rolname = current_user) THEN
            format('ALTER STATISTICS %%I.%%I OWNER TO %%I', nspname, stxname, pg_get_userbyid(stxowner))
        END,
        format('COMMENT ON STATISTICS %%I.%%I IS %%L', nspname, stxname, obj_description(s.oid, 'pg_statistic_ext'))
    ], CASE c.oid WHEN %(table)s::oid THEN '' ELSE pg_get_userbyid(relowner)::text END
    FROM pg_statistic_ext s JOIN pg_namespace n ON n.oid = stxnamespace JOIN pg_class c ON c.oid = stxrelid
    WHERE stxrelid = ANY (%(oids)s::oid[]) ORDER BY s.oid
"""

VIEW_DEFAULTS = """
    SELECT format('the default of column %%I.%%I.%%I', nspname, relname, attname), ARRAY[
        format('ALTER VIEW %%I.%%I ALTER COLUMN %%I SET DEFAULT %%s', nspname, relname, attname,
            pg_get_expr(adbin, adrelid))
    ], CASE c.oid WHEN %(table)s::oid THEN '' ELSE pg_get_userbyid(relowner)::text END
    FROM pg_attrdef JOIN pg_attribute ON attrelid = adrelid AND attnum = adnum
    JOIN pg_class c ON c.oid = adrelid JOIN pg_namespace n ON n.oid = relnamespace
    WHERE adrelid = ANY (%(oids)s::oid[]) AND relkind = 'v' ORDER BY adrelid, adnum
"""

TRIGGERS = """
    SELECT format('trigger %%I on %%I.%%I', tgname, nspname, relname), ARRAY[
        pg_get_triggerdef(t.oid),
        CASE tgenabled WHEN 'O' THEN NULL ELSE
            format('ALTER TABLE %%I.%%I %%s TRIGGER %%I', nspname, relname,
                CASE tgenabled WHEN 'D' THEN 'DISABLE' WHEN 'R' THEN 'ENABLE REPLICA' ELSE 'ENABLE ALWAYS' END, tgname)
        END,
        format('COMMENT ON TRIGGER %%I ON %%I.%%I IS %%L', tgname, nspname, relname,
            obj_description(t.oid, 'pg_trigger'))
    ], CASE c.oid WHEN %(table)s::oid THEN '' ELSE pg_get_userbyid(relowner)::text END
    FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid JOIN pg_namespace n ON n.oid = relnamespace
    WHERE tgrelid = ANY (%(oids)s::oid[]) AND NOT tgisinternal ORDER BY t.oid
"""

RULES = """
    SELECT format('rule %%I on %%I.%%I', rulename, nspname, relname), ARRAY[
        pg_get_ruledef(r.oid),
        CASE ev_enabled WHEN 'O' THEN NULL ELSE
            format('ALTER TABLE %%I.%%I %%s RULE %%I', nspname, relname,
                CASE ev_enabled WHEN 'D' THEN 'DISABLE' WHEN 'R' THEN 'ENABLE REPLICA' ELSE 'ENABLE ALWAYS' END,
                rulename)
        END,
        format('COMMENT ON RULE %%I ON %%I.%%I IS %%L', rulename, nspname, relname,
            obj_description(r.oid, 'pg_rewrite'))
    ], CASE c.oid WHEN %(table)s::oid THEN '' ELSE pg_get_userbyid(relowner)::text END
    FROM pg_rewrite r JOIN pg_class c ON c.oid = ev_class JOIN pg_namespace n ON n.oid = relnamespace
    WHERE ev_class = ANY (%(oids)s::oid[]) AND rulename <> '_RETURN' ORDER BY r.oid
"""

CONSTRAINTS = """
    SELECT format('constraint %%I on %%I.%%I', conname, nspname, relname), ARRAY[
        CASE WHEN contype IN ('c', 'u', 'x') THEN
            format('ALTER TABLE %%I.%%I ADD CONSTRAINT %%I %%s', nspname, relname, conname, pg_get_constraintdef(k.oid))
        END,
        format('COMMENT ON CONSTRAINT %%I ON %%I.%%I IS %%L', conname, nspname, relname,
            obj_description(k.oid, 'pg_constraint'))
    ], ''
    FROM pg_constraint k JOIN pg_class c ON c.oid = conrelid JOIN pg_namespace n ON n.oid = relnamespace
    WHERE conrelid = %(table)s::oid
        AND (contype IN ('c', 'u', 'x') OR obj_description(k.oid, 'pg_constraint') IS NOT NULL)
    ORDER BY k.oid
"""

AFTER_INDEXES = """
    WITH used AS (
        SELECT i.*, n.nspname, c.relname, nt.nspname AS on_schema, t.relname AS on_table,
            obj_description(indexrelid, 'pg_class') AS comment,
            CASE t.relkind WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE 'TABLE' END AS kind,
            CASE t.oid WHEN %(table)s::oid THEN '' ELSE pg_get_userbyid(t.relowner)::text END AS role
        FROM pg_index i JOIN pg_class c ON c.oid = indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_class t ON t.oid = indrelid JOIN pg_namespace nt ON nt.oid = t.relnamespace
        WHERE indrelid = ANY (%(oids)s::oid[])
    )
    SELECT format('the comment of index %%I.%%I', nspname, relname),
        ARRAY[format('COMMENT ON INDEX %%I.%%I IS %%L', nspname, relname, comment)], role
    FROM used WHERE comment IS NOT NULL
    UNION ALL
    SELECT format('the replica identity of %%I.%%I', on_schema, on_table),
        ARRAY[format('ALTER TABLE %%I.%%I REPLICA IDENTITY USING INDEX %%I', on_schema, on_table, relname)], role
    FROM used WHERE indisreplident
    UNION ALL
    SELECT format('the clustering of %%I.%%I', on_schema, on_table),
        ARRAY[format('ALTER %%s %%I.%%I CLUSTER ON %%I', kind, on_schema, on_table, relname)], role
    FROM used WHERE indisclustered
    UNION ALL
    SELECT format('the statistics of index %%I.%%I', nspname, relname),
        array_agg(format('ALTER INDEX %%I.%%I ALTER COLUMN %%s SET STATISTICS %%s', nspname, relname, attnum,
            attstattarget)), role
    FROM used JOIN pg_attribute ON attrelid = indexrelid WHERE attstattarget >= 0 GROUP BY nspname, relname, role
"""
"""What belongs to an index, or names one."""

OBSTACLES = """
    SELECT DISTINCT pg_describe_object(d.classid, d.objid, d.objsubid)
    FROM pg_depend d
    WHERE ((d.refclassid = 'pg_class'::regclass AND d.refobjid = ANY (%(oids)s::oid[]))
        OR (d.refclassid = 'pg_type'::regclass AND d.refobjid IN (
            SELECT unnest(ARRAY[t.oid, t.typarray]) FROM pg_type t WHERE t.typrelid = ANY (%(oids)s::oid[]))))
    AND NOT CASE d.classid
        WHEN 'pg_class'::regclass THEN EXISTS (
            SELECT FROM pg_class WHERE oid = d.objid AND (relkind IN ('i', 't') OR oid = ANY (%(oids)s::oid[])))
        WHEN 'pg_rewrite'::regclass THEN EXISTS (
            SELECT FROM pg_rewrite WHERE oid = d.objid AND ev_class = ANY (%(oids)s::oid[]))
        WHEN 'pg_type'::regclass THEN EXISTS (
            SELECT FROM pg_type t LEFT JOIN pg_type e ON e.oid = t.typelem
            WHERE t.oid = d.objid AND (t.typrelid = ANY (%(oids)s::oid[]) OR e.typrelid = ANY (%(oids)s::oid[])))
        WHEN 'pg_constraint'::regclass THEN EXISTS (
            SELECT FROM pg_constraint WHERE oid = d.objid AND contype IN ('p', 'n', 'u', 'x', 'c', 't')
                AND conrelid = ANY (%(oids)s::oid[]))
        WHEN 'pg_statistic_ext'::regclass THEN true
        WHEN 'pg_trigger'::regclass THEN EXISTS (
            SELECT FROM pg_trigger WHERE oid = d.objid AND tgrelid = ANY (%(oids)s::oid[]))
        WHEN 'pg_attrdef'::regclass THEN EXISTS (
            SELECT FROM pg_attrdef JOIN pg_class c ON c.oid = adrelid
            JOIN pg_attribute ON attrelid = adrelid AND attnum = adnum
            WHERE pg_attrdef.oid = d.objid AND adrelid = ANY (%(oids)s::oid[])
                AND (relkind = 'v' OR attgenerated <> ''))
        ELSE false
    END
    UNION
    SELECT format('the security label of %%s', pg_describe_object(classoid, objoid, objsubid))
    FROM pg_seclabel WHERE classoid = 'pg_class'::regclass AND objoid = ANY (%(oids)s::oid[])
    UNION
    SELECT format('row security of %%s', oid::regclass) FROM pg_class
    WHERE oid = ANY (%(oids)s::oid[]) AND (relrowsecurity OR relforcerowsecurity)
    UNION
    SELECT format('the inheritance of %%s from %%s', inhrelid::regclass, inhparent::regclass)
    FROM pg_inherits WHERE inhrelid = ANY (%(oids)s::oid[])
    UNION
    SELECT format('%%s, which belongs to an extension', objid::regclass) FROM pg_depend
    WHERE classid = 'pg_class'::regclass AND objid = ANY (%(oids)s::oid[]) AND deptype = 'e'
    ORDER BY 1
"""
"""What depends on the relations and is of a kind that is not put back."""

FORBIDDEN = """
    SELECT format('%%s, which %%I may not drop', pg_describe_object('pg_class'::regclass, c.oid, 0), current_user)
    FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE c.oid = %(table)s::oid AND NOT pg_has_role(relowner, 'USAGE') AND NOT pg_has_role(nspowner, 'USAGE')
    UNION
    SELECT format('the indexes and statistics of %%s, since %%I may not create in schema %%I',
        pg_describe_object('pg_class'::regclass, c.oid, 0), current_user, nspname)
    FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE c.oid = %(table)s::oid AND NOT has_schema_privilege(n.oid, 'CREATE') AND (
        EXISTS (SELECT FROM pg_index WHERE indrelid = c.oid AND NOT indisprimary)
        OR EXISTS (SELECT FROM pg_statistic_ext WHERE stxrelid = c.oid))
    UNION
    SELECT format('%%s, since %%I may not act as its owner %%I', pg_describe_object('pg_class'::regclass, oid, 0),
        current_user, pg_get_userbyid(relowner))
    FROM pg_class
    WHERE oid = ANY (%(oids)s::oid[]) AND oid <> %(table)s::oid AND NOT pg_has_role(relowner, 'SET')
    UNION
    SELECT format('%%s, since its owner %%I may not create it in schema %%I',
        pg_describe_object('pg_class'::regclass, c.oid, 0), pg_get_userbyid(relowner), nspname)
    FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE c.oid = ANY (%(oids)s::oid[]) AND c.oid <> %(table)s::oid
        AND NOT has_schema_privilege(relowner, n.oid, 'CREATE')
    UNION
    SELECT format('%%s, which %%I may not give to its owner %%I',
        pg_describe_object('pg_statistic_ext'::regclass, oid, 0), current_user, pg_get_userbyid(stxowner))
    FROM pg_statistic_ext
    WHERE stxrelid = ANY (%(oids)s::oid[])
        AND stxowner <> (SELECT oid FROM pg_roles WHERE rolname = current_user)
        AND NOT pg_has_role(stxowner, 'SET')
    UNION
    SELECT format('%%s, which %%I may not create', pg_describe_object('pg_trigger'::regclass, t.oid, 0), current_user)
    FROM pg_trigger t
    WHERE tgrelid = %(table)s::oid AND NOT tgisinternal AND NOT has_table_privilege(tgrelid, 'TRIGGER')
    UNION
    SELECT format('the grants that %%I has made on %%s, since %%I may not act as that role', pg_get_userbyid(grantor),
        pg_describe_object('pg_class'::regclass, object.oid, 0), current_user)
    FROM (
        SELECT oid, relowner, relacl AS acl FROM pg_class WHERE oid = ANY (%(oids)s::oid[])
        UNION ALL
        SELECT c.oid, relowner, attacl FROM pg_class c JOIN pg_attribute ON attrelid = c.oid
        WHERE c.oid = ANY (%(oids)s::oid[]) AND NOT attisdropped
    ) AS object, aclexplode(acl)
    WHERE grantor <> relowner AND grantor <> (SELECT oid FROM pg_roles WHERE rolname = current_user)
        AND NOT pg_has_role(grantor, 'SET')
    ORDER BY 1
"""
"""What the role could not drop or put back."""

MISSING_COLUMNS = """
    SELECT DISTINCT format('%%s needs column %%I, which the source does not have', dependent, attname)
    FROM (
        SELECT refobjsubid, CASE classid
            WHEN 'pg_rewrite'::regclass THEN (
                SELECT pg_describe_object('pg_class'::regclass, ev_class, 0) FROM pg_rewrite WHERE oid = objid)
            ELSE pg_describe_object(classid, objid, 0)
        END AS dependent
        FROM pg_depend
        WHERE refclassid = 'pg_class'::regclass AND refobjid = %(table)s::oid AND refobjsubid > 0
            AND classid <> 'pg_attrdef'::regclass
            AND NOT (classid = 'pg_class'::regclass AND EXISTS (
                SELECT FROM pg_index WHERE indexrelid = objid AND indisprimary))
            AND NOT (classid = 'pg_constraint'::regclass AND EXISTS (
                SELECT FROM pg_constraint WHERE pg_constraint.oid = objid AND contype IN ('p', 'n')))
        UNION ALL
        SELECT objsubid, 'a comment' FROM pg_description
        WHERE classoid = 'pg_class'::regclass AND objoid = %(table)s::oid AND objsubid > 0
        UNION ALL
        SELECT attnum, 'a grant' FROM pg_attribute WHERE attrelid = %(table)s::oid AND attacl IS NOT NULL
    ) AS used JOIN pg_attribute ON attrelid = %(table)s::oid AND attnum = refobjsubid
    WHERE NOT attisdropped AND lower(attname) <> ALL (%(columns)s)
    ORDER BY 1
"""
"""What needs a column that the new table will not have."""

REFERENCES = """
    SELECT DISTINCT pg_describe_object(d.classid, d.objid, d.objsubid)
    FROM pg_depend d
    WHERE d.deptype = 'n' AND ((d.refclassid = 'pg_class'::regclass AND d.refobjid = %(table)s::oid)
        OR (d.refclassid = 'pg_type'::regclass AND d.refobjid IN (
            SELECT unnest(ARRAY[t.oid, t.typarray]) FROM pg_type t WHERE t.typrelid = %(table)s::oid)))
    AND d.classid NOT IN ('pg_attrdef'::regclass, 'pg_policy'::regclass, 'pg_trigger'::regclass)
    AND NOT (d.classid = 'pg_class'::regclass AND EXISTS (SELECT FROM pg_index WHERE indexrelid = d.objid))
    AND NOT (d.classid = 'pg_rewrite'::regclass AND EXISTS (
        SELECT FROM pg_rewrite WHERE oid = d.objid AND (ev_class = %(table)s::oid OR rulename = '_RETURN')))
    AND NOT (d.classid = 'pg_constraint'::regclass AND EXISTS (
        SELECT FROM pg_constraint WHERE oid = d.objid AND conrelid = %(table)s::oid))
    ORDER BY 1
"""
"""What stops the table from being dropped, besides views."""

TABLE = """
    SELECT c.oid, pg_get_userbyid(relowner)::text, ARRAY(
        SELECT attname::text FROM pg_index i, unnest(i.indkey) WITH ORDINALITY AS key(attnum, place)
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = key.attnum
        WHERE i.indrelid = c.oid AND indisprimary ORDER BY place
    )
    FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = %s AND relname = %s
"""
"""A relation by name."""

INDEX = """
    SELECT indisvalid, indrelid, pg_get_indexdef(indexrelid)
    FROM pg_index JOIN pg_class c ON c.oid = indexrelid JOIN pg_namespace n ON n.oid = relnamespace
    WHERE nspname = %s AND relname = %s
"""
"""An index by name."""

NAMESAKE = """
    SELECT indrelid, coalesce(indisprimary, false)
    FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace LEFT JOIN pg_index ON indexrelid = c.oid
    WHERE nspname = %s AND relname = %s
"""
"""A relation by name: the table that it is an index on, NULL if it is no index; whether the primary key uses it."""
