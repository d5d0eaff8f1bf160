"""InfluxDB's line protocol, against the client library's own."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from influxdb_client import Point, WritePrecision

from berny.runtime.lines import line

TEXT = st.text(st.characters(exclude_categories=("Cs",)))
VALUE = TEXT | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats()


@given(
    st.dictionaries(st.sampled_from("abc"), TEXT.filter(bool)),
    st.dictionaries(st.sampled_from("fgh"), VALUE),
    st.integers(0, 2**62),
)
@example({"a": "ends with a backslash\\", "b": "a=b, c"}, {"f": 'say "\\"'}, 1)
@example({}, {"f": "two\nlines", "g": -0.0, "h": True}, 1)
def test_lines_are_those_of_the_library(tags: dict[str, str], fields: dict[str, str | float | bool], at: int) -> None:
    point = Point("health").time(at, WritePrecision.NS)
    for name, tag in sorted(tags.items()):
        point.tag(name, tag)
    # A field that is always there: the library makes no line of a point without one.
    fields = {"always": 1, **dict(sorted(fields.items()))}
    for name, value in fields.items():
        point.field(name, value)
    theirs = point.to_line_protocol()
    ours = line("health", dict(sorted(tags.items())), fields, at)
    # The library writes 228.0 as 228, which is the same number.
    floats = {name: float(value) for name, value in fields.items() if isinstance(value, float)}
    for name, number in floats.items():
        if repr(number).endswith(".0"):
            ours = ours.replace(f"{name}={number!r}", f"{name}={repr(number).removesuffix('.0')}")
    assert ours == theirs
