"""The toy's source: ``{"at": UNIX TIME, "items": [{"name": …, "number": …, "at": UNIX TIME}, …]}``."""

from __future__ import annotations

from typing import Any

from berny.runtime import response
from berny.runtime.http_source import HttpSource
from berny.runtime.response import BadPart, MalformedResponse, Observation


class Items(HttpSource):
    """The client."""

    prefix = "TOY"
    request_settings = "TOY_BASE_URL"
    key_advice = "TOY_API_KEY is missing or wrong: run site.yml with TOY_API_KEY set"

    def __init__(self, base_url: str, api_key: str) -> None:
        super().__init__(base_url, "items", {}, api_key, headers={"X-Api-Key": api_key})


def identity(item: dict[str, Any]) -> str:
    """Return the identity of an item."""
    return response.identity(item, str(item["name"]))


def observations(answer: Any) -> list[Observation | BadPart]:
    """Return each item of a parsed response as an observation, and the parts that are none.

    Raises:
        MalformedResponse: it is not one of this source.
    """
    if not isinstance(answer, dict) or not isinstance(answer.get("items"), list):
        raise MalformedResponse("no list of items")
    return [
        Observation(identity(item), item["name"], {"item": item})
        if isinstance(item, dict) and isinstance(item.get("name"), str)
        else BadPart("an item without a name", f"items[{number}]", item)
        for number, item in enumerate(answer["items"])
    ]
