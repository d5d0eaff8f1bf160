"""The whole ``site.yml``: everything where the mapping says, and a second run that changes nothing."""

from __future__ import annotations

import json
import re
import shlex

import yaml

from berny.model.catalog import load_catalog
from support import Cluster, play


def test_everything_runs_where_the_mapping_says_and_nowhere_else(cluster: Cluster) -> None:
    expected = {(node, unit) for unit, nodes in cluster.units().items() for node in nodes}
    assert set(cluster.processes()) == expected


def test_each_process_runs_as_its_own_user_from_its_own_data_disk(cluster: Cluster) -> None:
    catalog = load_catalog()
    for name in cluster.units().keys() & catalog.services.keys():
        service = catalog.services[name]
        user = service.user or catalog.components[service.component].user
        for node in cluster.groups[service.group]:
            pid = cluster.sh(node, f"systemctl show -P MainPID {name}").strip()
            assert cluster.sh(node, f"sudo stat -c %u /proc/{pid}").strip() == str(user.uid), (node, name)
            if service.disk:
                assert cluster.sh(node, f"findmnt -n -o FSTYPE /data/{name}").strip() == "ext4", (node, name)


def test_every_probe_is_healthy(cluster: Cluster) -> None:
    for node, said in cluster.each("sudo berny-probe --all --json --wait 60 --want healthy").items():
        for health in json.loads(said):
            assert health["healthy"], (node, health)


def test_every_service_is_healthy_seen_from_every_node(cluster: Cluster) -> None:
    """Also from nodes that do not run it; what there is not is an error of the caller's."""
    cluster.each(f"sudo berny-probe {' '.join(load_catalog().services.keys() & cluster.units().keys())}"
                 " --wait 60 --want healthy")  # fmt: skip
    stages = sorted(unit for unit in cluster.units() if unit not in load_catalog().services)
    assert stages
    cluster.each(f"sudo berny-probe {' '.join(stages)} --wait 60 --want healthy")
    cluster.each("sudo berny-probe nothing-of-that-name > /dev/null 2>&1; [ $? = 2 ]")


def test_secrets_are_readable_by_root_and_their_service_alone(cluster: Cluster) -> None:
    names = "-name stage.env -o -name '*.token' -o -name grafana.env -o -path '*/provisioning/datasources/*.yml'"
    for node, held in cluster.each(f"sudo find /etc/berny \\( {names} \\) -printf '%m %p\\n'").items():
        for line in held.splitlines():
            assert line.split()[0] in ("600", "640"), (node, line)


def test_second_run_changes_nothing_and_restarts_nothing(cluster: Cluster) -> None:
    before = cluster.processes()
    again = play("site.yml", "-vvv")
    assert again.recap("changed") == 0, again.tail
    assert cluster.processes() == before
    # However much a person asks to see, no secret is among it: those of the file, and the tokens that stages got.
    secrets = yaml.safe_load((cluster.lab.plan.folder / "secrets.yml").read_text())
    given = cluster.sh(
        "worker_2", "sudo sh -c 'cat /etc/berny/influxdb/*.token; echo; cat /etc/berny/berny-*/stage.env'"
    )
    secrets |= dict(re.findall(r"(?m)^(\w+_TOKEN)=['\"]?([^'\"\s]+)", given)) | {"read": given.split()[0]}
    assert "INFLUX_TOKEN" in secrets
    shown = [name for name, secret in secrets.items() if len(str(secret)) >= 16 and str(secret) in again.output]
    assert not shown
    # Nor does a node's journal have one. It is no command of sudo that has them here: that would be in the journal.
    each = shlex.join(f"-e{secret}" for secret in map(str, secrets.values()) if len(secret) >= 16)
    for node, lines in cluster.each(f"sudo journalctl -o cat --no-pager | grep -c -F {each} || true").items():
        assert lines.strip() == "0", node
