"""The questions to the system catalogues: of each kind one query that gives (identity, definition).

They work from PostgreSQL 14 on. Rows of objects that come with PostgreSQL are left out, but for grants on them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Question:
    """`since` is the first version that can be asked, as `150000`."""

    sql: str
    since: int = 0


OPTIONAL = frozenset({"role password"})
"""Only a superuser may see them; without one they are not looked at, and that is no trouble."""

USER_SCHEMA = "n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp_|toast_temp_)'"
_RELATIONS = f"pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace AND {USER_SCHEMA}"
_NAME = "format('%I.%I', n.nspname, c.relname)"


def _acl(column: str) -> str:
    listed = """string_agg(a::text, ' ' ORDER BY a::text COLLATE "C")"""
    return f"(SELECT coalesce({listed}, 'nobody') FROM unnest({column}) a)"


def _not_of_extension(catalogue: str, oid: str) -> str:
    """What an extension brings is as its version says."""
    return (
        f"NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = '{catalogue}'::regclass AND e.objid = {oid} "
        "AND e.deptype = 'e')"
    )


def _grants(kind: str, identity: str, acl: str, source: str) -> str:
    return f"SELECT '{kind} ' || {identity}, {_acl(acl)} FROM {source} WHERE {acl} IS NOT NULL"


_GRANTS = "\nUNION ALL ".join(
    (
        _grants("relation", "c.oid::regclass::text", "c.relacl", "pg_class c"),
        _grants("column", "format('%s.%I', a.attrelid::regclass, a.attname)", "a.attacl", "pg_attribute a"),
        _grants("function", "p.oid::regprocedure::text", "p.proacl", "pg_proc p"),
        _grants("schema", "quote_ident(n.nspname)", "n.nspacl", "pg_namespace n"),
        _grants("type", "t.oid::regtype::text", "t.typacl", "pg_type t"),
        _grants("language", "quote_ident(l.lanname)", "l.lanacl", "pg_language l"),
        _grants("foreign-data wrapper", "quote_ident(w.fdwname)", "w.fdwacl", "pg_foreign_data_wrapper w"),
        _grants("foreign server", "quote_ident(s.srvname)", "s.srvacl", "pg_foreign_server s"),
        _grants("large object", "o.oid::text", "o.lomacl", "pg_largeobject_metadata o"),
    )
)

_WHOLE_CATALOGUES = {
    "pg_aggregate": "aggfnoid::oid", "pg_am": "oid", "pg_amop": "oid", "pg_amproc": "oid", "pg_cast": "oid",
    "pg_conversion": "oid", "pg_depend": "objid", "pg_description": "objoid", "pg_inherits": "inhrelid",
    "pg_opclass": "oid", "pg_operator": "oid", "pg_opfamily": "oid", "pg_range": "rngtypid", "pg_seclabel": "objoid",
    "pg_transform": "oid", "pg_ts_config": "oid", "pg_ts_config_map": "mapcfg", "pg_ts_dict": "oid",
    "pg_ts_parser": "oid", "pg_ts_template": "oid",
}  # fmt: skip
"""Compared as sums over their rows, each by the column of the oid: what comes with PostgreSQL has a small one."""
_FIRST_OF_USERS = 16384

DATABASE: dict[str, Question] = {
    "schema": Question(
        "SELECT quote_ident(n.nspname), 'owner ' || pg_get_userbyid(n.nspowner) FROM pg_namespace n "
        f"WHERE {USER_SCHEMA}"
    ),
    "extension": Question(
        "SELECT quote_ident(extname), format('%s in %s', extversion, extnamespace::regnamespace) FROM pg_extension"
    ),
    "relation": Question(
        f"""
        SELECT {_NAME}, concat_ws(' ',
            CASE c.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'partitioned table' WHEN 'v' THEN 'view'
                 WHEN 'S' THEN 'sequence' WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table'
                 WHEN 'c' THEN 'composite type' END,
            'owner', pg_get_userbyid(c.relowner), CASE c.relpersistence WHEN 'u' THEN 'unlogged' END,
            CASE WHEN c.relrowsecurity THEN 'row security' END,
            CASE WHEN c.relforcerowsecurity THEN 'forced row security' END,
            CASE WHEN c.relkind = 'm' AND NOT c.relispopulated THEN 'not populated' END,
            'replica identity ' || nullif(c.relreplident, 'd')::text, 'using ' || m.amname,
            'tablespace ' || t.spcname, 'with ' || c.reloptions::text, 'of ' || nullif(c.reloftype, 0)::regtype::text,
            'partition by ' || pg_get_partkeydef(c.oid), pg_get_expr(c.relpartbound, c.oid),
            'inherits ' || (SELECT string_agg(i.inhparent::regclass::text, ', ' ORDER BY i.inhseqno)
                            FROM pg_inherits i WHERE i.inhrelid = c.oid))
        FROM {_RELATIONS} LEFT JOIN pg_tablespace t ON t.oid = c.reltablespace
        LEFT JOIN pg_am m ON m.oid = c.relam AND c.relkind <> 'p'
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'c') AND c.relpersistence <> 't'
        """
    ),
    "column": Question(
        f"""
        SELECT format('%I.%I.%I', n.nspname, c.relname, a.attname), concat_ws(' ', format_type(a.atttypid, a.atttypmod),
            CASE WHEN a.attnotnull THEN 'not null' END,
            CASE a.attidentity WHEN 'a' THEN 'identity always' WHEN 'd' THEN 'identity by default' END,
            CASE a.attgenerated WHEN 's' THEN 'generated stored' WHEN 'v' THEN 'generated virtual' END,
            'default ' || pg_get_expr(d.adbin, d.adrelid),
            CASE WHEN a.attcollation <> t.typcollation THEN 'collate ' || a.attcollation::regcollation::text END,
            CASE WHEN a.attstorage <> t.typstorage THEN 'storage ' || a.attstorage::text END,
            'compression ' || nullif(a.attcompression::text, ''), 'with ' || a.attoptions::text)
        FROM {_RELATIONS} JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'c') AND c.relpersistence <> 't'
        """
    ),
    "constraint": Question(
        f"""
        SELECT format('%I on %s', k.conname, CASE WHEN k.conrelid <> 0 THEN k.conrelid::regclass::text
                                                  ELSE k.contypid::regtype::text END),
               concat_ws(' ', pg_get_constraintdef(k.oid), CASE WHEN NOT k.convalidated THEN 'not validated' END)
        FROM pg_constraint k JOIN pg_namespace n ON n.oid = k.connamespace AND {USER_SCHEMA}
        """
    ),
    "index": Question(
        f"""
        SELECT {_NAME}, concat_ws(' ', pg_get_indexdef(i.indexrelid), CASE WHEN NOT i.indisvalid THEN 'invalid' END,
            CASE WHEN NOT i.indisready THEN 'not ready' END, CASE WHEN i.indisprimary THEN 'primary' END,
            CASE WHEN i.indisclustered THEN 'clustered' END, CASE WHEN i.indisreplident THEN 'replica identity' END,
            'tablespace ' || t.spcname)
        FROM pg_index i JOIN {_RELATIONS} ON c.oid = i.indexrelid LEFT JOIN pg_tablespace t ON t.oid = c.reltablespace
        WHERE c.relpersistence <> 't'
        """
    ),
    "view": Question(f"SELECT {_NAME}, pg_get_viewdef(c.oid) FROM {_RELATIONS} WHERE c.relkind IN ('v', 'm')"),
    "sequence": Question(
        f"""
        SELECT {_NAME}, format('%s start %s increment %s from %s to %s cache %s%s', s.seqtypid::regtype, s.seqstart,
            s.seqincrement, s.seqmin, s.seqmax, s.seqcache, CASE WHEN s.seqcycle THEN ' cycle' END)
        FROM pg_sequence s JOIN {_RELATIONS} ON c.oid = s.seqrelid WHERE c.relpersistence <> 't'
        """
    ),
    "function": Question(
        f"""
        SELECT p.oid::regprocedure::text, concat_ws(' ', 'owner', pg_get_userbyid(p.proowner), CASE WHEN p.prokind = 'a'
            THEN 'aggregate returning ' || p.prorettype::regtype::text ELSE pg_get_functiondef(p.oid) END)
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace AND {USER_SCHEMA}
        WHERE {_not_of_extension("pg_proc", "p.oid")}
        """
    ),
    "type": Question(
        f"""
        SELECT t.oid::regtype::text, concat_ws(' ', t.typtype, 'owner', pg_get_userbyid(t.typowner),
            CASE WHEN t.typnotnull THEN 'not null' END, 'default ' || t.typdefault,
            'over ' || format_type(nullif(t.typbasetype, 0), t.typtypmod),
            (SELECT string_agg(quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder) FROM pg_enum e
             WHERE e.enumtypid = t.oid))
        FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace AND {USER_SCHEMA}
        WHERE t.typtype <> 'c' AND t.typcategory <> 'A' AND {_not_of_extension("pg_type", "t.oid")}
        """
    ),
    "trigger": Question(
        """
        SELECT format('%I on %s', t.tgname, t.tgrelid::regclass), pg_get_triggerdef(t.oid) || ' ' || t.tgenabled::text
        FROM pg_trigger t WHERE NOT t.tgisinternal
        """
    ),
    "event trigger": Question(
        "SELECT quote_ident(evtname), concat_ws(' ', evtevent, evtfoid::regproc, evtenabled, evttags::text, 'owner', "
        "pg_get_userbyid(evtowner)) FROM pg_event_trigger"
    ),
    "rule": Question(
        f"""
        SELECT format('%I on %s', r.rulename, r.ev_class::regclass), pg_get_ruledef(r.oid) || ' ' || r.ev_enabled::text
        FROM pg_rewrite r JOIN {_RELATIONS} ON c.oid = r.ev_class WHERE r.rulename <> '_RETURN'
        """
    ),
    "policy": Question(
        """
        SELECT format('%I on %s', p.polname, p.polrelid::regclass), concat_ws(' ',
            CASE WHEN p.polpermissive THEN 'permissive' ELSE 'restrictive' END, 'for', p.polcmd, 'to',
            (SELECT string_agg(CASE r WHEN 0 THEN 'public' ELSE pg_get_userbyid(r)::text END, ', ' ORDER BY r)
             FROM unnest(p.polroles) r),
            'using ' || pg_get_expr(p.polqual, p.polrelid), 'check ' || pg_get_expr(p.polwithcheck, p.polrelid))
        FROM pg_policy p
        """
    ),
    "grant": Question(_GRANTS),
    "default privilege": Question(
        f"""
        SELECT concat_ws(' ', d.defaclobjtype, 'of', pg_get_userbyid(d.defaclrole), 'in ' || quote_ident(n.nspname)),
               {_acl("d.defaclacl")}
        FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace
        """
    ),
    "large object": Question(
        "SELECT 'of ' || pg_get_userbyid(lomowner), count(*) || ' with oids that sum to ' || sum(oid::bigint) "
        "FROM pg_largeobject_metadata GROUP BY lomowner"
    ),
    "publication": Question(
        "SELECT quote_ident(pubname), concat_ws(' ', 'owner', pg_get_userbyid(pubowner), "
        "(to_jsonb(p) - '{oid,pubname,pubowner}'::text[])::text) FROM pg_publication p"
    ),
    "published table": Question(
        "SELECT format('%I.%I in %I', schemaname, tablename, pubname), concat_ws(' ', to_jsonb(v) ->> 'attnames', "
        "'where ' || (to_jsonb(v) ->> 'rowfilter')) FROM pg_publication_tables v"
    ),
    "published schema": Question(
        "SELECT format('%I in %I', n.nspname, p.pubname), 'all its tables' FROM pg_publication_namespace s "
        "JOIN pg_publication p ON p.oid = s.pnpubid JOIN pg_namespace n ON n.oid = s.pnnspid",
        since=15_00_00,
    ),
    "subscription": Question(
        "SELECT quote_ident(subname), concat_ws(' ', 'owner', pg_get_userbyid(subowner), 'to', subpublications::text, "
        "'slot', coalesce(subslotname::text, 'none'), 'binary', subbinary, 'streaming', substream, 'commit', "
        "subsynccommit) FROM pg_subscription "
        "WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())"
    ),
    "foreign-data wrapper": Question(
        "SELECT quote_ident(fdwname), concat_ws(' ', 'owner', pg_get_userbyid(fdwowner), "
        "nullif(fdwhandler, 0)::regproc, nullif(fdwvalidator, 0)::regproc) FROM pg_foreign_data_wrapper"
    ),
    "foreign server": Question(
        "SELECT quote_ident(s.srvname), concat_ws(' ', 'owner', pg_get_userbyid(s.srvowner), 'of', w.fdwname, "
        "s.srvtype, s.srvversion) FROM pg_foreign_server s JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw"
    ),
    "user mapping": Question(
        "SELECT format('%s on %I', CASE umuser WHEN 0 THEN 'public' ELSE pg_get_userbyid(umuser)::text END, srvname), "
        "'' FROM pg_user_mappings"
    ),
    "language": Question(
        "SELECT quote_ident(lanname), concat_ws(' ', 'owner', pg_get_userbyid(lanowner), "
        "CASE WHEN lanpltrusted THEN 'trusted' END) FROM pg_language"
    ),
    "collation": Question(
        f"""
        SELECT format('%I.%I', n.nspname, l.collname), (to_jsonb(l) - '{{oid,collnamespace,collowner}}'::text[])::text
        FROM pg_collation l JOIN pg_namespace n ON n.oid = l.collnamespace AND {USER_SCHEMA}
        """
    ),
    "statistics object": Question(
        f"""
        SELECT format('%I.%I', n.nspname, s.stxname), pg_get_statisticsobjdef(s.oid)
        FROM pg_statistic_ext s JOIN pg_namespace n ON n.oid = s.stxnamespace AND {USER_SCHEMA}
        """
    ),
    "catalogue": Question(
        "\nUNION ALL ".join(
            f"SELECT '{name}', count(*) || ' rows, sum ' || coalesce(sum(hashtextextended(r::text, 0)), 0) "
            f"FROM {name} r WHERE {column} >= {_FIRST_OF_USERS}"
            for name, column in _WHOLE_CATALOGUES.items()
        )
    ),
    "collation version": Question(
        """
        SELECT format('collation %I.%I', n.nspname, l.collname), pg_collation_actual_version(l.oid)
        FROM pg_collation l JOIN pg_namespace n ON n.oid = l.collnamespace
        WHERE l.collversion IS NOT NULL
        AND EXISTS (SELECT FROM pg_attribute a WHERE a.attcollation = l.oid AND a.attnum > 0 AND NOT a.attisdropped)
        """
    ),
}

CLUSTER: dict[str, Question] = {
    "role": Question(
        "SELECT quote_ident(rolname), (to_jsonb(r) - '{oid,rolname,rolpassword,rolconfig}'::text[])::text "
        "FROM pg_roles r WHERE rolname !~ '^pg_'"
    ),
    "role password": Question(
        "SELECT quote_ident(rolname), CASE WHEN rolpassword IS NULL THEN 'none' "
        "WHEN rolpassword LIKE 'SCRAM-SHA-256$%' THEN 'scram-sha-256' WHEN rolpassword LIKE 'md5%' THEN 'md5' "
        "ELSE 'other' END FROM pg_authid "
        "WHERE rolname !~ '^pg_'"
    ),
    "membership": Question(
        "SELECT format('%I in %I', pg_get_userbyid(member), pg_get_userbyid(roleid)) || ' by ' || "
        "quote_ident(pg_get_userbyid(grantor)), (to_jsonb(m) - '{oid,roleid,member,grantor}'::text[])::text "
        "FROM pg_auth_members m"
    ),
    "tablespace": Question(
        "SELECT quote_ident(spcname), concat_ws(' ', 'owner', pg_get_userbyid(spcowner), spcoptions::text, "
        f"{_acl('spcacl')}) FROM pg_tablespace"
    ),
    "database": Question(
        f"""
        SELECT quote_ident(d.datname), concat_ws(' ', 'owner', pg_get_userbyid(d.datdba), 'tablespace', t.spcname,
            pg_encoding_to_char(d.encoding), 'grants', {_acl("d.datacl")},
            (to_jsonb(d) - '{{oid,datname,datdba,datacl,dattablespace}}'::text[]
                         - '{{datfrozenxid,datminmxid,datlastsysoid,dathasloginevt}}'::text[])::text)
        FROM pg_database d JOIN pg_tablespace t ON t.oid = d.dattablespace
        """
    ),
    "setting": Question(
        """
        SELECT concat_ws(' ', split_part(s.setting, '=', 1),
                         'of ' || quote_ident(pg_get_userbyid(nullif(r.setrole, 0))), 'in ' || quote_ident(d.datname)),
               CASE WHEN split_part(s.setting, '=', 1) LIKE '%.%' THEN 'is set'
                    ELSE substr(s.setting, strpos(s.setting, '=') + 1) END
        FROM pg_db_role_setting r CROSS JOIN unnest(r.setconfig) s(setting)
        LEFT JOIN pg_database d ON d.oid = r.setdatabase
        """
    ),
    "parameter grant": Question(f"SELECT parname, {_acl('paracl')} FROM pg_parameter_acl", since=15_00_00),
    "collation version": Question(
        "SELECT 'database ' || quote_ident(datname), pg_database_collation_actual_version(oid) FROM pg_database "
        "WHERE datcollversion IS NOT NULL",
        since=15_00_00,
    ),
    "replication slot": Question(
        "SELECT quote_ident(slot_name), concat_ws(' ', slot_type, plugin, database) FROM pg_replication_slots "
        "WHERE NOT temporary"
    ),
}

SIGNATURE = f"""
SELECT count(*) || ' ' || coalesce(sum(hashtextextended(row, 0)), 0) FROM (
    SELECT concat_ws(' ', c.ctid, c.xmin) FROM {_RELATIONS} WHERE c.relpersistence <> 't'
    UNION ALL SELECT concat_ws(' ', a.ctid, a.xmin) FROM {_RELATIONS} JOIN pg_attribute a ON a.attrelid = c.oid
              WHERE c.relpersistence <> 't'
    UNION ALL SELECT concat_ws(' ', t.ctid, t.xmin) FROM {_RELATIONS} JOIN pg_trigger t ON t.tgrelid = c.oid
              WHERE c.relpersistence <> 't'
    UNION ALL SELECT concat_ws(' ', p.ctid, p.xmin) FROM pg_proc p
    UNION ALL SELECT concat_ws(' ', p.ctid, p.xmin) FROM pg_policy p
    UNION ALL SELECT concat_ws(' ', k.ctid, k.xmin) FROM {_RELATIONS} JOIN pg_constraint k ON k.conrelid = c.oid
              WHERE c.relpersistence <> 't'
) AS found(row)
"""
"""Which rows of the catalogue there are, by place and transaction; temporary tables come and go."""
