"""Jobs of Hadoop Streaming, over a real HDFS, without YARN."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from hadoop import Hdfs

from berny.runtime.files import Files
from berny.runtime.mapreduce import Job, JobFailed, run

WORDS = """
import sys
if sys.argv[1] == "map":
    for line in sys.stdin:
        for word in line.split():
            print(f"{word}\\tat\\t1")
else:
    counts = {}
    for line in sys.stdin:
        word, _, number = line.rstrip().split("\\t")
        counts[word] = counts.get(word, 0) + int(number)
    for word, count in counts.items():
        print(f"{word} {count}")
"""


@pytest.fixture
def files(hdfs: Hdfs) -> Files:
    """A directory of whoever runs this."""
    hdfs.provide("/jobs", "root")
    return Files(hdfs.url, "root", "/jobs")


def job(folder: Path, program: str = WORDS, pattern: str = "/jobs/dt=*/words_*") -> Job:
    """Return a job that counts words."""
    (folder / "words.py").write_text(program)
    python = "/usr/bin/env python3 words.py"
    return Job(
        "words", [folder / "words.py"], f"{python} map", f"{python} reduce", [pattern], "/jobs/out", key_fields=2
    )


def test_job_reads_many_files_and_its_programs_get_lines(files: Files, hdfs: Hdfs, tmp_path: Path) -> None:
    """Only the lines, of what fits the pattern; keys of both fields are sorted."""
    for number in range(20):
        files.put(f"dt={number % 3}/words_{number}", f"one two\nçà {'x' * 70000}\none\n".encode())
        files.put(f"dt={number % 3}/_words_{number}", b"hidden\n")
    run(job(tmp_path), threading.Event(), hdfs.streaming())
    names = [name for name in files.sizes("out") if name.startswith("part-")]
    counts = dict(line.decode().split() for name in names for line in files.lines(f"out/{name}"))
    assert counts == {"one": "40", "two": "20", "çà": "20", "x" * 70000: "20"}


def test_job_that_fails_tells_why(files: Files, hdfs: Hdfs, tmp_path: Path) -> None:
    files.put("dt=1/words_1", b"one\n")
    with pytest.raises(JobFailed, match="subprocess failed with code 3"):
        run(job(tmp_path, "import sys\nsys.exit(3)"), threading.Event(), hdfs.streaming())
    files.remove("out")
    with pytest.raises(JobFailed, match="matches 0 files"):
        run(job(tmp_path, pattern="/jobs/none*/*"), threading.Event(), hdfs.streaming())


def test_job_ends_with_its_stage(files: Files, hdfs: Hdfs, tmp_path: Path) -> None:
    files.put("dt=1/words_1", b"one\n")
    stop, since = threading.Event(), time.monotonic()
    threading.Timer(5, stop.set).start()
    with pytest.raises(JobFailed, match="words was stopped"):
        run(job(tmp_path, "import time\ntime.sleep(100)"), stop, hdfs.streaming())
    assert time.monotonic() - since < 40
