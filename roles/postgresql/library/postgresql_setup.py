#!/usr/bin/python3
"""Creates a database, tables and roles for each pipeline, one role that reads all of them, and the exporter's."""

from __future__ import annotations

DOCUMENTATION = """
module: postgresql_setup
short_description: Set up PostgreSQL over its socket, as its administrator
description:
  - A database and its owner have the pipeline's name. Each stage has a role C(PIPELINE-STAGE) with the rights that it needs.
  - Passwords are derived from C(key) and the role's name. A different password of a role is replaced.
  - Missing objects are created. Columns of existing tables are never changed.
options:
  port: {description: The server's port., type: int, required: true}
  socket: {description: The directory of its socket., type: path, default: /run/postgresql}
  key: {description: The key that passwords are derived from., type: str, required: true}
  tables:
    description: By name C(columns), C(unique) and C(indexes), each a list of texts, and the C(pipeline) or C(user).
    type: dict
    required: true
  stages: {description: 'By pipeline and stage, the tables that it C(reads) and C(writes).', type: dict, required: true}
  known_file: {description: File on the node that has the identifier of the cluster., type: path, required: true}
author: [Berny (@berny)]
"""
EXAMPLES = """
- name: Set up
  postgresql_setup:
    port: 5432
    key: "{{ secrets.postgresql_key }}"
    tables: {weather: {columns: [at timestamptz not null], unique: [at], indexes: [], pipeline: air}}
    stages: {air: {consumer: {reads: [], writes: [weather]}}}
    known_file: /etc/berny/postgresql-server/cluster.id
"""
RETURN = """
databases: {description: The databases of pipelines., type: list, returned: always}
granted: {description: 'By pipeline, the id of each table; a new table has another one.', type: dict, returned: always}
granted_stages: {description: The password of each stage by pipeline., type: dict, returned: always}
read_password: {description: Password of the role that reads all tables., type: str, returned: always}
changes: {description: Descriptions of the changes., type: list, returned: always}
"""

import base64
import hashlib
import hmac
import os
import re
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from ansible.module_utils import postgresql_tables
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.postgresql_tables import Refused, ask

sys.path[:0] = ["/opt/berny/berny/python", "/opt/berny/runtime/python"]
READER, EXPORTER = "berny_read", "berny_exporter"
READS, WRITES = ("SELECT",), ("SELECT", "INSERT", "UPDATE", "DELETE")
SETTINGS = {READER: {"default_transaction_read_only": "on", "statement_timeout": "60s"}}
OWN = ("postgres", "template0", "template1")
# How long to wait for others who have locked a table.
OPTIONS = "-c search_path=public -c lock_timeout=60s"
POWERLESS = "NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"
NOBODY: tuple[Any, ...] = (None, False, "", "", [], [])
ROLE = """
SELECT rolcanlogin, rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls,
       coalesce(rolpassword, ''), coalesce(shobj_description(oid, 'pg_authid'), ''),
       ARRAY(SELECT unnest(setconfig) FROM pg_db_role_setting WHERE setrole = oid AND setdatabase = 0),
       ARRAY(SELECT pg_get_userbyid(roleid)::text FROM pg_auth_members WHERE member = oid)
FROM pg_authid WHERE rolname = %s
"""
MINE = "SELECT rolname FROM pg_roles WHERE shobj_description(oid, 'pg_authid') = %s ORDER BY rolname"
# Rights of everybody except the owner.
RIGHTS = """
SELECT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(grantee) END, privilege_type
FROM {catalog}, aclexplode(coalesce({acl}, acldefault('{kind}', {owner}))) WHERE {where} AND grantee <> {owner}
"""
OF_DATABASE = RIGHTS.format(catalog="pg_database", acl="datacl", kind="d", owner="datdba", where="datname = %s")
OF_SCHEMA = RIGHTS.format(catalog="pg_namespace", acl="nspacl", kind="n", owner="nspowner", where="nspname = %s")
OF_TABLE = RIGHTS.format(catalog="pg_class", acl="relacl", kind="r", owner="relowner", where="oid = %s")


def password(key: str, role: str) -> str:
    """Return the password of a role."""
    return hmac.new(key.encode(), role.encode(), "sha256").hexdigest()


def verifier(word: str, salt: bytes, iterations: int = 4096) -> str:
    """Return a password's verifier as PostgreSQL stores it: RFC 5803. Source: PostgreSQL's src/common/scram-common.c."""
    salted = hashlib.pbkdf2_hmac("sha256", word.encode(), salt, iterations)
    client, server = (hmac.digest(salted, text, "sha256") for text in (b"Client Key", b"Server Key"))
    parts = [base64.b64encode(part).decode() for part in (salt, hashlib.sha256(client).digest(), server)]
    return f"SCRAM-SHA-256${iterations}:{parts[0]}${parts[1]}:{parts[2]}"


def is_of(kept: str, word: str) -> bool:
    """Return whether a stored verifier is that of a password."""
    match = re.match(r"SCRAM-SHA-256\$(\d+):([^$]+)\$", kept)
    return match is not None and verifier(word, base64.b64decode(match[2]), int(match[1])) == kept


