"""Jobs of Hadoop Streaming: mapper and reducer are programs that read lines and write lines, shipped with the job."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from berny.runtime.stage import WorkFailed, log

LOGGER = logging.getLogger("mapreduce")
STREAMING = ("mapred", "streaming")
KILL = ("yarn", "application", "-kill")
KILL_SECONDS = 60
RUNNING = re.compile(r"Running job: job_(\d+_\d+)")
"""A job's number is its application's."""
WRONG = re.compile(r"ERROR|FAILED|Exception|Error:")
SPLIT_BYTES = 128 << 20
"""Small files are read by one mapper up to this size together."""
JAVA = "-Xmx192m"
"""Of the process that submits the job and waits for it."""


class JobFailed(WorkFailed):
    """A job failed or was stopped; the message has the last errors that it has reported."""


@dataclass(frozen=True)
class Job:
    """A job. Its programs get one record a line; a key is what comes before a line's ``key_fields``-th tab."""

    name: str
    files: Sequence[Path]
    """Shipped to each container, into its working directory."""
    mapper: str
    """A command line."""
    reducer: str
    inputs: Sequence[str]
    """Paths, which may be patterns; each has to match a file."""
    output: str
    """A folder that does not exist yet; it has ``part-`` files afterwards."""
    key_fields: int = 1
    reducers: int = 1
    options: Mapping[str, str] = field(default_factory=dict)
    """Other properties of the job."""

    def words(self) -> list[str]:
        """Return the words of the command line."""
        properties = {
            "mapreduce.job.name": self.name,
            "mapreduce.job.reduces": str(self.reducers),
            "stream.num.map.output.key.fields": str(self.key_fields),
            "mapreduce.input.fileinputformat.split.maxsize": str(SPLIT_BYTES),
            # The position of a line is its key, and of no use; by default it is left out for another format alone.
            "stream.map.input.ignoreKey": "true",
            **self.options,
        }
        words = [f"-D{name}={value}" for name, value in properties.items()]
        words += ["-files", ",".join(f"file://{file}" for file in self.files)]
        words += ["-inputformat", "org.apache.hadoop.mapred.lib.CombineTextInputFormat"]
        words += [word for path in self.inputs for word in ("-input", path)]
        return [*words, "-output", self.output, "-mapper", self.mapper, "-reducer", self.reducer]


def run(job: Job, stop: threading.Event, command: Sequence[str] = STREAMING) -> None:
    """Run a job until it has ended. If the stage has to stop, the job is killed.

    Raises:
        JobFailed: its output is not complete.
    """
    last: deque[str] = deque(maxlen=5)
    application = ""
    environment = os.environ | {"HADOOP_CLIENT_OPTS": JAVA}
    with tempfile.TemporaryDirectory(prefix="berny-job-") as folder:
        process = subprocess.Popen(
            [*command, *job.words()], cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace",
        )  # fmt: skip
        ended = threading.Event()
        watch = threading.Thread(target=_end_with, args=(stop, ended, process), daemon=True)
        watch.start()
        try:
            assert process.stdout
            for line in process.stdout:
                if found := RUNNING.search(line):
                    application = f"application_{found[1]}"
                    log(LOGGER, logging.INFO, "submitted", job=job.name, application=application)
                if WRONG.search(line):
                    last.append(line.strip()[:300])
            code = process.wait()
        finally:
            ended.set()
            process.kill()
            process.wait()
            watch.join()
    if stop.is_set() and code:
        if application:
            subprocess.run([*KILL, application], capture_output=True, timeout=KILL_SECONDS, check=False)
        raise JobFailed(f"{job.name} was stopped")
    if code:
        name = f"{job.name} ({application})" if application else job.name
        raise JobFailed(f"{name} ended with {code}: {' | '.join(last) or 'no error was reported'}")


def _end_with(stop: threading.Event, ended: threading.Event, process: subprocess.Popen[str]) -> None:
    """End the process once the stage has to stop."""
    while not ended.wait(0.2):
        if stop.is_set():
            process.terminate()
            return
