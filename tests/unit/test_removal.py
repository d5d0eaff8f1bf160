"""What a reset removes, what it refuses, and what a node does with it: records, files as they were, archives, data."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from berny.controller.placement import placed
from berny.controller.removal import Plan, Refused, Request, plan
from berny.model import names
from berny.model.catalog import load_catalog
from berny.model.manifest import load_pipelines
from berny.model.topology import read_mapping

CATALOG, PIPELINES, GROUPS = load_catalog(), load_pipelines(), read_mapping()
WHOLE = {node: {*placed(CATALOG, PIPELINES, GROUPS, node), "node"} for node in GROUPS["all"]}


def asked(
    installed: dict[str, set[str]] | None = None,
    remembered: dict[str, set[str]] | None = None,
    unrecorded: dict[str, list[str]] | None = None,
    of: dict[str, str] | None = None,
    **words: Any,
) -> Plan:
    """Return the plan for a request to the cluster named lab, with everything installed by default."""
    there = WHOLE if installed is None else installed
    left = {node: (remembered or {}).get(node, set()) for node in there}
    return plan(Request(**words), "lab", CATALOG, PIPELINES, GROUPS, there, left, unrecorded or {}, of or {})


def without(*owners: str, nodes: list[str] | None = None) -> dict[str, set[str]]:
    """Return what is installed when some owners are not, on some nodes."""
    return {node: there - set(owners) for node, there in WHOLE.items() if nodes is None or node in nodes}


# -- what goes ---------------------------------------------------------------------------------------------------------


def test_everything_goes_in_reverse() -> None:
    """Stages before what they need, services before what they need; the node's own files are no service."""
    found = asked(everything=True)
    order = found.owners
    assert "node" not in order
    assert order.index("berny-idfm-producer") < order.index("berny-idfm-analytics") < order.index("spark-master")
    assert order.index("kafka") < order.index("zookeeper")
    assert order.index("spark-worker") < order.index("hdfs-datanode") < order.index("hdfs-namenode")
    assert order.index("hdfs-namenode") < order.index("hdfs")
    assert set(order) == {owner for owners in WHOLE.values() for owner in owners} - {"node"}
    assert not found.data and not found.pipeline_data


def test_a_component_goes_with_what_its_clients_need() -> None:
    """All services of it, and its own files."""
    clients = [
        names.unit(pipeline.name, stage)
        for pipeline in PIPELINES.values()
        for stage, facts in pipeline.stages.items()
        if facts.engine == "spark"
    ]
    found = asked(without(*clients), component="spark")
    assert found.hosts["worker_1"] == ["spark-worker", "spark"]
    assert found.hosts["worker_0"] == []


def test_an_orphan_goes_alone() -> None:
    """One service on one node; what its component shares goes with the last service of it there."""
    there = WHOLE | {"worker_0": WHOLE["worker_0"] | {"spark-worker", "spark"}}
    found = asked({"worker_0": there["worker_0"]}, component="spark-worker")
    assert found.hosts == {"worker_0": ["spark-worker", "spark"]}
    both = {"master": WHOLE["master"] | {"spark-worker"}}
    assert asked(both, component="spark-worker").hosts == {"master": ["spark-worker"]}


def test_a_pipeline_goes_with_its_data_where_all_of_it_goes() -> None:
    """Topics, directories and bucket are shared by its nodes: with some left out they stay, and that is told."""
    found = asked(pipeline="idfm", data="lab")
    assert found.owners == ["berny-idfm-producer", "berny-idfm-influx-consumer", "berny-idfm-analytics"]
    assert (found.data, found.pipeline_data) == (True, "idfm")
    found = asked(without(nodes=["master"]), pipeline="idfm", data="lab")
    assert (found.data, found.pipeline_data) == (True, "")
    assert any("not all of its nodes" in words for words in found.kept)
    assert asked(pipeline="idfm").pipeline_data == ""
    # Once more, after it was cut off when the stages were gone already.
    gone = {node: {"node"} for node in WHOLE}
    assert asked(gone, pipeline="idfm", data="lab").pipeline_data == "idfm"


def test_a_pipeline_without_a_manifest_can_go() -> None:
    """Its folder was removed first; what it kept in the cluster is not known any more."""
    there = {"master": {"node", "berny-old-stage"}}
    found = asked(there, of={"berny-old-stage": "old"}, pipeline="old", data="lab")
    assert (found.owners, found.pipeline_data) == (["berny-old-stage"], "")
    assert "there is no pipeline old" in refused(there, pipeline="old"), "a name is not taken apart"


