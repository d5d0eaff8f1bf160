"""What runs on nodes: modules as the programs that they are, and the scripts that services start through."""

from __future__ import annotations

import grp
import hashlib
import json
import os
import pwd
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import ansible.module_utils
import jinja2
import pytest
from kafkas import Kafka

from berny.controller.artifacts.assemble import write_archive
from berny.model.manifest import load_pipelines
from berny.model.topology import CHECKOUT

Plugin = Callable[[str], ModuleType]
ME = pwd.getpwuid(os.getuid())
# A module with what it imports, which Ansible would have sent along.
RUN = """
import runpy, sys, ansible.module_utils
_, folder, module = sys.argv
del sys.argv[1:]
ansible.module_utils.__path__.append(folder)
runpy.run_path(module, run_name="__main__")
"""


def run(checkout: Path, module: str, check: bool = False, **words: Any) -> dict[str, Any]:
    """Run a module as Ansible does on a node; return its answer."""
    told = {"ANSIBLE_MODULE_ARGS": words | {"_ansible_check_mode": check}}
    plugins = checkout / "ansible" / "plugins"
    [file] = [*plugins.glob(f"modules/{module}.py"), *checkout.glob(f"roles/*/library/{module}.py")]
    done = subprocess.run(
        [sys.executable, "-c", RUN, plugins / "module_utils", file],
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
    assert plugin("roles/kafka/library/kafka_topics.py").wanted_configuration({"keep": keep, "keep_bytes": size}) == {
        "retention.ms": str(retention), "retention.bytes": str(sizes[size]), "segment.ms": str(segment),
    }  # fmt: skip


def test_too_few_brokers_are_told(checkout: Path, kafka: Kafka) -> None:
    """With what a person can do about it."""
    topic = {"partitions": 1, "replication": 2, "keep": "1d", "keep_bytes": "1MiB"}
    answer = run(checkout, "kafka_topics", bootstrap_servers=kafka.servers, topics={"too-few": topic})
    assert answer["failed"] and "topic too-few is to have 2 replicas, and Kafka has brokers: 1" in answer["msg"]
    answer = run(
        checkout, "kafka_topics", bootstrap_servers=kafka.servers, topics={"too-few": {**topic, "replication": 1}}
    )
    assert answer["changes"] == ["too-few: created"]


def test_topics_of_all_manifests_can_be_had(plugin: Plugin) -> None:
    """The manifests' words are the module's."""
    wanted = plugin("roles/kafka/library/kafka_topics.py").wanted_configuration
    for pipeline in load_pipelines().values():
        for topic in pipeline.resources["topics"].values():
            assert all(int(value) > 0 for value in wanted(topic).values())


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
    assert plugin("roles/hdfs/library/hdfs_metadata.py").cluster_id(tmp_path) == found
    assert plugin("roles/hdfs/library/hdfs_metadata.py").cluster_id(tmp_path / "absent") is None


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
    write = plugin("ansible/plugins/module_utils/berny_files.py").write
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
    module = plugin("ansible/plugins/module_utils/berny_files.py")
    (tmp_path / "other").write_text("precious")
    (tmp_path / ".a.conf.berny").symlink_to(tmp_path / "other")
    module.write(tmp_path / "a.conf", "text", 0o640, ME)
    assert module.current(tmp_path / "a.conf") == ("text", 0o640, ME.pw_uid, ME.pw_gid)
    assert (tmp_path / "other").read_text() == "precious"
    assert module.current(tmp_path / "absent") == (None, 0, 0, 0)


def modes(folder: Path) -> dict[str, int]:
    """Return the modes of all that is in a folder."""
    return {str(path.relative_to(folder)): path.lstat().st_mode & 0o777 for path in folder.rglob("*")}


def test_umask_of_sudo_closes_nothing(checkout: Path, tmp_path: Path) -> None:
    """Services read what is in these folders: modes are the module's, whatever the session's umask is."""
    before = os.umask(0o077)
    try:
        configured(checkout, tmp_path, "one")
    finally:
        os.umask(before)
    assert modes(tmp_path) == {
        "etc": 0o755, "etc/a.conf": 0o644, "etc/stage.env": 0o600, "state": 0o755, "state/installed": 0o755,
        "state/installed/unit.json": 0o644,
    }  # fmt: skip


def test_folders_that_were_closed_are_opened_again(checkout: Path, tmp_path: Path) -> None:
    """By an earlier umask, or by a person: the run after says so, and the one after that nothing."""
    configured(checkout, tmp_path, "one")
    (tmp_path / "etc").chmod(0o700)
    for check in (True, False):
        answer = configured(checkout, tmp_path, "one", check=check)
        assert answer["changed"] and answer["written"] == [str(tmp_path / "etc")]
        assert "mode 0700" in answer["diff"][0]["before"] and "mode 0755" in answer["diff"][0]["after"]
    assert (tmp_path / "etc").stat().st_mode & 0o777 == 0o755
    assert not configured(checkout, tmp_path, "one")["changed"]


def test_folders_of_berny_are_its_own_all_of_them(plugin: Plugin) -> None:
    """Also one that something else made before; a machine's own, and what others put below it, are not."""
    own = plugin("ansible/plugins/module_utils/berny_files.py").own_folders
    paths = [Path("/etc/berny/control/.ssh/authorized_keys"), Path("/etc/systemd/system/x.service"), Path("/srv/a/b")]
    assert own(paths, ["/srv/a"]) == [Path("/etc/berny"), Path("/etc/berny/control"), Path("/etc/berny/control/.ssh"),
                                      Path("/srv/a")]  # fmt: skip


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


@pytest.fixture
def unpacked(node: Node) -> Path:
    """The folder of an archive with a jar, a program, a link and folders that it only implies."""
    jar, program, link = node.folder / "a.jar", node.folder / "program", node.folder / "link"
    jar.write_text("jar")
    program.write_text("program")
    program.chmod(0o755)
    link.symlink_to("a.jar")
    members = {"lib/deep/a.jar": jar, "bin/program": program, "lib/deep/b.jar": link}
    before = os.umask(0o077)
    try:
        source = node.folder / "x.tar.zst", write_archive(members, node.folder / "x.tar.zst")
        node.have("1-aaaa", source)
    finally:
        os.umask(before)
    (node.folder / "source").write_text(json.dumps([str(source[0]), source[1]]))
    return node.root / "tool-1-aaaa"


def again(node: Node) -> dict[str, Any]:
    """Unpack the archive again, as the action plugin does where the module says that it is missing."""
    path, digest = json.loads((node.folder / "source").read_text())
    return node.have("1-aaaa", (Path(path), digest))


def test_unpacked_archive_is_everybodys_to_read(node: Node, unpacked: Path) -> None:
    """Under any umask, with the folders above it; what is added later, such as bytecode, is no damage."""
    closed = {name: mode for name, mode in modes(node.root).items() if mode & 0o444 != 0o444}
    assert closed == {}
    assert {modes(unpacked)[name] for name in ("lib", "lib/deep", "bin", "bin/program")} == {0o755}
    assert node.root.stat().st_mode & 0o777 == 0o755
    (unpacked / "lib" / "__pycache__").mkdir()
    assert node.have("1-aaaa") | {"invocation": None} == {
        "changed": False, "missing": False, "damage": [], "home": str(unpacked), "invocation": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda home: (home / "lib/deep/a.jar").unlink(), "lib/deep/a.jar is missing"),
        (lambda home: (home / "lib/deep/a.jar").write_text("jar!"), "lib/deep/a.jar is another"),
        (lambda home: (home / "lib/deep/a.jar").write_text("raj"), "lib/deep/a.jar is another"),
        (lambda home: shutil.rmtree(home / "bin"), "bin is missing"),
        (lambda home: (home / "lib/deep/b.jar").unlink() or (home / "lib/deep/b.jar").symlink_to("/dev/null"),
         "lib/deep/b.jar is another"),
        (lambda home: (home / ".manifest").unlink(), ".manifest is missing, or is none"),
        (lambda home: (home / ".manifest").write_text("{torn"), ".manifest is missing, or is none"),
    ],
)  # fmt: skip
def test_damaged_archive_is_found_and_unpacked_again(
    node: Node, unpacked: Path, damage: Callable[[Path], object], said: str
) -> None:
    """By name, before a service misses it at its next restart."""
    damage(unpacked)
    before = {path: path.lstat().st_ino for path in unpacked.rglob("*")}
    for check in (True, False):
        answer = node.have("1-aaaa", check=check)
        assert (answer["missing"], answer["changed"]) == (True, True)
        assert f"{unpacked}: {said}" in answer["damage"]
    assert {path: path.lstat().st_ino for path in unpacked.rglob("*")} == before, "looking changes nothing"
    assert again(node)["changed"] is True
    assert (unpacked / "lib/deep/b.jar").read_text() == "jar" and os.access(unpacked / "bin/program", os.X_OK)
    answer = node.have("1-aaaa")
    assert (answer["missing"], answer["changed"], answer["damage"]) == (False, False, [])
    assert node.folders() == {"tool-1-aaaa"}


