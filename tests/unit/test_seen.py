"""Which observations were seen: the same as a set would say, in far less space."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berny.runtime.seen import Seen, parted

identities = st.builds("{}:{}".format, st.sampled_from(["a", "a:b", "c"]), st.integers(1, 40))


@given(st.lists(st.lists(identities)))
def test_it_says_what_a_set_says(batches: list[list[str]]) -> None:
    """Whatever the order, also after its state was stored as JSON between batches."""
    seen, kept = Seen(), set()
    for batch in batches:
        seen.add(batch)
        kept.update(batch)
        seen = Seen(json.loads(json.dumps(seen.ranges)))
    every = {f"{source}:{number}" for source in ("a", "a:b", "c", "d") for number in range(42)}
    assert {one for one in every if one in seen} == kept


def test_all_of_a_source_is_one_range() -> None:
    """So its state does not grow with what it has."""
    seen = Seen()
    seen.add(f"a:{number}" for number in range(1, 1000, 2))
    assert len(seen.ranges["a"]) == 500
    seen.add(f"a:{number}" for number in range(2, 1000, 2))
    assert seen.ranges == {"a": [[1, 999]]}


def test_sources_that_were_seen_long_ago_are_forgotten() -> None:
    seen = Seen(most=2)
    for identity in ("a:1", "b:1", "a:2", "c:1"):
        seen.add([identity])
    assert list(seen.ranges) == ["a", "c"]


def test_an_identity_has_a_number() -> None:
    assert parted("x:y:7") == ("x:y", 7)
    with pytest.raises(ValueError, match="invalid literal"):
        parted("x")
