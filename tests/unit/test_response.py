"""What makes records of a response: identities, and what can't be one."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from berny.runtime.kafka import LETTER_BYTES, RECORD_BYTES, dead_letter
from berny.runtime.response import Observation, identity, records
from berny.runtime.spool import Answer

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.text(max_size=5), JSON), st.text())
def test_identity_is_of_content_and_names(content: dict[str, Any], name: str) -> None:
    """The order of fields says nothing; anything else that differs is another observation."""
    backwards = dict(reversed(content.items()))
    assert identity(content, name) == identity(backwards, name)
    assert identity(content, name) != identity(content, name + "x")
    assert identity(content, name) != identity({**content, "another field": 1}, name)
    assert len(identity(content)) == 32


def test_record_that_no_broker_takes_is_a_dead_letter() -> None:
    """It would be refused for ever; what is beside it goes its way."""
    parts = [Observation("a", "key", {"x": "y" * RECORD_BYTES}), Observation("b", "key", {"x": "y"})]
    [(first, letter), (second, record)] = records(Answer(1, 2.0, b"1"), "toys", "toy", "api", lambda _: parts)
    assert (first, letter.topic, letter.is_dead_letter) == ("a", "toys.dlq", True)
    assert (second, record.topic, record.is_dead_letter) == ("b", "toys", False)
    assert json.loads(letter.value)["origin"] == {"source": "toy", "spool_offset": 1, "identity": "a"}


def test_a_dead_letter_is_always_taken() -> None:
    """Reason, origin, key and value are limited in size; the length of the full value is kept."""
    long = "é" * RECORD_BYTES
    letter = dead_letter("toys", long, {"identity": long, "offset": 1}, long.encode(), long.encode())
    assert letter.key is None and len(letter.value) < 2 * LETTER_BYTES
    told = json.loads(letter.value)
    assert told["value_bytes"] == 2 * RECORD_BYTES and told["origin"]["offset"] == 1
    assert dead_letter("toys", "a reason", {}, b"x", b"key").key == b"key"


def test_the_size_of_a_key_is_that_of_its_bytes() -> None:
    """As it is sent."""
    parts = [Observation("a", "é" * (RECORD_BYTES // 2), {"x": "y" * 100})]
    [(_, record)] = records(Answer(1, 2.0, b"1"), "toys", "toy", "api", lambda _: parts)
    assert record.is_dead_letter
