"""The command `influx` on a node: what it hands to InfluxDB's own, by running it as a shell does."""

from __future__ import annotations

import subprocess
from pathlib import Path

import jinja2
import pytest

from berny.model.catalog import load_catalog

TOKEN, PROGRAM = "/etc/berny/influxdb/read.token", "/opt/berny/influx/bin/influx"


@pytest.fixture
def influx(checkout: Path, tmp_path: Path) -> Path:
    """The command with a program behind it that prints what it is given; it is nobody's who runs the test."""
    template = (checkout / "roles" / "influxdb" / "templates" / "influx.sh.j2").read_text()
    words = {"catalog": load_catalog().model_dump() | {"services": load_catalog().services}}
    text = jinja2.Template(template, undefined=jinja2.StrictUndefined).render(
        **words, influxdb_organisation="berny", ansible_managed="managed"
    )
    assert TOKEN in text and PROGRAM in text
    program = tmp_path / "program"
    program.write_text('#!/bin/sh\necho "$INFLUX_HOST|$INFLUX_ORG|$INFLUX_TOKEN|$*"\n')
    program.chmod(0o755)
    command = tmp_path / "influx"
    command.write_text(text.replace(TOKEN, str(tmp_path / "token")).replace(PROGRAM, str(program)))
    return command


def run(command: Path, **environment: str) -> str:
    """Run it and return what the program behind it was given."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(command.parent)} | environment
    done = subprocess.run(["sh", command, "a b", "c"], env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.strip()


def test_it_speaks_to_this_cluster(influx: Path) -> None:
    """Without a token where there is none to be read; the words of the call are passed on."""
    assert run(influx) == "http://localhost:8086|berny||a b c"


def test_who_may_read_the_token_need_not_give_it(influx: Path) -> None:
    """Which is root, on a node; a token that is given goes first."""
    (influx.parent / "token").write_text("reads")
    assert run(influx) == "http://localhost:8086|berny|reads|a b c"
    assert run(influx, INFLUX_TOKEN="mine", INFLUX_ORG="other", INFLUX_HOST="http://h") == "http://h|other|mine|a b c"


def test_own_configuration_is_left_alone(influx: Path) -> None:
    """What `influx config create` wrote would be overridden by the environment."""
    (influx.parent / "token").write_text("reads")
    (influx.parent / ".influxdbv2").mkdir()
    (influx.parent / ".influxdbv2" / "configs").touch()
    assert run(influx) == "|||a b c"
    assert run(influx, INFLUX_CONFIGS_PATH=str(influx.parent / "none")) == "http://localhost:8086|berny|reads|a b c"
    assert run(influx, INFLUX_CONFIGS_PATH=str(influx)) == "|||a b c"
