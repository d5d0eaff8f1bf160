"""Names: what may be called how, and what is made of it."""

from __future__ import annotations

import re

import pytest

from berny.model import names


@pytest.mark.parametrize("name", ["a", "idfm", "air-quality", "x2", "a1-b2-c3", "a-1", "a" * 30])
def test_legal_names(name: str) -> None:
    """Words of a to z and 0 to 9, a letter first."""
    assert names.is_name(name)


@pytest.mark.parametrize(
    "name",
    ["", "-", "A", "1a", "a_b", "a-", "-a", "a--b", "a.b", "a b", "a/b", "é", "a" * 31, "a\n", "a\nb", "a$", "..", "٣"],
)
def test_illegal_names(name: str) -> None:
    """What a unit, a user, a path or a shell would read as something else."""
    assert not names.is_name(name)


def test_what_is_made_of_a_name() -> None:
    """These are on nodes that exist: another form would leave units and data behind."""
    assert names.unit("idfm", "influx-consumer") == "berny-idfm-influx-consumer"
    assert names.target("idfm") == "berny-idfm.target"
    assert names.group("idfm", "producer") == "idfm-producer"
    assert names.dead_letters("idfm-realtime") == "idfm-realtime.dlq"
    assert names.checkpoint("idfm", "analytics") == "/data/idfm/checkpoints/analytics"
    assert names.data("idfm") == "/data/berny-idfm"
    assert names.state("idfm", "producer") == "/var/lib/berny-idfm-producer"
    assert names.archive("idfm") == "berny-idfm"
    assert names.heap("hdfs-namenode") == "hdfs_namenode_heap"


def test_paths_of_names_are_paths() -> None:
    longest = "a" * names.NAME_LENGTH
    made = [names.checkpoint(longest, longest), names.data(longest), names.state(longest, longest)]
    assert all(names.PATH.fullmatch(path) for path in made)
    # A unit's name with its suffix: systemd allows 255.
    assert len(names.unit(longest, longest)) < 200
    assert re.fullmatch(r"[a-z0-9_]+", names.heap(longest))
