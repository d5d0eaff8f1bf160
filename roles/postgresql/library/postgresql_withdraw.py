#!/usr/bin/python3
"""Drops the database of a pipeline, and its roles."""

from __future__ import annotations

DOCUMENTATION = """
module: postgresql_withdraw
short_description: Drop a database of PostgreSQL with its roles, as the administrator
options:
  port: {description: The server's port., type: int, required: true}
  socket: {description: The directory of its socket., type: path, default: /run/postgresql}
  database: {description: Its name., type: str, required: true}
author: [Berny (@berny)]
"""
EXAMPLES = """
- name: Drop the database
  postgresql_withdraw: {port: 5432, database: air}
"""
RETURN = """
removed: {description: What was dropped., type: list, returned: always}
"""

import sys
from contextlib import closing
from typing import Any

from ansible.module_utils.basic import AnsibleModule

sys.path[:0] = ["/opt/berny/berny/python", "/opt/berny/runtime/python"]
# The module postgresql_setup records the database of a role in its comment.
MINE = """
SELECT rolname FROM pg_roles WHERE shobj_description(oid, 'pg_authid') = %s ORDER BY rolname
"""


def withdraw(words: dict[str, Any], dry: bool) -> list[str]:
    """Drop the database, even if somebody is connected to it, and its roles; return what was dropped."""
    import psycopg2
    from psycopg2 import sql

    name, removed = words["database"], []
    where = {"host": words["socket"], "port": words["port"], "user": "postgres", "dbname": "postgres"}
    with closing(psycopg2.connect(**where, connect_timeout=10)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
            found = [("DATABASE", name, " WITH (FORCE)")] if cursor.fetchone() else []
            cursor.execute(MINE, (f"berny {name}",))
            found += [("ROLE", role, "") for (role,) in cursor.fetchall()]
            for what, one, how in found:
                removed.append(f"{what.lower()} {one}")
                if not dry:
                    cursor.execute(sql.SQL(f"DROP {what} {{}}{how}").format(sql.Identifier(one)))
    return removed


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "port": {"type": "int", "required": True},
            "socket": {"type": "path", "default": "/run/postgresql"},
            "database": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    import psycopg2

    try:
        removed = withdraw(module.params, module.check_mode)
    except psycopg2.Error as error:
        module.fail_json(
            msg=f"PostgreSQL refuses: {' '.join(str(error).split())}. See berny-probe postgresql, then run the play again: "
            "it continues here."
        )
    module.exit_json(changed=bool(removed), removed=removed)


if __name__ == "__main__":
    main()
