"""Errors of labs."""

from __future__ import annotations


class LabError(RuntimeError):
    """The lab can't be created or is not in the required state; the message has the remedy."""
