"""What runs on nodes: modules as the programs that they are, and the scripts that services start through."""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import jinja2
import pytest

from berny.artifacts.assemble import write_archive
from berny.catalog import load_pipelines

Plugin = Callable[[str], ModuleType]
ME = pwd.getpwuid(os.getuid())


def run(checkout: Path, module: str, check: bool = False, **words: Any) -> dict[str, Any]:
    """Run a module as Ansible does on a node; return its answer."""
    told = {"ANSIBLE_MODULE_ARGS": words | {"_ansible_check_mode": check}}
    done = subprocess.run(
        [sys.executable, checkout / "ansible" / "plugins" / "modules" / f"{module}.py"],
        input=json.dumps(told),
        capture_output=True,
        text=True,
        timeout=60,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    assert bool(answer.get("failed")) == bool(done.returncode)
    return answer


# -- kafka_topics ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keep", "size", "retention", "segment"),
    [
        ("7d", "256MiB", 604_800_000, 86_400_000),
        ("1d", "1GiB", 86_400_000, 86_400_000),
        ("30m", "1KiB", 1_800_000, 1_800_000),
    ],
)
def test_topic_settings(plugin: Plugin, keep: str, size: str, retention: int, segment: int) -> None:
    """Retention drops whole segments: one that lasted longer than a day would outlive what is promised by as much."""
    sizes = {"256MiB": 268_435_456, "1GiB": 1_073_741_824, "1KiB": 1024}
    assert plugin("modules/kafka_topics.py").wanted_configuration({"keep": keep, "keep_bytes": size}) == {
        "retention.ms": str(retention), "retention.bytes": str(sizes[size]), "segment.ms": str(segment),
    }  # fmt: skip


def test_topics_of_all_manifests_can_be_had(plugin: Plugin) -> None:
    """The manifests' words are the module's."""
    wanted = plugin("modules/kafka_topics.py").wanted_configuration
    for pipeline in load_pipelines().values():
        for topic in pipeline.topics.values():
            assert all(int(value) > 0 for value in wanted(topic.model_dump()).values())


# -- hdfs_metadata -----------------------------------------------------------------------------------------------------

VERSION = "#Mon Nov 24\nnamespaceID=1\nclusterID=CID-lab\nstorageType={kind}\n"


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({}, None),
        ({"VERSION": VERSION.format(kind="DATA_NODE")}, "CID-lab"),
        ({"VERSION": VERSION.format(kind="NAME_NODE")}, None),
        ({"VERSION": VERSION.format(kind="NAME_NODE"), "fsimage_0": ""}, "CID-lab"),
        ({"fsimage_0": ""}, None),
        ({"VERSION": ""}, None),
        ({"VERSION": "torn"}, None),
    ],
)
def test_metadata_is_found(plugin: Plugin, tmp_path: Path, files: dict[str, str], found: str | None) -> None:
    """What decides whether a NameNode is formatted: a format that was cut off is none, blocks always are."""
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert plugin("modules/hdfs_metadata.py").cluster_id(tmp_path) == found
    assert plugin("modules/hdfs_metadata.py").cluster_id(tmp_path / "absent") is None


