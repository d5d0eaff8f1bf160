"""A finding of the preflight."""

from __future__ import annotations

from dataclasses import dataclass

KINDS = {"clock", "disk", "inventory", "limit", "login", "memory", "orphan", "port", "reach", "system", "unit", "user"}
"""Of findings, as ``preflight_allow`` calls them."""


@dataclass(frozen=True)
class Finding:
    """One problem: host, what is wrong, remedy."""

    kind: str
    """What ``preflight_allow`` calls it."""
    host: str
    text: str
    fatal: bool = True

    def __str__(self) -> str:
        return f"{self.host}: {self.text}"
