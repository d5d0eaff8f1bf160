"""The suite's own behaviour: parts, tiers, where it stops, and how it is continued."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from berny.model.topology import CHECKOUT
from suite import PARTS, Ledger

TESTS = CHECKOUT / "tests"


def test_every_folder_of_tests_is_a_part() -> None:
    folders = {path.parent.name for path in TESTS.glob("*/test_*.py")}
    assert folders == {*PARTS}


def test_every_role_has_a_scenario() -> None:
    scenarios = {path.parent.name for path in (CHECKOUT / "molecule").glob("*/molecule.yml")}
    assert scenarios == {path.name for path in (CHECKOUT / "roles").iterdir()} | {"cluster"}


def test_a_ledger_outlives_a_crash_in_the_middle_of_a_line(tmp_path: Path) -> None:
    ledger = Ledger("abc", tmp_path)
    assert ledger.read() == {}
    ledger.add("tests/unit/test_x.py::one", 1.234)
    with ledger.file.open("a") as file:
        file.write('{"test": "tests/unit/test_x.py::two", "sec')
    ledger.add("tests/unit/test_x.py::three", 2)
    assert ledger.read() == {"tests/unit/test_x.py::one": 1.23, "tests/unit/test_x.py::three": 2}
    assert Ledger("def", tmp_path).read() == {}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A repository whose tests behave as the checkout's, each of them a line."""
    (tmp_path / "tests").mkdir()
    for name in ("conftest.py", "suite.py", "support.py"):
        (tmp_path / "tests" / name).symlink_to(TESTS / name)
    (tmp_path / "pyproject.toml").write_text(
        "[tool.pytest.ini_options]\npythonpath = ['tests']\ntimeout = 60\n"
        "markers = ['second_tier: x', 'beside: x', 'quick: x']\n"
    )
    for part in PARTS:
        (tmp_path / "tests" / part).mkdir()
    return tmp_path


def run(copy: Path, *options: str) -> tuple[int, str]:
    """Run the tests of a copy; return the exit code and what is printed."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options],
        cwd=copy,
        env=os.environ | {"BERNY_LAB": "none", "XDG_STATE_HOME": str(copy / "state"), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


def write(copy: Path, **tests: str) -> None:
    """Write a file of tests for each part."""
    for part, text in tests.items():
        (copy / "tests" / part / f"test_{part}.py").write_text(f"import pytest\n{text}\n")


def test_nothing_follows_a_quick_test_that_failed(copy: Path) -> None:
    """The quick parts are finished: all that they find is told at once."""
    write(
        copy,
        unit="def test_a(): assert False\ndef test_b(): assert False",
        style="@pytest.mark.beside\ndef test_slow(): assert False\ndef test_c(): assert False",
        cluster="def test_d(): raise SystemExit('a machine was touched')",
    )
    code, said = run(copy)
    assert code and "4 failed" in said and "style or unit tests failed, so no machine was tested" in said, said
    assert "a machine was touched" not in said
    assert said.index("tests/style") < said.index("tests/unit") < said.rindex("tests/style/test_style.py F")


def test_quick_tests_of_any_part_come_before_machines(copy: Path) -> None:
    """And where one of them fails, no machine is touched."""
    write(
        copy,
        unit="def test_a(): pass",
        cluster="def test_b(): raise SystemExit('a machine was touched')",
        contract="@pytest.mark.quick\ndef test_c(): assert False\ndef test_d(): raise SystemExit('a machine was touched')",
    )
    code, said = run(copy)
    assert code and "1 failed, 1 passed" in said and "no machine was tested" in said, said
    assert "a machine was touched" not in said


def test_tiers_and_parts_are_counted(copy: Path) -> None:
    write(
        copy,
        unit="def test_a(): pass\ndef test_b(): pytest.skip('x')",
        faults="@pytest.mark.second_tier\ndef test_c(): raise AssertionError\ndef test_d(): pass",
    )
    code, said = run(copy, "-m", "not second_tier")
    assert code == 0, said
    rows = {line.split()[0]: line.split()[1:] for line in said.split(" parts ")[1].splitlines()[2:] if line}
    assert rows["unit"][:6] == ["1", "-", "1", "-", "-", "-"], said
    assert rows["faults"][:6] == ["1", "-", "-", "-", "1", "-"], said


def git(copy: Path, *words: str) -> None:
    """Run git in a copy."""
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run(["git", *who, *words], cwd=copy, check=True, capture_output=True)


@pytest.mark.parametrize("ended", ["failed", "killed"])
def test_a_run_is_continued_for_the_same_revision_alone(copy: Path, ended: str) -> None:
    """Without what passed; what failed, and what was under way when the run was killed, runs again."""
    end = "assert False" if ended == "failed" else "import os; os.kill(os.getpid(), 9)"
    flag = copy / "flag"
    write(
        copy,
        lab="def test_a(): pass",
        vm=f"def test_b():\n    if not __import__('pathlib').Path({str(flag)!r}).exists():\n        {end}",
        roles="def test_c(): pass",
    )
    (copy / ".gitignore").write_text("state\nflag\n__pycache__\n")
    git(copy, "init", "-q")
    git(copy, "add", ".")
    git(copy, "commit", "-q", "-m", "x")
    code, first = run(copy, "--continue")
    assert code, first
    flag.touch()
    code, second = run(copy, "--continue")
    assert code == 0, second
    counts = "2 deselected" if ended == "failed" else "1 deselected"
    assert counts in second, second
    assert "passed before" in second
    code, nothing = run(copy, "--continue")
    assert code == 0, "nothing is left to run, and that is no failure: " + nothing
    write(copy, roles="def test_c(): pass\ndef test_d(): pass")
    code, changed = run(copy, "--continue")
    assert code == 0 and "4 passed" in changed, changed


def test_parts_that_were_not_asked_for_are_named(copy: Path) -> None:
    write(copy, lab="def test_a(): pass", vm="def test_b(): pass")
    git(copy, "init", "-q")
    git(copy, "add", ".")
    git(copy, "commit", "-q", "-m", "x")
    code, said = run(copy, "--continue", "tests/lab")
    assert code == 0, said
    assert [line.split() for line in said.splitlines() if line.startswith("vm ")] == [["vm", "left", "out"]], said