def test_metadata_is_told_by_directory(checkout: Path, tmp_path: Path) -> None:
    """Only what holds something is told; looking changes nothing, in check mode as well."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    (tmp_path / "one" / "VERSION").write_text(VERSION.format(kind="DATA_NODE"))
    directories = [str(tmp_path / name) for name in ("one", "two", "three")]
    for check in (False, True):
        answer = run(checkout, "hdfs_metadata", check, directories=directories)
        assert answer["changed"] is False
        assert answer["held"] == {str(tmp_path / "one"): "CID-lab"}


# -- berny_files -------------------------------------------------------------------------------------------------------


def configured(checkout: Path, folder: Path, text: str, mode: str = "0644", check: bool = False) -> dict[str, Any]:
    """Have a file and a secret file in a folder that may not be there yet."""
    plain, secret = str(folder / "etc" / "a.conf"), str(folder / "etc" / "stage.env")
    files = [{"dest": plain, "mode": mode, "owner": ME.pw_name}, {"dest": secret, "mode": "0600", "owner": ME.pw_name}]
    return run(
        checkout,
        "berny_files",
        check,
        files=files,
        owner="unit",
        state=str(folder / "state"),
        contents={plain: text},
        secret_contents={secret: f"KEY=s3cr3t-{text}"},
    )


def test_files_are_had_once(checkout: Path, tmp_path: Path) -> None:
    """A second run changes nothing; another text or mode is a change; nothing is left beside."""
    assert configured(checkout, tmp_path, "one")["changed"] is True
    assert configured(checkout, tmp_path, "one") | {"invocation": None} == {
        "changed": False, "written": [], "diff": [], "invocation": None,
    }  # fmt: skip
    assert (tmp_path / "etc" / "a.conf").read_text() == "one"
    assert (tmp_path / "etc" / "stage.env").stat().st_mode & 0o777 == 0o600
    assert configured(checkout, tmp_path, "one", "0755")["written"] == [str(tmp_path / "etc" / "a.conf")]
    assert (tmp_path / "etc" / "a.conf").stat().st_mode & 0o777 == 0o755
    assert sorted(path.name for path in (tmp_path / "etc").iterdir()) == ["a.conf", "stage.env"]


def test_check_mode_says_and_writes_nothing(checkout: Path, tmp_path: Path) -> None:
    """``--check --diff`` on a new node."""
    answer = configured(checkout, tmp_path, "one", check=True)
    assert answer["changed"] is True
    assert [diff["after"] for diff in answer["diff"]] == ["one"]
    assert list(tmp_path.iterdir()) == []


def test_secrets_are_in_no_answer(checkout: Path, tmp_path: Path) -> None:
    """Neither in the diff nor among the module's words: both end up in logs."""
    configured(checkout, tmp_path, "one")
    answer = configured(checkout, tmp_path, "two")
    assert len(answer["written"]) == 2
    assert "s3cr3t" not in json.dumps(answer)


def test_unknown_owner_is_told(checkout: Path, tmp_path: Path) -> None:
    """The role that makes users did not run: nothing is written under root's name instead."""
    dest = str(tmp_path / "a.conf")
    files = [{"dest": dest, "mode": "0600", "owner": "nobody-of-this-name"}]
    words = {"files": files, "owner": "unit", "state": str(tmp_path / "state"), "contents": {dest: "x"}}
    answer = run(checkout, "berny_files", **words)
    assert f"{dest}: there is no user 'nobody-of-this-name'; the role 'node' makes it" in answer["msg"]
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_reader_sees_the_old_text_or_the_new(plugin: Plugin, tmp_path: Path) -> None:
    """A service that starts while its file is written never reads half of it."""
    write = plugin("modules/berny_files.py").write
    path = tmp_path / "a.conf"
    texts = {"a" * 100_000, "b" * 200_000}
    write(path, "a" * 100_000, 0o644, ME)
    seen: set[str] = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.add(path.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(50):
        for text in sorted(texts):
            write(path, text, 0o644, ME)
    done.set()
    reader.join()
    assert seen <= texts
    assert seen


def test_stale_neighbour_is_no_obstacle(plugin: Plugin, tmp_path: Path) -> None:
    """A write that was cut off leaves a file beside; it may even be a link to somewhere else."""
    module = plugin("modules/berny_files.py")
    (tmp_path / "other").write_text("precious")
    (tmp_path / ".a.conf.berny").symlink_to(tmp_path / "other")
    module.write(tmp_path / "a.conf", "text", 0o640, ME)
    assert module.current(tmp_path / "a.conf") == ("text", 0o640, ME.pw_uid)
    assert (tmp_path / "other").read_text() == "precious"
    assert module.current(tmp_path / "absent") == (None, 0, 0)


# -- berny_archive -----------------------------------------------------------------------------------------------------


class Node:
    """The folder of archives of a node."""

    def __init__(self, checkout: Path, folder: Path) -> None:
        self.checkout, self.folder = checkout, folder
        self.root = folder / "archives"
        self.link = folder / "tool"

    def archive(self, text: str) -> tuple[Path, str]:
        """Make an archive; return it and its digest."""
        member = self.folder / "member"
        member.write_text(text)
        target = self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:8]}.tar.zst"
        return target, write_archive({"bin/tool": member}, target)

    def have(self, version: str, source: tuple[Path, str] | None = None, check: bool = False) -> dict[str, Any]:
        """Run the module; without a source it only looks."""
        given = {"source": str(source[0]), "sha256": source[1]} if source else {}
        return run(
            self.checkout, "berny_archive", check, home=str(self.root / f"tool-{version}"), link=str(self.link), **given
        )

    def folders(self) -> set[str]:
        """Return all that is in the folder of archives, hidden folders too."""
        return {path.name for path in self.root.iterdir()} if self.root.exists() else set()


