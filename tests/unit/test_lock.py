"""One play at a time on a cluster: a second one says who works there; one that ended, however it did, is in nobody's way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from berny.model.topology import CHECKOUT

PLAY = """
- name: Work
  hosts: all
  connection: local
  gather_facts: false
  tasks:
    - name: Keep others off
      berny_lock: {{file: {folder}/lock}}
      delegate_to: one
      run_once: true
      register: _play_lock
    - name: Keep others off, in a later play of the same run
      berny_lock: {{file: {folder}/lock}}
      delegate_to: one
      run_once: true
      register: _play_lock
    - name: Say that work goes on
      ansible.builtin.file: {{path: {folder}/working, state: touch, mode: "0644"}}
      run_once: true
    - name: Work
      ansible.builtin.wait_for: {{path: {folder}/done, timeout: 60, sleep: 1}}
      run_once: true
"""


class Plays:
    """Plays of one cluster; what is left of them ends with the test."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.lock = folder, folder / "lock"
        self.begun: list[subprocess.Popen[str]] = []
        (folder / "work.yml").write_text(PLAY.format(folder=folder))

    def start(self, *options: str) -> subprocess.Popen[str]:
        """Start a play, as a person does from a shell of his own."""
        command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "one,two", *options]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        environment |= {"ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"), "ANSIBLE_PYTHON_INTERPRETER": sys.executable}
        play = subprocess.Popen(
            [*command, str(self.folder / "work.yml")],
            env=environment,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.begun.append(play)
        return play

    def working(self) -> subprocess.Popen[str]:
        """Start a play and return it when it works."""
        (self.folder / "working").unlink(missing_ok=True)
        play = self.start()
        until((self.folder / "working").exists)
        return play

    def done(self) -> None:
        """Let all plays end."""
        (self.folder / "done").touch()


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 40
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture
def plays(tmp_path: Path) -> Iterator[Plays]:
    """Plays that work on a cluster whose lock is a file of the test."""
    found = Plays(tmp_path)
    yield found
    found.done()
    for play in found.begun:
        if play.poll() is None:
            os.killpg(play.pid, signal.SIGKILL)
        play.communicate()


def test_the_second_says_who_works_and_ends_and_the_next_goes_on(plays: Plays) -> None:
    first = plays.working()
    # The user, the machine, the play and its process.
    second, _ = plays.start().communicate(timeout=60)
    said = " ".join(second.split())
    assert "Nothing was touched." in said and "works on this cluster: work.yml" in said, second
    assert f"(process {first.pid})" in said and f"@{os.uname().nodename}" in said
    assert "TASK [Work]" not in second
    # A check changes nothing, and does not wait.
    plays.done()
    out, _ = first.communicate(timeout=60)
    assert first.returncode == 0, out
    until(lambda: plays.lock.read_text() == "")
    third = plays.start()
    out, _ = third.communicate(timeout=60)
    assert third.returncode == 0, out


def test_a_killed_play_is_in_nobodys_way(plays: Plays) -> None:
    """With all of its process group, as by a closed terminal: what holds the lock notices."""
    first = plays.working()
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    until(lambda: plays.lock.read_text() == "")


def test_a_play_renews_its_lock(plays: Plays) -> None:
    """However long its tasks take: the lock is never as old as one that was left."""
    plays.working()
    mine = plays.lock.read_text()
    then = time.time() - 60
    os.utime(plays.lock, (then, then))
    until(lambda: plays.lock.stat().st_mtime > then + 30)
    assert plays.lock.read_text() == mine


def other(**changes: str) -> str:
    """Return the lock of a play on another machine."""
    words = {"who": "alice@laptop", "play": "site.yml", "since": "2025-11-26 10:02:13 UTC", "process": "4711"}
    return json.dumps(words | {"started": "1", "boot": "another"} | changes)


def test_a_lock_of_another_controller_holds_while_it_is_renewed(plays: Plays) -> None:
    """Nobody here knows whether that play still runs: the file's age tells."""
    plays.lock.write_text(other())
    plays.done()
    out, _ = plays.start().communicate(timeout=60)
    told = "alice@laptop works on this cluster: site.yml (process 4711), since 2025-11-26 10:02:13 UTC"
    assert told in " ".join(out.split()), out
    assert plays.lock.read_text() == other()
    checked = plays.start("--check")
    checked.communicate(timeout=60)
    assert checked.returncode == 0 and plays.lock.read_text() == other()
    then = time.time() - 91
    os.utime(plays.lock, (then, then))
    play = plays.start()
    out, _ = play.communicate(timeout=60)
    assert play.returncode == 0, out


def test_a_lock_of_a_play_that_is_gone_from_this_machine_is_taken(plays: Plays) -> None:
    """Also where what held it was killed as well: its process is no more, or is another one by now."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    plays.lock.write_text(other(boot=boot, process=str(os.getpid())))
    plays.done()
    play = plays.start()
    out, _ = play.communicate(timeout=60)
    assert play.returncode == 0, out


def test_what_cannot_be_locked_is_told_and_goes_on(plays: Plays) -> None:
    """A node that is away keeps nobody from mending the others."""
    plays.lock.mkdir()
    plays.done()
    play = plays.start()
    out, _ = play.communicate(timeout=60)
    assert play.returncode == 0 and "so others are not kept off" in " ".join(out.split()), out


def test_a_lock_is_renewed_long_before_it_is_taken_for_left(plugin: Callable[[str], ModuleType]) -> None:
    lock = plugin("ansible/plugins/action/berny_lock.py")
    assert lock.BEAT_SECONDS * 3 < lock.STALE_SECONDS


def test_every_play_that_changes_a_cluster_takes_the_lock() -> None:
    """By the tasks that all of them begin with; the rest only looks, or is of no cluster that runs."""
    for file in sorted((CHECKOUT / "playbooks").glob("*.yml")):
        text = file.read_text()
        takes = "tasks/begin.yml" in text or "tasks/lock.yml" in text
        assert takes or file.stem in ("azure", "bundle", "check", "plan"), file
    assert "lock.yml" in (CHECKOUT / "playbooks" / "tasks" / "begin.yml").read_text()
    assert "begin_locks: true" in (CHECKOUT / "site.yml").read_text()