def test_modes_of_an_archive_are_mended_where_it_is(node: Node, unpacked: Path) -> None:
    """As an old version unpacked it under another umask: nothing is sent anew, and what it was is told."""
    for path in (node.root, unpacked, unpacked / "lib", unpacked / "bin" / "program"):
        path.chmod(0o700)
    for check in (True, False):
        answer = node.have("1-aaaa", check=check)
        assert (answer["missing"], answer["changed"]) == (False, True)
        assert f"{unpacked}: lib had mode 0700, owner {ME.pw_uid}:{ME.pw_gid}" in answer["damage"]
        assert len(answer["damage"]) == 4
    assert node.have("1-aaaa")["changed"] is False
    assert {modes(unpacked)[name] for name in ("lib", "bin/program")} == {0o755}


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
        (
            "Traceback (most recent call last):\nTypeError: run() takes 4\nWARNING: started again",
            "TypeError: run() takes 4",
        ),
        ("", "the journal is empty"),
    ],
)
def test_log_line_that_says_why(plugin: Plugin, journal: str, told: str) -> None:
    """A play that stops shows one line: the last error of the program, not what systemd adds to it."""
    service = SimpleNamespace(unit="x.service", module=SimpleNamespace(run_command=lambda command: (0, journal, "")))
    assert told in plugin("ansible/plugins/module_utils/berny_service.py").Service.log_line(service, "0")


