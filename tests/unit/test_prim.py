"""PRIM: what identifies an observation, what an answer holds, and the client against a real server."""

from __future__ import annotations

import base64
import copy
import datetime as dt
import http.server
import io
import ipaddress
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from simulated import NOON, Clock, Served

from berny.pipelines.idfm import harness, prim, producer
from berny.pipelines.idfm.controller.simulator import FAULTS, Simulator
from berny.pipelines.idfm.controller.timetable import (
    CANCELLED,
    DIRECTIONS,
    DWELL,
    KINDS,
    LINE,
    STOP,
    UNKNOWN,
    Train,
    near,
    visit,
)
from berny.pipelines.idfm.prim import MalformedAnswer, Prim
from berny.runtime import http_source
from berny.runtime.check import read_truth
from berny.runtime.kafka import RECORD_BYTES, Record, dead_letter
from berny.runtime.landing import one_line
from berny.runtime.poller import KAFKA
from berny.runtime.readers import spooled
from berny.runtime.source import Refused, RetryLater, Unauthorized, backoff
from berny.runtime.spool import Answer, Spool

Trains = dict[str, list[Train]]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
VISITS = st.dictionaries(st.text(max_size=5), JSON, max_size=4)


@pytest.fixture
def one(trains: Trains) -> dict[str, Any]:
    """A visit of a late train."""
    return visit(trains["late"][0], 3, NOON)[0]


def client(served: Served, timeout: tuple[float, float] = (2, 5)) -> Prim:
    """Return a client with a key of a simulator."""
    return Prim(served.url, "a key", STOP, LINE, timeout)


def fail(served: Served, kind: str, **words: float) -> None:
    """Let the simulator fail from now on."""
    requests.post(f"{served.url}/_simulator/faults", json={"kind": kind} | words, timeout=5).raise_for_status()


def siri(*deliveries: Any) -> dict[str, Any]:
    """Return an answer with deliveries."""
    return {"Siri": {"ServiceDelivery": {"StopMonitoringDelivery": list(deliveries)}}}


def shuffled(value: Any) -> Any:
    """Return the same JSON with the keys of every object in reverse."""
    if isinstance(value, dict):
        return {key: shuffled(inner) for key, inner in reversed(value.items())}
    return [shuffled(inner) for inner in value] if isinstance(value, list) else value


# -- identity ----------------------------------------------------------------------------------------------------------


def test_identity_is_this_for_ever() -> None:
    """Another identity for the same visit would make a duplicate of all that is stored."""
    known = {
        "RecordedAtTime": "2025-11-24T12:00:00.000Z",
        "MonitoringRef": {"value": STOP},
        "MonitoredVehicleJourney": {"FramedVehicleJourneyRef": {"DatedVehicleJourneyRef": "é"}},
    }
    assert prim.identity(known) == "ffb20dcfbb02fbd4b6d709aa9787497f"


@given(VISITS)
def test_identity_is_pure(any_visit: dict[str, Any]) -> None:
    """The order of keys is no property of a visit; nor is a way over the wire; and nothing is changed by asking."""
    before = copy.deepcopy(any_visit)
    identity = prim.identity(any_visit)
    assert any_visit == before
    assert len(identity) == 32
    assert int(identity, 16) >= 0
    assert prim.identity(shuffled(any_visit)) == identity
    assert prim.identity(json.loads(json.dumps(any_visit))) == identity


