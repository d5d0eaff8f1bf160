"""Compares a table with its declaration in a manifest, and creates what is missing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

COLUMNS = """
SELECT attname, format_type(atttypid, atttypmod) || CASE WHEN attnotnull THEN ' not null' ELSE '' END
FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""
# The definition after USING does not depend on the table; indexes that this module created have a comment.
INDEXES = """
SELECT relname, (CASE WHEN indisunique THEN 'unique ' ELSE '' END) || regexp_replace(pg_get_indexdef(oid), '^.*? USING ', ''),
       obj_description(oid, 'pg_class') IS NOT DISTINCT FROM 'berny'
FROM pg_index JOIN pg_class ON oid = indexrelid WHERE indrelid = %s::regclass AND indisvalid
"""
FOUND = "SELECT to_regclass(quote_ident(%s))::oid::bigint"
OWNER = "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = %s"

Change = Callable[..., None]
"""Records and makes a change: cursor, description, statements in which ``{name}`` is an identifier, and names."""


class Refused(Exception):
    """A declared object can't be created; the message says why."""


def ask(cursor: Any, query: str, *values: Any) -> list[Any]:
    """Return the rows of a query."""
    cursor.execute(query, values or None)
    return list(cursor.fetchall())


def literally(text: str) -> str:
    """Return a text with its braces escaped for a statement with placeholders."""
    return text.replace("{", "{{").replace("}", "}}")


def have(cursor: Any, change: Change, database: str, name: str, asked: dict[str, Any]) -> int:
    """Create or extend a table and its indexes; return its id, or 0 if it was not created (check mode).

    Raises:
        Refused: the columns are malformed, or differ from those of the existing table.
    """
    shown = f"table {database}.{name}"
    columns, indexes = described(cursor, shown, asked)
    if ask(cursor, FOUND, name)[0][0] is None:
        change(cursor, shown, f"CREATE TABLE {{name}} ({literally(', '.join(asked['columns']))})", name=name)
    found = ask(cursor, FOUND, name)[0][0]
    if found is None:
        return 0
    if ask(cursor, OWNER, found)[0][0] != database:
        change(cursor, f"owner of {shown}", "ALTER TABLE {name} OWNER TO {owner}", name=name, owner=database)
    there = dict(ask(cursor, COLUMNS, found))
    for (column, kind), text in zip(columns.items(), asked["columns"], strict=True):
        if column not in there:
            change(
                cursor, f"column {column} of {shown}", f"ALTER TABLE {{name}} ADD COLUMN {literally(text)}", name=name
            )
        elif there[column] != kind:
            raise Refused(
                f"{shown}: its column {column} is {there[column]}, its manifest says {kind}: alter the table yourself "
                f"(sudo -u postgres psql {database}), or reset the pipeline with its data"
            )
    have_indexes(cursor, change, shown, name, found, indexes)
    return int(found)


def described(cursor: Any, shown: str, asked: dict[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the declared columns with their types, and a statement for each index by its definition.

    Both are in PostgreSQL's own notation, read from a temporary table.

    Raises:
        Refused: PostgreSQL refuses them.
    """
    import psycopg2

    entries = [("UNIQUE INDEX", one) for one in asked["unique"]] + [("INDEX", one) for one in asked["indexes"]]
    try:
        cursor.execute(f"CREATE TEMPORARY TABLE berny_wanted ({', '.join(asked['columns'])})")
        for number, (kind, entry) in enumerate(entries):
            cursor.execute(f"CREATE {kind} berny_wanted_{number} ON berny_wanted ({entry})")
    except psycopg2.Error as error:
        said = " ".join(str(error).split())
        raise Refused(f"{shown}: PostgreSQL refuses the declaration in the manifest: {said}") from None
    columns = dict(ask(cursor, COLUMNS, "berny_wanted"))
    definitions = {index: definition for index, definition, _ in ask(cursor, INDEXES, "berny_wanted")}
    cursor.execute("DROP TABLE berny_wanted")
    if len(columns) != len(asked["columns"]):
        count = len(asked["columns"])
        raise Refused(
            f"{shown}: its manifest has {count} columns, but PostgreSQL creates {len(columns)}: give one column per text"
        )
    return columns, {
        definitions[f"berny_wanted_{number}"]: f"CREATE {kind} {{index}} ON {{table}} ({literally(entry)})"
        for number, (kind, entry) in enumerate(entries)
    }


def have_indexes(cursor: Any, change: Change, shown: str, table: str, found: int, wanted: dict[str, str]) -> None:
    """Create the declared indexes of a table, and drop those of this module that are no longer declared."""
    there = {definition: (index, ours) for index, definition, ours in ask(cursor, INDEXES, found)}
    for definition, makes in wanted.items():
        if definition not in there:
            index = f"{table}_{hashlib.sha256(definition.encode()).hexdigest()[:8]}"
            makes += "; COMMENT ON INDEX {index} IS 'berny'"
            change(cursor, f"index {definition} of {shown}", makes, index=index, table=table)
    for definition, (index, ours) in there.items():
        if ours and definition not in wanted:
            change(cursor, f"index {definition} of {shown}: dropped", "DROP INDEX {index}", index=index)