@pytest.fixture
def node(checkout: Path, tmp_path: Path) -> Node:
    """A node without archives."""
    return Node(checkout, tmp_path)


def test_archive_is_unpacked_once(node: Node) -> None:
    """The first look says that it is missing, the second run that all is there."""
    answer = node.have("1-aaaa")
    assert (answer["missing"], answer["changed"]) == (True, True)
    assert not node.link.exists()
    answer = node.have("1-aaaa", node.archive("one"))
    assert (answer["missing"], answer["changed"]) == (False, True)
    assert (node.link / "bin" / "tool").read_text() == "one"
    assert node.link.readlink() == node.root / "tool-1-aaaa"
    answer = node.have("1-aaaa")
    assert (answer["missing"], answer["changed"]) == (False, False)


def test_archive_in_check_mode(node: Node) -> None:
    """Nothing is unpacked and nothing is linked."""
    assert node.have("1-aaaa", node.archive("one"), check=True)["changed"] is True
    assert node.folders() == set()
    assert not node.link.is_symlink()


def test_changed_archive_is_refused(node: Node) -> None:
    """What came over the wire is not what was sent: expected and found are told."""
    path, digest = node.archive("one")
    answer = node.have("1-aaaa", (path, "0" * 64))
    assert "0" * 64 in answer["msg"] and digest in answer["msg"]
    assert node.folders() == set()


def test_half_an_archive_is_never_current(node: Node) -> None:
    """Unpacking fails on the way: the link stays on what was there, and the next run starts clean."""
    node.have("1-aaaa", node.archive("one"))
    path, _ = node.archive("two" * 10_000)
    os.truncate(path, path.stat().st_size - 10)
    answer = node.have("2-bbbb", (path, hashlib.sha256(path.read_bytes()).hexdigest()))
    assert answer["failed"]
    assert not (node.root / "tool-2-bbbb").exists()
    assert (node.link / "bin" / "tool").read_text() == "one"
    (node.root / ".tool-2-bbbb.left").mkdir()
    node.have("2-bbbb", node.archive("two"))
    assert node.folders() == {"tool-1-aaaa", "tool-2-bbbb"}
    assert (node.link / "bin" / "tool").read_text() == "two"


def test_older_archives_go(node: Node) -> None:
    """The current one and the one before it stay: services may still run from that; others' are none of its business."""
    (node.root / "other-1-aaaa").mkdir(parents=True)
    for number in (1, 2, 3, 4):
        node.have(f"{number}-aaaa", node.archive(f"{number}"))
        os.utime(node.root / f"tool-{number}-aaaa", (number, number))
    assert node.folders() == {"tool-3-aaaa", "tool-4-aaaa", "other-1-aaaa"}