@pytest.fixture
def owned(plugin: Plugin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Callable[..., str], Path]:
    """What mends a service's directories, and the directory: it has a file two levels down, and lost+found."""
    module = plugin("ansible/plugins/module_utils/berny_service.py")
    monkeypatch.setattr(module, "TMPFILES", tmp_path)
    monkeypatch.setattr(module, "DATA", tmp_path / "data")
    data = tmp_path / "data" / "kafka"
    for folder in ("log/topic-0", "lost+found"):
        (data / folder).mkdir(parents=True)
    for file in ("log/topic-0/00.log", "log/meta"):
        (data / file).write_text(file)
    group = grp.getgrgid(ME.pw_gid).gr_name
    lines = "".join(f"d {path} 0750 {ME.pw_name} {group}\n" for path in (data, data / "log"))
    (tmp_path / "kafka.conf").write_text(f"# managed\n{lines}")
    for path in (data, data / "log"):
        path.chmod(0o750)
    (data / "lost+found").chmod(0)

    def mend(check: bool = False) -> str:
        service = SimpleNamespace(name="kafka", module=SimpleNamespace(check_mode=check, run_command=command))
        return str(module.Service.mend(service))

    def command(words: list[str], environ_update: dict[str, str] | None = None) -> tuple[int, str, str]:
        if words[0] == "systemd-tmpfiles":
            for path in (data, data / "log"):
                path.chmod(0o750)
            return 0, "", ""
        done = subprocess.run(words, capture_output=True, text=True, env=os.environ | (environ_update or {}))
        return done.returncode, done.stdout, done.stderr

    return mend, data


