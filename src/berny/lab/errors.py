"""What goes wrong with labs."""

from __future__ import annotations


class LabError(RuntimeError):
    """The lab can't be had or is not in the state that was asked for; the message says the remedy."""