class Base:
    """A database: its declared tables, and the tables that the role of each stage ``reads`` and ``writes``."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tables: dict[str, dict[str, Any]] = {}
        self.roles: dict[str, dict[str, list[str]]] = {}

    def rights(self) -> set[tuple[str, str]]:
        """Return pairs of role and right on the database; writers may use temporary tables to load a batch."""
        writers = [role for role, own in self.roles.items() if own["writes"]]
        return {(role, "CONNECT") for role in (*self.roles, READER, EXPORTER)} | {
            (role, "TEMPORARY") for role in writers
        }

    def rights_on(self, table: str) -> set[tuple[str, str]]:
        """Return pairs of role and right on a table."""
        found = {(READER, right) for right in READS}
        for role, own in self.roles.items():
            rights = WRITES if table in own["writes"] else READS if table in own["reads"] else ()
            found |= {(role, right) for right in rights}
        return found


def bases(tables: dict[str, Any], stages: dict[str, Any]) -> dict[str, Base]:
    """Return the declared databases by name.

    Raises:
        Refused: PostgreSQL itself has a database of that name.
    """
    found: dict[str, Base] = {}
    for name, asked in tables.items():
        # Tables of a component have no pipeline.
        base = asked["pipeline"] or asked["user"]
        if base in OWN:
            raise Refused(f"{base} is a database of PostgreSQL's own: give the pipeline another name")
        found.setdefault(base, Base(base)).tables[name] = asked
    for base, own in found.items():
        own.roles = {f"{base}-{stage}": uses for stage, uses in stages.get(base, {}).items()}
    return found


class Server:
    """The server, accessed by its administrator; records the changes, and only those in check mode."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.changes: list[str] = []

    @contextmanager
    def database(self, name: str, transaction: bool = True) -> Iterator[Any]:
        """Yield a cursor in a transaction; CREATE DATABASE needs one without."""
        import psycopg2

        words = self.module.params
        where = {"host": words["socket"], "port": words["port"], "user": "postgres", "dbname": name}
        with closing(psycopg2.connect(**where, connect_timeout=10, options=OPTIONS)) as connection:
            connection.autocommit = not transaction
            with connection.cursor() as cursor:
                yield cursor
            if transaction and not self.module.check_mode:
                connection.commit()

    def change(self, cursor: Any, words: str, statement: str, *values: Any, **names: str) -> None:
        """Execute statements, in which ``{name}`` is an identifier."""
        from psycopg2 import sql

        self.changes.append(words)
        if not self.module.check_mode:
            composed = sql.SQL(statement).format(**{name: sql.Identifier(value) for name, value in names.items()})
            cursor.execute(composed, values or None)

    def grant(self, cursor: Any, what: str, name: str, found: list[Any], wanted: set[tuple[str, str]]) -> None:
        """Grant the wanted rights on a DATABASE, SCHEMA or TABLE, and revoke all others except the owner's."""
        there = {tuple(one) for one in found}
        for verb, way, rights in (("REVOKE", "FROM", there - wanted), ("GRANT", "TO", wanted - there)):
            for who, right in sorted(rights):
                # PUBLIC is a keyword, not an identifier.
                whom, names = ("PUBLIC", {}) if who == "PUBLIC" else ("{who}", {"who": who})
                words = f"{verb.lower()} {right} on {what.lower()} {name} {way.lower()} {who}"
                self.change(cursor, words, f"{verb} {right} ON {what} {{name}} {way} {whom}", name=name, **names)

    def role(self, cursor: Any, name: str, word: str | None, of: str = "", group: str = "") -> None:
        """Create or correct a role without special privileges.

        Args:
            cursor: a cursor of any database.
            name: the name of the role.
            word: its password, empty for a login without one; None for a role without login.
            of: the database that it belongs to, which its comment records.
            group: the role whose rights it inherits.
        """
        can, powers, kept, comment, settings, groups = (ask(cursor, ROLE, name) or [NOBODY])[0]
        login, comment_wanted = "LOGIN" if word is not None else "NOLOGIN", f"berny {of}".strip()
        if can is None:
            self.change(cursor, f"role {name}", f"CREATE ROLE {{name}} {login}", name=name)
        elif powers or can != (word is not None):
            self.change(cursor, f"powers of role {name}", f"ALTER ROLE {{name}} {login} {POWERLESS}", name=name)
        if word and not is_of(kept, word):
            made = verifier(word, os.urandom(16))
            self.change(cursor, f"password of role {name}", "ALTER ROLE {name} PASSWORD %s", made, name=name)
        if comment != comment_wanted:
            self.change(cursor, f"comment of role {name}", "COMMENT ON ROLE {name} IS %s", comment_wanted, name=name)
        for setting, value in SETTINGS.get(name, {}).items():
            if f"{setting}={value}" not in settings:
                set_ = "ALTER ROLE {name} SET {setting} = %s"
                self.change(cursor, f"{setting} of role {name}", set_, value, name=name, setting=setting)
        for verb, way, others in (("REVOKE", "FROM", {*groups} - {group}), ("GRANT", "TO", {group} - {*groups, ""})):
            for other in sorted(others):
                words = f"{verb.lower()} {other} {way.lower()} {name}"
                self.change(cursor, words, f"{verb} {{other}} {way} {{name}}", other=other, name=name)

    def base(self, cursor: Any, base: Base, key: str) -> bool:
        """Create or correct a database and its roles; return whether the database exists."""
        self.role(cursor, base.name, None, base.name)
        for role in base.roles:
            self.role(cursor, role, password(key, role), base.name)
        owner = ask(cursor, "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = %s", base.name)
        if not owner:
            made = "CREATE DATABASE {name} OWNER {name} TEMPLATE template0"
            self.change(cursor, f"database {base.name}", made, name=base.name)
        elif owner[0][0] != base.name:
            own = "ALTER DATABASE {name} OWNER TO {name}"
            self.change(cursor, f"owner of database {base.name}", own, name=base.name)
        self.grant(cursor, "DATABASE", base.name, ask(cursor, OF_DATABASE, base.name), base.rights())
        return bool(owner) or not self.module.check_mode

    def tables(self, cursor: Any, base: Base) -> dict[str, int]:
        """Create or correct the tables of a database, and drop roles of removed stages; return the tables' ids."""
        users = {(role, "USAGE") for role in (*base.roles, READER)}
        self.grant(cursor, "SCHEMA", "public", ask(cursor, OF_SCHEMA, "public"), users)
        ids = {}
        for name, asked in base.tables.items():
            ids[name] = postgresql_tables.have(cursor, self.change, base.name, name, asked)
            self.grant(cursor, "TABLE", name, ask(cursor, OF_TABLE, ids[name]), base.rights_on(name))
        for (name,) in ask(cursor, MINE, f"berny {base.name}"):
            if name not in (base.name, *base.roles):
                drop = "DROP OWNED BY {name}; DROP ROLE {name}"
                self.change(cursor, f"role {name}: dropped", drop, name=name)
        return ids