def test_stages_of_a_pipeline_whose_name_begins_the_same_stay() -> None:
    """``air`` is not ``air-quality``: whose a unit is, its record says."""
    of = {"berny-air-in": "air", "berny-air-quality-in": "air-quality", "berny-air-quality-out": "air-quality"}
    there = {"master": {"node", *of}, "worker_0": {"node", "berny-air-quality-out"}}
    assert asked(there, of=of, pipeline="air").hosts == {"master": ["berny-air-in"], "worker_0": []}
    found = asked(there, of=of, pipeline="air-quality", data="lab")
    assert found.hosts["worker_0"] == ["berny-air-quality-out"]
    assert set(found.hosts["master"]) == {"berny-air-quality-in", "berny-air-quality-out"}
    # One that is both: its record has the last word.
    mixed = {"berny-air-quality-in": "air"}
    assert asked({"master": {"node", *mixed}}, of=mixed, pipeline="air").owners == ["berny-air-quality-in"]
    assert "did you mean air-quality?" in refused({"master": {"node", *of}}, of, pipeline="air-qualiti")


def test_a_component_that_is_not_selected_any_more_can_go() -> None:
    """The inventory has no node for it: what is left of it goes by its record, and nobody brings it back."""
    gone = {name: nodes for name, nodes in GROUPS.items() if name not in CATALOG.components["grafana"].groups}
    there = {node: set(owners) for node, owners in WHOLE.items()}
    left = {node: set[str]() for node in there}
    found = plan(Request(component="grafana"), "lab", CATALOG, PIPELINES, gone, there, left, {}, {})
    assert found.hosts["worker_2"] == ["grafana"] and not [words for words in found.kept if "site.yml" in words]


def test_what_left_data_can_be_asked_for_again() -> None:
    """Removed without data, then its data: the node has on record where that is."""
    there = without("kafka")
    assert asked(there, {"worker_2": {"kafka"}}, component="kafka").hosts["worker_2"] == []
    assert asked(there, {"worker_2": {"kafka"}}, component="kafka", data="lab").hosts["worker_2"] == ["kafka"]


def test_what_comes_back_is_told() -> None:
    """The inventory has the last word: a reset is no change of the mapping."""
    stages = [names.unit(name, stage) for name, pipeline in PIPELINES.items() for stage in pipeline.stages]
    kept = asked(without(*stages), component="kafka").kept
    assert "the inventory still has kafka: site.yml installs it again" in kept
    orphan = asked({"worker_1": {"kafka", "node"}}, component="kafka", data="lab")
    assert orphan.kept == []


# -- what is refused ---------------------------------------------------------------------------------------------------


def refused(installed: dict[str, set[str]] | None = None, of: dict[str, str] | None = None, **words: Any) -> str:
    """Return why a request is refused."""
    with pytest.raises(Refused) as error:
        asked(installed, of=of, **words)
    return " | ".join(error.value.problems)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({}, "specify what to remove, one of: -e component=NAME"),
        ({"component": "kafka", "everything": True}, "specify what to remove"),
        ({"everything": True, "data": "production"}, "data=production is not the name of this cluster (lab)"),
        ({"component": "kakfa"}, "there is no component kakfa; did you mean kafka?"),
        ({"component": "node"}, "there is no component node"),
        ({"pipeline": "idmf"}, "there is no pipeline idmf; did you mean idfm?"),
    ],
)
def test_requests_that_are_none(request_: dict[str, Any], words: str) -> None:
    """Each with its remedy."""
    assert words in refused(**request_)


def test_all_that_is_wrong_is_told_at_once() -> None:
    """Two mistakes, two reasons."""
    assert refused(component="kakfa", data="berny").count(" | ") == 1


def test_what_others_need_is_not_taken_from_them() -> None:
    """Whoever would be without it is named; with these gone, or with all, it goes."""
    said = refused(component="hdfs")
    assert "hdfs-namenode is needed by" in said and "spark" in said and "the pipeline idfm" in said
    assert "zookeeper is needed by hbase and kafka" in refused(component="zookeeper")
    rest = [owner for owners in WHOLE.values() for owner in owners if not owner.startswith(("hdfs", "node"))]
    assert asked(without(*rest), component="hdfs").owners[-1] == "hdfs"


