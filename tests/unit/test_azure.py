"""``playbooks/azure.yml`` as far as it goes without an account: its plan, its refusals, its modules' arguments."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from berny.controller import azure
from berny.model.catalog import load_catalog
from berny.model.manifest import load_pipelines
from berny.model.topology import CHECKOUT, read_mapping

GROUPS = read_mapping()
PIPELINES = list(load_pipelines())
TASKS = sorted((CHECKOUT / "playbooks" / "tasks").glob("azure_*.yml"))
COLLECTION = "azure.azcollection."


def test_machines_have_room_for_their_services() -> None:
    for size in ("small", "large"):
        planned = azure.machines(GROUPS, size, {}, PIPELINES)  # type: ignore[arg-type]
        assert list(planned) == GROUPS["all"]
        for machine in planned.values():
            assert machine["memory"] * 1024 * azure.USABLE >= machine["needs"] + azure.facts()["reserve"]
            assert machine["disk"] in azure.facts()["disks"]
            assert 0 < machine["stopped_month"] < machine["month"]


def test_the_cheapest_that_fits_is_taken() -> None:
    assert azure.fitting(100, "small") == "Standard_B2s"
    assert azure.fitting(3000, "small") == "Standard_B2ms"
    assert azure.fitting(20000, "large") == "Standard_E4s_v5"
    with pytest.raises(azure.AzureError, match="put some on another node"):
        azure.fitting(1 << 20, "large")


def test_a_person_may_choose() -> None:
    planned = azure.machines(GROUPS, "small", {"master": "Standard_E8s_v5"}, PIPELINES)
    assert planned["master"]["size"] == "Standard_E8s_v5" and planned["worker_0"]["size"] == "Standard_B2s"
    with pytest.raises(azure.AzureError, match="add it with its price"):
        azure.machines(GROUPS, "small", {"master": "Standard_Z1"}, PIPELINES)


def test_disks_are_what_is_billed() -> None:
    assert [azure.disk_for(gib) for gib in (1, 4, 5, 300)] == [4, 4, 8, 512]
    with pytest.raises(azure.AzureError, match="the largest has"):
        azure.disk_for(100_000)


def test_the_cost_is_told_with_its_sum_and_as_an_estimate() -> None:
    planned = azure.machines(GROUPS, "large", {}, PIPELINES)
    *each, total = azure.table(planned)
    assert [line.split(":")[0] for line in each] == GROUPS["all"]
    assert f"about {sum(m['month'] for m in planned.values()):.0f} USD" in total
    assert "ESTIMATE" in total and str(azure.facts()["as_of"]) in total


def test_every_choice_has_its_price() -> None:
    known = azure.facts()
    assert {name for names in known["choice"].values() for name in names} == set(known["sizes"])


def test_operators_reach_ssh_and_the_pages_and_nothing_else_is_opened() -> None:
    services = load_catalog().services.values()
    pages = {str(service.ports[page]) for service in services for page in service.pages}
    opened = azure.rules(GROUPS, ["203.0.113.7"])
    assert {port for rule in opened for port in rule["destination_port_range"]} == {"22", *pages}
    assert all(rule["source_address_prefix"] == ["203.0.113.7"] for rule in opened)
    assert len({rule["priority"] for rule in opened}) == len(opened)
    closed = {str(port) for service in services for name, port in service.ports.items() if name not in service.pages}
    assert not closed & {port for rule in opened for port in rule["destination_port_range"]}


def options(module: str) -> dict[str, Any]:
    """Return a module's options as its collection documents them."""
    found = importlib.util.find_spec("ansible_collections")
    assert found and found.submodule_search_locations
    file = Path(next(iter(found.submodule_search_locations)), "azure/azcollection/plugins/modules", f"{module}.py")
    documented = re.search(r"^DOCUMENTATION = r?'''(.*?)'''", file.read_text(), re.M | re.S)
    assert documented, file
    known: dict[str, Any] = yaml.safe_load(documented[1])["options"]
    return known


def wrong(given: dict[str, Any], known: dict[str, Any], where: str) -> list[str]:
    """Return what a module would refuse of its arguments: unknown, missing, or none of the choices."""
    names = {alias for name, facts in known.items() for alias in [name, *facts.get("aliases", [])]}
    problems = [f"{where}: unknown {name}" for name in given if name not in names]
    problems += [
        f"{where}: misses {name}" for name, facts in known.items() if facts.get("required") and name not in given
    ]
    for name, value in given.items():
        facts = known.get(name, {})
        computed = isinstance(value, str) and "{{" in value
        if facts.get("choices") and not computed and value not in facts["choices"]:
            problems.append(f"{where}: {name} can't be {value}")
        for part in value if isinstance(value, list) and facts.get("suboptions") else []:
            problems += wrong(part, facts["suboptions"], f"{where}.{name}")
    return problems


@pytest.mark.parametrize("file", TASKS, ids=lambda file: file.stem)
def test_modules_know_their_arguments(file: Path) -> None:
    called = 0
    for task in yaml.safe_load(file.read_text()):
        for module in [name for name in task if name.startswith(COLLECTION)]:
            called += 1
            name = module.removeprefix(COLLECTION)
            assert wrong(task[module], options(name), name) == []
    assert called


def test_rules_are_what_the_module_takes() -> None:
    known = options("azure_rm_securitygroup")["rules"]["suboptions"]
    assert [wrong(rule, known, "rules") for rule in azure.rules(GROUPS, ["203.0.113.7"])] == [[], []]


def test_a_wrong_argument_is_noticed() -> None:
    """The check does check."""
    known = options("azure_rm_resourcegroup")
    assert wrong({"nam": "a", "state": "gone"}, known, "x") == [
        "x: unknown nam",
        "x: misses name",
        "x: state can't be gone",
    ]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the play against the inventory as it is."""
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "inventory/azure", "playbooks/azure.yml"]
    given = [part for word in words for part in ("-e", word)]
    environment = os.environ | {"ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"}
    return subprocess.run(
        [*command, *given], cwd=CHECKOUT, capture_output=True, text=True, timeout=120, env=environment
    )


def test_without_a_word_it_only_says_what_it_costs() -> None:
    done = run()
    assert done.returncode == 0 and "ESTIMATE" in done.stdout and "Run the action" in done.stdout, done.stdout
    assert "skipped=1" in done.stdout


@pytest.mark.parametrize("words", [("do=jump",), ("do=make",), ("do=delete",), ("do=delete", "data=azur")])
def test_what_can_not_be_meant_is_refused(words: tuple[str, ...]) -> None:
    """No address that would be let in, no name of the cluster."""
    done = run(*words)
    assert done.returncode and "Nothing was done." in done.stdout, done.stdout
    assert "TASK [Report the costs]" not in done.stdout
