"""Operating system packages: whoever has the package manager's lock is waited for, and named meanwhile."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from berny.model.topology import CHECKOUT

PYTHON = "/usr/bin/python3"
APT = subprocess.run([PYTHON, "-c", "import apt"], capture_output=True).returncode == 0
PLAY = """
- hosts: all
  connection: local
  gather_facts: false
  tasks:
    - name: Install
      berny_packages: {names: [berny-no-such-package], wait: 15}
"""


@pytest.mark.skipif(not APT, reason="needs python3-apt")
def test_a_lock_that_is_held_is_waited_for_and_told(tmp_path: Path) -> None:
    """The real apt, with lists and lock of its own: the error is the lock, not that a package is unknown without lists."""
    for folder in ("dpkg", "lists/partial", "cache/archives/partial"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "dpkg" / "status").touch()
    settings = tmp_path / "apt.conf"
    settings.write_text(
        f'Dir::State "{tmp_path}";\nDir::State::status "{tmp_path}/dpkg/status";\nDir::Cache "{tmp_path}/cache";\n'
        f'Dir::State::lists "{tmp_path}/lists";\n'
    )
    play = tmp_path / "play.yml"
    play.write_text(PLAY)
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "worker_0,", str(play)]
    environment = os.environ | {
        "APT_CONFIG": str(settings),
        "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"),
        "ANSIBLE_PYTHON_INTERPRETER": PYTHON,
    }
    with (tmp_path / "lists" / "lock").open("w") as lists, (tmp_path / "dpkg" / "lock-frontend").open("w") as dpkg:
        for lock in (lists, dpkg):
            fcntl.lockf(lock, fcntl.LOCK_EX)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    said = " ".join((done.stdout + done.stderr).replace("''", "'").split())
    assert done.returncode != 0
    assert "worker_0: waiting for the package manager, " in said and "of 15 s)" in said, said
    assert "held the package manager's lock for" in said and "Traceback" not in said, said
    assert "No package matching" not in said, said


def action(module: ModuleType, *answers: dict[str, Any]) -> tuple[Any, list[dict[str, Any]], list[str]]:
    """Return an action that apt gives these answers, the arguments that it is called with, and what is shown."""
    calls: list[dict[str, Any]] = []
    shown: list[str] = []
    said = iter(answers)

    class Told(module.ActionModule):  # type: ignore[misc, name-defined]
        def _execute_module(self, module_args: dict[str, Any], **_: Any) -> dict[str, Any]:
            calls.append(dict(module_args))
            return dict(next(said))

    task = SimpleNamespace(args={"names": ["chrony"]}, async_val=0, check_mode=False, diff=False)
    found = Told(task, None, None, None, None, None)
    found._display = SimpleNamespace(display=shown.append)
    found._connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir=None), has_pipelining=True)
    return found, calls, shown


FRONTEND = {
    "failed": True,
    "msg": "'/usr/bin/apt-get -y install chrony' failed: E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by "
    "process 812 (unattended-upgr)",
}
UNKNOWN = {"failed": True, "msg": "No package matching 'chrony' is available"}


def test_it_goes_on_when_the_lock_is_free(plugin: Callable[[str], ModuleType]) -> None:
    """Also where the lists have to be fetched first; who has the lock is named each time."""
    told, calls, shown = action(
        plugin("ansible/plugins/action/berny_packages.py"), FRONTEND, UNKNOWN, FRONTEND, {"changed": True}
    )
    result = told.run(None, {"inventory_hostname": "worker_0"})
    assert result["changed"] and not result.get("failed")
    assert [call.get("update_cache", False) for call in calls] == [False, False, True, True]
    assert len(shown) == 2 and all("process 812 (unattended-upgr) has its lock" in words for words in shown)


def test_what_is_no_lock_is_not_waited_for(plugin: Callable[[str], ModuleType]) -> None:
    told, calls, shown = action(plugin("ansible/plugins/action/berny_packages.py"), UNKNOWN, UNKNOWN)
    result = told.run(None, {"inventory_hostname": "worker_0"})
    assert result["failed"] and result["msg"] == UNKNOWN["msg"]
    assert (len(calls), shown) == (2, [])


def test_the_lock_is_waited_for_ten_minutes(
    plugin: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = plugin("ansible/plugins/action/berny_packages.py")
    clock = iter(range(0, 10_000, module.TURN_SECONDS))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    told, calls, shown = action(module, *[FRONTEND] * 100)
    result = told.run(None, {"inventory_hostname": "worker_0"})
    assert "process 812 (unattended-upgr) has held the package manager's lock for 600 s" in result["msg"]
    assert len(calls) == 40 and "(585 of 600 s)" in shown[-1]
    assert [call["lock_timeout"] for call in calls[:2]] == [module.FIRST_SECONDS, module.TURN_SECONDS]