def test_one_of_several_can_go() -> None:
    """A broker, a DataNode, a whole worker: what is left is ready."""
    assert asked(without(nodes=["worker_2"]), component="kafka").hosts == {"worker_2": ["kafka"]}
    assert asked(without(nodes=["worker_0"]), everything=True).everything
    # The node of the only ZooKeeper is not one of several; what runs on the others is the inventory's word.
    assert "zookeeper is needed by hbase and kafka" in refused(without(nodes=["master"]), everything=True)


def test_an_orphan_is_nobodys_need() -> None:
    """The inventory has it elsewhere."""
    assert asked({"worker_1": WHOLE["worker_1"] | {"zookeeper"}}, component="zookeeper").owners == ["zookeeper"]


@pytest.mark.parametrize("words", [{"component": "kafka"}, {"everything": True}, {"pipeline": "idfm"}])
def test_a_node_without_records_is_not_taken_for_an_empty_one(words: dict[str, Any]) -> None:
    """Nobody knows what else it has: archives of what runs would go, and the component would run on."""
    there = without(nodes=["master", "worker_0"]) | {"worker_2": set()}
    traces = {"master": [], "worker_2": ["/etc/systemd/system/kafka.service", "/etc/berny/cluster.json"]}
    with pytest.raises(Refused) as error:
        asked(there, unrecorded=traces, **words)
    [problem] = [one for one in error.value.problems if "no record" in one]
    assert problem.startswith(
        "worker_2: there is no record (/var/lib/berny) of /etc/systemd/system/kafka.service, /etc/berny/cluster.json"
    )
    assert "site.yml" in problem


# -- on the node -------------------------------------------------------------------------------------------------------


