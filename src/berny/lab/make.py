"""``make lab``: set up machines, archives, cluster and pipelines."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console

from berny.controller.artifacts.cli import fetch_all
from berny.controller.artifacts.recipes import Recipe, load_recipes
from berny.controller.progress import Say, Steps
from berny.lab import harness, summary
from berny.lab.lab import Lab
from berny.lab.plan import LabError
from berny.model.catalog import load_catalog
from berny.model.topology import CHECKOUT, Groups, is_selected

FIRST_POINT_SECONDS = 180
TASK = re.compile(r"^(?:PLAY|TASK|RUNNING HANDLER) \[(?P<title>.*?)\] \**$")


def play(lab: Lab, playbook: str, say: Say, *options: str) -> str:
    """Run a playbook against the lab; returns its output, which is also stored in the lab's folder.

    Raises:
        LabError: it failed; the message has the first failure and the log's name.
    """
    log = lab.plan.folder / f"{Path(playbook).stem}.log"
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "inventory/lab", playbook, *options]
    environment = os.environ | {"BERNY_LAB": lab.plan.name, "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"}
    lines: list[str] = []
    with log.open("w") as out:
        process = subprocess.Popen(
            command,
            cwd=CHECKOUT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        try:
            for line in process.stdout:
                out.write(line)
                lines.append(line)
                task = TASK.match(line)
                if task:
                    say(task["title"])
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if process.wait():
        failure = next(
            (line.strip() for line in lines if line.startswith("[ERROR]:") or "fatal:" in line), "no reason was given"
        )
        raise LabError(f"{playbook} failed: {failure} (all of it: {log})")
    return "".join(lines)


def archives(groups: Groups) -> list[str]:
    """Return the archives that a lab needs: all but those that only on-demand components have which it does not run."""
    components = load_catalog().components.values()
    idle = {one.name for one in components if one.on_demand and not is_selected(one, groups)}
    used = {archive for one in components if one.name not in idle for archive in (one.archive, one.commands.archive)}

    def is_idle(recipe: Recipe) -> bool:
        return not recipe.pipeline and recipe.file.parents[1].name in idle and recipe.name not in used

    return [name for name, recipe in load_recipes().items() if not is_idle(recipe)]


def make(lab: Lab, steps: Steps, console: Console, rate: float) -> None:
    """Start everything and print where to look.

    Raises:
        LabError: something did not start; the message says what.
    """
    since = time.monotonic()
    lab.up(steps, rate)
    fetch_all(archives(lab.plan.groups), steps)
    with lab.locked():
        with steps.step("site.yml") as say:
            play(lab, "site.yml", say)
        for name in lab.simulators:
            with steps.step(f"pipeline {name}") as say:
                play(lab, "playbooks/pipelines.yml", say, "-e", "do=start", "-e", f"pipeline={name}")
        # One deadline for all: each pipeline has run since it was started.
        deadline = time.monotonic() + FIRST_POINT_SECONDS
        for name in lab.simulators:
            with steps.step(f"first stored observation of {name}"):
                _wait_for_observation(lab, name, deadline)
    console.print(f"the lab runs, {time.monotonic() - since:.0f} s after the start", highlight=False)
    summary.show(lab, console)


def _wait_for_observation(lab: Lab, pipeline: str, deadline: float) -> None:
    said = "none is stored"
    while True:
        try:
            if harness.status(lab, pipeline)["freshness_seconds"] is not None:
                return
        except LabError as error:
            said = str(error)
        if time.monotonic() > deadline:
            raise LabError(
                f"no stored observation of {pipeline} after {FIRST_POINT_SECONDS} s ({said}): "
                "berny lab status shows which stage is waiting"
            )
        time.sleep(1)