def test_data_is_its_services_to_use(owned: tuple[Callable[..., str], Path]) -> None:
    """However deep: folders that can't be entered, files that can't be read. Fewer rights for others are its own affair."""
    mend, data = owned
    assert mend() == ""
    (data / "log").chmod(0o700)
    assert mend() == ""
    for path, mode in ((data / "log" / "topic-0", 0o600), (data / "log" / "topic-0" / "00.log", 0o200)):
        path.chmod(mode)
        assert f"{path} had mode {mode:o}, owner {ME.pw_name}:" in mend(check=True)
        assert path.stat().st_mode & 0o777 == mode, "check mode changes nothing"
        assert str(path) in mend()
        assert mend() == ""
    data.chmod(0o777)
    assert mend() == f"{data} is open to others"
    data.parent.chmod(0o700)
    assert mend() == f"{data.parent} is closed to services"
    assert mend() == ""
    assert (data / "lost+found").stat().st_mode & 0o777 == 0


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_data_is_given_back_to_its_service(owned: tuple[Callable[..., str], Path]) -> None:
    """``chown -R`` by a person; a link is given back itself, and not what it leads to."""
    mend, data = owned
    outside = data.parents[1] / "outside"
    outside.write_text("")
    (data / "log" / "link").symlink_to(outside)
    other = pwd.getpwnam("nobody")
    for path in (data, data / "log" / "topic-0" / "00.log", data / "log" / "link", outside, data / "lost+found"):
        os.chown(path, other.pw_uid, other.pw_gid, follow_symlinks=False)
    assert mend() == f"{data} had mode 750, owner nobody:{grp.getgrgid(other.pw_gid).gr_name}"
    assert mend() == ""
    found = {path for path in data.rglob("*") if path.lstat().st_uid != 0}
    assert found == {data / "lost+found"}
    assert outside.stat().st_uid == other.pw_uid


def unit(checkout: Path, template: str = "unit.service.j2", **words: Any) -> str:
    """Render a service's unit."""
    given = {
        "service_name": "kafka", "service_title": "Kafka", "service_user": "kafka", "service_conf": "/etc/berny/kafka",
        "service_environment": {}, "service_environment_file": "", "service_needs": [], "service_part_of": "",
        "service_exec": "java   -X\n kafka.Kafka", "service_directories": ["/data/kafka"], "service_kill_seconds": 60,
        "service_restart_seconds": 5, "service_calendar": "", "service_limit_nofile": 65536, "service_children_stay": False,
        "service_stop_signal": "", "service_runtime_directory": "",
        "ansible_managed": "managed", "_service_after": [], "service_after_start": "", "service_before_stop": "",
    }  # fmt: skip
    folder = checkout / "roles" / "service" / "templates"
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder), trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["split"] = str.split
    return environment.get_template(template).render(given | words)


def test_unit_records_what_it_starts_from(checkout: Path, plugin: Plugin) -> None:
    """The module reads the unit's digest from where the template writes it: else every run would restart everything."""
    record = plugin("ansible/plugins/module_utils/berny_service.py").RECORD
    assert re.search(rf"^ExecStartPre=\+{record} kafka (\S+)$", unit(checkout), re.M)
    marker = plugin("ansible/plugins/action/berny_files.py").UNIT_DIGEST
    assert unit(checkout).count(marker) == 1
    install = (checkout / "roles" / "node" / "tasks" / "main.yml").read_text()
    assert f"{record}: {{template: record-start.j2" in install


