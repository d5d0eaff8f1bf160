"""From ``toy-items`` to the shelf: an item of each record, by its identity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import requests

from berny.runtime import batch, stage
from berny.runtime.batch import BatchSettings, ItemsRefused, SinkAway
from berny.runtime.stage import ConfigurationError, Stop

TOPIC = "toy-items"
GROUP = "toy-keeper"
NEEDS_A_PERSON = {403, 404}


class Settings(BatchSettings):
    """The keeper's environment."""

    shelf_url: str
    shelf_name: str
    shelf_token: str
    shelf_id: str


class ShelfSink:
    """Stores items on a shelf; one of the same key overwrites."""

    def __init__(self, settings: Settings) -> None:
        self.id = settings.shelf_id
        self._url = f"{settings.shelf_url}/shelves/{settings.shelf_name}"
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {settings.shelf_token}"

    def write(self, items: Sequence[tuple[str, Any]]) -> int:
        """Store items, all or none.

        Raises:
            ConfigurationError: the shelf is gone, or the token is that of another.
            ItemsRefused: there is something wrong with an item.
            SinkAway: the server does not respond, or not now.
        """
        try:
            response = self._session.patch(self._url, json=dict(items), timeout=20)
        except (requests.RequestException, OSError) as error:
            raise SinkAway(str(error)) from error
        said = f"{self._url} returned {response.status_code}: {response.text[:200]}"
        if response.status_code in NEEDS_A_PERSON:
            raise ConfigurationError(f"{said}: run site.yml, which creates the shelf and its token")
        if response.status_code == 400:
            raise ItemsRefused(said)
        if not response.ok:
            raise SinkAway(said)
        return 0

    def check(self) -> None:
        """Store nothing."""
        self.write([])


def item(record: dict[str, Any]) -> tuple[str, Any]:
    """Return key and value of a record.

    Raises:
        ValueError: it is none of this pipeline.
    """
    if not isinstance(record.get("identity"), str) or not isinstance(record.get("item"), dict):
        raise ValueError("no identity and item")
    return record["identity"], record["item"]


def run(settings: Settings, stop: Stop) -> None:
    """Run the keeper until it is stopped."""
    batch.run(settings, TOPIC, GROUP, ShelfSink(settings), lambda record, _: item(record), stop)


if __name__ == "__main__":
    stage.main(Settings, run)
