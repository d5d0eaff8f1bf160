"""Downloads that resume where they were interrupted."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import requests
import urllib3

from berny.controller.artifacts.assemble import sha256_file
from berny.controller.artifacts.errors import NotOffered, WrongDigest

ATTEMPTS = 4
TIMEOUT = (5, 60)
"""Timeouts in seconds: to connect to each address of a name, and without receiving a byte."""


def download(
    url: str, target: Path, sha256: str | None, say: Callable[[str], None] = lambda words: None, told_by: str = ""
) -> None:
    """Download ``url`` to ``target`` and verify it; a partial download is resumed.

    ``told_by`` names the origin of the digest; by default it is named after the target. Without a digest nothing is verified.

    Raises:
        NotOffered: the server can't be reached or refuses.
        WrongDigest: the file is not the locked one; it is removed.
    """
    part = target.with_name(f"{target.name}.part")
    for attempt in count(1):
        try:
            _continue(url, part, say)
            break
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            if attempt >= min(_worth_trying(error), ATTEMPTS):
                times = f"{attempt} attempt{'s' if attempt > 1 else ''}"
                raise NotOffered(f"{url} can't be downloaded: {type(error).__name__} after {times}") from error
            time.sleep(0.5 * 2**attempt)
    if sha256:
        found = sha256_file(part)
        if found != sha256:
            part.unlink()
            raise WrongDigest(url, sha256, found, told_by or target)
    part.rename(target)


def _worth_trying(error: Exception) -> int:
    """Return how many attempts a failure is worth: without a connection, the next way is to be tried soon."""
    if isinstance(error, requests.ConnectTimeout):
        return 1
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return 2 if isinstance(reason, urllib3.exceptions.NewConnectionError) else ATTEMPTS


def _continue(url: str, part: Path, say: Callable[[str], None]) -> None:
    have = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        if answer.status_code == 416:  # the partial download is already complete
            return
        if 400 <= answer.status_code < 500:
            raise NotOffered(f"{url}: the server answers {answer.status_code}")
        answer.raise_for_status()
        resumed = answer.status_code == 206
        total = have * resumed + int(answer.headers.get("Content-Length", 0))
        done, told = have * resumed, 0.0
        with part.open("ab" if resumed else "wb") as file:
            # Not decoded: servers may declare an archive as compressed content, and the digest is that of the file itself.
            for chunk in answer.raw.stream(1 << 18, decode_content=False):
                file.write(chunk)
                done += len(chunk)
                if time.monotonic() - told > 0.5:
                    told = time.monotonic()
                    say(f"{done >> 20} of {total >> 20} MiB")
        if total and done < total:
            raise requests.ConnectionError(f"cut off after {done} of {total} bytes")