def converge(module: AnsibleModule) -> dict[str, Any]:
    """Create what is missing; return passwords, ids and changes.

    Raises:
        Refused: a declared database or table can't be created.
    """
    words, server = module.params, Server(module)
    key, wanted = words["key"], bases(words["tables"], words["stages"])
    with server.database("postgres", transaction=False) as cursor:
        identifier = ask(cursor, "SELECT system_identifier::text FROM pg_control_system()")[0][0]
        server.role(cursor, READER, password(key, READER))
        server.role(cursor, EXPORTER, "", group="pg_monitor")
        for name, users in (("postgres", Base("postgres").rights()), ("template1", set[tuple[str, str]]())):
            server.grant(cursor, "DATABASE", name, ask(cursor, OF_DATABASE, name), users)
        there = [base for base in wanted.values() if server.base(cursor, base, key)]
    ids = {name: dict.fromkeys(base.tables, 0) for name, base in wanted.items()}
    for base in there:
        with server.database(base.name) as cursor:
            ids[base.name] = server.tables(cursor, base)
    if keep(module, Path(words["known_file"]), identifier):
        server.changes.append(f"file {words['known_file']}")
    return {
        "databases": [name for name in wanted if name in words["stages"]],
        "granted": {
            name: {"PG_TABLE_ID": {table: f"{identifier}.{number}" if number else "" for table, number in own.items()}}
            for name, own in ids.items()
        },
        "granted_stages": {
            name: {stage: {"PG_PASSWORD": password(key, f"{name}-{stage}")} for stage in words["stages"].get(name, {})}
            for name in wanted
        },
        "read_password": password(key, READER),
        "changes": server.changes,
    }


def keep(module: AnsibleModule, path: Path, text: str) -> bool:
    """Write a text to a file, durably and atomically; return whether it differed."""
    if path.exists() and path.read_text().strip() == text:
        return False
    if not module.check_mode:
        beside = path.with_name(f".{path.name}.berny")
        with beside.open("w") as file:
            file.write(f"{text}\n")
            file.flush()
            os.fsync(file.fileno())
        beside.chmod(0o644)
        beside.rename(path)
    return True


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "port": {"type": "int", "required": True},
            "socket": {"type": "path", "default": "/run/postgresql"},
            "key": {"type": "str", "required": True, "no_log": True},
            "tables": {"type": "dict", "required": True},
            "stages": {"type": "dict", "required": True},
            "known_file": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    import psycopg2

    try:
        result = converge(module)
    except Refused as error:
        module.fail_json(msg=str(error))
    except psycopg2.Error as error:
        said = " ".join(str(error).split())
        module.fail_json(msg=f"PostgreSQL refuses its administrator: {said}. See berny-probe postgresql.")
    module.exit_json(changed=bool(result["changes"]), **result)


if __name__ == "__main__":
    main()