def test_going_back_is_only_a_link(node: Node) -> None:
    """The version before is still unpacked."""
    node.have("1-aaaa", node.archive("one"))
    node.have("2-bbbb", node.archive("two"))
    answer = node.have("1-aaaa")
    assert (answer["missing"], answer["changed"]) == (False, True)
    assert (node.link / "bin" / "tool").read_text() == "one"


# -- berny_service -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("journal", "told"),
    [
        ("Started x.\nERROR 1: no disk\nERROR 2: no port\nbye\nx.service: Main process exited", "ERROR 2: no port"),
        ("INFO hello\nINFO still here\nStopping x...", "INFO still here"),
        (
            "java.net.BindException: Address already in use\n\tat sun.nio.ch.Net.bind0\n\tat main",
            "Address already in use",
        ),
        ('level=error message="can\'t go on: no key"\nx.service: Failed with result', 'message="can\'t go on: no key"'),
        ("x.service: Main process exited, status=1/FAILURE\nStarted x.", "Started x."),
        (
            "Unrecognized VM option 'NoSuchOption'\nError: Could not create the Java Virtual Machine.\n"
            "Error: A fatal exception has occurred. Program will exit.",
            "Unrecognized VM option",
        ),
        ("", "the journal is empty"),
    ],
)
def test_log_line_that_says_why(plugin: Plugin, journal: str, told: str) -> None:
    """A play that stops shows one line: the last error of the program, not what systemd adds to it."""
    service = SimpleNamespace(unit="x.service", module=SimpleNamespace(run_command=lambda command: (0, journal, "")))
    assert told in plugin("modules/berny_service.py").Service.log_line(service, "0")


def unit(checkout: Path, **words: Any) -> str:
    """Render a service's unit."""
    given = {
        "service_name": "kafka", "service_title": "Kafka", "service_user": "kafka", "service_conf": "/etc/berny/kafka",
        "service_environment": {}, "service_environment_file": "", "service_needs": [], "service_part_of": "",
        "service_exec": "java   -X\n kafka.Kafka", "service_directories": ["/data/kafka"], "service_kill_seconds": 60,
        "service_restart_seconds": 5, "service_limit_nofile": 65536, "service_children_stay": False,
        "ansible_managed": "managed", "_service_after": [],
    }  # fmt: skip
    folder = checkout / "roles" / "service" / "templates"
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder), trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["split"] = str.split
    return environment.get_template("unit.service.j2").render(given | words)


def test_unit_records_what_it_starts_from(checkout: Path, plugin: Plugin) -> None:
    """The module reads the unit's digest from where the template writes it: else every run would restart everything."""
    record = plugin("modules/berny_service.py").RECORD
    assert re.search(rf"^ExecStartPre=\+{record} kafka (\S+)$", unit(checkout), re.M)
    marker = plugin("action/berny_files.py").UNIT_DIGEST
    assert unit(checkout).count(marker) == 1
    install = (checkout / "roles" / "node" / "tasks" / "main.yml").read_text()
    assert f"{record}: {{template: record-start.j2" in install


def test_unit_is_hardened(checkout: Path) -> None:
    """Own user, nothing writable but its data, no start limit."""
    text = unit(checkout)
    for line in ("User=kafka", "NoNewPrivileges=yes", "ProtectSystem=strict", "ProtectHome=yes", "PrivateTmp=yes",
                 "ReadWritePaths=/data/kafka", "LimitNOFILE=65536", "ExecStart=java -X kafka.Kafka"):  # fmt: skip
        assert f"\n{line}\n" in text, line
    assert "ReadWritePaths" not in unit(checkout, service_directories=[])


def test_unit_ends_before_what_it_needs(checkout: Path) -> None:
    """A broker whose ZooKeeper went first waits for it until it is killed."""
    assert "\nAfter=network-online.target zookeeper.service\n" in unit(checkout, _service_after=["zookeeper"])
    assert "\nAfter=network-online.target\nWants=" in unit(checkout)


