"""The addresses by which nodes reach each other, where Ansible connects to them by others.

Clouds translate public addresses: a machine neither has nor can listen on the address that Ansible connects to.
"""

from __future__ import annotations

import ipaddress
import json
import socket
from collections.abc import Mapping
from typing import Any

PRIVATE = [
    ipaddress.ip_network(block)
    for block in ("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
]


def is_private(address: str) -> bool:
    """Return whether a machine reached by this address certainly has it: private addresses are not translated."""
    try:
        return any(ipaddress.ip_address(address) in block for block in PRIVATE)
    except ValueError:
        return False


def canonical(address: str) -> str:
    """Return the canonical form of an address (``10.1`` and ``::ffff:10.0.0.1`` are 10.0.0.1) or a name (in lower case)."""
    text = address.strip().lower().rstrip(".")
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        try:
            # As programs parse them: inet_aton accepts fewer than four parts, and octal and hexadecimal numbers.
            return socket.inet_ntoa(socket.inet_aton(text))
        except OSError:
            return text
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found)


def is_loopback(address: str) -> bool:
    """Return whether an address is a loopback address, by which no other machine is reached."""
    text = canonical(address)
    try:
        return ipaddress.ip_address(text).is_loopback
    except ValueError:
        return text == "localhost" or text.endswith(".localhost")


def is_usable(address: str) -> bool:
    """Return whether services can listen on an address and other nodes can reach it: IPv4 (as Java prefers) and unicast."""
    try:
        found = ipaddress.IPv4Address(address)
    except ValueError:
        return False
    return not (
        found.is_loopback or found.is_unspecified or found.is_multicast or found.is_link_local or found.is_reserved
    )


def shared(addresses: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return each node whose address an earlier node already has, in whatever notation, with that node."""
    homes: dict[str, str] = {}
    pairs = [(node, homes.setdefault(canonical(address), node)) for node, address in addresses.items()]
    return [(node, home) for node, home in pairs if node != home]


def own_address(connected: str, said: str) -> str | None:
    """Return the address to reach a machine by, from the output of ``ip`` there: all its addresses, then a route."""
    decoder = json.JSONDecoder()
    links, end = decoder.raw_decode(said.lstrip())
    own = [facts["local"] for link in links for facts in link.get("addr_info", [])]
    if connected in own:
        return connected
    routes = decoder.raw_decode(said.lstrip()[end:].lstrip())[0] if said.lstrip()[end:].strip() else []
    return next((route["prefsrc"] for route in routes if route.get("prefsrc")), own[0] if own else None)


def resolve(
    given: Mapping[str, tuple[str, str]], said: Mapping[str, str], known: Mapping[str, Any]
) -> tuple[dict[str, str], list[str], dict[str, Any]]:
    """Return the addresses of nodes without a configured one, the nodes whose address is unknown, and what to store.

    Args:
        given: ``private_address`` or nothing, and ``ansible_host``, of each node.
        said: output of the machines that were queried now.
        known: ``connected`` and ``address``, as stored by earlier runs.
    """
    found, unknown, keep = {}, [], {}
    for node, (private, connected) in sorted(given.items()):
        before = known.get(node) or {}
        own = own_address(connected, said[node]) if node in said else None
        if not own and before.get("connected") == connected:
            own = before.get("address")
        if own and not is_private(connected):
            keep[node] = {"connected": connected, "address": own}
        if private or is_private(connected):
            continue
        if own:
            found[node] = own
        else:
            unknown.append(node)
    return found, unknown, keep
