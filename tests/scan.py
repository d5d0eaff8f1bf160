"""Ask which TCP ports let a connection through: ``python3 scan.py ADDRESS[,ADDRESS…] PORT[,PORT-PORT…]``.

Prints, by address, the ports where something listens (``open``) and where nothing does, but the machine says so
(``refused``). A firewall's drop is silence. The standard library alone: it runs on nodes and in namespaces as well.
"""

from __future__ import annotations

import errno
import json
import resource
import select
import socket
import sys
import time

WAIT_SECONDS = 2
AT_ONCE = 12000


def ask(targets: list[tuple[str, int]], found: dict[str, dict[str, list[int]]]) -> None:
    """Try all of these at once."""
    waiting: dict[int, tuple[socket.socket, tuple[str, int]]] = {}
    answers = {0: "open", errno.ECONNREFUSED: "refused"}
    with select.epoll() as poll:
        for target in targets:
            trying = socket.socket()
            trying.setblocking(False)
            trying.connect_ex(target)
            waiting[trying.fileno()] = (trying, target)
            poll.register(trying, select.EPOLLOUT)
        deadline = time.monotonic() + WAIT_SECONDS
        while waiting and (left := deadline - time.monotonic()) > 0:
            for number, _ in poll.poll(left):
                tried, (address, port) = waiting.pop(number)
                answer = answers.get(tried.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
                if answer:
                    found[address][answer].append(port)
                tried.close()
    for tried, _ in waiting.values():
        tried.close()


def main(addresses: str, ports: str) -> None:
    """Scan, and print what was found as JSON."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (AT_ONCE + 100, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    numbers = []
    for part in ports.split(","):
        first, _, last = part.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    found: dict[str, dict[str, list[int]]] = {address: {"open": [], "refused": []} for address in addresses.split(",")}
    targets = [(address, port) for port in numbers for address in found]
    for start in range(0, len(targets), AT_ONCE):
        ask(targets[start : start + AT_ONCE], found)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
