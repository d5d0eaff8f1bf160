"""Commands on nodes as the login user types them: those of the components, and the scripts; beside them a play that looks."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from berny.controller.artifacts import Store
from berny.controller.artifacts.recipes import load_recipes, not_run
from berny.model.catalog import load_catalog
from berny.model.component import Component
from berny.model.topology import CHECKOUT
from support import Cluster, Play, environment, play

# Most of a command's time is a JVM's start.
AT_ONCE = 3
COMPONENTS = {name: component for name, component in load_catalog().components.items() if component.commands.calls}
CONTROLLED = {
    kind: order for component in load_catalog().components.values() for kind, order in component.control.items()
}
# Reads a list of classes, and prints those that no jar of a folder has.
MISSING = """
import sys, zipfile, pathlib
have = {name for jar in pathlib.Path(sys.argv[1]).glob("*.jar") for name in zipfile.ZipFile(jar).namelist()}
print(*[name for name in sys.argv[2:] if name.replace(".", "/") + ".class" not in have])
"""


@pytest.fixture(scope="module", autouse=True)
def looked(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[Future[Play] | None]:
    """``site.yml --check --diff`` beside the commands: none of them changes what a play does."""
    if not any("looked_at" in item.name for item in request.session.items):
        yield None
        return
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(play, "site.yml", "--check", "--diff")


def nodes_with(cluster: Cluster, component: Component) -> list[str]:
    """Return the nodes that have a component's commands."""
    return sorted({node for service in component.services.values() for node in cluster.groups[service.group]})


def with_machines(cluster: Cluster, text: str) -> str:
    """Return a text with the machine of a group's first node for ``@GROUP@``."""
    for group, members in cluster.groups.items():
        text = text.replace(f"@{group}@", members[0].replace("_", "-")) if members else text
    return text


class Lane:
    """The calls of a component, one after the other, on the nodes that have it in turn."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.calls = COMPONENTS[name].commands.calls
        self.printed: list[Future[str]] = [Future() for _ in self.calls]
        self.nodes = nodes_with(cluster, COMPONENTS[name])

    def run(self) -> None:
        """Run them all; one that fails is told where it is waited for."""
        for node, call, printed in zip(itertools.cycle(self.nodes), self.calls, self.printed, strict=False):
            line = with_machines(self.cluster, call.run)
            try:
                printed.set_result(self.cluster.sh(node, line, 240))
            except Exception as error:
                printed.set_exception(error)


def not_there(cluster: Cluster, component: str) -> str:
    """Return why a component's commands are not there, or nothing where they are. The tests' own lab runs everything."""
    if not nodes_with(cluster, COMPONENTS[component]):
        return f"no pipeline of the lab {cluster.lab.plan.name} needs {component}"
    archive = COMPONENTS[component].commands.archive
    return not_run(load_recipes()[archive]) if archive and not Store().find(archive) else ""


@pytest.fixture(scope="module")
def lanes(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[dict[str, Lane]]:
    """The components whose calls are tested, some at once."""
    chosen = {
        item.callspec.params["component"]
        for item in request.session.items
        if hasattr(item, "callspec") and item.path == request.path and "component" in item.callspec.params
    }
    # The longest first.
    order = sorted(chosen, key=lambda name: -len(COMPONENTS[name].commands.calls))
    found = {name: Lane(cluster, name) for name in order if not not_there(cluster, name)}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for lane in found.values():
            pool.submit(lane.run)
        yield found


@pytest.mark.parametrize(
    ("component", "number"),
    [
        pytest.param(name, number, id=f"{name}-{number}-{call.run.split(maxsplit=1)[0]}")
        for name, component in COMPONENTS.items()
        for number, call in enumerate(component.commands.calls)
    ],
)
def test_call(cluster: Cluster, lanes: dict[str, Lane], component: str, number: int) -> None:
    """It prints what proves that it worked."""
    if reason := not_there(cluster, component):
        pytest.skip(reason)
    call = COMPONENTS[component].commands.calls[number]
    assert with_machines(cluster, call.shows) in lanes[component].printed[number].result(600), call.run


@pytest.mark.parametrize("component", COMPONENTS)
def test_every_node_of_a_component_has_all_its_commands(cluster: Cluster, component: str) -> None:
    """Each may be run by anybody, and each class is in the jars; those that are called are some of these."""
    if reason := not_there(cluster, component):
        pytest.skip(reason)
    commands = COMPONENTS[component].commands
    nodes = nodes_with(cluster, COMPONENTS[component])
    paths = " ".join(f"/usr/local/bin/{name}" for name in commands.names)
    there = cluster.each(f"stat -c '%a %n' {paths}", nodes)
    assert all(said.count("755 ") == len(commands.names) for said in there.values()), there
    if commands.java:
        lines = [line for line in commands.names.values() if line]
        words = [word for line in lines for word in (line.values() if isinstance(line, dict) else [line])]
        classes = " ".join(word.split()[0] for word in words)
        folder = commands.java.classpath.split("/lib/*")[0].split(":")[-1] + "/lib"
        assert cluster.sh(nodes[0], f"python3 -c '{MISSING}' {folder} {classes}").strip() == ""


def test_it_is_looked_at_in_silence(looked: Future[Play]) -> None:
    """A run that only looks finds nothing to change and shows no difference."""
    found = looked.result()
    assert found.recap("changed") == 0, found.tail
    assert "--- before" not in found.output
    assert "\n+" not in found.output, found.output


def test_every_script_is_tested() -> None:
    found = {name for component in load_catalog().components.values() for name in component.scripts}
    assert found == {f"{verb}-{kind}.sh" for verb in ("start", "stop") for kind in CONTROLLED}


@pytest.mark.parametrize("kind", CONTROLLED)
def test_scripts(cluster: Cluster, kind: str) -> None:
    """On the nodes of the first service that they drive; stopping is tested in test_C_control.py."""
    catalog, order = load_catalog(), CONTROLLED[kind]
    active = [
        f"{one} on {node}: active already" for one in order for node in cluster.groups[catalog.services[one].group]
    ]
    for node in cluster.groups[catalog.services[order[0]].group]:
        said = cluster.sh(node, f"sudo start-{kind}.sh")
        assert all(line in said for line in active), said
        assert "They stay stopped, over reboots and site.yml" in cluster.sh(node, f"stop-{kind}.sh --help")


def test_options_of_hadoop_and_wrong_commands(cluster: Cluster) -> None:
    """What all of Hadoop's scripts take: another configuration, a class by its name. A wrong word gets the usage."""
    said = cluster.sh("master", "mkdir -p /tmp/empty && hdfs --config /tmp/empty getconf -confKey fs.defaultFS")
    assert said.strip() == "file:///"
    assert "Hadoop 3." in cluster.sh("master", "yarn org.apache.hadoop.util.VersionInfo")
    done = cluster.lab.run("master", "mapred nothing")
    assert done.returncode == 2 and "streaming" in done.stderr


