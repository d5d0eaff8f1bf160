"""Artifacts: archives on the controller, locked by digest."""

from berny.controller.artifacts.errors import ArtifactMissing, SupplyError
from berny.controller.artifacts.store import Archive, Store

__all__ = ["Archive", "ArtifactMissing", "Store", "SupplyError"]
