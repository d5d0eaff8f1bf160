"""Tokens renewed under load, with an encrypted secrets file and a play that is killed in between: not a point is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from berny.model.topology import CHECKOUT
from support import Cluster, ansible, environment, play

RATE = 40
CONSUMER = "berny-idfm-influx-consumer"


def tokens(cluster: Cluster) -> dict[str, str]:
    """Return the tokens that are in use, as they are on the node."""
    write = f"sudo sed -n s/^INFLUX_TOKEN=//p /etc/berny/{CONSUMER}/stage.env"
    return {
        "read": cluster.sh("worker_2", "sudo cat /etc/berny/influxdb/read.token").strip(),
        "write": cluster.sh("worker_2", write).strip(),
    }


def ask(cluster: Cluster, kind: str, token: str) -> int:
    """Return the status that InfluxDB answers to what a token of that kind is for."""
    path = {"read": "query?org=berny", "write": "write?org=berny&bucket=idfm_metrics", "admin": "authorizations"}[kind]
    call = f"""import sys, urllib.request, urllib.error
kind = {kind!r}
data = {{"read": b"buckets()", "write": b"#", "admin": None}}[kind]
request = urllib.request.Request("http://worker-2:8086/api/v2/{path}", data=data)
request.add_header("Authorization", "Token " + sys.stdin.read().strip())
request.add_header("Content-Type", "application/vnd.flux" if kind == "read" else "text/plain")
try:
    print(urllib.request.urlopen(request, timeout=20).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""
    done = subprocess.run(
        cluster.lab.ssh("worker_2", f"python3 -c '{call.replace(chr(39), chr(34))}'"),
        input=token, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def descriptions(cluster: Cluster, admin: str) -> list[str]:
    """Return the descriptions of all tokens that InfluxDB has."""
    call = "import json, sys, urllib.request as u; r = u.Request('http://worker-2:8086/api/v2/authorizations');"
    call += "r.add_header('Authorization', 'Token ' + sys.stdin.read().strip()); print(u.urlopen(r).read().decode())"
    done = subprocess.run(
        cluster.lab.ssh("worker_2", f'python3 -c "{call}"'), input=admin, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return sorted(one["description"] for one in json.loads(done.stdout)["authorizations"])


@pytest.fixture
def vault(cluster: Cluster, tmp_path: Path) -> Iterator[str]:
    """The lab's secrets encrypted for the test; returns the option that gives the password."""
    file, password = cluster.lab.plan.folder / "secrets.yml", tmp_path / "password"
    password.write_text("open sesame\n")
    option = f"--vault-password-file={password}"
    vault = [ansible("x")[0].replace("ansible-playbook", "ansible-vault")]
    subprocess.run([*vault, "encrypt", option, str(file)], check=True, capture_output=True)
    yield option
    if file.read_text().startswith("$ANSIBLE_VAULT"):
        subprocess.run([*vault, "decrypt", option, str(file)], check=True, capture_output=True)
    file.chmod(0o600)


def admin_token(cluster: Cluster, option: str) -> str:
    """Return the admin token out of the encrypted file."""
    file = cluster.lab.plan.folder / "secrets.yml"
    command = [ansible("x")[0].replace("ansible-playbook", "ansible-vault"), "view", option, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return str(yaml.safe_load(done.stdout)["influxdb_admin_token"])


def test_an_encrypted_file_needs_its_password(cluster: Cluster, vault: str) -> None:
    """Without it nothing is touched, and the message says what to give; the next test runs plays with it."""
    before = cluster.processes()
    without = play("site.yml", ok=False)
    assert without.code != 0 and "--ask-vault-pass" in without.output, without.tail
    # The preflight reads the secrets.
    assert without.output.count("PLAY [") == 1 and without.recap("changed") == 0, without.output
    assert cluster.processes() == before
    assert (cluster.lab.plan.folder / "secrets.yml").read_text().startswith("$ANSIBLE_VAULT")


def test_tokens_are_renewed_under_load(cluster: Cluster, vault: str) -> None:
    """Killed once with both in use, run again: every point is there once, the old tokens are refused, none is left over."""
    old = {**tokens(cluster), "admin": admin_token(cluster, vault)}
    # A write of no more than a comment: let through, there is nothing to be told of.
    assert {kind: ask(cluster, kind, token) for kind, token in old.items()} == {"read": 200, "write": 204, "admin": 200}
    before = cluster.processes()
    cluster.load("rotate", RATE)
    process = subprocess.Popen(
        ansible("playbooks/rotate.yml", vault), cwd=CHECKOUT, env=environment(), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if line.startswith("TASK [Converge the components]"):
            break
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert seen[-1].startswith("TASK [Converge the components]"), "".join(seen[-20:])
    # New ones are there; the old ones are in use and none of them is lost.
    assert tokens(cluster)["write"] == old["write"]
    assert all(ask(cluster, kind, token) != 401 for kind, token in old.items())
    assert len(descriptions(cluster, old["admin"])) == 6
    done = play("playbooks/rotate.yml", vault)
    assert "failed=0" in done.output
    new = {**tokens(cluster), "admin": admin_token(cluster, vault)}
    for kind, token in old.items():
        assert new[kind] != token and ask(cluster, kind, token) == 401, kind
        assert ask(cluster, kind, new[kind]) != 401, kind
        assert token not in done.output and new[kind] not in done.output
    left = descriptions(cluster, new["admin"])
    assert left == ["berny admin #2", "berny read idfm_metrics #2", "berny write idfm_metrics #2"], left
    # Only who uses a token was restarted.
    after = cluster.processes()
    assert {unit for node, unit in before if after.get((node, unit)) != before[node, unit]} == {CONSUMER}
    cluster.settle("rotate")
    cluster.sh("worker_2", "sudo berny-probe --all --wait 30")
    again = play("site.yml", vault)
    assert again.recap("changed") == 0, again.tail


def test_it_refuses_to_leave_out_nodes(cluster: Cluster) -> None:
    """Who is left out would be left with a token that is revoked."""
    before = tokens(cluster)
    for option in (("--limit", "worker_2"), ("--skip-tags", "pipeline")):
        refused = play("playbooks/rotate.yml", *option, ok=False)
        assert refused.code != 0 and "Run it without --limit" in refused.output, refused.tail
    assert tokens(cluster) == before
