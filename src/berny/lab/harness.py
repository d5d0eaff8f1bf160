"""Calls of a pipeline's harness on the lab's nodes: its status, its newest observation, its spool, the set checker."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from typing import Any

from berny.controller.placement import spools
from berny.lab.lab import Lab
from berny.lab.plan import LabError
from berny.lab.simulation import load_simulations
from berny.model import names
from berny.model.manifest import load_pipelines

PYTHON_PATH = "/opt/berny/berny/python:/opt/berny/runtime/python"
PYTHON = f"sudo env PYTHONPATH={PYTHON_PATH} python3"
CHECK_SECONDS = 180


def command(pipeline: str, *words: str) -> str:
    """Return the command line that runs a pipeline's harness on a node."""
    path = f"/opt/berny/{names.archive(pipeline)}/python:{PYTHON_PATH}"
    return f"sudo env PYTHONPATH={path} python3 -u -m berny.runtime.harness {pipeline} {' '.join(words)}"


def node(lab: Lab, pipeline: str) -> str:
    """Return the node where the harness of one of a lab's pipelines runs."""
    return lab.plan.groups[load_simulations()[pipeline].harness][0]


def status(lab: Lab, pipeline: str) -> dict[str, Any]:
    """Return a pipeline's status.

    Raises:
        LabError: it can't be read; the message has the last line of the output.
    """
    done = lab.run(node(lab, pipeline), command(pipeline, "status", "--json"))
    if done.returncode:
        said = (done.stderr.strip() or "no response").splitlines()[-1]
        raise LabError(f"{pipeline}: {said}")
    return dict(json.loads(done.stdout))


def stored(lab: Lab, pipeline: str, since: float) -> int:
    """Return how many observations that were recorded since a Unix time are stored in the pipeline's last sink.

    Raises:
        LabError: the sink can't be read; the message has the last line of the output.
    """
    done = lab.run(node(lab, pipeline), command(pipeline, "stored", f"--since {since:.0f}"))
    if done.returncode:
        raise LabError(f"{pipeline}: {(done.stderr.strip() or 'no response').splitlines()[-1]}")
    return int(done.stdout)


def spooled(lab: Lab, pipeline: str, since: float) -> str:
    """Return the lines of what the pipeline's spools have stored since a Unix time.

    Raises:
        LabError: a spool can't be read; the message has the node and the last output.
    """
    lines = ""
    stages = spools(load_pipelines()[pipeline], lab.plan.groups)
    for host in sorted({host for hosts in stages.values() for host in hosts}):
        done = lab.run(host, command(pipeline, "spooled", f"--since {since:.0f}"), 120)
        if done.returncode:
            raise LabError(f"{host}: spool of {pipeline}: {(done.stdout + done.stderr).strip()[-400:]}")
        lines += done.stdout
    return lines


def check(
    lab: Lab, pipeline: str, runs: Iterable[str], *options: str, spool: str = ""
) -> subprocess.CompletedProcess[str]:
    """Compare the sinks of a pipeline with its ground truth of some runs; ``spool``: lines of what its spools have stored."""
    words = [f"--run {run}" for run in runs]
    checking = lab.ssh(node(lab, pipeline), command(pipeline, "check", "--truth -", *words, *options))
    told = lab.simulators[pipeline].truth.read_text() + spool
    return subprocess.run(checking, input=told, capture_output=True, text=True, timeout=CHECK_SECONDS)


def checked(lab: Lab, pipeline: str, runs: Iterable[str], since: float) -> dict[str, Any]:
    """Return the checker's JSON on what spools and sinks received since a Unix time.

    Raises:
        LabError: a spool or a sink can't be read; the message has the last line of the output.
    """
    spool = spooled(lab, pipeline, since)
    done = check(lab, pipeline, runs, f"--since {since:.0f}", "--json", spool=spool)
    if not done.stdout.startswith("{"):
        raise LabError((done.stderr.strip() or "the checker printed nothing").splitlines()[-1])
    return dict(json.loads(done.stdout))
