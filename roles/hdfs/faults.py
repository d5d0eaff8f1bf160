"""Fault cases of HDFS: safe mode, full and lost disks, a rolling restart."""

from __future__ import annotations

from collections.abc import Iterator

from berny.faults import inject
from berny.faults.cases import MANY, SPOOL_SECONDS, FaultCase, full, rolling, to, wiped
from berny.faults.targets import Targets
from berny.lab.lab import Lab

LEAVE = (
    "sudo berny-probe hdfs-namenode | grep -q 'in safe mode' && sudo -u hdfs timeout 60 hdfs dfsadmin -safemode leave"
)


def safe_mode(lab: Lab, node: str, verb: str) -> None:
    """Make HDFS enter or leave safe mode, in which it is read-only."""
    inject.shell(lab, node, f"sudo -u hdfs hdfs dfsadmin -safemode {verb}")


def fault_cases(targets: Targets) -> Iterator[FaultCase]:
    """Yield the cases."""
    yield rolling("hdfs", "hdfs_trash_minutes=1441")
    for node in targets.of("hdfs-datanode")[:1]:
        yield full("hdfs-datanode", node)
        # The other DataNodes have copies of its blocks.
        yield wiped("hdfs-datanode", node)
    for node in targets.of("hdfs-namenode"):
        yield FaultCase(
            "safemode-hdfs", "HDFS is in safe mode", to(safe_mode, node, "enter"), to(safe_mode, node, "leave")
        )
        yield full("hdfs-namenode", node)
        spooled = targets.spooled_on(node)
        lost = "files of HDFS since the last checkpoint"
        yield FaultCase(
            f"lost-disks-{node}",
            f"{node} comes back with all its data disks empty; then `playbooks/restore.yml -e data=CLUSTER`",
            to(inject.lose_disks, node),
            inject.restore,
            hold=10,
            fresh=SPOOL_SECONDS,
            minimum=0,
            unspooled=MANY if spooled else 0,
            pipelines=spooled or None,
            gives_up=f"{lost}, and what only the spool had" if spooled else lost,
            gives_up_in="hdfs",
        )


def heal(lab: Lab, targets: Targets) -> None:
    """Make HDFS leave safe mode."""
    for node in targets.of("hdfs-namenode"):
        lab.run(node, LEAVE, timeout=90)