def test_a_home_in_hdfs_is_its_owners(cluster: Cluster) -> None:
    """Made with its owner; what the owner does to it later stays; in check mode nothing is made."""
    home = "/user/berny-somebody"
    words = {"url": "http://master:9870", "directories": {home: {"owner": "berny-somebody"}}}
    ansible = [str(Path(sys.executable).with_name("ansible")), "-i", "inventory/lab", "master", "-o"]

    def run(*options: str) -> str:
        command = [*ansible, "-M", "roles/hdfs/library", "-m", "hdfs_directories", "-a", json.dumps(words), *options]
        done = subprocess.run(command, cwd=CHECKOUT, env=environment(), capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    stat = f"hdfs dfs -stat '%u %a' {home}"
    try:
        assert "CHANGED" in run("--check")
        assert "CHANGED" in run()
        assert cluster.sh("master", f"{stat} /user/berny").splitlines() == ["berny-somebody 755", "berny 755"]
        cluster.sh("master", f"HADOOP_USER_NAME=berny-somebody hdfs dfs -chmod 700 {home}")
        assert "SUCCESS" in run("--check") and "SUCCESS" in run()
        assert cluster.sh("master", stat).strip() == "berny-somebody 700"
    finally:
        cluster.sh("master", f"sudo -u hdfs hdfs dfs -rm -r -f -skipTrash {home}")


def test_an_application_runs_on_the_workers(cluster: Cluster) -> None:
    """Beside the streaming driver: computed by executors, its event log in HDFS. /tmp of where it is submitted is noexec."""
    program = "spark.sparkContext.parallelize(range(100), 2).map(lambda n: n * n).sum()"
    script = f"from pyspark.sql import SparkSession as S; spark = S.builder.getOrCreate(); print('squares', {program})"
    cluster.sh("master", f'echo "{script}" > /tmp/squares.py; sudo mount -o remount,bind,noexec /tmp')
    try:
        said = cluster.sh("master", "spark-submit --name squares /tmp/squares.py 2>&1", timeout=240)
    finally:
        cluster.sh("master", "sudo mount -o remount,bind,exec /tmp")
    assert "squares 328350" in said and "UnsatisfiedLinkError" not in said
    assert "eventlog" in cluster.sh("master", "hdfs dfs -ls /spark/events")


def test_services_may_load_libraries_from_a_tmp_that_is_noexec(cluster: Cluster) -> None:
    """A unit has a /tmp of its own, in which what Java unpacks can be run whatever the machine's allows."""
    units = cluster.sh("worker_2", "systemctl show -P ExecPaths kafka spark-worker influxdb").split()
    assert units == ["/tmp"] * 3
    run = "sudo systemd-run -q --wait --pipe -p PrivateTmp=yes"
    copy = "sh -c 'cp /bin/true /tmp/copy && /tmp/copy && echo ran' 2>&1"
    cluster.sh("worker_2", "sudo mount -o remount,bind,noexec /tmp")
    try:
        assert "Permission denied" in cluster.sh("worker_2", f"{run} {copy}", ok=False)
        assert cluster.sh("worker_2", f"{run} -p ExecPaths=/tmp {copy}").strip() == "ran"
    finally:
        cluster.sh("worker_2", "sudo mount -o remount,bind,exec /tmp")


def test_old_event_logs_are_removed_and_young_ones_kept(cluster: Cluster) -> None:
    hdfs = "sudo -u spark hdfs dfs"
    cluster.sh("master", f"{hdfs} -mkdir -p /spark/events/eventlog_v2_old /spark/events/eventlog_v2_young")
    cluster.sh("master", f"{hdfs} -touch -t 20250101:000000 /spark/events/eventlog_v2_old")
    cluster.sh("master", "sudo systemctl start berny-spark-events")
    left = cluster.sh("master", f"{hdfs} -ls /spark/events")
    assert "eventlog_v2_young" in left and "eventlog_v2_old" not in left
