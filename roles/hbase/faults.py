"""Fault cases of HBase: a rolling restart, moved regions, an expired ZooKeeper session."""

from __future__ import annotations

from collections.abc import Iterator

from berny.faults import inject, network
from berny.faults.cases import FaultCase, rolling, to
from berny.faults.targets import Targets
from berny.lab.lab import Lab

UNLOAD = "sudo -u hbase hbase regionmover -m 4 -t 60 -r {}:{} -o unload -f /tmp/berny-regions 2>&1"


def unload(lab: Lab, node: str, port: int) -> None:
    """Move all regions of a region server to the others."""
    inject.shell(lab, node, UNLOAD.format(lab.machines[node].node.machine, port))


def fault_cases(targets: Targets) -> Iterator[FaultCase]:
    """Yield the cases."""
    servers, port = targets.of("hbase-regionserver"), targets.port("hbase-regionserver", "rpc")
    yield rolling("hbase", "hbase_balancer_seconds=301")
    if len(servers) > 1:
        yield FaultCase(
            "move-hbase", f"all regions of {servers[0]} move to the other region servers", to(unload, servers[0], port)
        )
    for zookeeper in targets.of("zookeeper"):
        for server in [node for node in servers if node != zookeeper][:1]:
            yield FaultCase(
                "session-hbase",
                f"the region server on {server} does not reach ZooKeeper for 45 s: its session expires",
                to(network.cut_pair, zookeeper, server, targets.port("zookeeper", "client")),
                network.heal,
                hold=45,
                gentle=True,
            )
