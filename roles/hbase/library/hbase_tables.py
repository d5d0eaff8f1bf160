#!/usr/bin/python3
"""Creates tables with their families, versions and retention; other families of a table are not changed."""

from __future__ import annotations

DOCUMENTATION = """
module: hbase_tables
short_description: Create, alter or drop tables, with their namespaces
description:
  - Compares through Thrift, with the runtime that the role C(node) installs. Java is started only if something differs, once
    for all tables.
  - A namespace is created with its first table, and removed with its last.
options:
  host: {description: Host of the Thrift server., type: str, required: true}
  port: {description: Its port., type: int, required: true}
  tables:
    description: 'By name (NAMESPACE:TABLE): families, versions of a cell, keep (7d; without it cells are kept for ever).'
    type: dict
    required: true
  state: {description: C(absent) drops those of them that exist., choices: [present, absent], type: str, default: present}
author: [Berny (@berny)]
"""
EXAMPLES = """
- name: Create a table
  hbase_tables:
    host: worker-1
    port: 9090
    tables: {"weather:aggregates": {families: [a], versions: 1, keep: 730d, pipeline: openweather}}
"""
RETURN = """
granted:
  description: By pipeline, C(HBASE_TABLE_ID) of each table, which changes if the table is recreated.
  type: dict
  returned: with C(present)
changes: {description: Descriptions of the changes., type: list, returned: always}
"""

import json
import re
import sys
from typing import Any

from ansible.module_utils.basic import AnsibleModule

sys.path[:0] = ["/opt/berny/berny/python", "/opt/berny/runtime/python"]
SCRIPT = [
    "runuser",
    "-u",
    "hbase",
    "--",
    "/usr/local/bin/hbase",
    "org.jruby.Main",
    "/usr/local/lib/berny/hbase-tables.rb",
]
TIMEOUT = 60
FOREVER = 2**31 - 1
"""The TTL in seconds that means no limit to HBase: the maximum of 32 bits."""
FAMILY = re.compile(r"[A-Za-z0-9_]+", re.A)


def wanted_table(name: str, table: dict[str, Any]) -> dict[str, Any]:
    """Return the input of ``hbase-tables.rb`` for a table.

    Raises:
        ValueError: the name of a family is not valid.
    """
    from berny.model.component import seconds

    families = [str(family) for family in table["families"]]
    if not families or not all(map(FAMILY.fullmatch, families)):
        raise ValueError(f"{name}: families: {families}: one at least, of letters, digits and '_'")
    keep = table.get("keep")
    return {
        "families": families,
        "versions": table["versions"],
        "ttl": min(seconds(keep), FOREVER) if keep else FOREVER,
    }


def differences(wanted: dict[str, Any], families: dict[str, dict[str, int]]) -> list[str]:
    """Return descriptions of how a table's families differ from the wanted ones; each has ``versions`` and ``ttl``."""
    found = []
    for family in wanted["families"]:
        if family not in families:
            found.append(f"family {family}")
            continue
        found += [
            f"{key} of {family} {families[family][key]} -> {wanted[key]}"
            for key in ("versions", "ttl")
            if families[family][key] != wanted[key]
        ]
    return found


def plan(wanted: dict[str, Any], found: dict[str, dict[str, dict[str, int]]]) -> tuple[dict[str, Any], list[str]]:
    """Return the input of ``hbase-tables.rb`` and descriptions of the changes; ``found`` are the families of all tables."""
    create = {name: table for name, table in wanted.items() if name not in found}
    differ = {name: differences(table, found[name]) for name, table in wanted.items() if name in found}
    alter = {name: wanted[name] for name, words in differ.items() if words}
    changes = [f"{name}: created" for name in create] + [f"{name}: {', '.join(differ[name])}" for name in alter]
    return {"create": create, "alter": alter, "drop": []}, changes


class Thrift:
    """Queries over Thrift: tables, their families, and their identities."""

    def __init__(self, module: AnsibleModule) -> None:
        import happybase

        self.connection = happybase.Connection(
            module.params["host"], module.params["port"], timeout=TIMEOUT * 1000, autoconnect=False
        )
        self.connection.open()

    def tables(self, names: list[str]) -> dict[str, dict[str, dict[str, int]]]:
        """Return the families of the tables that exist."""
        there = {name.decode() for name in self.connection.tables()}
        return {name: self.families(name) for name in names if name in there}

    def families(self, name: str) -> dict[str, dict[str, int]]:
        """Return versions and TTL of a table's families."""
        return {
            family.decode().rstrip(":"): {"versions": facts["max_versions"], "ttl": facts["time_to_live"]}
            for family, facts in self.connection.table(name).families().items()
        }

    def identity(self, name: str) -> str:
        """Return when the table was last enabled, in ms, which changes if it is recreated."""
        state = self.connection.table("hbase:meta").row(name.encode(), [b"table:state"], include_timestamp=True)
        return str(state[b"table:state"][1])


def run(module: AnsibleModule, work: dict[str, Any]) -> None:
    """Run ``hbase-tables.rb``; fail the module on an error."""
    code, out, err = module.run_command(SCRIPT, data=json.dumps(work))
    if code:
        lines = [line for line in (err + out).splitlines() if line.strip() and not line.startswith((" ", "\t"))]
        module.fail_json(msg=f"HBase refused: {' '.join(lines)[:800]}. See berny-probe hbase.")


def provide(module: AnsibleModule, thrift: Thrift) -> dict[str, Any]:
    """Create and alter tables; return changes and grants."""
    asked = module.params["tables"]
    wanted = {name: wanted_table(name, table) for name, table in asked.items()}
    found = thrift.tables(list(wanted))
    work, changes = plan(wanted, found)
    if changes and not module.check_mode:
        run(module, work)
        found = thrift.tables(list(wanted))
        if left := plan(wanted, found)[1]:
            module.fail_json(msg=f"HBase did not make all of the changes: {'; '.join(left)}")
    granted: dict[str, dict[str, dict[str, str]]] = {}
    for name in found:
        granted.setdefault(asked[name]["pipeline"], {}).setdefault("HBASE_TABLE_ID", {})[name] = thrift.identity(name)
    return {"changes": changes, "granted": granted}


def withdraw(module: AnsibleModule, thrift: Thrift) -> dict[str, Any]:
    """Drop the tables that exist; return changes."""
    there = list(thrift.tables(list(module.params["tables"])))
    if there and not module.check_mode:
        run(module, {"create": {}, "alter": {}, "drop": there})
    return {"changes": [f"{name}: dropped" for name in there]}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "host": {"type": "str", "required": True},
            "port": {"type": "int", "required": True},
            "tables": {"type": "dict", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    if not module.params["tables"]:
        module.exit_json(changed=False, changes=[], granted={})
    from thriftpy2.thrift import TException

    do = provide if module.params["state"] == "present" else withdraw
    try:
        result = do(module, Thrift(module))
    except ValueError as error:
        module.fail_json(msg=str(error))
    except (TException, OSError) as error:
        said = getattr(error, "message", error)
        words = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
        module.fail_json(
            msg=f"Thrift at {module.params['host']}:{module.params['port']}: {words.splitlines()[0][:400]}. "
            "See berny-probe hbase."
        )
    module.exit_json(changed=bool(result["changes"]), **result)


if __name__ == "__main__":
    main()
