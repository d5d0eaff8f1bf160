"""The support bundle: no secret in any form, and what is no secret can still be read."""

from __future__ import annotations

import base64
import json
import tarfile
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berny.controller.support.archive import Answer, read_nodes, write_archive
from berny.controller.support.mask import MASK, Masker, masked_file, secret_values

TOKEN = "dC9rZW4/with+signs=&%20==" + "x" * 20
HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    "form",
    [
        lambda v: v,
        lambda v: f"<{v}>",
        lambda v: quote(v, safe=""),
        lambda v: json.dumps({"a": v}),
        lambda v: base64.b64encode(v.encode()).decode(),
        lambda v: base64.b64encode(f"user:{v}".encode()).decode(),
        lambda v: base64.b64encode(f"admin2:{v}\n".encode()).decode(),
        lambda v: base64.urlsafe_b64encode(f"a{v}b".encode()).decode(),
        lambda v: v.encode().hex(),
    ],
)
@pytest.mark.parametrize("value", [TOKEN, HEX, 'quo"ted\\secret', "pässwörd-ünd-mehr"])
def test_value_is_masked_in_every_form(form, value: str) -> None:  # type: ignore[no-untyped-def]
    text = form(value)
    masked = Masker([value]).mask(f"before {text} after")
    assert masked.startswith("before ") and masked.endswith(" after") and MASK in masked
    # What stood beside the value may be left, and the characters that base64 makes of both.
    assert len(masked.replace(MASK, "").removeprefix("before ").removesuffix(" after")) <= 20
    assert value not in masked


@given(
    st.binary(max_size=7),
    st.text(st.characters(codec="ascii", min_codepoint=33), min_size=10, max_size=60),
    st.binary(max_size=7),
)
def test_base64_is_found_wherever_the_value_begins(before: bytes, value: str, after: bytes) -> None:
    """In an Authorization header a user's name stands before it."""
    masked = Masker([value]).mask(base64.b64encode(before + value.encode() + after).decode())
    assert MASK in masked
    assert len(masked.replace(MASK, "")) <= (len(before) + len(after)) * 4 / 3 + 8


@pytest.mark.parametrize(
    "line",
    [
        "INFLUX_TOKEN=unknown-value-1",
        'Environment="API_KEY=unknown-value-1"',
        "password: unknown-value-1",
        '{"admin_password": "unknown-value-1", "port": 1}',
        "curl -H 'Authorization: Token unknown-value-1' http://worker-2:8086",
        "apikey: unknown-value-1",
        "GET https://user:unknown-value-1@host/path",
        "-----BEGIN OPENSSH PRIVATE KEY-----\nunknown-value-1\n-----END OPENSSH PRIVATE KEY-----",
    ],
)
def test_what_is_told_to_be_a_secret_is_masked_though_nobody_knows_it(line: str) -> None:
    assert "unknown-value-1" not in Masker([]).mask(line)


@pytest.mark.parametrize(
    "line",
    [
        'level=info logger=producer message="published" records=5 topic=idfm-realtime',
        "kafka.service: Main process exited, code=exited, status=1/FAILURE",
        "BERNY_SPOOL_DIR=/data/berny-idfm",
        "log.retention.hours=168",
        "2026-11-23T12:00:00+0000 master systemd[1]: Started kafka.service.",
        '{"key": "journey", "partition": 2}',
        "spark-token-provider-kafka-0-10_2.13-4.2.0.jar",
    ],
)
def test_what_is_no_secret_stays(line: str) -> None:
    assert Masker([HEX, TOKEN]).mask(line) == line


def test_secret_files_keep_their_names_alone() -> None:
    text = f"# comment\nINFLUX_TOKEN={TOKEN}\nINFLUX_ORG=berny\nPRIM_API_KEY=abcdef\n"
    assert masked_file(text) == f"INFLUX_TOKEN={MASK}\nINFLUX_ORG={MASK}\nPRIM_API_KEY={MASK}\n"
    assert secret_values(text) == {TOKEN, "abcdef"}, "the organisation's name is no secret, or no text could be read"
    assert masked_file(HEX) == f"{MASK}\n" and secret_values(f"{HEX}\n") == {HEX}


def test_archive_has_no_secret_of_any_node(tmp_path: Path) -> None:
    """A secret of one node is masked in what another says; a node that is away is named."""
    answers = {
        "one": Answer({"config/etc/berny/x/stage.env": f"INFLUX_TOKEN={TOKEN}\n", "probes.json": "[]"}, set()),
        "two": Answer(
            {"journal/y.log": f"said {TOKEN} and {HEX}\n", "config/etc/berny/odd": "odd-secret-1\n"},
            {"config/etc/berny/odd"},
        ),
        "three": Answer({}, set(), f"not reached: {HEX} timed out"),
    }
    archive = write_archive(tmp_path, "lab", answers, [HEX])
    assert archive.stat().st_mode & 0o777 == 0o600 and list(tmp_path.iterdir()) == [archive]
    assert read_nodes(archive) == {"one": "2 files", "three": f"not reached: {MASK} timed out", "two": "2 files"}
    with tarfile.open(archive) as tar:
        texts = {m.name.split("/", 1)[1]: tar.extractfile(m).read().decode() for m in tar}  # type: ignore[union-attr]
    assert not [name for name, text in texts.items() if TOKEN in text or HEX in text or "odd-secret-1" in text]
    assert texts["two/journal/y.log"] == f"said {MASK} and {MASK}\n" and "three/MISSING.txt" in texts
