"""Data disks: only an empty one is formatted, and only one that was made for the folder is mounted there.

What is on a disk is told by the real programs, on images in files. The guest of ``make vm`` has real disks.
"""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import pytest

MIB = 1 << 20
KAFKA = "/data/kafka"


@pytest.fixture(scope="module")
def disks(plugin: Callable[[str], ModuleType]) -> ModuleType:
    """The module."""
    return plugin("ansible/plugins/modules/berny_disks.py")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An empty disk."""
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(32 * MIB)
    return path


def run(words: Sequence[str]) -> tuple[int, str, str]:
    """Run a command as the module does; sbin is not on everyone's path."""
    environment = os.environ | {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin", "LC_ALL": "C"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    return done.returncode, done.stdout, done.stderr


def make(*words: str | Path) -> None:
    environment = os.environ | {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True, env=environment)


def refusal(disks: ModuleType, image: Path, folder: str = KAFKA) -> str | None:
    """What the module says of a disk; None: it goes on."""
    found: str | None = disks.refusal(str(image), folder, disks.describe(run, image))
    return found


def test_an_empty_disk_is_formatted(disks: ModuleType, image: Path) -> None:
    assert disks.describe(run, image) is None
    assert refusal(disks, image) is None


def test_a_disk_of_ours_is_mounted_again(disks: ModuleType, image: Path) -> None:
    make("mkfs.ext4", "-q", "-L", "berny", "-M", KAFKA, image)
    assert disks.describe(run, image)["uuid"]
    assert refusal(disks, image) is None


def test_a_disk_of_another_service_is_not(disks: ModuleType, image: Path) -> None:
    """The kernel may have swapped the names of two disks."""
    make("mkfs.ext4", "-q", "-L", "berny", "-M", "/data/influxdb", image)
    said = refusal(disks, image)
    assert said and "holds the data of /data/influxdb, not of /data/kafka" in said


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["mkfs.ext4", "-q", "-L", "photos"], "ext4, labelled photos"),
        (["mkfs.ext4", "-q"], "ext4"),
        (["mkswap", "-q"], "swap"),
        (["mkfs.ext2", "-q", "-L", "berny"], "ext2, labelled berny"),
    ],
)
def test_somebody_elses_file_system_is_refused(disks: ModuleType, image: Path, words: list[str], kind: str) -> None:
    make(*words, image)
    before = image.read_bytes()
    said = refusal(disks, image)
    assert said and f"{image} holds {kind}: nothing was done to it" in said
    assert image.read_bytes() == before, "looking changes nothing"


def test_a_partition_table_is_refused(disks: ModuleType, image: Path) -> None:
    entry = bytes([0, 0, 2, 0, 0x83, 0, 0, 0]) + (2048).to_bytes(4, "little") + (16384).to_bytes(4, "little")
    with image.open("r+b") as file:
        file.seek(446)
        file.write(entry + bytes(48) + b"\x55\xaa")
    said = refusal(disks, image)
    assert said and "holds dos partition table" in said


@pytest.mark.parametrize("place", [0, 4096, 32 * MIB - 512])
def test_data_without_a_signature_is_refused(disks: ModuleType, image: Path, place: int) -> None:
    """A plain encrypted disk looks like that, and so does one whose first block was lost."""
    with image.open("r+b") as file:
        file.seek(place)
        file.write(random.Random(1).randbytes(512))
    said = refusal(disks, image)
    assert said and "holds data without a signature" in said


def test_a_formatting_that_was_cut_off_is_told(disks: ModuleType, image: Path) -> None:
    """Half a file system is nobody's; a person decides."""
    make("mkfs.ext4", "-q", "-L", "berny", "-M", KAFKA, image)
    with image.open("r+b") as file:
        file.write(bytes(4096))
    assert refusal(disks, image)


def test_what_uses_a_disk_is_named(disks: ModuleType, tmp_path: Path) -> None:
    block = tmp_path / "dev" / "block" / "8:16"
    (block / "sdb1").mkdir(parents=True)
    (block / "sdb1" / "partition").write_text("1\n")
    (block / "holders" / "dm-0").mkdir(parents=True)
    mounts = disks.read_mounts("22 1 8:16 / /mnt/old rw - ext4 /dev/sdb rw\n23 1 8:17 / /boot rw - ext4 /dev/sda1 rw\n")
    found = disks.in_use("/dev/sdb", "8:16", mounts, tmp_path)
    assert found == ["is mounted at /mnt/old", "has the partition sdb1", "belongs to dm-0"]
    assert disks.in_use("/dev/sdd", "8:48", mounts, tmp_path) == []


def test_fstab_has_one_line_for_a_disk_and_keeps_what_others_wrote(disks: ModuleType) -> None:
    others = (
        "# a comment about /data/kafka\nLABEL=root / ext4 defaults 0 1\nUUID=9-9 /data/influxdb ext4 defaults 0 2\n"
    )
    first = disks.with_mount(others, "1-1", KAFKA)
    assert first == f"{others}UUID=1-1 {KAFKA} ext4 {disks.OPTIONS} 0 2\n"
    assert disks.with_mount(first, "1-1", KAFKA) == first
    assert disks.with_mount(first, "2-2", KAFKA) == first.replace("1-1", "2-2"), "the disk was replaced"
    assert "nofail" in disks.OPTIONS, "a machine without its disk still boots"


@pytest.mark.parametrize("folder", ["/", "/data/", "/mnt", "/data/a/b", "/data/../etc", "data", "/data/Kafka"])
def test_disks_serve_data_alone(disks: ModuleType, folder: str) -> None:
    assert not disks.MOUNT_POINT.fullmatch(folder)
    assert disks.MOUNT_POINT.fullmatch("/data") and disks.MOUNT_POINT.fullmatch("/data/berny-idfm")