def test_unit_is_hardened(checkout: Path) -> None:
    """Own user, nothing writable but its data, no start limit."""
    text = unit(checkout)
    for line in ("User=kafka", "NoNewPrivileges=yes", "ProtectSystem=strict", "ProtectHome=yes", "PrivateTmp=yes",
                 "ExecPaths=/tmp", "ReadWritePaths=/data/kafka", "LimitNOFILE=65536",
                 "ExecStart=java -X kafka.Kafka"):  # fmt: skip
        assert f"\n{line}\n" in text, line
    assert "ReadWritePaths" not in unit(checkout, service_directories=[])


def test_unit_of_what_ends_its_own_processes(checkout: Path) -> None:
    """Its signal goes to the main process alone; a directory for its sockets is made with each start."""
    text = unit(checkout, service_stop_signal="SIGINT", service_runtime_directory="kafka")
    for line in ("KillSignal=SIGINT", "KillMode=mixed", "RuntimeDirectory=kafka"):
        assert f"\n{line}\n" in text and line.split("=")[0] not in unit(checkout), line


def test_unit_ends_before_what_it_needs(checkout: Path) -> None:
    """A broker whose ZooKeeper went first waits for it until it is killed."""
    assert "\nAfter=network-online.target zookeeper.service\n" in unit(checkout, _service_after=["zookeeper"])
    assert "\nAfter=network-online.target\nWants=" in unit(checkout)


def test_stage_waits_for_what_it_needs(checkout: Path) -> None:
    """By a probe, in the manifest's order, for as long as it takes, and as part of its pipeline: for components, wherever."""
    text = unit(checkout, service_needs=["kafka", "hdfs"], service_part_of="berny-idfm.target")
    assert "\nExecStartPre=/usr/local/bin/berny-probe --component kafka hdfs --wait 86400 --want ready\n" in text
    assert "\nTimeoutStartSec=infinity\n" in text
    assert "\nPartOf=berny-idfm.target\n" in text
    assert text.rstrip().endswith("WantedBy=berny-idfm.target")
    assert "TimeoutStartSec" not in unit(checkout)


def test_a_unit_has_commands_around_its_service(checkout: Path) -> None:
    """What fails there neither ends the service nor keeps it from ending; one takes as long as it needs."""
    text = unit(checkout, service_after_start="/usr/bin/later  load", service_before_stop="/usr/bin/later\n unload")
    for line in ("ExecStartPost=-/usr/bin/later load", "ExecStop=-/usr/bin/later unload", "TimeoutStartSec=infinity"):
        assert f"\n{line}\n" in text, line
    assert "ExecStartPost" not in unit(checkout) and "ExecStop" not in unit(checkout)


