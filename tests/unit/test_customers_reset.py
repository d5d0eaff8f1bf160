"""``reset_environment.sh`` in a real HDFS: what it removes and leaves, and that it can be interrupted anywhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hadoop import Hdfs

from berny.model import names
from berny.model.manifest import load_pipelines

MANIFEST = load_pipelines()["customers"]
SCRIPT = Path(__file__).resolve().parents[2] / "src/berny/pipelines/customers/scripts/reset_environment.sh"
OWN = list(MANIFEST.resources["hdfs"])
CHECKPOINTS = [
    names.checkpoint("customers", stage.checkpoint) for stage in MANIFEST.stages.values() if stage.checkpoint
]
OTHERS = ["/user/maria_dev/customers_other", "/data/idfm/checkpoints", "/data/customers/other"]
HERE = ["kafka-hdfs", "db", "compact", "producer"]


class Node:
    """A node: ``hdfs`` is Hadoop's own, ``systemctl`` writes down what it is told, since there is no systemd here."""

    def __init__(self, folder: Path, hdfs: Hdfs) -> None:
        self.conf, self.log, self.hdfs = folder / "conf", folder / "log", hdfs
        for stage in HERE:
            (self.conf / f"berny-customers-{stage}").mkdir(parents=True)
        java = " ".join(f"'{word}'" for word in hdfs.java("org.apache.hadoop.fs.FsShell"))
        options = "-Dfs.trash.interval=60"
        programs = {
            "hdfs": f'[ "$1" = dfs ]; shift; exec {java} {options} "$@"',
            "sudo": 'if [ "$1" = -u ]; then export HADOOP_USER_NAME=$2; shift 2; fi\nexec "$@"',
            "systemctl": f'echo "$@" >> {self.log}\n[ ! -e {folder}/broken ] || ! grep -qF "$*" {folder}/broken',
        }
        (folder / "bin").mkdir()
        for name, text in programs.items():
            program = folder / "bin" / name
            program.write_text(f"#!/bin/sh\n{text}\n")
            program.chmod(0o755)
        self.broken = folder / "broken"
        self.environment = os.environ | {"PATH": f"{folder}/bin:{os.environ['PATH']}", "BERNY_CONF": str(self.conf)}
        for path in ("/user/maria_dev", "/user/customers", "/data/customers"):
            hdfs.provide(path, "root" if path == "/user/maria_dev" else "customers")
        for path in OWN:
            hdfs.provide(path, "customers")
        for paths, user in (([*OWN, *CHECKPOINTS], "customers"), (OTHERS, "root")):
            client = hdfs.client(user)
            for path in paths:
                client.write(f"{path}/part-00000-x.json", b"x\n", overwrite=True)
                client.write(f"{path}/_batches/x.json", b"x\n", overwrite=True)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the script."""
        command = ["sh", str(SCRIPT), *words]
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120
        )

    def told(self) -> list[str]:
        """Return what systemctl was told, by the units' short names."""
        return self.log.read_text().replace("berny-customers-", "").splitlines() if self.log.exists() else []

    def held(self) -> list[str]:
        """Return the stages that are held down."""
        return [stage for stage in HERE if (self.conf / f"berny-customers-{stage}" / "stopped").exists()]

    def there(self, path: str) -> list[str]:
        """Return the entries of a directory."""
        client = self.hdfs.client()
        return list(client.list(path)) if client.status(path, strict=False) else []


@pytest.fixture
def node(tmp_path: Path, hdfs: Hdfs) -> Node:
    """A node with files of this pipeline and of others."""
    return Node(tmp_path, hdfs)


def assert_reset(node: Node) -> None:
    """All of this pipeline is gone, and nothing else; the directories are still its own."""
    assert [node.there(path) for path in [*OWN, *CHECKPOINTS]] == [[]] * 4
    assert all(node.there(path) for path in OTHERS)
    assert {node.hdfs.client().status(path)["owner"] for path in OWN} == {"customers"}
    assert node.held() == []


def test_it_removes_what_is_this_pipelines(node: Node) -> None:
    """Stages are stopped before, sources first, and started after, in the manifest's order; files are in the trash."""
    done = node.run("--yes")
    assert done.returncode == 0, done.stderr
    assert_reset(node)
    starts = [word for word in node.told() if word.startswith("start")]
    stops = [word for word in node.told() if word.startswith("stop")]
    order = [stage for stage in MANIFEST.stages if stage in HERE]
    assert starts == [f"start {stage}.{'timer' if stage == 'compact' else 'service'}" for stage in order]
    assert stops == ["stop compact.timer", *(f"stop {stage}.service" for stage in reversed(order))]
    assert node.told().index(stops[-1]) < node.told().index(starts[0])
    assert node.there("/user/customers/.Trash/Current/user/maria_dev/customers_usa") == [
        "_batches",
        "part-00000-x.json",
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "without a terminal it needs --yes"),
        (("--all",), "unknown argument --all"),
        (("--yes", "x"), "one argument"),
    ],
)
def test_it_is_guarded(node: Node, words: tuple[str, ...], message: str) -> None:
    done = node.run(*words)
    assert done.returncode == 2 and message in done.stderr
    assert node.told() == [] and node.there(OWN[0])


def test_a_person_has_to_type_the_name(node: Node) -> None:
    """On a terminal; another word changes nothing."""
    script = f"import pty, sys; sys.exit(pty.spawn(['sh', '{SCRIPT}']) >> 8)"
    for word, code in (("idfm", 1), ("customers", 0)):
        done = subprocess.run(
            [sys.executable, "-c", script], input=f"{word}\n", env=node.environment, capture_output=True, text=True
        )
        assert done.returncode == code, done.stdout
        assert bool(node.there(OWN[0])) == (code == 1) and bool(node.told()) == (code == 0)
    assert_reset(node)


def test_another_node_is_refused(node: Node) -> None:
    (node.conf / "berny-customers-kafka-hdfs").rmdir()
    done = node.run("--yes")
    assert done.returncode == 2 and "run it on master" in done.stderr and node.told() == []


def test_an_interrupted_run_is_continued(node: Node) -> None:
    """A stage does not stop, or HDFS refuses: the stages stay held down, nothing is started, and the next run completes."""
    node.broken.write_text("stop berny-customers-db.service")
    done = node.run("--yes")
    assert done.returncode == 1 and "berny-customers-db does not stop; it is not complete" in done.stderr
    assert node.held() == HERE and node.there(OWN[0]), "nothing is removed under a stage that runs"
    node.broken.unlink()
    client = node.hdfs.client()
    client.set_owner(OWN[1], "root")
    client.set_permission(OWN[1], "700")
    done = node.run("--yes")
    assert done.returncode == 1 and "hdfs dfs -rm failed; it is not complete" in done.stderr
    assert node.held() == HERE and not node.there(OWN[0]) and node.there(CHECKPOINTS[0])
    assert not [word for word in node.told() if word.startswith("start")]
    client.set_owner(OWN[1], "customers")
    client.set_permission(OWN[1], "755")
    assert node.run("--yes").returncode == 0
    assert_reset(node)


def test_the_script_names_what_the_manifest_has() -> None:
    """It runs where the manifest's model is not."""
    words = SCRIPT.read_text()
    assert all(path in words for path in [*OWN, *CHECKPOINTS])
    [order] = [line.partition('"')[2].rstrip('"') for line in words.splitlines() if line.startswith("stages=")]
    assert order.split() == [stage for stage in MANIFEST.stages if MANIFEST.stages[stage].on != "postgresql"]
