"""A finding of the preflight."""

from __future__ import annotations

from dataclasses import dataclass

KINDS = {"clock", "disk", "inventory", "limit", "login", "memory", "orphan", "port", "reach", "system", "unit", "user"}
"""Kinds of findings, as named in ``preflight_allow``."""


@dataclass(frozen=True)
class Finding:
    """One problem: host, what is wrong, remedy."""

    kind: str
    """Its name in ``preflight_allow``."""
    host: str
    text: str
    fatal: bool = True

    def __str__(self) -> str:
        return f"{self.host}: {self.text}"
