"""The guest as data: names that fit the kernel's limits, an inventory of the real mapping, what it is told on a disk."""

from __future__ import annotations

import ipaddress
import tarfile
from pathlib import Path

import pytest

from berny.controller.addresses import is_private
from berny.lab import vm, vm_files, vm_image, vm_plan
from berny.lab.plan import LabError, Plan
from berny.model.topology import read_mapping

LONGEST = "a123456789"
INTERFACE_NAME_MAX = 15


def plan(name: str = LONGEST, third: int = 7) -> vm_plan.GuestPlan:
    return vm_plan.GuestPlan(name, ipaddress.IPv4Network(f"10.180.{third}.0/24"))


def test_names_fit_and_are_no_labs() -> None:
    names = {plan().bridge, plan().tap}
    lab = Plan(LONGEST, ipaddress.IPv4Network("10.180.8.0/24"))
    assert len(names) == 2 and all(len(name) <= INTERFACE_NAME_MAX for name in names)
    assert not names & {lab.bridge, lab.link} and plan().table != lab.table and plan().folder != lab.folder


@pytest.mark.parametrize("name", ["", "A", "a_b", "a/b", f"{LONGEST}0"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(LabError, match="can't name a guest"):
        vm.Guest.named(name)


def test_it_is_connected_to_by_another_address_than_its_own() -> None:
    """One that a machine has to be asked about, of a network that is nobody's; each guest has one of its own."""
    assert is_private(plan().address) and not is_private(plan().public)
    assert len({plan(third=third).public for third in range(256)}) == 256


def test_the_inventory_is_the_real_mapping_with_one_machine() -> None:
    hosts = plan().inventory()["all"]["hosts"]
    assert sorted(hosts) == read_mapping()["all"]
    assert [node for node in hosts if "ansible_host" in hosts[node]] == [vm_plan.node()] == ["worker_0"]
    assert hosts[vm_plan.node()]["node_data_disks"] == {"/dev/disk/by-id/virtio-data": "/data/hdfs-datanode"}
    given = {facts["private_address"] for node, facts in hosts.items() if node != vm_plan.node()}
    assert len(given) == len(hosts) - 1 and plan().address not in given


def test_another_list_of_packages_is_another_image(monkeypatch: pytest.MonkeyPatch) -> None:
    before = vm_image.image_folder()
    assert vm_image.image_folder() == before
    monkeypatch.setattr(vm_image, "PACKAGES", [*vm_image.PACKAGES, "sl"])
    assert vm_image.image_folder() != before


def test_what_the_guest_is_told_keeps_its_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    vm_files.write_state(plan())
    seed = tmp_path / "seed"
    vm_files.write_seed(plan(), seed)
    with tarfile.open(seed) as archive:
        files = {member.name: (member.mode, member.uid) for member in archive}
        network = archive.extractfile("etc/systemd/network/10-guest.network")
        assert network and f"Address={plan().address}/24" in network.read().decode()
    assert files["etc/ssh/ssh_host_ed25519_key"] == (0o600, 0)
    assert files["home/berny/.ssh/authorized_keys"] == (0o600, 1000)
    assert f"etc/{vm_image.SEED}" in files, "it is unpacked once"
    assert seed.stat().st_size % 512 == 0, "a disk has whole sectors"
    assert all((plan().folder / name).stat().st_mode & 0o077 == 0 for name in ("id_ed25519", "ssh_host_ed25519_key"))
