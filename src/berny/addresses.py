"""By which address nodes reach each other, where they are connected to by another one.

A cloud translates public addresses: a machine neither has nor can listen on the one that Ansible connects to.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from typing import Any

PRIVATE = [
    ipaddress.ip_network(block)
    for block in ("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
]


def is_private(address: str) -> bool:
    """Tell whether a machine that is connected to by this address surely has it: nobody translates from one of these."""
    try:
        return any(ipaddress.ip_address(address) in block for block in PRIVATE)
    except ValueError:
        return False


def own_address(connected: str, said: str) -> str | None:
    """Return the address that a machine is to be reached by, from what ``ip`` said there: all its addresses, then a route."""
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
    """Return the addresses of nodes that are not given one, the nodes that nobody knows it of, and what to keep.

    Args:
        given: ``private_address`` or nothing, and ``ansible_host``, of each node.
        said: what the machines that were asked now have said.
        known: ``connected`` and ``address`` of what was learnt before.
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
