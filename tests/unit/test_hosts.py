"""What a node's /etc/hosts has of the cluster: a block of its own, beside whatever others write there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

NAMES = "10.0.0.10 master\n10.0.0.11 worker-0 worker_0\n"
BLOCK = f"# BEGIN Berny\n{NAMES}# END Berny\n"
DEBIAN = "127.0.0.1\tlocalhost\n127.0.1.1\tworker-0.example.org worker-0\n\n# IPv6\n::1 localhost ip6-localhost\n"


@pytest.fixture
def hosts(checkout: Path, tmp_path: Path) -> Callable[..., str]:
    """Run the program on a text, or on none; returns what is there then, and holds what it says against it."""
    program = (checkout / "roles" / "node" / "templates" / "hosts.py.j2").read_text()
    assert "{{" not in program and "{%" not in program
    file, names = tmp_path / "hosts", tmp_path / "names"
    program = program.replace('"/etc/hosts"', repr(str(file))).replace('"/etc/berny/hosts"', repr(str(names)))
    script = tmp_path / "program"
    script.write_text(program)
    names.write_text(NAMES)

    def run(text: str | None, *words: str) -> str:
        file.unlink(missing_ok=True)
        if text is not None:
            file.write_text(text)
            file.chmod(0o640)
        done = subprocess.run([sys.executable, script, *words], capture_output=True, text=True, check=True)
        after = file.read_text() if file.exists() else ""
        assert bool(done.stdout) == (after != (text or "")), done.stdout
        assert text is None or not file.exists() or file.stat().st_mode & 0o777 == 0o640
        return after

    return run


def test_only_the_block_is_ours(hosts: Callable[..., str]) -> None:
    """Own lines stay where they are, also those below and those that a person has put in since."""
    own = "127.0.0.1 localhost\n# mine\n192.0.2.9 printer # in the hall\n"
    assert hosts(own) == BLOCK + own
    assert hosts(BLOCK + own) == BLOCK + own
    old = BLOCK.replace("10.0.0.1", "10.9.9.1")
    assert hosts("192.0.2.1 first\n" + old + own) == BLOCK + "192.0.2.1 first\n" + own
    assert hosts(BLOCK + own, "remove") == own
    assert hosts(own, "remove") == own


def test_machine_without_a_file(hosts: Callable[..., str]) -> None:
    """localhost is there as well; a reset leaves what there was: nothing."""
    made = hosts(None)
    assert made.startswith("# BEGIN Berny\n127.0.0.1 localhost\n::1 localhost ") and made.endswith(
        f"{NAMES}# END Berny\n"
    )
    assert hosts(made) == made
    assert hosts(made, "remove") == ""
    assert hosts(None, "remove") == ""


def test_a_node_has_one_address(hosts: Callable[..., str]) -> None:
    """Debian's line for the machine's own name comes first where addresses are sorted, and a service would listen on it."""
    made = hosts(DEBIAN)
    assert made.startswith(BLOCK)
    assert "\n# off, by Berny: 127.0.1.1\tworker-0.example.org worker-0\n127.0.1.1 worker-0.example.org #" in made
    assert hosts(made) == made
    assert hosts(made, "remove") == DEBIAN
    assert hosts(DEBIAN.replace("127.0.1.1", "10.0.0.11")).endswith(DEBIAN.replace("127.0.1.1", "10.0.0.11"))
    assert "# off" not in hosts("192.0.2.1 worker-00 my-master master.example.org\n")


def test_template_that_is_written_again(hosts: Callable[..., str]) -> None:
    """As cloud-init does at each boot: the same comes of it."""
    assert hosts(DEBIAN) == hosts(hosts(DEBIAN)) == hosts(DEBIAN)


@pytest.mark.parametrize("torn", ["# BEGIN Berny\n10.0.0.10 master\n192.0.2.9 own\n", "192.0.2.9 own\n# END Berny\n"])
def test_marks_that_somebody_tore(hosts: Callable[..., str], torn: str) -> None:
    """No line of another's goes with them."""
    made = hosts(torn)
    assert "192.0.2.9 own\n" in made and NAMES in made
    assert made.count("# BEGIN Berny\n") == made.count("# END Berny\n") == 1
    assert hosts(made) == made


def test_a_last_line_without_its_end(hosts: Callable[..., str]) -> None:
    """It is somebody's, and stays."""
    assert hosts("127.0.0.1 localhost\n192.0.2.9 own") == f"{BLOCK}127.0.0.1 localhost\n192.0.2.9 own\n"