def test_a_unit_is_up_while_what_follows_its_start_is_under_way(
    plugin: Plugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not taken for one that is down, and a restart waits for the end of it."""
    module = plugin("ansible/plugins/module_utils/berny_service.py")
    states = iter(["start-post", "start-post", "running"])
    service = module.Service.__new__(module.Service)
    service.params, slept = {"wait": 60}, []
    monkeypatch.setattr(service, "properties", lambda: {"SubState": next(states)})
    monkeypatch.setattr(module.time, "sleep", slept.append)
    service.settle()
    assert (
        len(slept) == 2 and ("activating", "start-post") in module.UP and ("activating", "start-pre") not in module.UP
    )


@pytest.mark.parametrize(
    ("component", "healthy", "ready", "restarted"),
    [
        ("", True, True, True),
        ("", False, True, False),
        ("", False, False, True),
        ("kafka", True, True, True),
        ("kafka", False, True, False),
        ("kafka", False, False, True),
    ],
)
def test_a_restart_waits_only_where_there_is_something_to_protect(
    plugin: Plugin, monkeypatch: pytest.MonkeyPatch, component: str, healthy: bool, ready: bool, restarted: bool
) -> None:
    """What differs may be the repair of a stage, which has no component, as well."""
    module = plugin("ansible/plugins/module_utils/berny_service.py")
    service, done = module.Service.__new__(module.Service), []
    service.unit, service.params = "it.service", {"gate": "", "probe": "it", "component": component}

    def refuse(**words: str) -> None:
        raise SystemExit(words["msg"])

    service.module = SimpleNamespace(check_mode=False, fail_json=refuse)
    answers = {("it", "healthy"): healthy, (component or "it", "ready"): ready}
    monkeypatch.setattr(service, "probe", lambda what, want, wait=None: (answers[what, want], "3 of 4"))
    monkeypatch.setattr(service, "run", lambda: done.append("run"))
    if restarted:
        assert module.restart(service)["changed"] and done == ["run"]
    else:
        with pytest.raises(SystemExit, match=r"it is not healthy, so it.service, which is ready.*3 of 4"):
            module.restart(service)


@pytest.mark.parametrize(
    ("reload", "written", "old"), [("no", 0, False), ("no", 2, True), ("yes", 0, True), ("no", 0.5, False)]
)
def test_what_runs_beside_a_service_is_as_new_as_its_files(
    plugin: Plugin, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, reload: str, written: float, old: bool
) -> None:
    """Its text and its program, however often a play was cut off in between."""
    module = plugin("ansible/plugins/module_utils/berny_service.py")
    monkeypatch.setattr(module, "UNITS", tmp_path)
    unit, program = tmp_path / "watch.service", tmp_path / "watch"
    unit.write_text(f"[Service]\nExecStart={program} --all\n")
    program.touch()
    os.utime(unit, (1000, 1000))
    os.utime(program, (1000 + written, 1000 + written))
    service = module.Service.__new__(module.Service)
    facts = {"NeedDaemonReload": reload, "ActiveEnterTimestamp": "@1000"}
    assert service.is_old("watch.service", facts) is old
    assert service.is_old("away.service", facts) is (reload == "yes")


def test_a_timer_runs_what_is_written(plugin: Plugin, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """systemd loads a unit that was changed, although nothing else of its timer is to be done; once."""
    module = plugin("ansible/plugins/module_utils/berny_service.py")
    states = {"it.timer": "no", "it.service": "yes"}
    calls: list[list[str]] = []

    def run_command(command: list[str], **words: Any) -> tuple[int, str, str]:
        calls.append(command)
        if command == ["systemctl", "daemon-reload"]:
            states["it.service"] = "no"
        known = {"ActiveState": "active", "UnitFileState": "enabled", "NeedDaemonReload": states.get(command[-1], "")}
        return 0, "\n".join(f"{name}={value}" for name, value in known.items()), ""

    service = module.Service(SimpleNamespace(check_mode=False, run_command=run_command), {"name": "it", "target": ""})
    monkeypatch.setattr(service, "mend", lambda: "")
    found = [module.start_timer(service)["changed"] for _ in range(2)]
    assert found == [True, False] and calls.count(["systemctl", "daemon-reload"]) == 1


def test_a_timer_runs_a_unit_that_ends(checkout: Path) -> None:
    """One run after the other, tried again where it fails; a service for ever is neither."""
    text = unit(checkout, service_calendar="daily", service_part_of="berny-one.target")
    assert "\nType=oneshot\n" in text and "\nRestart=on-failure\n" in text and "WantedBy" not in text
    timer = unit(checkout, "unit.timer.j2", service_calendar="daily", service_part_of="berny-one.target")
    assert "\nOnCalendar=daily\n" in timer and "\nPersistent=true\n" in timer
    assert "\nPartOf=berny-one.target\n" in timer and timer.rstrip().endswith("WantedBy=berny-one.target")
    assert "ConditionPathExists=!/etc/berny/kafka/stopped" in timer
    text = unit(checkout)
    assert "\nType=exec\n" in text and "\nRestart=always\n" in text


# -- berny_converge ----------------------------------------------------------------------------------------------------


def test_a_dry_run_restarts_for_a_units_own_text_alone(plugin: Plugin, monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs beside it has a unit too, among the files of the service."""
    folder = str(CHECKOUT / "ansible" / "plugins" / "module_utils")
    monkeypatch.setattr(ansible.module_utils, "__path__", [*ansible.module_utils.__path__, folder])
    module = plugin("ansible/plugins/modules/berny_converge.py")
    timer = {"timer": False}
    params = {
        "name": "tool",
        "service": timer,
        "files": {"contents": {"/etc/berny/tool/inputs": "/etc/berny/tool/a.conf\n"}},
    }
    for path, restarts in (
        ("/etc/systemd/system/tool.service", True),
        ("/etc/berny/tool/a.conf", True),
        ("/etc/systemd/system/tool-watch.service", False),
        ("/etc/tmpfiles.d/tool.conf", False),
    ):
        found = {"service": {"down": False}, "files": {"written": [path]}}
        assert module.would_differ(params, found) is restarts, path
        assert not module.would_differ({**params, "service": {"timer": True}}, found)


def test_files_wait_for_an_archive_that_has_to_be_sent(checkout: Path, node: Node, tmp_path: Path) -> None:
    """A unit never names a folder that is not there; in check mode all that would change is told."""
    conf = tmp_path / "etc" / "a.conf"
    archive = {"home": str(node.root / "tool-1-aaaa"), "link": str(node.link)}
    files = {
        "files": [{"dest": str(conf), "mode": "0644", "owner": ME.pw_name}],
        "owner": "unit",
        "state": str(tmp_path / "state"),
        "contents": {str(conf): "text"},
    }
    before = tmp_path / "etc" / "b.conf"
    other = {
        **files,
        "files": [{**files["files"][0], "dest": str(before)}],
        "owner": "before",
        "contents": {str(before): ""},
    }
    services = [{"name": "before", "files": other}, {"name": "unit", "archive": archive, "files": files}]
    answer = run(checkout, "berny_converge", True, services=services)
    assert "missing" not in answer and answer["changed"] and not conf.exists() and not before.exists()
    told = answer["services"]["unit"]
    assert told["archive"]["missing"] and told["files"]["written"] == [str(conf)]
    answer = run(checkout, "berny_converge", services=services)
    assert answer["missing"] == {"name": "unit", "part": "archive"} and not conf.exists()
    assert answer["changed"] and list(answer["services"]) == ["before"] and before.exists()
    node.have("1-aaaa", node.archive("one"))
    answer = run(checkout, "berny_converge", services=services)
    assert answer["changed"] and conf.read_text() == "text" and not answer["services"]["before"]["changed"]
    answer = run(checkout, "berny_converge", services=services)
    assert not answer["changed"] and "missing" not in answer
    told = answer["services"]["unit"]
    assert not told["archive"]["missing"] and told["files"]["written"] == []


def test_no_module_logs_a_secret(checkout: Path, tmp_path: Path) -> None:
    """Ansible's modules log their arguments; what it masks is an option's value, not one within a list."""
    conf = tmp_path / "etc" / "stage.env"
    own = {"files": [{"dest": str(conf), "mode": "0600", "owner": ME.pw_name}], "owner": "unit",
           "state": str(tmp_path / "state"), "contents": {}}  # fmt: skip
    secrets = {str(conf): "# two lines\nKEY=s3cr3t-of-a-stage\n"}
    arguments = {"services": [{"name": "unit", "files": own}], "secrets": secrets}
    logged = """
import sys
from ansible.module_utils import basic
basic.has_journal = False
basic.AnsibleModule._log_to_syslog = lambda self, said: print(said, file=sys.stderr)
"""
    plugins = checkout / "ansible" / "plugins"
    done = subprocess.run(
        [sys.executable, "-c", logged + RUN, plugins / "module_utils", plugins / "modules/berny_converge.py"],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert not done.returncode and conf.read_text() == secrets[str(conf)]
    assert str(conf) in done.stderr and "s3cr3t" not in done.stdout + done.stderr


def test_no_option_within_another_is_secret(checkout: Path, plugin: Plugin, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be in the log of the outer one."""
    folders = [checkout / "ansible" / "plugins" / "module_utils", *checkout.glob("roles/*/module_utils")]
    monkeypatch.setattr(ansible.module_utils, "__path__", [*ansible.module_utils.__path__, *map(str, folders)])
    found: list[list[str]] = []

    class Asked(Exception):
        pass

    def inner(options: dict[str, Any]) -> list[str]:
        return [
            name
            for facts in options.values()
            for name, own in facts.get("options", {}).items()
            if own.get("no_log") or inner({name: own})
        ]

    def ask(argument_spec: dict[str, Any], **words: Any) -> None:
        found.append(inner(argument_spec))
        raise Asked

    files = [*checkout.glob("ansible/plugins/modules/*.py"), *checkout.glob("roles/*/library/*.py")]
    for file in files:
        module = plugin(str(file.relative_to(checkout)))
        monkeypatch.setattr(module, "AnsibleModule", ask)
        with pytest.raises(Asked):
            module.main()
    assert len(found) == len(files) and not any(found)


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


def test_archive_that_was_unpacked_again_is_another_start(record: Callable[..., str], tmp_path: Path) -> None:
    """A program that missed a file once may go on missing it."""
    conf, home = tmp_path / "etc" / "berny" / "kafka", tmp_path / "home"
    for folder in (conf, home):
        folder.mkdir(parents=True)
    (conf / "inputs").write_text(f"{home}\n")
    seen = {record("--print", "kafka")}
    for text in ("first", "second"):
        (home / ".manifest").write_text(text)
        seen.add(record("--print", "kafka"))
    assert len(seen) == 3


@pytest.mark.skipif(os.getuid() != 0, reason="only root becomes somebody else")
def test_no_start_where_an_input_can_not_be_read(checkout: Path, tmp_path: Path) -> None:
    """A NodeManager would run on Hadoop's defaults, on 0.0.0.0: its user, its unit's first program, says what is closed."""
    conf, home = tmp_path / "etc", tmp_path / "home"
    for folder in (conf, home):
        folder.mkdir()
    for path in (tmp_path, *list(tmp_path.parents)[:-2]):
        path.chmod(path.stat().st_mode | 0o055)
    (conf / "site.xml").write_text("")
    (conf / "inputs").write_text(f"{home}\n{conf}/site.xml\n")
    script = tmp_path / "record-start"
    text = (checkout / "roles" / "node" / "templates" / "record-start.j2").read_text()
    script.write_text(text.replace("/etc/berny/$1/", f"{conf}/"))

    def ask() -> tuple[int, str]:
        command = ["runuser", "-u", "nobody", "--", "sh", str(script), "--readable", "kafka"]
        done = subprocess.run(command, capture_output=True, text=True)
        return done.returncode, done.stderr

    assert ask() == (0, "")
    for path, mode, said in (
        (conf / "site.xml", 0o600, f"nobody can't read {conf}/site.xml"),
        (home, 0o700, f"nobody can't read {home}"),
        (home, 0o744, f"nobody can't enter {home}"),
        (conf, 0o700, f"nobody can't read {conf}/inputs"),
    ):
        before = path.stat().st_mode
        path.chmod(mode)
        code, told = ask()
        assert code == 1 and told.startswith(said), told
        path.chmod(before)
    assert "\nExecStartPre=/usr/local/lib/berny/record-start --readable kafka\n" in unit(checkout)


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
