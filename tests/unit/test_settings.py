"""What settings may be: rules of roles beside their options, held against what an inventory sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from berny.controller.preflight import KINDS
from berny.controller.settings import HEAP, allowed, check, fits, load_settings
from berny.model.catalog import CatalogError, load_catalog
from berny.model.topology import CHECKOUT, read_mapping

ROLES, SHARED = CHECKOUT / "roles", CHECKOUT / "ansible" / "settings.yml"
SETTINGS = load_settings(ROLES, SHARED)
HEAPS = [f"{name.replace('-', '_')}_heap" for name, one in load_catalog().services.items() if one.heap]
GROUPS = read_mapping()


def told(host: str = "master", **values: Any) -> list[str]:
    """Return what is wrong with values that one of four hosts sets; each broker has a number."""
    brokers = {name: {"kafka_broker_id": number} for number, name in enumerate(GROUPS["kafka"], 1)}
    return check(
        SETTINGS,
        HEAPS,
        {name: brokers.get(name, {}) | (values if name == host else {}) for name in GROUPS["all"]},
        GROUPS,
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kafka_broker_id", -1),
        ("kafka_broker_id", "one"),
        ("kafka_broker_id", 1.5),
        ("kafka_broker_id", "1.5"),
        ("kafka_broker_id", 5000),
        ("kafka_broker_id", True),
        ("kafka_broker_id", None),
        ("firewall_operators", ["203.0.113.7/8"]),
        ("firewall_operators", ["vpn.example.com"]),
        ("firewall_operators", "203.0.113.7, vpn.example.com"),
        ("firewall_operators", 7),
        ("firewall_operators", [None]),
        ("firewall_enabled", "maybe"),
        ("kafka_heap", -5),
        ("kafka_heap", "10g"),
        ("kafka_heap", 0),
        ("zookeeper_heap", ""),
        ("hdfs_replication", 9),
        ("hdfs_replication", 0),
        ("hdfs_datanode_dirs", ["data"]),
        ("hdfs_log_level", "LOUD"),
        ("spark_cores_max", 0),
        ("spark_executor_memory", "512"),
        ("spark_executor_memory", "449m"),
        ("spark_executor_memory", "0g"),
        ("preflight_allow", ["orphn"]),
        ("cluster_name", "my cluster"),
        ("cluster_name", ""),
        ("cluster_name", "a" * 41),
        ("node_size", "medium"),
        ("private_address", "127.0.0.1"),
        ("private_address", "worker-1"),
        ("node_sysctl", "vm.swappiness=1"),
        ("grafana_archive_sha256", "abc"),
        ("control_uid", 1000),
    ],
)
def test_what_cannot_be_is_told_with_value_and_what_is_allowed(name: str, value: Any) -> None:
    [problem] = told(**{name: value})
    assert problem.startswith(f"master: {name} is ") and ": allowed is " in problem
    shown = "no mapping" if name == "node_sysctl" else str(value) if value not in (None, "") else "empty"
    assert f"{name} is {shown}: " in problem


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kafka_broker_id", 0),
        ("kafka_broker_id", "7"),
        ("firewall_operators", ["203.0.113.7", "203.0.113.0/24", "2001:db8::/32"]),
        ("firewall_operators", "203.0.113.7,203.0.113.0/24"),
        ("firewall_operators", []),
        ("firewall_enabled", "no"),
        ("kafka_heap", "4096"),
        ("hdfs_replication", 3),
        ("spark_executor_memory", "1g"),
        ("cluster_name", "paris-14"),
        ("preflight_allow", ["orphan", "port"]),
        ("grafana_archive_sha256", "0" * 64),
        ("private_address", "10.0.0.4"),
        ("somebodys_own", object()),
    ],
)
def test_what_can_be_passes(name: str, value: Any) -> None:
    assert told(**{name: value}) == []


def test_a_number_as_text_is_the_same_number() -> None:
    """Two brokers with one number would take each other down."""
    assert told("worker_2", kafka_broker_id="1") == [
        "worker_2: needs a kafka_broker_id of its own (found 1, which is that of master)"
    ]


def test_what_every_host_has_is_told_once() -> None:
    values = {host: {"kafka_heap": "10g"} for host in ("a", "b")}
    assert len(check(SETTINGS, HEAPS, values, {})) == 1
    assert check(SETTINGS, HEAPS, values, {})[0].startswith("kafka_heap is 10g: ")


def test_replication_is_bounded_by_the_nodes() -> None:
    setting = SETTINGS["hdfs_replication"]
    assert fits(setting, 1, {"datanode": ["a"]}) and not fits(setting, 2, {"datanode": ["a"]})
    # A group without a node is told by itself.
    assert fits(setting, 2, {})


def defaults() -> dict[str, Any]:
    """Return the defaults of all roles that are not computed."""
    found = {}
    for file in sorted(ROLES.glob("*/defaults/main.yml")):
        found |= yaml.safe_load(file.read_text()) or {}
    shared = yaml.safe_load((CHECKOUT / "ansible" / "cluster.yml").read_text())
    return {name: value for name, value in (found | shared).items() if "{{" not in str(value)}


def test_defaults_are_allowed() -> None:
    """Also what they are where nobody sets them."""
    wrong = {
        name: value
        for name, value in defaults().items()
        if name in SETTINGS and not fits(SETTINGS[name], value, GROUPS)
    }
    assert wrong == {}
    for service in load_catalog().services.values():
        for heap in (service.heap.small, service.heap.large) if service.heap else ():
            assert fits(SETTINGS[HEAP], heap, {})


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_numbers_have_a_least_value_and_everything_says_what_is_allowed(name: str) -> None:
    """A number that nobody bounds may be -5."""
    setting = SETTINGS[name]
    assert setting.type != "int" or setting.minimum is not None
    assert not setting.pattern or setting.says
    assert allowed(setting, GROUPS)
    for group in (setting.nodes_of, setting.one_per):
        assert not group or group in GROUPS


def test_kinds_that_can_be_allowed_are_the_preflights() -> None:
    assert SETTINGS["preflight_allow"].choices == sorted(KINDS)


def test_a_rule_of_no_option_is_refused(tmp_path: Path) -> None:
    """Misspelt, it would hold nothing."""
    meta = tmp_path / "roles" / "one" / "meta"
    meta.mkdir(parents=True)
    (meta / "argument_specs.yml").write_text("argument_specs: {main: {options: {one_size: {type: int}}}}")
    shared = tmp_path / "settings.yml"
    shared.write_text("{}")
    for rules, words in (
        ("one_sice: {minimum: 1}", "one_sice: no option"),
        ("one_size: {minimun: 1}", "one_size.minimun: Extra inputs"),
    ):
        (meta / "settings.yml").write_text(rules)
        with pytest.raises(CatalogError, match=words):
            load_settings(tmp_path / "roles", shared)
