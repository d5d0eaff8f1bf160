"""The copy with the toys takes over the cluster of the tests, and the checkout gets it back as it was."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from scratch import NODE, Scratch

import support
from berny.lab.plan import load_plan
from berny.lab.simulator import started
from support import NAME, RATE, Cluster, Play

STAGES = {"berny-toy-keeper": "worker_2", "berny-toy-collector": NODE}
LOAD = "20"
"""Observations a second that each source serves while something is broken."""
# No machine is restarted, and no disk filled: those that were up already have no data disk for the toys.
MORE = ["none", "kill-berny-toy-keeper-worker_2", f"kill-berny-toy-collector-{NODE}", "source-500", "source-bad_parts"]
RESULTS = """
import json
from berny.faults.results import Results
from berny.lab.measured import commit
print(json.dumps(str(Results(commit()).file)))
"""
FOLDERS = "/etc/systemd/system /etc/berny /etc/tmpfiles.d /var/lib /var/lib/berny /run/berny /usr/local /data"
# What the toys' lines leave, and the probes among Berny's own code, from which stages were started.
GIVEN_BACK = re.compile(r"\[(node|firewall|pipeline) : |\[service : (Converge|Restart) berny-")


def start(cluster: Cluster, *pipelines: str, by: Scratch | None = None) -> None:
    """Do what ``make lab PIPELINES=…`` does, by the copy or by the checkout."""
    words = ("lab", "start", "--name", NAME, "--rate", str(RATE), "--pipelines", " ".join(pipelines))
    with cluster.lent():
        if by:
            by.berny(*words)
        else:
            support.berny(*words)


def reset(scratch: Scratch, what: str, ok: bool = True) -> Play:
    """Remove a component or a pipeline with its data, by the copy."""
    return scratch.play("playbooks/reset.yml", "-e", what, "-e", f"data={NAME}", ok=ok)


def left(cluster: Cluster, name: str) -> dict[str, str]:
    """Return the nodes that have files of a name, and which."""
    names = f"\\( -name '{name}' -o -name '{name}.*' -o -name 'berny-{name}*' \\)"
    found = cluster.each(f"sudo find {FOLDERS} -maxdepth 2 -path '/data/*/*' -prune -o {names} -print", ok=False)
    return {node: said for node, said in found.items() if said.strip()}


def processes(cluster: Cluster, units: dict[str, str]) -> dict[str, str]:
    """Return main process and its start of units on nodes."""
    show = "systemctl show -P MainPID -P ExecMainStartTimestamp -P ActiveState"
    return {unit: cluster.sh(node, f"{show} {unit}") for unit, node in units.items()}


@pytest.fixture(scope="module")
def before(cluster: Cluster) -> dict[tuple[str, str], str]:
    """What ran before there were toys."""
    return cluster.processes()


@pytest.fixture(scope="module", autouse=True)
def toys(cluster: Cluster, scratch: Scratch, before: dict[tuple[str, str], str]) -> Iterator[None]:
    """The toys on the cluster; whatever happens, they are gone afterwards."""
    own = cluster.lab.plan.pipelines
    try:
        start(cluster, *own, "toy", by=scratch)
        yield
    finally:
        Path(scratch.python(RESULTS)).unlink(missing_ok=True)
        now = load_plan(NAME)
        if left(cluster, "toy") or left(cluster, "shelf") or not now or now.pipelines != own:
            reset(scratch, "pipeline=toy", ok=False)
            reset(scratch, "component=shelf", ok=False)
            start(cluster, *own)


def test_the_status_shows_both_pipelines(scratch: Scratch) -> None:
    shown = scratch.berny("lab", "status", "--name", NAME, COLUMNS="300")
    for service in ("shelf +worker_0 +1.0", "berny-toy-keeper +worker_2", "berny-toy-collector +worker_0"):
        assert re.search(rf"^ *{service} +yes +yes ", shown, re.M), shown
    assert re.search(r"^ *toy +observed: [1-9]\d*; stored: \d+; freshness: \d+\.\d s", shown, re.M), shown
    assert re.search(r"^ *idfm .*; freshness: \d+\.\d s", shown, re.M), shown


def test_every_probe_reports_healthy(cluster: Cluster) -> None:
    """On the toys' nodes, and from one that has none of them."""
    said = json.loads(cluster.sh(NODE, "sudo berny-probe --all --json --wait 60 --want healthy"))
    assert {"shelf", "berny-toy-collector"} <= {health["service"] for health in said}
    cluster.sh("master", f"sudo berny-probe shelf {' '.join(STAGES)} --wait 60 --want healthy")
    assert '"value": ' in cluster.sh(NODE, "shelf toy_latest 1")


