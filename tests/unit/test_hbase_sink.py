"""Rows in HBase, asked of a real one through Thrift."""

from __future__ import annotations

import pytest
from hbases import THRIFT, HBase

from berny.runtime.batch import SinkAway
from berny.runtime.sinks.hbase import BATCH, HBaseTable
from berny.runtime.stage import ConfigurationError

TABLE = {"families": ["a"], "versions": 1, "ttl": 2**31 - 1}


@pytest.fixture(scope="module", autouse=True)
def tables(hbase: HBase) -> None:
    """The tables of these tests."""
    hbase.tables(create={"toy:rows": TABLE, "toy:other": TABLE})


def table(hbase: HBase, name: str = "toy:rows") -> HBaseTable:
    """Return a table."""
    return HBaseTable("127.0.0.1", hbase.port, name)


def test_rows_are_as_they_were_put_last(hbase: HBase) -> None:
    """Also if they are put again; what is not told any more is gone; more than a request has."""
    one, many = table(hbase), {f"x{number:04d}": {"a:n": str(number).encode()} for number in range(BATCH + 20)}
    for _ in range(2):
        one.put({"1": {"a:b": b"1", "a:c": "ç".encode()}, "2": {"a:b": b"2"}} | many)
    assert list(one.scan(limit=2)) == [("1", {"a:b": b"1", "a:c": "ç".encode()}), ("2", {"a:b": b"2"})]
    one.put({"1": {"a:b": b"3", "a:c": None}, "3": {"a:b": None}})
    assert list(one.scan("1")) == [("1", {"a:b": b"3"})] and list(one.scan("3")) == []
    assert dict(one.scan("x")) == many and list(one.scan("y")) == []


def test_missing_table_needs_a_person(hbase: HBase) -> None:
    for name in ("toy:none", "none:none"):
        with pytest.raises(ConfigurationError, match=f"{name} of HBase at .* missing or disabled: run site.yml"):
            table(hbase, name).put({"1": {"a:b": b"1"}})
        with pytest.raises(ConfigurationError, match=f"{name} of HBase at .*TableNotFoundException: run site.yml"):
            list(table(hbase, name).scan())
    with pytest.raises(ConfigurationError, match="NoSuchColumnFamilyException"):
        table(hbase).put({"1": {"z:b": b"1"}})


def test_hbase_that_is_away_gets_it_later(hbase: HBase) -> None:
    """Thrift killed: refused, and then as before."""
    one = table(hbase, "toy:other")
    hbase.end(THRIFT)
    try:
        with pytest.raises(SinkAway, match=f"toy:other of HBase at 127.0.0.1:{hbase.port}"):
            one.put({"1": {"a:b": b"1"}})
        with pytest.raises(SinkAway):
            list(one.scan())
    finally:
        hbase.start(THRIFT)
        hbase.wait()
    one.put({"1": {"a:b": b"1"}})
    assert list(one.scan()) == [("1", {"a:b": b"1"})]
