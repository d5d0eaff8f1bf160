"""The README's mapping table, generated from the inventory's groups, the catalog and the manifests.

``python -m berny.controller.mapping README.md`` rewrites it in place.
"""

from __future__ import annotations

import sys
from pathlib import Path

from berny.model import names
from berny.model.catalog import load_catalog
from berny.model.manifest import load_pipelines
from berny.model.topology import INVENTORY, read_mapping

BEGIN, END = "<!-- mapping -->", "<!-- /mapping -->"


class MarkersMissing(ValueError):
    """A file has no markers for what is generated; the message says what is missing."""


def units_by_node(inventory: Path = INVENTORY) -> dict[str, dict[str, list[str]]]:
    """Return the units of each node by the title of their component or pipeline, in the catalog's order."""
    groups = read_mapping(inventory)
    titled = [
        (component.title, service.group, name)
        for component in load_catalog().components.values()
        for name, service in component.services.items()
    ]
    titled += [
        (pipeline.title, stage.on, names.unit(pipeline.name, name))
        for pipeline in load_pipelines().values()
        for name, stage in pipeline.stages.items()
    ]
    found: dict[str, dict[str, list[str]]] = {node: {} for node in groups["all"]}
    for title, group, unit in titled:
        for node in groups.get(group, []):
            found[node].setdefault(title, []).append(unit)
    return found


def mapping_table(inventory: Path = INVENTORY) -> str:
    """Return the Markdown table: a row for each node, with what it runs and the units' names."""
    rows = ["| node | services |", "|---|---|"]
    for node, titles in units_by_node(inventory).items():
        cells = [f"{title} ({', '.join(f'`{unit}`' for unit in units)})" for title, units in titles.items()]
        rows.append(f"| {node} | {', '.join(cells)} |")
    return "\n".join(rows)


def between(text: str, begin: str, end: str, generated: str) -> str:
    """Return the text with what is generated between two markers.

    Raises:
        MarkersMissing: the markers are not present once each and in order.
    """
    before, first, rest = text.partition(begin)
    _, last, after = rest.partition(end)
    if not first or not last or begin in rest or end in before + after:
        raise MarkersMissing(f"expected {begin} and then {end}, once each")
    return f"{before}{begin}\n{generated}\n{end}{after}"


def main(arguments: list[str]) -> int:
    """Rewrite the table in the named files; return 0 if all of them have the markers."""
    for name in arguments:
        file = Path(name)
        try:
            file.write_text(between(file.read_text(), BEGIN, END, mapping_table()))
        except (MarkersMissing, OSError) as error:
            print(f"error: {name}: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
