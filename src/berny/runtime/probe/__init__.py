"""Health, asked by protocol: *serving* (able to do its work now) and *whole* (nothing missing)."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

CLUSTER_FILE = Path("/etc/berny/cluster.json")
TIMEOUT = 5.0
"""Seconds that one question may take."""


class NotServing(Exception):
    """What was asked did not answer as it should; the message names host, port, question and answer."""


@dataclass(frozen=True)
class Health:
    """One answer. ``serving`` is about this node's instance where it has one, ``whole`` about all instances."""

    service: str
    node: str
    version: str
    serving: bool
    whole: bool
    detail: str
    instance: bool
    memory_bytes: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the answer for JSON."""
        return asdict(self)


class Cluster:
    """What ``/etc/berny/cluster.json`` says, as seen from this node."""

    def __init__(self, facts: dict[str, Any], here: str) -> None:
        self.facts = facts
        self.here = here

    @classmethod
    def load(cls, file: Path = CLUSTER_FILE) -> Cluster:
        """Read the file that the role ``node`` writes.

        Raises:
            NotServing: it is missing or this machine is not in it.
        """
        import socket

        try:
            facts = json.loads(file.read_text())
        except OSError as error:
            raise NotServing(f"{file}: {error.strerror}; is this a node of the cluster?") from error
        machine = socket.gethostname()
        for node, where in facts["nodes"].items():
            if where["machine"] == machine:
                return cls(facts, node)
        raise NotServing(f"{file} knows no machine {machine!r}")

    def nodes(self, service: str) -> list[str]:
        """Return the nodes that run a service."""
        return list(self.facts["services"][service]["nodes"])

    def machine(self, node: str) -> str:
        """Return a node's machine name, which every node resolves."""
        return str(self.facts["nodes"][node]["machine"])

    def endpoint(self, service: str, port: str, node: str | None = None) -> tuple[str, int]:
        """Return host and port of a service, on ``node`` or on the first that runs it."""
        return self.machine(node or self.nodes(service)[0]), int(self.facts["services"][service]["ports"][port])

    def asked(self, service: str) -> str:
        """Return the node to ask of a service: this one if it runs it, else the first that does."""
        return self.here if self.here in self.nodes(service) else self.nodes(service)[0]


Answer = tuple[bool, str]
"""Whether nothing is missing, and a detail."""
Probe = Callable[[Cluster, str], Answer]
"""Asks an instance on a node; raises NotServing where it is not able to do its work."""
Resources = Callable[[Cluster, dict[str, Any]], list[str]]
"""Returns what of a pipeline is missing in a component."""


def exists(host: str, port: int, path: str, headers: dict[str, str] | None = None) -> bool:
    """Tell whether an HTTP server has something: it answers with success, or with 404.

    Raises:
        NotServing: it does not answer, or with another error.
    """
    try:
        get_json(host, port, path, headers)
    except NotServing as error:
        if f"{host}:{port}{path} answers 404" in str(error):
            return False
        raise
    return True


def get_json(host: str, port: int, path: str, headers: dict[str, str] | None = None, data: bytes | None = None) -> Any:
    """Return the JSON (or text) that an HTTP server answers.

    Raises:
        NotServing: it does not answer, or not with success.
    """
    request = urllib.request.Request(f"http://{host}:{port}{path}", headers=headers or {}, data=data)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            body = answer.read()
    except urllib.error.HTTPError as error:
        raise NotServing(
            f"{host}:{port}{path} answers {error.code}: {error.read()[:200].decode('utf-8', 'replace')}"
        ) from None
    except OSError as error:
        raise NotServing(f"{host}:{port}{path} does not answer: {getattr(error, 'reason', error)}") from None
    try:
        return json.loads(body)
    except ValueError:
        return body.decode("utf-8", "replace")
