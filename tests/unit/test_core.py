"""The core names nobody: a component is a folder of ``roles``, a pipeline one of ``src/berny/pipelines``, and no more."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from berny.model.catalog import load_catalog
from berny.model.manifest import load_pipelines

CHECKOUT = Path(__file__).resolve().parents[2]
CORE = [
    *(f"src/berny/{package}" for package in ("model", "runtime", "controller", "lab", "faults")),
    *(f"roles/{role}" for role in ("node", "service", "firewall", "control", "pipeline")),
    "playbooks",
    "ansible",
    "site.yml",
]
CLIENTS = {
    "batch.py": {"kafka", "kafka_bootstrap_servers"},
    "checkpoint.py": {"hdfs"},
    "file_poller.py": {"kafka"},
    "files.py": {"hdfs"},
    "kafka.py": {"kafka"},
    "landing.py": {"hdfs", "hdfs_user", "hdfs_web_url"},
    "mapreduce.py": {"hadoop", "yarn"},
    "microbatch.py": {"kafka", "kafka_bootstrap_servers", "spark"},
    "poller.py": {"hdfs", "kafka"},
    "progress.py": {"kafka"},
    "readers.py": {"hdfs", "influxdb", "kafka"},
    "response.py": {"kafka"},
    "sinks/hbase.py": {"hbase"},
    "sinks/influxdb.py": {"influx_url", "influxdb"},
    "sinks/postgresql.py": {"pg_dsn", "postgresql"},
    "spool.py": {"hdfs"},
    "stage.py": {"hdfs", "kafka_bootstrap_servers"},
    "stream.py": {"hdfs_user", "hdfs_web_url", "kafka", "kafka_bootstrap_servers", "spark"},
    "topics.py": {"kafka"},
}
"""What pipelines are made of: clients of a product, which any pipeline may use or leave. They know no node and no role."""
ALLOWED = {
    **{f"src/berny/runtime/{file}": names for file, names in CLIENTS.items()},
    # Ways to make an archive are named after what they make, and Go's has the path of its main package.
    **{f"src/berny/controller/artifacts/{one}.py": {"spark"} for one in ("cli", "mirror", "recipes", "ways")},
    "src/berny/controller/artifacts/golang.py": {"influxdb"},
    # What dashboards are built with: the vendor's library, and a query language's own library.
    "src/berny/controller/dashboards.py": {"grafana"},
    "src/berny/controller/flux.py": {"influxdb"},
    # Sentences for people: who refuses a machine's name, what is given up.
    "ansible/plugins/action/berny_inventory.py": {"hadoop", "spark"},
    "playbooks/restore.yml": {"hdfs"},
}
"""By file, the words that it says all the same."""
DOCUMENTING = {"DOCUMENTATION", "EXAMPLES", "RETURN"}
"""Of Ansible's modules: they are read by people."""


def known() -> set[str]:
    """Return what components and pipelines are called: themselves, services, groups, users, archives, endpoints."""
    catalog, found = load_catalog(), set[str]()
    for component in catalog.components.values():
        found |= {component.name, *component.services, *component.groups, component.archive}
        found |= {user.name for user in component.users}
        found |= {name.lower() for name in component.endpoints}
    for pipeline in load_pipelines().values():
        found |= {pipeline.name, pipeline.user.name}
    return found - {""}


def said(file: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a file that do something: no comments, and of Python no texts for people either."""
    text = file.read_text()
    people: set[int] = set()
    if file.suffix == ".py":
        for node in ast.walk(ast.parse(text)):
            documents = isinstance(node, ast.Assign) and {getattr(t, "id", "") for t in node.targets} & DOCUMENTING
            docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            if documents or docstring:
                people |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    for number, line in enumerate(text.splitlines(), 1):
        if number not in people:
            yield number, re.sub(r"(^|\s)#.*", "", re.sub(r"\{#.*?#\}", "", line))


def files() -> list[Path]:
    """Return the files of the core."""
    found = [file for part in CORE for file in [CHECKOUT / part, *(CHECKOUT / part).rglob("*")] if file.is_file()]
    return sorted(file for file in found if file.suffix != ".pyc")


def named(file: Path) -> set[str]:
    """Return the names that a file says, also as parts of words that ``_`` or ``-`` joins."""
    longest = sorted(known(), key=len, reverse=True)
    pattern = rf"(?<![A-Za-z0-9])({'|'.join(map(re.escape, longest))})(?![A-Za-z0-9])"
    return {name.lower() for _, line in said(file) for name in re.findall(pattern, line, re.IGNORECASE)}


def test_the_core_names_no_component_and_no_pipeline() -> None:
    """What it has to know of one, the catalog or the manifest says."""
    found = {str(file.relative_to(CHECKOUT)): named(file) for file in files()}
    assert len(found) > 100
    assert {
        file: names - ALLOWED.get(file, set()) for file, names in found.items() if names - ALLOWED.get(file, set())
    } == {}


def test_what_is_allowed_is_said() -> None:
    """An exception that nobody needs any more would let the next one pass."""
    assert {
        file: names - named(CHECKOUT / file) for file, names in ALLOWED.items() if names - named(CHECKOUT / file)
    } == {}


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("a.py", '"""Kafka."""\nx = 1  # kafka\n', set()),
        ("a.py", 'DOCUMENTATION = """\nkafka\n"""\n', set()),
        ("a.py", 'x = "kafka"\n', {"kafka"}),
        ("a.py", "import confluent_kafka\n", {"kafka"}),
        ("a.py", "unkafkaesque = sparkling = 1\n", set()),
        ("a.yml", "# kafka\na: {{ groups['spark_master'] }}  # idfm\n", {"spark_master"}),
        ("a.yml", "a: Converge HDFS\n", {"hdfs"}),
        ("a.j2", "{# kafka #}\n[Unit]\nAfter=hdfs-namenode.service berny-idfm.target\n", {"hdfs-namenode", "idfm"}),
        ("a.yml", "a: {{ kafka_bootstrap_servers }}\n", {"kafka_bootstrap_servers"}),
    ],
)
def test_names_are_found(tmp_path: Path, name: str, text: str, found: set[str]) -> None:
    """The check does check."""
    (tmp_path / name).write_text(text)
    assert named(tmp_path / name) == found