def test_stage_waits_for_what_it_needs(checkout: Path) -> None:
    """By a probe, in the manifest's order, for as long as it takes, and as part of its pipeline."""
    text = unit(checkout, service_needs=["kafka", "hdfs"], service_part_of="berny-idfm.target")
    assert "\nExecStartPre=/usr/local/bin/berny-probe kafka hdfs --wait 86400 --want serving\n" in text
    assert "\nTimeoutStartSec=infinity\n" in text
    assert "\nPartOf=berny-idfm.target\n" in text
    assert text.rstrip().endswith("WantedBy=berny-idfm.target")
    assert "TimeoutStartSec" not in unit(checkout)


# -- scripts -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def record(checkout: Path, tmp_path: Path) -> Callable[..., str]:
    """The script record-start with /etc and /run moved to a folder; returns what it prints or records."""
    text = (checkout / "roles" / "node" / "templates" / "record-start.j2").read_text()
    assert "{{" not in text
    for name in ("/etc/berny", "/run/berny"):
        assert name in text
        text = text.replace(name, f"{tmp_path}{name}")
    script = tmp_path / "record-start"
    script.write_text(text)

    def start(*words: str) -> str:
        done = subprocess.run(["sh", script, *words], capture_output=True, text=True, check=True)
        return done.stdout.strip() or (tmp_path / "run" / "berny" / "kafka" / "started").read_text().strip()

    return start


def test_start_is_recorded_from_all_it_starts_from(record: Callable[..., str], tmp_path: Path) -> None:
    """Archive, list, each file and the unit: what differs restarts, what does not does not."""
    conf = tmp_path / "etc" / "berny" / "kafka"
    conf.mkdir(parents=True)
    for name in ("server.properties", "log4j.properties"):
        (conf / name).write_text(name)
    inputs = conf / "inputs"
    inputs.write_text(f"/opt/berny/archives/kafka-1-aaaa\n{conf}/server.properties\n{conf}/log4j.properties\n")
    started = record("kafka", "unit1")
    assert re.fullmatch(r"[0-9a-f]{32}", started)
    assert record("--print", "kafka", "unit1") == started, "an unchanged service is not restarted"
    seen = {started}

    def differs(*words: str) -> None:
        now = record("--print", "kafka", *words)
        assert now not in seen
        seen.add(now)

    differs("unit2")
    differs()
    (conf / "log4j.properties").write_text("changed")
    differs("unit1")
    (conf / "log4j.properties").unlink()
    differs("unit1")
    inputs.write_text(inputs.read_text().replace("kafka-1-aaaa", "kafka-1-bbbb"))
    differs("unit1")
    inputs.write_text(inputs.read_text() + f"{conf}/new.conf\n")
    differs("unit1")
    assert (tmp_path / "run" / "berny" / "kafka" / "started").read_text().strip() == started, "--print records nothing"
    assert [path.name for path in (tmp_path / "run" / "berny" / "kafka").iterdir()] == ["started"]


@pytest.mark.parametrize(
    ("version", "code"),
    [
        (None, 78),
        ("clusterID=CID-other\n", 78),
        ("", 78),
        ("clusterID=CID-lab\n", 0),
        ("a=b\nclusterID=CID-lab\nc=d\n", 0),
    ],
)
def test_namenode_runs_on_its_own_metadata_only(checkout: Path, tmp_path: Path, version: str | None, code: int) -> None:
    """With another cluster's metadata, or none, it would have every block dropped: a person is needed."""
    script = checkout / "roles" / "hdfs" / "templates" / "own-metadata.sh.j2"
    assert "{{" not in script.read_text()
    if version is not None:
        (tmp_path / "current").mkdir()
        (tmp_path / "current" / "VERSION").write_text(version)
    done = subprocess.run(["sh", script, "CID-lab", tmp_path, "echo", "it", "runs"], capture_output=True, text=True)
    assert done.returncode == code
    assert done.stdout == ("" if code else "it runs\n")
    if code:
        assert str(tmp_path) in done.stderr and "expected CID-lab" in done.stderr
