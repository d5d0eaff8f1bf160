"""A source behind HTTP that takes its key as a parameter: what differs from PRIM's, which test_prim.py asks."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs, urlsplit

import pytest

from berny.runtime import http_source
from berny.runtime.http_source import HttpSource
from berny.runtime.source import NotFound, RetryLater, Unauthorized

KEY = "a+key/nobody may=see"


class Toy(HttpSource):
    """An API with the key in the query."""

    prefix = "TOY"
    request_settings = "TOY_BASE_URL and TOY_CITY"
    key_advice = "TOY_API_KEY is wrong. Get a key, run site.yml with it"

    def __init__(self, base_url: str, key: str = KEY) -> None:
        super().__init__(base_url, "/data", {"q": "Évry"}, key, secret_query={"appid": key}, timeout=(2, 2))


@contextmanager
def serving(status: int) -> Iterator[tuple[str, list[str]]]:
    """Serve responses that repeat what was asked; yields the address and the paths that were asked."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(f"you asked {self.path}".encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()


@pytest.mark.parametrize(
    ("limit", "said"), [("BODY_BYTES", "returned more than"), ("BODY_SECONDS", "was not complete")]
)
def test_response_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch, limit: str, said: str) -> None:
    """It neither fills the memory nor keeps the stage."""
    monkeypatch.setattr(http_source, limit, -1)
    with serving(200) as (url, _), pytest.raises(RetryLater, match=said):
        Toy(url).poll()


def test_key_is_sent_as_a_parameter() -> None:
    """With the others, below the address."""
    with serving(200) as (url, asked):
        assert Toy(f"{url}/").poll().startswith(b"you asked /data?")
    parts = urlsplit(asked[0])
    assert parts.path == "/data" and parse_qs(parts.query) == {"q": ["Évry"], "appid": [KEY]}


def test_key_is_in_no_message() -> None:
    """Neither as it is nor as it was sent, though source and library repeat the address."""
    with serving(401) as (url, asked), pytest.raises(Unauthorized) as refused:
        Toy(url).poll()
    sent = asked[0].partition("appid=")[2]
    assert sent and sent != KEY
    with pytest.raises(RetryLater) as away:
        Toy(url).poll()
    for error in (refused, away):
        assert KEY not in str(error.value) and sent not in str(error.value)
    assert "***" in str(refused.value)
    assert "?q=Évry returned 401: you asked /data?" in str(refused.value)
    assert str(refused.value).endswith(
        "TOY_API_KEY is wrong. Get a key, run site.yml with it, then start the pipeline again"
    )


def test_several_requests_of_one_source() -> None:
    """Each has its own path and parameters, and the key; a message is about the one that failed."""
    with serving(200) as (url, asked):
        toy = Toy(url)
        assert toy.get("/one", {"lat": "48.85"}).startswith(b"you asked /one?lat=48.85&appid=")
        toy.poll()
    assert [urlsplit(path).path for path in asked] == ["/one", "/data"]
    with serving(404) as (url, _), pytest.raises(NotFound) as missing:
        Toy(url).get("/two", {"q": "Nowhere"})
    assert str(missing.value).startswith(
        f"{url}/two?q=Nowhere returned 404: you asked /two?q=Nowhere&appid=***. Correct"
    )


def test_settings_are_called_by_their_names() -> None:
    """Whatever is wrong with them."""
    with pytest.raises(Unauthorized, match="TOY_API_KEY is empty"):
        Toy("http://127.0.0.1:9", "")
