"""The archive of a support bundle: what nodes reported, masked, in one file that is written atomically."""

from __future__ import annotations

import io
import json
import os
import tarfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from berny.controller.support.mask import SECRET_FILE, Masker, masked_file, secret_values


@dataclass(frozen=True)
class Answer:
    """What a node reported: texts by name, and the names of the files that only their owner may read."""

    files: Mapping[str, str]
    private: set[str]
    reason: str = ""
    """Why it reported nothing."""


def write_archive(folder: Path, cluster: str, answers: Mapping[str, Answer], secrets: Iterable[str]) -> Path:
    """Write ``berny-CLUSTER-TIME.tar.gz``, readable by its owner alone, and return it."""
    values = set(secrets)
    for answer in answers.values():
        for name, text in answer.files.items():
            if is_secret(name, answer):
                values |= secret_values(text)
    masker = Masker(values)
    now = time.gmtime()
    stem = f"berny-{cluster}-{time.strftime('%Y%m%d-%H%M%S', now)}"
    nodes = {node: answer.reason or f"{len(answer.files)} files" for node, answer in sorted(answers.items())}
    told = {"cluster": cluster, "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", now), "nodes": nodes}
    target, beside = folder / f"{stem}.tar.gz", folder / f".{stem}.new"
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz", compresslevel=6) as tar:

        def add(name: str, text: str) -> None:
            data = text.encode("utf-8", "replace")
            info = tarfile.TarInfo(f"{stem}/{name}")
            info.size, info.mode, info.mtime = len(data), 0o600, int(time.mktime(now))
            tar.addfile(info, io.BytesIO(data))

        add("bundle.json", masker.mask(json.dumps(told, indent=2)) + "\n")
        for node, answer in sorted(answers.items()):
            if answer.reason:
                add(f"{node}/MISSING.txt", masker.mask(answer.reason) + "\n")
            for name, text in sorted(answer.files.items()):
                add(f"{node}/{name}", masked_file(text) if is_secret(name, answer) else masker.mask(text))
    beside.rename(target)
    return target


def is_secret(name: str, answer: Answer) -> bool:
    """Return whether a file holds secrets: by its name, or because only its owner may read it."""
    return name in answer.private or bool(SECRET_FILE.search(name))


def read_nodes(archive: Path) -> dict[str, str]:
    """Return what a written archive contains of each node."""
    with tarfile.open(archive) as tar:
        first = tar.extractfile(tar.getmembers()[0])
        assert first is not None
        return dict(json.loads(first.read())["nodes"])
