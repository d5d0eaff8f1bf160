"""Delay between two links of the host, for kernels without netem: ``python -m berny.faults.delay ONE OTHER MS JITTER_MS``.

Frames that arrive at one link are sent on the other after MS ± JITTER_MS, drawn for each; none overtakes another of its
direction. Runs until it is terminated. Links must deliver frames no longer than their MTU, with checksums (see ``plain``).
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import random
import select
import socket
import struct
import sys
import time

ALL_PROTOCOLS = 3
"""ETH_P_ALL of linux/if_ether.h."""
SOL_PACKET, ADD_MEMBERSHIP, PROMISCUOUS = 263, 1, 1
SIOCETHTOOL = 0x8946
OFFLOADS = {"checksums": 0x17, "scatter": 0x19, "tso": 0x1F, "gso": 0x24}
"""ETHTOOL_STXCSUM, ETHTOOL_SSG, ETHTOOL_STSO and ETHTOOL_SGSO of linux/ethtool.h."""
LONGEST = 65536


def plain(link: str) -> None:
    """Make a link of this network namespace deliver frames as on a wire: no longer than its MTU, with checksums."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for command in reversed(OFFLOADS.values()):
            off = (ctypes.c_uint32 * 2)(command, 0)
            fcntl.ioctl(asking, SIOCETHTOOL, struct.pack("16sP", link.encode(), ctypes.addressof(off)))


def _listen(link: str) -> socket.socket:
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_PROTOCOLS))
    made.bind((link, ALL_PROTOCOLS))
    index = socket.if_nametoindex(link)
    made.setsockopt(SOL_PACKET, ADD_MEMBERSHIP, struct.pack("iHH8s", index, PROMISCUOUS, 0, b""))
    made.setblocking(False)
    return made


def relay(one: str, other: str, seconds: float, jitter: float) -> None:
    """Forward frames in both directions until the process is terminated."""
    sockets = (_listen(one), _listen(other))
    latest = [0.0, 0.0]
    waiting: list[tuple[float, int, int, bytes]] = []
    count = 0
    with select.epoll() as poll:
        for link in sockets:
            poll.register(link, select.EPOLLIN)
        while True:
            poll.poll(max(0.0, waiting[0][0] - time.monotonic()) if waiting else None)
            for way, link in enumerate(sockets):
                while True:
                    try:
                        frame, address = link.recvfrom(LONGEST)
                    except BlockingIOError:
                        break
                    if address[2] == socket.PACKET_OUTGOING:
                        continue
                    due = time.monotonic() + seconds + random.uniform(-jitter, jitter)
                    latest[way] = due = max(due, latest[way])
                    count += 1
                    heapq.heappush(waiting, (due, count, 1 - way, frame))
            while waiting and waiting[0][0] <= time.monotonic():
                _, _, way, frame = heapq.heappop(waiting)
                try:
                    sockets[way].send(frame)
                except OSError:
                    # As on a wire: frames that are too long, or whose receiver is down, are lost.
                    continue


if __name__ == "__main__":
    if sys.argv[1] == "plain":
        plain(sys.argv[2])
    else:
        relay(sys.argv[1], sys.argv[2], float(sys.argv[3]) / 1000, float(sys.argv[4]) / 1000)
