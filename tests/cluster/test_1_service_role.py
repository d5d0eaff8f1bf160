"""The role that all long-running services share, by one that is in no catalog: the scenario ``service`` on the cluster."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support import Cluster, play

SCENARIO = "molecule/service"


@pytest.fixture(autouse=True)
def gone(cluster: Cluster) -> Iterator[None]:
    """Whatever happens, the service is not there afterwards."""
    yield
    cluster.each(
        "sudo sh -c 'systemctl disable -q --now molecule molecule-timer.timer; rm -rf /etc/systemd/system/molecule*.service"
        " /etc/systemd/system/molecule-timer.timer /etc/berny/molecule* /etc/tmpfiles.d/molecule*.conf /srv/molecule*"
        " /var/lib/berny/installed/molecule*.json; systemctl daemon-reload'",
        ok=False,
    )


def test_a_service_of_no_catalog(cluster: Cluster) -> None:
    """Converged, converged again with nothing changed, verified (hardening, restart, differences), and removed."""
    before = cluster.processes()
    play(f"{SCENARIO}/converge.yml", "--limit", "kafka")
    again = play(f"{SCENARIO}/converge.yml", "--limit", "kafka")
    assert again.recap("changed") == 0, again.tail
    play(f"{SCENARIO}/verify.yml")
    assert cluster.processes() == before
