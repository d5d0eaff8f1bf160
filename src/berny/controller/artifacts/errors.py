"""Errors of obtaining archives; each message says what to do."""

from __future__ import annotations

from pathlib import Path


class SupplyError(RuntimeError):
    """An archive could not be obtained."""


class NotOffered(SupplyError):
    """The server of a file can't be reached, or does not have it: an optional archive is skipped."""


class ArtifactMissing(SupplyError):
    """An archive is not in the store."""


class ToolMissing(SupplyError):
    """A program that is needed to obtain an archive is not installed."""

    def __init__(self, tool: str, package: str) -> None:
        super().__init__(f"{tool} is not installed; on Debian: apt-get install {package}")


class WrongSignature(SupplyError):
    """A file has no valid signature by a key that the catalog trusts."""

    def __init__(self, name: str, fingerprint: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}; expected is a signature by the key {fingerprint}. Nothing was installed.")


class WrongDigest(SupplyError):
    """A file is not the locked one."""

    def __init__(self, name: str, expected: str, found: str, where: Path | str) -> None:
        super().__init__(
            f"{name}: expected sha256 {expected} (locked in {Path(where).name}), found {found}. Nothing was installed. "
            "If the file was damaged on its way, remove it from the cache and fetch again; if its publisher changed it, "
            "find out why before you lock the new one."
        )