def test_a_second_run_changes_nothing(cluster: Cluster, scratch: Scratch, before: dict[tuple[str, str], str]) -> None:
    own = processes(cluster, {"shelf": NODE, **STAGES})
    assert all("active" in state.split() for state in own.values()), own
    first = cluster.processes()
    # Services were left alone as the toys came; stages run from another code, which has one more probe.
    services = {key: process for key, process in before.items() if not key[1].startswith("berny-")}
    assert services.items() <= first.items()
    again = scratch.play("site.yml")
    assert again.recap("changed") == 0, again.tail
    assert cluster.processes() == first and processes(cluster, {"shelf": NODE, **STAGES}) == own


def held(cluster: Cluster, scratch: Scratch, *cases: str) -> None:
    """Run fault cases by the copy: both pipelines under load at once, every sink of each held against what was served."""
    with cluster.lent():
        shown = scratch.berny("faults", "run", *cases, "--name", NAME, "--rate", LOAD, timeout=1800)
    for case in cases:
        for pipeline in (*cluster.lab.plan.pipelines, "toy"):
            assert re.search(rf"^{re.escape(case)} \({pipeline}\): passed; [1-9]\d* expected", shown, re.M), shown


def test_a_fault_case_passes_for_both_pipelines(cluster: Cluster, scratch: Scratch) -> None:
    """What is served meanwhile waits, and is in every sink once."""
    held(cluster, scratch, f"kill-shelf-{NODE}")


@pytest.mark.second_tier
@pytest.mark.timeout(1900)
def test_more_fault_cases_hold_for_both_pipelines(cluster: Cluster, scratch: Scratch) -> None:
    held(cluster, scratch, *MORE)


def test_a_reset_of_the_pipeline_leaves_nothing_of_it(cluster: Cluster, scratch: Scratch) -> None:
    """And touches nothing of the other one."""
    running = cluster.processes()
    reset(scratch, "pipeline=toy")
    assert cluster.processes() == running
    assert left(cluster, "toy") == {}
    topics = cluster.sh("master", "kafka-topics.sh --bootstrap-server master:9092 --list").split()
    assert "idfm-realtime" in topics and not [topic for topic in topics if topic.startswith("toy-")]
    assert "toy" not in cluster.sh("master", "hdfs dfs -ls /data /user")
    assert "has 0 shelves" in cluster.sh(NODE, "sudo berny-probe shelf")


def test_a_reset_of_the_component_leaves_nothing_of_it(cluster: Cluster, scratch: Scratch) -> None:
    running = cluster.processes()
    reset(scratch, "component=shelf")
    assert cluster.processes() == running
    assert left(cluster, "shelf") == {}
    assert ":7600 " not in cluster.sh(NODE, "ss -Hltn")


def test_the_checkout_gets_its_cluster_back(cluster: Cluster, before: dict[tuple[str, str], str]) -> None:
    """But for the toys' lines in what all nodes have, nothing is changed, and no service was ever restarted."""
    start(cluster, *cluster.lab.plan.pipelines)
    said = (cluster.lab.plan.folder / "site.log").read_text()
    changed = [task.splitlines()[0] for task in said.split("\nTASK ") if re.search(r"^changed:", task, re.M)]
    assert not [task for task in changed if not GIVEN_BACK.match(task)], changed
    now = cluster.processes()
    assert now.keys() == before.keys()
    assert not [key for key, process in before.items() if not key[1].startswith("berny-") and now[key] != process]
    assert started(cluster.lab.plan) == list(cluster.lab.simulators)
    assert load_plan(NAME) == cluster.lab.plan
    cluster.flows()
