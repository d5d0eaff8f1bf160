"""Secrets: generated once, private, encrypted where a vault password is given, never printed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from berny.model.topology import CHECKOUT

PLAY = """
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - name: Have the secrets
      berny_secrets: {{file: {file}, generate: [admin_token], given: [prim_api_key]}}
      register: _secrets
    - name: Use one
      ansible.builtin.assert:
        that: _secrets.secrets.admin_token | length == 64
"""
HIDDEN = """
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - name: Run a module that returns what it is given
      berny_hidden: {{module: ansible.builtin.ping, data: "{{{{ 'squeamish' ~ '-ossifrage' }}}}"}}
      register: _found
    - name: Use it
      ansible.builtin.assert:
        that: _found.ping is match('squeamish-')
    - name: Run one that fails
      berny_hidden: {{module: ansible.builtin.stat, path: /, road: /}}
      failed_when: "'road' not in _failed.msg"
      register: _failed
"""
RENEWED = """
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - name: Generate one anew
      berny_secrets: {{file: {file}, generate: [admin_token, other], given: [], renew: [other]}}
"""


def run(folder: Path, *options: str, text: str = PLAY, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a play that has the secrets in ``folder``."""
    play = folder / "play.yml"
    play.write_text(text.format(file=folder / "secrets.yml"))
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "localhost,", "-vvv", str(play), *options]
    clean = {name: value for name, value in os.environ.items() if name != "PRIM_API_KEY"} | environment
    clean["ANSIBLE_CONFIG"] = str(CHECKOUT / "ansible.cfg")
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, env=clean, timeout=120)


def test_generated_once_private_and_never_printed(tmp_path: Path) -> None:
    first = run(tmp_path)
    assert first.returncode == 0, first.stdout + first.stderr
    file = tmp_path / "secrets.yml"
    assert file.stat().st_mode & 0o777 == 0o600
    token = yaml.safe_load(file.read_text())["admin_token"]
    assert token not in first.stdout + first.stderr
    again = run(tmp_path)
    assert again.returncode == 0 and yaml.safe_load(file.read_text())["admin_token"] == token
    assert "changed=0" in again.stdout


def test_what_a_module_returns_is_never_printed(tmp_path: Path) -> None:
    """But its error is, and the tasks that follow have the result."""
    done = run(tmp_path, text=HIDDEN)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "squeamish-ossifrage" not in done.stdout + done.stderr
    assert "Unsupported parameters" in done.stdout


def test_a_secret_is_renewed_and_the_others_stay(tmp_path: Path) -> None:
    found = []
    for text in (PLAY, RENEWED, RENEWED):
        assert run(tmp_path, text=text).returncode == 0
        found.append(yaml.safe_load((tmp_path / "secrets.yml").read_text()))
    assert found[0]["admin_token"] == found[1]["admin_token"] == found[2]["admin_token"]
    assert len({found[1]["other"], found[2]["other"]}) == 2 and len(found[2]["other"]) == 64


def test_two_clusters_have_two_secrets(tmp_path: Path) -> None:
    tokens = set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        assert run(tmp_path / name).returncode == 0
        tokens.add(yaml.safe_load((tmp_path / name / "secrets.yml").read_text())["admin_token"])
    assert len(tokens) == 2


def test_what_a_person_gives_is_kept(tmp_path: Path) -> None:
    assert run(tmp_path, PRIM_API_KEY="a key").returncode == 0
    assert run(tmp_path).returncode == 0
    assert yaml.safe_load((tmp_path / "secrets.yml").read_text())["prim_api_key"] == "a key"


