"""Health by protocol: *ready* (able to do its work now) and *healthy* (nothing missing)."""

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
"""Time limit of one request in seconds."""


class NotReady(Exception):
    """A service did not respond as it should; the message has host, port, request and response."""


@dataclass(frozen=True)
class Health:
    """The result of a probe. ``ready`` is about this node's instance where it has one, ``healthy`` about all instances."""

    service: str
    node: str
    version: str
    ready: bool
    healthy: bool
    detail: str
    instance: bool
    memory_bytes: int | None = None
    stopped: bool = False
    """Whether a person has stopped this stage, and it stays so until it is started again."""

    def as_dict(self) -> dict[str, Any]:
        """Return the result as JSON data."""
        return asdict(self)


class Cluster:
    """The contents of ``/etc/berny/cluster.json``, as seen from this node."""

    def __init__(self, facts: dict[str, Any], here: str) -> None:
        self.facts = facts
        self.here = here

    @classmethod
    def load(cls, file: Path = CLUSTER_FILE) -> Cluster:
        """Read the file that the role ``node`` writes.

        Raises:
            NotReady: it is missing or this machine is not in it.
        """
        import socket

        try:
            facts = json.loads(file.read_text())
        except OSError as error:
            raise NotReady(f"{file}: {error.strerror}; is this a node of the cluster?") from error
        machine = socket.gethostname()
        for node, where in facts["nodes"].items():
            if where["machine"] == machine:
                return cls(facts, node)
        raise NotReady(f"{file} has no machine {machine!r}")

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
        """Return the node whose instance of a service is probed: this one if it runs it, else the first that does."""
        return self.here if self.here in self.nodes(service) else self.nodes(service)[0]


Answer = tuple[bool, str]
"""Whether nothing is missing, and a detail."""
Probe = Callable[[Cluster, str], Answer]
"""Probes an instance on a node; raises NotReady if it is not able to do its work."""
Resources = Callable[[Cluster, dict[str, Any]], list[str]]
"""Returns a pipeline's resources that are missing in a component."""


def exists(host: str, port: int, path: str, headers: dict[str, str] | None = None) -> bool:
    """Return whether an HTTP server has a resource: True on success, False for 404.

    Raises:
        NotReady: it does not respond, or returns another error.
    """
    try:
        get_json(host, port, path, headers)
    except NotReady as error:
        if f"{host}:{port}{path} returned 404" in str(error):
            return False
        raise
    return True


def get_json(host: str, port: int, path: str, headers: dict[str, str] | None = None, data: bytes | None = None) -> Any:
    """Return the JSON (or text) of an HTTP server's response.

    Raises:
        NotReady: it does not respond, or returns an error.
    """
    request = urllib.request.Request(f"http://{host}:{port}{path}", headers=headers or {}, data=data)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            body = answer.read()
    except urllib.error.HTTPError as error:
        raise NotReady(
            f"{host}:{port}{path} returned {error.code}: {error.read()[:200].decode('utf-8', 'replace')}"
        ) from None
    except OSError as error:
        raise NotReady(f"{host}:{port}{path} does not respond: {getattr(error, 'reason', error)}") from None
    try:
        return json.loads(body)
    except ValueError:
        return body.decode("utf-8", "replace")
