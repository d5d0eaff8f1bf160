"""The probe of ZooKeeper."""

from __future__ import annotations

import socket

from berny.runtime.probe import TIMEOUT, Answer, Cluster, NotReady, Probe


def zookeeper(cluster: Cluster, node: str) -> Answer:
    """Ready if ``srvr`` reports a mode, which a server without a quorum does not."""
    host, port = cluster.endpoint("zookeeper", "client", node)
    said = _four_letters(host, port, "srvr")
    mode = next((line for line in said.splitlines() if line.startswith("Mode: ")), None)
    if not mode:
        raise NotReady(f"{host}:{port} srvr: {said.strip() or 'no response'}")
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
        raise NotReady(f"{host}:{port} {word}: {error}") from None


SERVICES: dict[str, Probe] = {"zookeeper": zookeeper}