def test_encrypted_where_a_vault_password_is_given(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("open sesame\n")
    vault = f"--vault-password-file={password}"
    assert run(tmp_path, vault).returncode == 0
    sealed = (tmp_path / "secrets.yml").read_text()
    assert sealed.startswith("$ANSIBLE_VAULT") and "admin_token" not in sealed
    assert run(tmp_path, vault).returncode == 0
    assert (tmp_path / "secrets.yml").read_text() == sealed
    without = run(tmp_path)
    assert without.returncode != 0 and "--ask-vault-pass" in without.stdout + without.stderr


@pytest.mark.parametrize("nothing", ["", "null", "~", "''"])
def test_a_name_without_a_value_is_a_missing_key(tmp_path: Path, nothing: str) -> None:
    """Not a key that is called None: with one, a lab leaves its simulator and polls nothing."""
    (tmp_path / "secrets.yml").write_text(f"prim_api_key: {nothing}\nadmin_token: {nothing}\n")
    assert run(tmp_path).returncode == 0
    found = yaml.safe_load((tmp_path / "secrets.yml").read_text())
    assert set(found) == {"admin_token"} and len(found["admin_token"]) == 64


@pytest.mark.parametrize("value", ["0123", "[a]", "true", "{a: b}"])
def test_what_yaml_makes_no_text_of_is_told_and_not_shown(tmp_path: Path, value: str) -> None:
    """Leading zeros are gone when it is read: nobody could tell what was meant."""
    (tmp_path / "secrets.yml").write_text(f"prim_api_key: {value}\n")
    done = run(tmp_path)
    assert done.returncode != 0 and "prim_api_key: expected text; put the value in quotes" in done.stdout + done.stderr
    assert (tmp_path / "secrets.yml").read_text() == f"prim_api_key: {value}\n"


def identities(folder: Path, *names: str) -> list[str]:
    """Return the options that give the passwords of vault identities."""
    for name in names:
        (folder / name).write_text(f"password of {name}\n")
    return [word for name in names for word in ("--vault-id", f"{name}@{folder / name}")]


def test_a_file_is_written_back_with_its_own_identity(tmp_path: Path) -> None:
    """With the passwords of others given as well, in any order: who could read it still can, and nobody else."""
    first, second = identities(tmp_path, "staging"), identities(tmp_path, "production")
    assert run(tmp_path, *first).returncode == 0
    file = tmp_path / "secrets.yml"
    assert file.read_text().splitlines()[0] == "$ANSIBLE_VAULT;1.2;AES256;staging"
    before = file.read_text()
    done = run(tmp_path, *second, *first, PRIM_API_KEY="a key")
    assert done.returncode == 0, done.stdout + done.stderr
    assert file.read_text() != before and file.read_text().splitlines()[0] == before.splitlines()[0]
    assert run(tmp_path, *first).returncode == 0
    assert run(tmp_path, *second).returncode != 0


def test_a_file_without_an_identity_keeps_its_password(tmp_path: Path) -> None:
    """As --ask-vault-pass writes it: whose it is shows only when it opens."""
    password = tmp_path / "password"
    password.write_text("open sesame\n")
    assert run(tmp_path, f"--vault-password-file={password}").returncode == 0
    words = [*identities(tmp_path, "other"), "--vault-id", f"mine@{password}"]
    assert run(tmp_path, *words, PRIM_API_KEY="a key").returncode == 0
    assert (tmp_path / "secrets.yml").read_text().splitlines()[0] == "$ANSIBLE_VAULT;1.1;AES256"
    assert run(tmp_path, f"--vault-password-file={password}").returncode == 0


def test_a_new_file_has_the_identity_that_the_operator_encrypts_with(tmp_path: Path) -> None:
    words = identities(tmp_path, "staging", "production")
    assert run(tmp_path, *words, ANSIBLE_VAULT_ENCRYPT_IDENTITY="production").returncode == 0
    assert (tmp_path / "secrets.yml").read_text().splitlines()[0] == "$ANSIBLE_VAULT;1.2;AES256;production"


@pytest.mark.parametrize("garbage", ["{", "- a list", "\x00"])
def test_a_broken_file_is_never_written_over(tmp_path: Path, garbage: str) -> None:
    file = tmp_path / "secrets.yml"
    file.write_text(garbage)
    done = run(tmp_path)
    assert done.returncode != 0 and str(file) in done.stdout + done.stderr
    assert file.read_text() == garbage
