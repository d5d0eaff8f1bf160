"""How ZooKeeper is asked."""

from __future__ import annotations

import socket

from berny.runtime.probe import TIMEOUT, Answer, Cluster, NotServing, Probe


def zookeeper(cluster: Cluster, node: str) -> Answer:
    """``srvr``: a server that can't reach its quorum answers that it is not serving requests."""
    host, port = cluster.endpoint("zookeeper", "client", node)
    said = _four_letters(host, port, "srvr")
    mode = next((line for line in said.splitlines() if line.startswith("Mode: ")), None)
    if not mode:
        raise NotServing(f"{host}:{port} srvr: {said.strip() or 'no answer'}")
    return True, f"{host}:{port} {mode.lower()}"


def _four_letters(host: str, port: int, word: str) -> str:
    try:
        with socket.create_connection((host, port), TIMEOUT) as connection:
            connection.sendall(word.encode())
            answer = b""
            while chunk := connection.recv(4096):
                answer += chunk
            return answer.decode()
    except OSError as error:
        raise NotServing(f"{host}:{port} {word}: {error}") from None


SERVICES: dict[str, Probe] = {"zookeeper": zookeeper}
