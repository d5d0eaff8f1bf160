"""The command blocks of all pages, as a person types them: on nodes as the login user, else on the controller."""

from __future__ import annotations

import re

import pytest

from berny.controller.artifacts import Store
from berny.controller.artifacts.recipes import load_recipes, not_run
from documented import AFTER, ENDLESS, NODES, SLOW, all_blocks, on_node, optional_archive, typed
from support import Cluster, console, on_controller, wait_until

FOLDER = "readme"
JOB = """
from pyspark.sql import SparkSession
spark = SparkSession.builder.getOrCreate()
print("sum", spark.range(100).count())
"""
EXAMPLE = "application_1700000000000_0001"


@pytest.fixture(scope="module")
def folder(cluster: Cluster) -> str:
    """A folder of the login user's on master with the file that documented commands name."""
    cluster.sh("master", f"mkdir -p {FOLDER} && cat > {FOLDER}/job.py <<'END'{JOB}END")
    return FOLDER


def controller(line: str) -> str:
    """Type a line on the controller, in a shell as the README asks for, and return what it prints."""
    done = on_controller(["bash", "-c", f". .venv/bin/activate && {line}"], 600)
    assert done.returncode == 0, f"{line}: {done.stdout[-3000:]}"
    return done.stdout


def node(cluster: Cluster, folder: str, line: str) -> str:
    """Type a line on a node, and return what it prints; what a page gives as an example is one of this cluster's."""
    if EXAMPLE in line:
        # Logs of another user's application are not for this one.
        own = "yarn application -list -appStates FINISHED | grep -w $(whoami)"
        ids = re.findall(r"application_\d+_\d+", cluster.sh("master", own))
        line = line.replace(EXAMPLE, ids[-1])
        # Nodes upload logs a while after an application has ended.
        wait_until(lambda: cluster.lab.run("master", line).returncode == 0, 120, f"no logs: {line}")
    if line in ENDLESS:
        line = f"timeout 5 {line}; [ $? = 124 ]"
    where = NODES.get(line, "master")
    return cluster.sh(where, f"cd {folder} && {line}" if where == "master" else line, timeout=400)


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(block, id=typed(block)[0], marks=[pytest.mark.second_tier] if SLOW & {*block} else [])
        for block in all_blocks()
        if typed(block)
    ],
)
def test_block(cluster: Cluster, folder: str, block: list[str]) -> None:
    """Each line ends with 0, in the block's order."""
    for line in typed(block):
        archive = optional_archive(line)
        if archive and not Store().find(archive):
            console.print(not_run(load_recipes()[archive]), highlight=False, soft_wrap=True)
            continue
        console.print(f"$ {line}", highlight=False, markup=False)
        try:
            said = node(cluster, folder, line) if on_node(line) else controller(line)
        finally:
            if line in AFTER:
                controller(AFTER[line])
        if " pi " in line:
            assert "Estimated value of Pi is 3." in said
    assert cluster.lacking(180) == ""