def paths(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of each value that is no object and no list."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in inner:
        yield from paths(below, (*above, key))
    if not isinstance(value, dict | list):
        yield above


def test_identity_changes_with_every_value(one: dict[str, Any]) -> None:
    """Journey, stop, RecordedAtTime and whatever else a visit tells: another telling is another observation."""
    seen = {prim.identity(one)}
    where = [path for path in paths(one) if path[0] not in prim.ENVELOPE]
    for path in where:
        changed = copy.deepcopy(one)
        inside = changed
        for key in path[:-1]:
            inside = inside[key]
        value = inside[path[-1]]
        inside[path[-1]] = (
            not value if isinstance(value, bool) else value + 1 if isinstance(value, int) else f"{value}x"
        )
        seen.add(prim.identity(changed))
        del inside[path[-1]]
        seen.add(prim.identity(changed))
    assert len(where) > 20
    assert len(seen) == 1 + 2 * len(where)


def test_envelope_is_no_part_of_the_identity(one: dict[str, Any]) -> None:
    """The same train, said the same at the same moment, under another number: one observation, and one point."""
    again = one | {"ItemIdentifier": "another", "ValidUntilTime": "2025-11-24T13:00:00.000Z"}
    unnumbered = {name: value for name, value in one.items() if name != "ItemIdentifier"}
    assert prim.identity(one) == prim.identity(again) == prim.identity(unnumbered)
    body = json.dumps(siri({"MonitoredStopVisit": [one, again, unnumbered]})).encode()
    assert {identity for identity, _ in published(body)} == {prim.identity(one)}
    later = one | {"RecordedAtTime": "2025-11-24T12:00:00.001Z"}
    assert prim.identity(later) != prim.identity(one), "a prediction that goes back to what it was is a change"


def test_identity_of_what_lacks_names() -> None:
    """A visit without journey, stop or time has one, too: it is published and judged further on."""
    lacking: list[dict[str, Any]] = [
        {}, {"MonitoringRef": {}}, {"MonitoringRef": None}, {"MonitoredVehicleJourney": []}, {"RecordedAtTime": 7},
    ]  # fmt: skip
    assert len({prim.identity(visit) for visit in lacking}) == len(lacking)
    assert {(prim.journey(visit), prim.stop(visit)) for visit in lacking} == {("", "")}


# -- answers -----------------------------------------------------------------------------------------------------------


def test_visits_of_all_deliveries(one: dict[str, Any]) -> None:
    """An answer may hold several deliveries, and some may be empty."""
    other = one | {"RecordedAtTime": "2025-11-24T12:00:01.000Z"}
    lists = [{"MonitoredStopVisit": [one]}, {"MonitoredStopVisit": []}, {}, {"MonitoredStopVisit": [other, one]}]
    assert prim.visits(siri(*lists)) == [one, other, one]


@pytest.mark.parametrize("answer", [siri(), siri({}), siri({"MonitoredStopVisit": []}), siri({"Status": "true"})])
def test_empty_answers(answer: Any) -> None:
    """At night no train is near: that is an answer, and no mistake."""
    assert prim.visits(answer) == []


@pytest.mark.parametrize(
    "answer",
    [
        None, 7, "text", [], {}, {"Siri": None}, {"Siri": {}}, {"Siri": {"ServiceDelivery": []}},
        {"Siri": {"ServiceDelivery": {"StopMonitoringDelivery": None}}},
        {"Siri": {"ServiceDelivery": {"StopMonitoringDelivery": {"MonitoredStopVisit": []}}}},
        {"message": "API rate limit exceeded"},
    ],
)  # fmt: skip
def test_malformed_answers(answer: Any) -> None:
    """Each is told as what it is, so that it becomes a dead letter and is never dropped."""
    with pytest.raises(MalformedAnswer):
        prim.visits(answer)


@pytest.mark.parametrize(
    ("condition", "told"),
    [
        ({"ErrorInformation": {"ErrorText": "Le couple MonitoringRef/LineRef n'existe pas"}}, "n'existe pas"),
        ({"ErrorInformation": {"ErrorText": "no", "ErrorDescription": "such line"}}, "no: such line"),
        ({"ErrorInformation": {}}, "ErrorInformation"),
        ({"ErrorInformation": None}, "ErrorInformation"),
        ({"OtherError": "é"}, "OtherError"),
        ("text", "text"),
        (["a"], "a"),
    ],
)
def test_error_condition_is_told(one: dict[str, Any], condition: Any, told: str) -> None:
    """The delivery that holds it says Status "true"; the deliveries beside it are none the worse."""
    beside = {"MonitoredStopVisit": [one]}
    found, [bad] = prim.read(siri(beside, {"Status": "true", "ErrorCondition": condition}, beside))
    assert found == [one, one]
    assert told in bad.reason and bad.where == "StopMonitoringDelivery[1]"
    assert bad.value == {"Status": "true", "ErrorCondition": condition}


def test_error_condition_of_all_is_told(one: dict[str, Any]) -> None:
    """It may stand above the deliveries as well, with or without any."""
    for deliveries, visits in (({}, []), ({"StopMonitoringDelivery": [{"MonitoredStopVisit": [one]}]}, [one])):
        found, [bad] = prim.read({"Siri": {"ServiceDelivery": {"ErrorCondition": {"a": 1}, **deliveries}}})
        assert (found, bad.where, bad.value) == (visits, "ErrorCondition", {"a": 1})


@pytest.mark.parametrize("wrong", [None, "text", 7, [], True])
def test_bad_visit_is_alone(one: dict[str, Any], wrong: Any) -> None:
    """What is beside it goes on; where it was is told."""
    found, [bad] = prim.read(siri({"MonitoredStopVisit": [one, wrong, one]}, {"MonitoredStopVisit": [one]}))
    assert found == [one, one, one]
    assert (bad.value, bad.where) == (wrong, "StopMonitoringDelivery[0].MonitoredStopVisit[1]")


@pytest.mark.parametrize("wrong", [None, "text", 7, [], {"MonitoredStopVisit": {"a": 1}}, {"MonitoredStopVisit": 7}])
def test_bad_delivery_is_alone(one: dict[str, Any], wrong: Any) -> None:
    """As with visits."""
    found, [bad] = prim.read(siri(wrong, {"MonitoredStopVisit": [one]}))
    assert found == [one]
    assert bad.where.startswith("StopMonitoringDelivery[0]") and bad.reason


@given(JSON)
def test_any_json_is_an_answer_or_an_error_of_ours(value: Any) -> None:
    """Whatever comes in place of an answer or a delivery: an error of another kind would end the producer."""
    inside = [siri(value), siri({"MonitoredStopVisit": value}), siri({"ErrorCondition": value})]
    for answer in (
        value,
        *inside,
        {"Siri": {"ServiceDelivery": value}},
        {"Siri": {"ServiceDelivery": {"ErrorCondition": value}}},
    ):
        try:
            found, bad = prim.read(answer)
            assert all(isinstance(one, dict) for one in found)
            assert all(one.reason and one.where for one in bad)
        except MalformedAnswer as error:
            assert answer not in inside
            assert str(error)


# -- from an answer to records -----------------------------------------------------------------------------------------


def published(body: bytes) -> list[tuple[str, Record]]:
    """Return what the producer publishes of an answer."""
    return producer.records(Answer(7, NOON, body), "simulated")


def test_record_of_a_visit(one: dict[str, Any]) -> None:
    """The visit unchanged, and who, when and where from."""
    [(identity, record)] = published(json.dumps(siri({"MonitoredStopVisit": [one]})).encode())
    assert identity == prim.identity(one)
    assert record.topic == "idfm-realtime"
    assert record.key == f"{prim.journey(one)}|{STOP}".encode()
    assert json.loads(record.value) == {
        "identity": identity, "observed_at": NOON, "data_origin": "simulated", "spool_offset": 7, "visit": one,
    }  # fmt: skip


@pytest.mark.parametrize(
    "body",
    [
        b"", b"\xff\xfe", b"<html>403</html>", b'{"Siri": {"Serv', b"[]",
        b"[" * 100_000,
        b'{"a":' * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_answer_is_one_dead_letter(body: bytes) -> None:
    """With reason, origin and all its bytes; JSON that is nested too deep to be read is no answer either."""
    [(identity, record)] = published(body)
    letter = json.loads(record.value)
    assert identity == ""
    assert record.topic == "idfm-realtime.dlq"
    assert letter["origin"] == {"source": "prim", "spool_offset": 7}
    assert letter["reason"]
    assert dead_letter("t", "", {}, body).value.split(b"value_base64")[1] in record.value


def test_bad_part_is_one_dead_letter(one: dict[str, Any]) -> None:
    """Reason, where it was, and what it was; the visits beside it are published."""
    parts = [{"MonitoredStopVisit": [None, one, "half a \ud83d"]}, {"ErrorCondition": {"a": 1}}, "no delivery"]
    found = published(json.dumps(siri(*parts)).encode())
    assert [(identity, record.topic) for identity, record in found[:1]] == [(prim.identity(one), "idfm-realtime")]
    letters = [json.loads(record.value) for identity, record in found[1:] if not identity]
    assert [letter["origin"]["part"] for letter in letters] == [
        "StopMonitoringDelivery[0].MonitoredStopVisit[0]", "StopMonitoringDelivery[0].MonitoredStopVisit[2]",
        "StopMonitoringDelivery[1]", "StopMonitoringDelivery[2]",
    ]  # fmt: skip
    values = [json.loads(base64.b64decode(letter["value_base64"])) for letter in letters]
    assert values == [None, "half a \ud83d", {"ErrorCondition": {"a": 1}}, "no delivery"]
    assert all(letter["reason"] and letter["origin"]["spool_offset"] == 7 for letter in letters)
    assert {record.topic for _, record in found[1:]} == {"idfm-realtime.dlq"}


def test_visit_that_no_record_can_hold_is_a_dead_letter(one: dict[str, Any]) -> None:
    """Brokers would refuse it for ever; the raw answer with it is in HDFS. What comes with it goes its way."""
    [(_, good), (identity, letter)] = published(
        json.dumps(siri({"MonitoredStopVisit": [one, one | {"Extensions": "x" * RECORD_BYTES}]})).encode()
    )
    told = json.loads(letter.value)
    assert good.topic == "idfm-realtime" and letter.topic == "idfm-realtime.dlq"
    assert told["origin"] == {"source": "prim", "spool_offset": 7, "identity": identity}
    assert told["value_bytes"] > RECORD_BYTES and len(letter.value) < 1_000_000


def test_half_a_surrogate_does_not_stop_the_producer(one: dict[str, Any]) -> None:
    r"""``\ud83d`` alone is legal JSON and no text: what holds it is published or a dead letter, but never stops us."""
    broken = one | {"Extensions": "EMOJI"}
    body = json.dumps(siri({"MonitoredStopVisit": [one, broken]})).replace("EMOJI", "\\ud83d").encode()
    found = published(body)
    assert found
    assert all(json.loads(record.value) for _, record in found)


def test_raw_answer_is_landed_unchanged_on_one_line(one: dict[str, Any]) -> None:
    """Line breaks of JSON stand between tokens."""
    answer = siri({"MonitoredStopVisit": [one]})
    for indent in (None, 2):
        line = one_line(json.dumps(answer, indent=indent).replace("\n", "\r\n").encode())
        assert line is not None
        assert len(line.splitlines()) == 1
        assert json.loads(line) == answer


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"Siri', b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_json_is_not_landed(body: bytes) -> None:
    """A line that can't be read would stop every reader of the folder."""
    assert one_line(body) is None


# -- backing off -------------------------------------------------------------------------------------------------------


@given(st.integers(0, 10_000), st.none() | st.floats(0, 86400))
def test_backoff_is_bounded(attempt: int, asked: float | None) -> None:
    """Never more than 300 s, unless the source asked for more; never less than it asked for."""
    waits = backoff(attempt, asked)
    assert (asked or 0) <= waits <= max(asked or 0, min(300, 2**attempt if attempt < 10 else 300))


def test_backoff_grows_and_is_spread() -> None:
    """Full jitter: a hundred clients that failed together don't return together."""
    for attempt, most in ((1, 2), (4, 16), (8, 256), (30, 300)):
        draws = [backoff(attempt) for _ in range(300)]
        assert most * 0.8 < max(draws) <= most
        assert min(draws) < most * 0.2


# -- the client against the simulator ----------------------------------------------------------------------------------


def test_poll_returns_the_whole_body(serve: Callable[..., Served], clock: Clock) -> None:
    """Unparsed, as it came."""
    served = serve()
    clock.now += 2
    answer = json.loads(client(served).poll())
    assert len(prim.visits(answer)) == 10
    assert {prim.stop(visit) for visit in prim.visits(answer)} == {STOP}


@pytest.mark.parametrize("status", ["401", "403"])
def test_refused_key_needs_a_person(serve: Callable[..., Served], status: str) -> None:
    """The message says which variable, where a key is had and what to run."""
    served = serve()
    fail(served, status)
    with pytest.raises(Unauthorized, match=rf"returned {status}: .*PRIM_API_KEY .* run site\.yml"):
        client(served).poll()
    client(served).poll()


def test_missing_key_needs_a_person(serve: Callable[..., Served]) -> None:
    """An empty key is no key."""
    with pytest.raises(Unauthorized):
        Prim(serve().url, "", STOP, LINE).poll()


def test_limit_is_kept(serve: Callable[..., Served]) -> None:
    """The seconds that the source asks to wait come with the error."""
    served = serve()
    fail(served, "429")
    with pytest.raises(RetryLater, match="returned 429") as error:
        client(served).poll()
    assert error.value.seconds == 2.0


def test_broken_server_is_asked_later(serve: Callable[..., Served]) -> None:
    """A 500 says nothing of how long."""
    served = serve()
    fail(served, "500")
    with pytest.raises(RetryLater, match="returned 500") as error:
        client(served).poll()
    assert error.value.seconds is None


def test_cut_answer_is_no_answer(serve: Callable[..., Served], clock: Clock) -> None:
    """Half an answer is never kept; the next call gets a whole one."""
    served = serve()
    clock.now += 10
    fail(served, "cut")
    with pytest.raises(RetryLater):
        client(served).poll()
    assert json.loads(client(served).poll())


def test_slow_server_is_given_up(serve: Callable[..., Served]) -> None:
    """A server that says nothing holds nobody up."""
    served = serve()
    fail(served, "slow")
    since = time.monotonic()
    with pytest.raises(RetryLater):
        client(served, (1, 0.3)).poll()
    assert time.monotonic() - since < 5


def test_absent_server_is_asked_later() -> None:
    """Nobody listens there."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(RetryLater):
        Prim(f"http://127.0.0.1:{port}", "a key", STOP, LINE, (1, 1)).poll()


KEY = "a-key-that-nobody-may-see"


def refused(**words: Any) -> str:
    """Return why a client is refused, at once or as it asks; the key is never told."""
    settings = {"base_url": "http://127.0.0.1:9", "api_key": KEY, "timeout": (2, 5)} | words
    with pytest.raises(Refused) as error:
        Prim(monitoring_ref=STOP, line_ref=LINE, **settings).poll()
    assert settings["api_key"] not in str(error.value) and KEY not in str(error.value)
    return str(error.value)


def test_unknown_line_needs_a_person(serve: Callable[..., Served]) -> None:
    """The log has what the source said, and of what."""
    served = serve()
    fail(served, "400")
    told = refused(base_url=served.url)
    assert "returned 400: ErrorCondition: Le couple MonitoringRef/LineRef n'existe pas." in told
    assert f"{served.url}/marketplace/stop-monitoring?MonitoringRef={STOP}&LineRef={LINE}" in told
    assert "PRIM_LINE_REF" in told


@pytest.mark.parametrize(
    "url", ["prim.example", "prim.example:443", "//prim.example", "ftp://prim.example", "http://", "https:///x", "", "http://h:x",
            "http://a b", "http://h\n", "https://user:secret@:7"],
)  # fmt: skip
def test_address_that_is_none_needs_a_person(url: str) -> None:
    """Before anything is asked, and by the name of the setting."""
    told = refused(base_url=url)
    assert told.startswith("PRIM_BASE_URL is ") and "http:// or https://" in told
    assert "secret" not in told
    if url:
        assert refused(base_url="http://127.0.0.1:9", proxy=url).startswith("PRIM_PROXY is ")


@pytest.mark.parametrize("key", [f"{KEY}\n", f"{KEY[:5]}\r\nX: y", f" {KEY}", f"\t{KEY}", f"{KEY}é", "\n"])
def test_key_that_no_header_can_hold_needs_a_person(key: str) -> None:
    """Which character it is, and never the key."""
    told = refused(api_key=key)
    assert "PRIM_API_KEY can't be sent: character " in told
    assert KEY[:5] not in told


def test_what_is_asked_is_told_without_passwords() -> None:
    """An address may hold a user and a password, of the source or of a proxy."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
    for words in ({}, {"proxy": f"http://me:secret@127.0.0.1:{port}"}):
        with pytest.raises(RetryLater) as error:
            Prim(f"http://me:secret@127.0.0.1:{port}", KEY, STOP, LINE, (1, 1), **words).poll()
        assert str(error.value).startswith(f"http://127.0.0.1:{port}/marketplace/stop-monitoring?MonitoringRef={STOP}")
        assert "ConnectionRefusedError: [Errno 111] Connection refused" in str(error.value)
        assert (f"through the proxy http://127.0.0.1:{port}" in str(error.value)) == bool(words)
        assert "secret" not in str(error.value)


def test_name_that_is_unknown_is_told() -> None:
    """A resolver may be away for a while: it is asked again."""
    with pytest.raises(RetryLater, match=r"http://prim\.invalid/.* gaierror: .*(not known|resolution)"):
        Prim("http://prim.invalid", KEY, STOP, LINE, (2, 2)).poll()


class Handler(http.server.BaseHTTPRequestHandler):
    """A server of one answer, which repeats the key as some do; also a proxy that lets nobody through."""

    status, body, location = 404, b"<html>\n<h1>No \x1b[31mroute</h1> for KEY</html>", ""
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        """Answer."""
        self.asked.append(self.path)
        self.send_response(self.status)
        if self.location:
            self.send_header("Location", self.location)
        self.end_headers()
        self.wfile.write(self.body.replace(b"KEY", self.headers.get("apikey", "").encode()))

    def do_CONNECT(self) -> None:
        """Let nobody through."""
        self.send_error(self.status)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def answering(tls: ssl.SSLContext | None = None, **answer: Any) -> Iterator[str]:
    """Serve one answer; yields host and port."""
    handler = type("Handler", (Handler,), answer | {"asked": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_what_the_source_said_is_told_in_one_line_without_the_key() -> None:
    """Whatever it is, and though the source repeats the key."""
    with answering() as host:
        told = refused(base_url=f"http://{host}")
    assert "returned 404: <html> <h1>No [31mroute</h1> for ***</html>." in told
    with answering(status=503, body=b"x" * 10_000) as host, pytest.raises(RetryLater) as error:
        Prim(f"http://{host}", KEY, STOP, LINE).poll()
    assert str(error.value).endswith("returned 503: " + "x" * 300)


def test_key_does_not_follow_a_redirect() -> None:
    """Another host would get it; a person decides."""
    other = "http://127.0.0.1:9/elsewhere"
    with answering(status=301, location=other) as host:
        assert f"returned 301 to {other}" in refused(base_url=f"http://{host}")


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_what_may_pass_is_asked_again(status: int) -> None:
    """No person is needed for it."""
    with answering(status=status, body=b"wait") as host, pytest.raises(RetryLater, match=f"returned {status}: wait"):
        Prim(f"http://{host}", KEY, STOP, LINE).poll()


def test_proxy_is_used_and_told(serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy gets the whole address; that of the environment is not asked."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with answering(status=200, body=b"through") as proxy:
        assert Prim("http://prim.invalid", KEY, STOP, LINE, proxy=f"http://{proxy}").poll() == b"through"
    with answering(status=407, body=b"who are you?") as proxy:
        told = refused(base_url="http://prim.invalid", proxy=f"http://me:secret@{proxy}")
        assert f"through the proxy http://{proxy} returned 407: who are you?. Correct PRIM_PROXY" in told
        told = refused(base_url="https://prim.invalid", proxy=f"http://me:secret@{proxy}")
        assert "Tunnel connection failed: 407 Proxy Authentication Required" in told and "secret" not in told
    with answering(status=502) as proxy, pytest.raises(RetryLater, match="Tunnel connection failed: 502"):
        Prim("https://prim.invalid", KEY, STOP, LINE, proxy=f"http://{proxy}").poll()


def certificate(folder: Path, begins: dt.datetime) -> tuple[Path, ssl.SSLContext]:
    """Make a certificate for 127.0.0.1, good for a day, that nobody has vouched for; return it and a server's context."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "here")])
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(begins).not_valid_after(begins + dt.timedelta(1))
    made = builder.add_extension(address, critical=False).sign(key, hashes.SHA256())
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    pem, private = folder / "certificate.pem", folder / "key.pem"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, private)
    return pem, context


def test_certificate_that_is_not_trusted_needs_a_person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What OpenSSL says, and where an operator's own CA goes; one that the machine trusts is trusted."""
    pem, tls = certificate(tmp_path, dt.datetime.now(dt.UTC) - dt.timedelta(hours=1))
    with answering(tls, status=200, body=b"trusted") as host:
        told = refused(base_url=f"https://{host}")
        assert f"https://{host}/marketplace" in told and "self-signed certificate" in told
        assert "update-ca-certificates" in told
        monkeypatch.setenv("SSL_CERT_FILE", str(pem))
        assert Prim(f"https://{host}", KEY, STOP, LINE).poll() == b"trusted"


def test_tls_that_may_pass_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate that has run out is renewed by others; and so is a server that speaks no TLS repaired."""
    pem, tls = certificate(tmp_path, dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    with answering(tls) as host, pytest.raises(RetryLater, match="certificate has expired"):
        Prim(f"https://{host}", KEY, STOP, LINE).poll()
    with answering() as host, pytest.raises(RetryLater, match=r"SSLError: .*WRONG_VERSION_NUMBER"):
        Prim(f"https://{host}", KEY, STOP, LINE).poll()


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7.0), ("1.5", 1.5), ("-3", 0.0), ("Mon, 24 Nov 2025 12:00:00 GMT", None), ("", None)]
)
def test_retry_after(header: str, seconds: float | None) -> None:
    """A number is taken, a date or nonsense is not, and neither ends the producer."""
    answer = requests.Response()
    answer.headers["Retry-After"] = header
    assert http_source._retry_after(answer) == seconds


def test_proxies_of_the_environment_are_not_asked(
    serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key goes to the source and to nobody else."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert client(serve()).poll()


# -- the timetable -----------------------------------------------------------------------------------------------------


def test_a_service_day_has_all_that_happens() -> None:
    """Both directions, every destination, every kind of train, ids of both forms, at any seed."""
    for seed in range(5):
        day = near(seed, NOON, before=0, ahead=86400)
        assert {one.direction for one in day} == set(DIRECTIONS) == {"Aller", "Retour"}
        assert {one.kind for one in day} == set(KINDS)
        assert {one.mission for one in day} == {row[0] for rows in DIRECTIONS.values() for row in rows}
        visits = [visit(one, 0, NOON)[0]["MonitoredVehicleJourney"] for one in day]
        assert {} in [found["OperatorRef"] for found in visits]
        assert [] in [found["DirectionName"] for found in visits]
        quays = {found["MonitoredCall"]["ArrivalStopAssignment"]["ExpectedQuayRef"]["value"] for found in visits}
        assert {quay.split(":")[2] for quay in quays} == {"Q", "BP"}
        assert len({one.journey for one in day}) == len(day) > 200


def test_trains_stay_what_they_are() -> None:
    """A train that was seen ten minutes ago is the same train now."""
    now, later = near(3, NOON), near(3, NOON + 600)
    common = {one.journey for one in now} & {one.journey for one in later}
    assert {one for one in now if one.journey in common} == {one for one in later if one.journey in common}
    assert len(common) > 10
    assert [one.departs for one in now] == sorted(one.departs for one in now)
    assert all(NOON - 27 * 60 <= one.departs <= NOON + 75 * 60 for one in now)


def test_there_is_a_train_at_any_hour() -> None:
    """A lab that is started at night has something to show, too."""
    for hour in range(24):
        assert {one.direction for one in near(1, NOON + 3600 * hour)} == {"Aller", "Retour"}


@pytest.mark.parametrize("kind", KINDS)
def test_visit_agrees_with_its_truth(trains: Trains, kind: str) -> None:
    """What the visit's own times say by the design's definition is the delay that the timetable tells."""
    for one in trains[kind]:
        for told in (0, 1, 30):
            made, delay = visit(one, told, NOON)
            assert prim.outcome(made) == (delay, kind in CANCELLED)
            assert (delay is None) == (kind in UNKNOWN)


def test_shapes_of_kinds(trains: Trains) -> None:
    """What the recorded answers of the real API show."""
    calls = {
        kind: visit(some[0], 0, NOON)[0]["MonitoredVehicleJourney"]["MonitoredCall"] for kind, some in trains.items()
    }
    assert {"AimedDepartureTime", "AimedArrivalTime"} & set(calls["no_aimed"]) == set()
    assert {"ExpectedDepartureTime", "ExpectedArrivalTime"} & set(calls["no_expected"]) == set()
    assert not [name for name in calls["arrival_only"] if name.startswith(("AimedDep", "ExpectedDep", "DepartureS"))]
    assert calls["cancelled"]["DepartureStatus"] == "cancelled"
    assert not [name for name in calls["terminates"] if name.startswith(("AimedDep", "ExpectedDep"))]
    assert "DepartureStatus" in calls["terminates"]
    assert not [name for name in calls["starts"] if name.startswith(("AimedArr", "ExpectedArr"))]
    assert calls["starts"]["ArrivalStatus"] == "onTime"
    assert (
        calls["arrival_cancelled"]["ArrivalStatus"] == "cancelled" and calls["arrival_cancelled"]["AimedDepartureTime"]
    )
    assert "DepartureStatus" not in calls["arrival_cancelled"]
    late = [visit(one, 0, NOON) for one in near(1, NOON, 0, 86400) if one.kind == "late"]
    statuses = [(made["MonitoredVehicleJourney"]["MonitoredCall"]["DepartureStatus"], delay) for made, delay in late]
    assert [delay for status, delay in statuses if status == "onTime" and delay and delay > 228], (
        "it lies, as the API does"
    )


def test_train_at_the_stop(trains: Trains) -> None:
    """A passed train stays, with VehicleAtStop true."""
    one = trains["on_time"][0]
    at_stop = [
        visit(one, 0, one.departs + seconds)[0]["MonitoredVehicleJourney"]["MonitoredCall"]["VehicleAtStop"]
        for seconds in (-600, 600)
    ]
    assert at_stop == [False, True]
    assert DWELL > 0


# -- the simulator -----------------------------------------------------------------------------------------------------


def told_by(folder: Path, seed: int, steps: list[float], rate: float = 3.0) -> list[list[dict[str, Any]]]:
    """Return the visits of a simulator that is asked after each of the steps."""
    clock = Clock()
    simulator = Simulator(seed, rate, folder / "truth.jsonl", clock=clock)
    found = []
    for step in steps:
        clock.now += step
        found.append([one.visit for one in simulator.observe()])
    return found


def test_seed_and_clock_decide_all(tmp_path: Path) -> None:
    """A run that showed a mistake can be had again."""
    steps = [1.0, 0.3, 17.0, 600.0]
    assert told_by(tmp_path, 1, steps) == told_by(tmp_path, 1, steps)
    assert told_by(tmp_path, 1, steps) != told_by(tmp_path, 2, steps)


def test_rate_is_kept(tmp_path: Path) -> None:
    """New observations a second, whatever the rhythm of the calls; nothing new is told twice."""
    told = told_by(tmp_path, 1, [0.1] * 100)
    identities = [{prim.identity(visit) for visit in answer} for answer in told]
    assert len(set().union(*identities)) in (29, 30)
    assert len(told_by(tmp_path, 1, [86400.0])[0]) == 3 * 60, "a day of silence is no flood"


def test_answers_repeat_what_was_told(tmp_path: Path) -> None:
    """As the API does: the pipeline has to know an observation again."""
    first, second = told_by(tmp_path, 1, [2.0, 2.0])
    repeated = second[-4:]
    assert [prim.identity(one) for one in first[-4:]] == [prim.identity(one) for one in repeated]
    assert not {one["ItemIdentifier"] for one in first} & {one["ItemIdentifier"] for one in repeated}
    assert len(second) == 6 + 4


def test_times_are_told_to_the_millisecond_in_utc(tmp_path: Path) -> None:
    """RecordedAtTime lies between the calls, but for stale ones."""
    [told] = told_by(tmp_path, 1, [60.0])
    moments = [visit["RecordedAtTime"] for visit in told]
    assert all(len(moment) == 24 and moment.endswith("Z") for moment in moments)
    assert any(moment < "2025-11-24T06:01" for moment in moments), "stale ones are six hours old"
    assert all("2025-11-24T12:00" <= moment <= "2025-11-24T12:01" for moment in moments if moment > "2025-11-24T07")


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a truth that are written to their ends."""
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


def settled(served: Served, answers: int = 1) -> list[dict[str, Any]]:
    """Return the truth once so many answers are noted as served: a client may have one a moment before that."""
    deadline = time.monotonic() + 10
    while sum("served" in line for line in lines(served.simulator.truth)) < answers and time.monotonic() < deadline:
        time.sleep(0.01)
    return lines(served.simulator.truth)


def test_truth_is_what_was_served(serve: Callable[..., Served], clock: Clock) -> None:
    """Every observation that came, in its answer, with the delay that its visit has; and that it came whole."""
    served = serve()
    came: dict[int, list[dict[str, Any]]] = {}
    for number in range(1, 21):
        clock.now += 7
        came[number] = prim.visits(json.loads(client(served).poll()))
    told = settled(served, len(came))
    for number, visits in came.items():
        own = [line for line in told if line["answer"] == number]
        assert [line["identity"] for line in own[:-1]] == [prim.identity(visit) for visit in visits]
        assert [(line["delay"], line["cancelled"]) for line in own[:-1]] == [prim.outcome(visit) for visit in visits]
        assert [line["recorded_at"] for line in own[:-1]] == [visit["RecordedAtTime"] for visit in visits]
        assert own[-1] | {"at": 0} == {"answer": number, "run": "", "served": True, "at": 0}
    with served.simulator.truth.open() as file:
        truth = read_truth(file, harness.expected)
    assert set(truth.expected) == {prim.identity(visit) for visits in came.values() for visit in visits}


@pytest.mark.parametrize("kind", ["cut", "401", "403", "429", "500"])
def test_truth_of_what_did_not_come(serve: Callable[..., Served], clock: Clock, kind: str) -> None:
    """What was cut is told as begun and not as served; what was refused is not told at all, and comes later."""
    served = serve()
    clock.now += 5
    fail(served, kind)
    with pytest.raises((RetryLater, Unauthorized)):
        client(served).poll()
    told = lines(served.simulator.truth)
    assert bool(told) == (kind == "cut")
    assert not [line for line in told if line.get("served")]
    clock.now += 1
    visits = prim.visits(json.loads(client(served).poll()))
    assert len(visits) == (5 + 4 if kind == "cut" else 30)


def test_who_leaves_with_the_answer_was_served(serve: Callable[..., Served]) -> None:
    """The end of the connection comes with, or right behind, the acknowledgement of the answer's last bytes."""
    served = serve()
    for _ in range(20):
        requests.get(f"{served.url}/marketplace/stop-monitoring", headers={"apikey": "x"}, timeout=5).raise_for_status()
    assert sum("served" in line for line in settled(served, 20)) == 20


def test_who_has_gone_is_served_nothing(
    serve: Callable[..., Served], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that was cut delivers a call late, and the end of its client behind it: nobody has that answer."""
    served = serve()
    clock.now += 5
    note, where = served.simulator.note, urlsplit(served.url)
    with socket.create_connection((where.hostname, where.port)) as leaving:

        def note_and_leave(mark: dict[str, Any], told: list[dict[str, Any]]) -> None:
            note(mark, told)
            leaving.close()

        monkeypatch.setattr(served.simulator, "note", note_and_leave)
        leaving.sendall(b"GET /marketplace/stop-monitoring HTTP/1.1\r\nHost: x\r\napikey: x\r\n\r\n")
        assert client(served).poll()
    told = settled(served, 1)
    assert {line["answer"] for line in told} == {1, 2}
    assert [line["answer"] for line in told if line.get("served")] == [2]


@pytest.mark.parametrize("kind", ["twice", "out_of_order", "empty"])
def test_truth_of_strange_answers(serve: Callable[..., Served], clock: Clock, kind: str) -> None:
    """They are whole answers: all that they hold is expected, once."""
    served = serve()
    clock.now += 4
    fail(served, kind)
    visits = prim.visits(json.loads(client(served).poll()))
    identities = [prim.identity(visit) for visit in visits]
    settled(served)
    with served.simulator.truth.open() as file:
        assert set(read_truth(file, harness.expected).expected) == set(identities)
    assert len(identities) == {"twice": 40, "out_of_order": 20, "empty": 0}[kind]
    if kind == "out_of_order":
        moments = [visit["RecordedAtTime"] for visit in visits if visit["RecordedAtTime"] > "2025-11-24T10"]
        assert moments == sorted(moments, reverse=True) != sorted(moments)


def test_malformed_answer_comes_whole(serve: Callable[..., Served]) -> None:
    """It is no JSON: the client keeps it, the producer makes a dead letter of it."""
    served = serve()
    fail(served, "malformed")
    body = client(served).poll()
    with pytest.raises(ValueError, match="Unterminated"):
        json.loads(body)
    assert [line.get("malformed", line.get("served")) for line in settled(served)] == [True, True]


def test_truth_tells_answers_apart_that_overlap(serve: Callable[..., Served], clock: Clock) -> None:
    """A call that is still being read while another one comes: what was served is noted of its own answer."""
    served = serve(rate=100.0)
    clock.now += 60
    with closing(socket.create_connection(("127.0.0.1", served.port))) as slow:
        request = "GET /marketplace/stop-monitoring HTTP/1.1\r\nHost: x\r\napikey: k\r\nConnection: close\r\n\r\n"
        slow.sendall(request.encode())
        while served.simulator.answers < 1:
            time.sleep(0.01)
        fail(served, "cut")
        with pytest.raises(RetryLater):
            client(served).poll()
        reader = threading.Thread(target=lambda: [None for _ in iter(lambda: slow.recv(1 << 20), b"")])
        reader.start()
        reader.join(30)
    assert [line["answer"] for line in settled(served) if line.get("served")] == [1]


def test_restarted_simulator_goes_on_counting(serve: Callable[..., Served], tmp_path: Path) -> None:
    """Two answers of one number would be taken for one."""
    for restarts in range(3):
        served = serve(truth=tmp_path / "truth.jsonl")
        client(served).poll()
        numbers = [line["answer"] for line in settled(served, restarts + 1) if line.get("served")]
        assert numbers == list(range(1, restarts + 2))


def test_runs_are_named(serve: Callable[..., Served], clock: Clock) -> None:
    """A bench of faults judges each run by its own answers."""
    served = serve()
    requests.post(f"{served.url}/_simulator/run", json={"run": "kill broker", "rate": 2}, timeout=5)
    clock.now += 3
    assert len(prim.visits(json.loads(client(served).poll()))) == 6
    assert {line["run"] for line in settled(served)} == {"kill broker"}
    stats = requests.get(f"{served.url}/_simulator/stats", timeout=5).json()
    assert (stats["run"], stats["rate"], stats["answers"], stats["observations"]) == ("kill broker", 2.0, 1, 6)


def test_faults_last_as_long_as_told(serve: Callable[..., Served], clock: Clock) -> None:
    """A number of answers, or seconds, or until healed; an unknown one is refused with the known."""
    served = serve()

    def outcome() -> str:
        try:
            client(served).poll()
            return "answer"
        except RetryLater as error:
            [told] = re.findall("returned [0-9]+", str(error))
            return told

    fail(served, "500", count=2)
    assert [outcome() for _ in range(3)] == ["returned 500", "returned 500", "answer"]
    fail(served, "429", seconds=30)
    assert outcome() == "returned 429"
    clock.now += 29
    assert outcome() == "returned 429"
    clock.now += 2
    assert outcome() == "answer"
    fail(served, "500", seconds=1000)
    fail(served, "none")
    assert outcome() == "answer"
    refused = requests.post(f"{served.url}/_simulator/faults", json={"kind": "404"}, timeout=5)
    assert refused.status_code == 400
    assert all(kind in refused.json()["error"] for kind in FAULTS)


def test_recordings_are_replayed(serve: Callable[..., Served], tmp_path: Path, trains: Trains) -> None:
    """Recorded answers come unchanged, in the order of their names, with the truth that they themselves tell."""
    folder = tmp_path / "recorded"
    folder.mkdir()
    made = [visit(some[0], 0, NOON) for some in trains.values()]
    for number, (one, _) in enumerate(made):
        (folder / f"{number:03d}.json").write_text(json.dumps(siri({"MonitoredStopVisit": [one]}), indent=1))
    served = serve(recordings=folder)
    for path in sorted(folder.iterdir()):
        assert client(served).poll() == path.read_bytes()
    assert prim.visits(json.loads(client(served).poll())) == [], "then nothing is near"
    told = [line for line in settled(served, len(made)) if "identity" in line]
    assert [line["delay"] for line in told] == [delay for _, delay in made]


def test_spool_tells_what_it_has_kept_whether_it_was_delivered_or_waits(
    serve: Callable[..., Served], clock: Clock, tmp_path: Path
) -> None:
    """The checker takes its lines after the truth's; what an identity was never kept of is unspooled."""
    served = serve()
    spool = Spool(tmp_path, 1 << 20, [KAFKA, "hdfs"])
    told: list[set[str]] = []
    for _ in range(3):
        clock.now += 4
        body = client(served).poll()
        told.append({prim.identity(visit) for visit in prim.visits(json.loads(body))})
        if len(told) < 3:
            offset = spool.append(body, time.time())
            if len(told) == 1:
                spool.advance(KAFKA, offset, told[0])
    spool.append(b"no json", time.time())
    kept = set(spooled(spool.path, time.time() - 60, harness.identities))
    assert kept == told[0] | told[1] and told[2] - kept
    assert set(spooled(spool.path, time.time() + 60, harness.identities)) == set()
    settled(served)
    lines = "".join(json.dumps({"spooled": one}) + "\n" for one in kept)
    truth = read_truth(io.StringIO(served.simulator.truth.read_text() + lines), harness.expected)
    assert truth.spooled == kept and truth.expected.keys() - kept == told[2] - kept