@pytest.fixture
def files(plugin: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """What writes files, with its records below a folder of the test."""
    module = plugin("ansible/plugins/module_utils/berny_files.py")
    monkeypatch.setattr(module, "state", str(tmp_path / "state"), raising=False)
    return module


@pytest.fixture
def remove(plugin: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """What removes them, likewise; every other place is empty, and a lab that runs on this box is not seen."""
    module = plugin("ansible/plugins/modules/berny_remove.py")
    for name in ("UNITS", "TMPFILES", "CONFIGURATION", "RUNTIME", "ARCHIVES", "HELPERS", "STAMPS", "DATA", "PROCESSES"):
        monkeypatch.setattr(module, name, tmp_path / name.lower())
    monkeypatch.setattr(module, "STATE", tmp_path / "state")
    monkeypatch.setattr(module, "RECORDS", tmp_path / "state" / "installed")
    monkeypatch.setattr(module, "BEFORE", tmp_path / "state" / "before")
    return module


class Exit(Exception):
    """A module's end, with its words."""


class Module:
    """What a module sees of Ansible; commands are kept, and none is run."""

    def __init__(self, check_mode: bool = False, **params: Any) -> None:
        self.check_mode, self.params = check_mode, params
        self.commands: list[list[str]] = []

    def run_command(self, command: list[str], check_rc: bool = False) -> tuple[int, str, str]:
        """Every unit is inactive."""
        self.commands.append(command)
        return 0, "inactive\n", ""

    def fail_json(self, **words: Any) -> None:
        """End with an error."""
        raise Exit(words["msg"])

    def exit_json(self, **words: Any) -> None:
        """End."""
        raise Exit(words)


def write(
    files: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    owner: str,
    check: bool = False,
    pipeline: str = "",
    **texts: str,
) -> Any:
    """Have files written for an owner; returns what the module said."""
    dests = {name.replace("__", "/"): text for name, text in texts.items()}
    words = {
        "owner": owner,
        "pipeline": pipeline,
        "state": files.state,
        "files": [{"dest": dest, "mode": "0644", "owner": "root"} for dest in dests],
        "contents": dests,
        "secret_contents": {},
    }
    # The tests may run as somebody else.
    monkeypatch.setattr(files.pwd, "getpwnam", lambda _: SimpleNamespace(pw_uid=os.getuid(), pw_gid=os.getgid()))
    return files.have(Module(check), words)


def test_what_is_written_goes_and_what_was_there_comes_back(
    files: ModuleType, remove: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files, folders that were made for them, the record itself; a second write changes nothing."""
    theirs, ours = tmp_path / "etc" / "hosts", tmp_path / "etc" / "made" / "ours.conf"
    theirs.parent.mkdir()
    theirs.write_text("as it was\n")
    texts = {str(theirs): "berny\n", str(ours): "berny\n"}
    assert write(files, monkeypatch, "node", check=True, **texts)["changed"]
    assert theirs.read_text() == "as it was\n" and not (tmp_path / "state").exists()
    assert write(files, monkeypatch, "node", **texts)["changed"]
    assert not write(files, monkeypatch, "node", **texts)["changed"]
    # Another text later does not make ours what was there.
    assert write(files, monkeypatch, "node", **{str(theirs): "berny again\n"})["changed"]
    remover = remove.Remover(Module())
    remover.owner("node", data=False)
    assert theirs.read_text() == "as it was\n"
    assert not ours.parent.exists()
    assert not list((tmp_path / "state" / "installed").iterdir())
    remover = remove.Remover(Module())
    remover.owner("node", data=False)
    assert remover.removed == []


def test_what_is_not_on_record_is_seen(
    files: ModuleType, remove: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records that were removed under running services; those of a reset that was cut off leave no trace of it."""
    unit, cluster = tmp_path / "units" / "kafka.service", tmp_path / "configuration" / "cluster.json"
    text = "ExecStartPre=+/usr/local/lib/berny/record-start kafka 1\n"
    write(files, monkeypatch, "kafka", **{str(unit): text})
    write(files, monkeypatch, "node", **{str(cluster): "{}\n"})
    (tmp_path / "units" / "theirs.service").write_text("ExecStart=theirs\n")
    assert remove.unrecorded() == []
    kept = {path: path.read_text() for path in (tmp_path / "state" / "installed").iterdir()}
    for path in kept:
        path.unlink()
    assert remove.unrecorded() == [str(unit), str(cluster)]
    for path, record in kept.items():
        path.write_text(record)
    # Cut off before the record goes, and after.
    monkeypatch.setattr(remove.Remover, "keep_record", lambda *_: None)
    remove.Remover(Module()).owner("kafka", data=False)
    assert remove.unrecorded() == []
    remove.Remover(Module()).owner("node", data=False)
    assert remove.unrecorded() == [] and not cluster.exists()


def test_a_file_of_two_owners_goes_with_the_second(
    files: ModuleType, remove: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stages of a node share their target."""
    target = tmp_path / "units" / "berny-idfm.target"
    for owner in ("berny-idfm-producer", "berny-idfm-analytics"):
        write(files, monkeypatch, owner, **{str(target): "t\n", str(tmp_path / "units" / f"{owner}.service"): "s\n"})
    module = Module()
    remove.Remover(module).owner("berny-idfm-producer", data=False)
    assert target.exists() and not (tmp_path / "units" / "berny-idfm-producer.service").exists()
    assert ["systemctl", "disable", "--now", "berny-idfm-producer.service"] in module.commands
    module = Module()
    remove.Remover(module).owner("berny-idfm-analytics", data=False)
    assert not target.exists()
    assert ["systemctl", "disable", "--now", "berny-idfm.target", "berny-idfm-analytics.service"] in module.commands


def test_whose_a_stage_is_stays_on_record(
    files: ModuleType, remove: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it is installed, and as long as it has left data; a write without a word of it takes it from nobody."""
    monkeypatch.setattr(remove, "UIDS", range(os.getuid(), os.getuid() + 1))
    data, unit = tmp_path / "data" / "berny-air", "berny-air-quality-x"
    data.mkdir(parents=True)
    (data / "spool.sqlite").touch()
    tmpfiles = {str(tmp_path / "tmpfiles" / f"{unit}.conf"): f"d {data} 0750 x x\n"}
    write(files, monkeypatch, unit, pipeline="air", **tmpfiles)
    write(files, monkeypatch, unit, **tmpfiles)
    record = tmp_path / "state" / "installed" / f"{unit}.json"
    assert json.loads(record.read_text())["pipeline"] == "air"
    remove.Remover(Module()).owner(unit, data=False)
    assert json.loads(record.read_text()) == {"data": [str(data)], "pipeline": "air"}


def service(tmp_path: Path) -> tuple[Path, Path]:
    """Install a service with data by hand; return its data directory and its record."""
    data, record = tmp_path / "data" / "kafka", tmp_path / "state" / "installed" / "kafka.json"
    tmpfiles = tmp_path / "tmpfiles" / "kafka.conf"
    for path in (data / "log", data / "lost+found", tmpfiles.parent, record.parent):
        path.mkdir(parents=True)
    tmpfiles.write_text(f"# managed\nd {data} 0750 kafka kafka\nd {data}/log 0750 kafka kafka\n")
    (data / "log" / "segment").write_text("records")
    record.write_text(json.dumps({"files": [str(tmpfiles)], "folders": []}))
    return data, record


def test_data_stays_until_it_is_asked_for(remove: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is stays on record; then it goes, the mount's own folder not."""
    monkeypatch.setattr(remove, "UIDS", range(os.getuid(), os.getuid() + 1))
    monkeypatch.setattr(remove.os, "chown", lambda *_: None)
    data, record = service(tmp_path)
    remove.Remover(Module()).owner("kafka", data=False)
    assert (data / "log" / "segment").exists()
    assert json.loads(record.read_text()) == {"data": [str(data)]}
    remove.Remover(Module(check_mode=True)).owner("kafka", data=True)
    assert (data / "log" / "segment").exists()
    remove.Remover(Module()).owner("kafka", data=True)
    assert [path.name for path in data.iterdir()] == ["lost+found"]
    assert not record.exists()


def test_data_of_others_stays(remove: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what a service's user owns is a service's; the rest is told."""
    monkeypatch.setattr(remove, "UIDS", range(1 << 30, (1 << 30) + 1))
    data, _ = service(tmp_path)
    remover = remove.Remover(Module())
    remover.owner("kafka", data=True)
    assert remover.left == [str(data / "log")] and (data / "log" / "segment").exists()


def test_archives_that_nothing_mentions(remove: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link that a command reads, a folder that a service was started from, and the versions beside them stay."""
    monkeypatch.setattr(remove, "ARCHIVES", Path("/opt/berny"))
    text = "exec -cp /opt/berny/hadoop/lib/*\nPYTHONPATH=/opt/berny/berny/python:/opt/berny/runtime/python\n"
    text += "/opt/berny/archives/spark-4.2.0-aaaaaaaaaaaa\n"
    links = {"hadoop", "berny", "runtime", "spark", "kafka", "hbase"}
    folders = {"hadoop-3.4.2-a", "hadoop-3.4.1-b", "spark-4.2.0-aaaaaaaaaaaa", "kafka-3.9.2-c", "hbase-2.6.1-hadoop3-d"}
    assert remove.unused(text, links, folders) == ({"kafka", "hbase"}, {"kafka-3.9.2-c", "hbase-2.6.1-hadoop3-d"})


def test_archives_of_pipelines_are_told_apart(remove: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipeline's archive begins with the name of the one that all nodes have, and is none of its versions."""
    monkeypatch.setattr(remove, "ARCHIVES", Path("/opt/berny"))
    text = "PYTHONPATH=/opt/berny/berny-idfm/python:/opt/berny/berny/python:/opt/berny/runtime/python\n"
    folders = {"berny-0.1.0-a", "berny-0.1.0-b", "berny-idfm-0.1.0-a", "berny-idfm-0.1.0-b", "berny-weather-0.1.0-a"}
    links = {"berny", "berny-idfm", "berny-weather"}
    assert remove.unused(text, links, folders) == ({"berny-weather"}, {"berny-weather-0.1.0-a"})
    # As a removal leaves it that was cut off between the links and the folders.
    assert remove.unused(text, links - {"berny-weather"}, folders) == (set(), {"berny-weather-0.1.0-a"})
    gone = "PYTHONPATH=/opt/berny/berny/python:/opt/berny/runtime/python\n"
    assert remove.unused(gone, links, folders)[0] == {"berny-idfm", "berny-weather"}


def test_data_directories_inside_others_are_not_named_twice(remove: ModuleType) -> None:
    """The outermost of each."""
    lines = "# managed\nd /data/a 0750 x x\nd /data/a/b 0750 x x\nd /mnt/c 0750 x x\n"
    assert remove.directories(lines) == [Path("/data/a"), Path("/mnt/c")]


def test_a_unit_that_does_not_stop_keeps_its_files(
    files: ModuleType, remove: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else nobody could stop it any more."""
    unit = tmp_path / "units" / "kafka.service"
    write(files, monkeypatch, "kafka", **{str(unit): "s\n"})
    module = Module()
    monkeypatch.setattr(module, "run_command", lambda *_, **__: (0, "deactivating\n", ""))
    with pytest.raises(Exit, match=r"kafka\.service does not stop"):
        remove.Remover(module).owner("kafka", data=True)
    assert unit.exists()
