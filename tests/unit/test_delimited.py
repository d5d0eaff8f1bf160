"""Rows of CSV files as they come: quotes, line breaks, encodings, and what is broken, which costs no neighbour."""

from __future__ import annotations

import csv
import io
import resource
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berny.runtime import delimited
from berny.runtime.delimited import LINE_BYTES, Row


def read(path: Path) -> list[Row]:
    """Return all rows of a file."""
    coding = delimited.encoding(path)
    _, begin = delimited.header(path, coding)
    return list(delimited.rows(path, coding, begin, 0))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that tests overwrite."""
    return tmp_path_factory.mktemp("delimited") / "file.csv"


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=8)


@given(st.lists(st.lists(TEXT, min_size=2, max_size=4), min_size=1), st.sampled_from(["utf-8", "utf-8-sig"]))
def test_what_a_writer_wrote_is_read(file: Path, written: list[list[str]], coding: str) -> None:
    """From each row on as well: what follows a row is where the next one begins."""
    out = io.StringIO(newline="")
    csv.writer(out).writerows([["a ", "b"], *written])
    file.write_bytes(out.getvalue().encode(coding))
    names, _ = delimited.header(file, "utf-8")
    found = read(file)
    assert names == ["a", "b"]
    assert [row.fields for row in found] == written and not any(row.reason for row in found)
    assert [row.number for row in found] == list(range(1, len(written) + 1))
    for row in found:
        assert list(delimited.rows(file, "utf-8", row.following, row.number)) == found[row.number :]


def test_encoding_is_decided_for_the_whole_file(file: Path) -> None:
    """One byte that is no UTF-8 at its end, and all of it is Latin-1: no row is read in another way than its neighbour."""
    file.write_bytes(b"a\nJos\xc3\xa9\n")
    assert [row.fields for row in read(file)] == [["José"]]
    file.write_bytes(b"a\nJos\xc3\xa9\n" + b"x\n" * 600_000 + b"Jos\xe9\n")
    found = read(file)
    assert found[0].fields == ["JosÃ©"] and found[-1].fields == ["José"]
    # A character that is not complete.
    file.write_bytes(b"a\nJos\xc3")
    assert delimited.encoding(file) == "latin-1"


@pytest.mark.parametrize(
    ("broken", "reason"),
    [(b'"never closed,2', "',' expected after '\"'"), (b'"closed"early,2', "',' expected after '\"'"),
     (b"a\rb,2", "new-line character seen in unquoted field"), (b"x" * (200 << 10), "field larger than field limit"),
     (b"x," * LINE_BYTES, "a line of more than")],
    ids=["quote", "early", "return", "field", "line"],
)  # fmt: skip
def test_a_broken_row_costs_no_other(file: Path, broken: bytes, reason: str) -> None:
    """It has the number of its place, its line, and the reason."""
    file.write_bytes(b"a,b\n1,x\n" + broken + b'\n3,"y\nz"\n4,w')
    found = read(file)
    assert [row.fields for row in found] == [["1", "x"], [], ["3", "y\nz"], ["4", "w"]]
    assert reason in found[1].reason and found[1].raw == (broken + b"\n")[:LINE_BYTES]
    assert [row.number for row in found] == [1, 2, 3, 4]


def test_a_quote_that_is_never_closed_ends_with_its_line(file: Path) -> None:
    """At the end of the file it is as any other."""
    file.write_bytes(b'a,b\n1,"x\n2,y\n')
    assert [(row.fields, row.reason) for row in read(file)] == [([], "unexpected end of data"), (["2", "y"], "")]


def test_empty_lines_are_no_rows(file: Path) -> None:
    file.write_bytes(b"a,b\r\n\r\n1,2\r\n\r\n")
    assert [(row.number, row.fields) for row in read(file)] == [(1, ["1", "2"])]


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf", b"a,b\n"])
def test_a_file_without_rows_has_none(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    assert read(file) == []


def test_a_large_file_is_not_held_in_memory(file: Path) -> None:
    """100 MB, of which some lines have their own number."""
    line = b"%08d," + b"x" * 991 + b"\n"
    with file.open("wb") as out:
        out.write(b"a,b\n")
        for number in range(100_000):
            out.write(line % number)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    count = sum(int(row.fields[0]) == row.number - 1 for row in delimited.rows(file, delimited.encoding(file), 4, 0))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    file.unlink()
    assert count == 100_000 and grown < 20 << 10
