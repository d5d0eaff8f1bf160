"""Supply: archives on the controller, locked by digest."""

from berny.artifacts.errors import ArtifactMissing, SupplyError
from berny.artifacts.store import Archive, Store

__all__ = ["Archive", "ArtifactMissing", "Store", "SupplyError"]
