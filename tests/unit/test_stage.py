"""What every stage shares: settings, logs, and how a stage ends that can't go on."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import ModuleType

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY, start_http_server
from simulated import Served

from berny.pipelines.idfm import influx_consumer, prim, producer
from berny.runtime import poller
from berny.runtime.probe import Cluster
from berny.runtime.probe.ask import ask
from berny.runtime.spool import Spool
from berny.runtime.stage import (
    CONFIGURATION_ERROR,
    READY,
    ConfigurationError,
    KafkaSettings,
    LogfmtFormatter,
    expect,
    pause,
    read_settings,
)

COMMON = {
    "BERNY_PIPELINE": "idfm",
    "BERNY_STAGE": "a stage",
    "BERNY_METRICS_PORT": "9399",
    "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9",
}
INFLUX = {
    "INFLUX_URL": "http://127.0.0.1:9",
    "INFLUX_ORG": "o",
    "INFLUX_BUCKET": "b",
    "INFLUX_BUCKET_ID": "0123456789abcdef",
    "INFLUX_TOKEN": "t",
    "BERNY_STATE_DIR": "/nowhere",
}
PRODUCER = {
    "HDFS_WEB_URL": "http://127.0.0.1:9",
    "HDFS_USER": "idfm",
    "PRIM_API_KEY": "a-key-that-nobody-may-see",
    "BERNY_SPOOL_DIR": "/nowhere",
    "BERNY_SPOOL_MAX_BYTES": "1000000",
    "BERNY_RAW_PATH": "/data/idfm/raw_landing.json",
    "BERNY_RAW_KEEP": "90d",
}


class Small(KafkaSettings):
    """Settings of a stage that needs one thing of its own."""

    own_thing: int
    own_default: float = 1.5


# -- settings ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment with all that the small stage needs."""
    for name, value in (COMMON | {"OWN_THING": "7"}).items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_settings_come_from_the_environment(environment: pytest.MonkeyPatch) -> None:
    """Names in capitals, values with their types, defaults where nothing is told, nothing else taken."""
    environment.setenv("UNRELATED", "1")
    settings = read_settings(Small)
    assert (settings.own_thing, settings.own_default, settings.berny_metrics_port) == (7, 1.5, 9399)
    environment.setenv("OWN_DEFAULT", "0.25")
    assert read_settings(Small).own_default == 0.25


SYSTEMD = "/usr/lib/systemd/user-environment-generators/30-systemd-environment-d-generator"
VALUES = {
    "PLAIN": "http://master:9870/a,b@c%d+e=f-g", "LINES": "a key\nHDFS_USER=hdfs\n", "SPACES": " a  b ", "QUOTES": "a\"b'c",
    "BACKSLASH": "a\\b\\", "COMMENT": "#;a", "TICK": "`a`", "ACCENT": "é",
}  # fmt: skip


def test_units_get_values_as_they_are(plugin: Callable[[str], ModuleType], tmp_path: Path) -> None:
    """By systemd's own reader: a line break of a secret neither ends it nor begins another variable."""
    lines = [
        f"{name}={plugin('ansible/plugins/filter/berny.py').environment_value(value)}\n"
        for name, value in VALUES.items()
    ]
    assert lines[0] == f"PLAIN={VALUES['PLAIN']}\n"
    (tmp_path / "environment.d").mkdir()
    (tmp_path / "environment.d" / "a.conf").write_text("".join(lines))
    variables = {"XDG_CONFIG_HOME": str(tmp_path), "HOME": str(tmp_path)}
    said = subprocess.run([SYSTEMD], env=variables, capture_output=True, text=True, check=True)
    pairs = [line.partition("=")[::2] for line in said.stdout.splitlines()]
    # It writes what has to be in quotes with \n for a line break.
    read = {name: re.sub(r"\\(.)", lambda found: found[1].replace("n", "\n"), text.strip('"')) for name, text in pairs}
    assert {name: read.get(name) for name in VALUES} == VALUES
    assert "HDFS_USER" not in read and not said.stderr


def test_dollars_are_no_variables(plugin: Callable[[str], ModuleType]) -> None:
    """That reader would put variables in their place, which an environment file of a unit has none of."""
    assert plugin("ansible/plugins/filter/berny.py").environment_value("a$b") == '"a\\$b"'


def test_all_that_is_wrong_is_named_at_once(environment: pytest.MonkeyPatch) -> None:
    """Who starts a stage by hand should not have to try once for each variable."""
    environment.delenv("KAFKA_BOOTSTRAP_SERVERS")
    environment.delenv("BERNY_STAGE")
    environment.setenv("BERNY_METRICS_PORT", "many")
    environment.setenv("OWN_THING", "")
    with pytest.raises(ConfigurationError) as error:
        read_settings(Small)
    named = set(re.findall(r"([A-Z_]{5,}): ", str(error.value)))
    assert named == {"KAFKA_BOOTSTRAP_SERVERS", "BERNY_STAGE", "BERNY_METRICS_PORT", "OWN_THING"}


def test_values_are_not_repeated(environment: pytest.MonkeyPatch) -> None:
    """A secret that was put into the wrong variable does not end up in the journal."""
    environment.setenv("OWN_THING", "hunter2hunter2")
    with pytest.raises(ConfigurationError) as error:
        read_settings(Small)
    assert "hunter2" not in str(error.value)


# -- logs --------------------------------------------------------------------------------------------------------------


def logged(message: str, **fields: object) -> str:
    """Return the line of a message with fields."""
    record = logging.LogRecord("producer", logging.WARNING, "file", 1, message, None, None)
    record.fields = fields
    return LogfmtFormatter().format(record)


def parsed(line: str) -> dict[str, str]:
    """Read a line as readers of logfmt do."""
    pairs = re.findall(r'([^ =]+)=("(?:\\.|[^"\\])*"|[^ "]*)(?: |$)', line)
    return {key: re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value for key, value in pairs}


def test_a_line_of_the_journal() -> None:
    """What operators and the fault bench grep for."""
    line = logged("polling pauses", reason='the spool "a" is full', offset=7, url="http://x?a=b", empty="")
    assert line == (
        'level=warning logger=producer message="polling pauses" reason="the spool \\"a\\" is full" offset=7 '
        'url="http://x?a=b" empty=""'
    )


@given(st.text(), st.text())
def test_any_text_is_one_line_that_can_be_read_back(message: str, value: str) -> None:
    """Quotes, backslashes and line breaks of an answer don't tear a record of the journal."""
    line = logged(message.replace("%", ""), reason=value)
    assert "\n" not in line
    found = parsed(line)
    assert found["message"] == message.replace("%", "").replace("\n", " ")
    assert found["reason"] == value.replace("\n", " ")
    assert set(found) == {"level", "logger", "message", "reason"}


def test_errors_are_on_the_line_too() -> None:
    """Type and words of what was raised, in the same record."""
    try:
        raise OSError("disk\nbroke")
    except OSError:
        record = logging.LogRecord("x", logging.ERROR, "file", 1, "it broke", None, sys.exc_info())
    assert LogfmtFormatter().format(record) == 'level=error logger=x message="it broke: OSError: disk broke"'


def test_pausing_ends_when_the_stage_is_to_stop() -> None:
    """A stop is not held up by a back-off, and a pause that is due already is none."""
    stop = threading.Event()
    since = time.monotonic()
    pause(stop, -5)
    threading.Timer(0.1, stop.set).start()
    pause(stop, 60)
    assert 0.05 < time.monotonic() - since < 10


# -- processes ---------------------------------------------------------------------------------------------------------


def process(module: str, variables: dict[str, str]) -> subprocess.Popen[str]:
    """Start a stage as its unit does."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    inherited["PYTHONPATH"] = str(Path(__file__).resolve().parents[2] / "src")
    return subprocess.Popen(
        [sys.executable, "-m", module],
        env=inherited | variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(module: str, variables: dict[str, str]) -> tuple[int, str]:
    """Run a stage to its end; return its code and what it said."""
    with process(module, variables) as running:
        try:
            _, said = running.communicate(timeout=60)
        finally:
            running.kill()
    return running.returncode, said


def free_port() -> str:
    """Return a port that nothing listens on."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        return str(taken.getsockname()[1])


@pytest.mark.parametrize(
    ("module", "variables"),
    [(influx_consumer.__name__, COMMON | INFLUX), (producer.__name__, COMMON | PRODUCER)],
)
def test_missing_variables_end_a_stage_with_78(module: str, variables: dict[str, str]) -> None:
    """The unit is not started again and again: a person has to act, and is told all there is to do."""
    removed = {sorted(set(variables) - set(COMMON))[0], "BERNY_PIPELINE"}
    code, said = ended(module, {name: value for name, value in variables.items() if name not in removed})
    assert code == CONFIGURATION_ERROR == 78
    last = parsed(said.strip().splitlines()[-1])
    assert last["level"] == "error"
    assert set(re.findall(r"([A-Z_]{5,}): Field required", last["message"])) == removed
    assert "Traceback" not in said


def test_unit_does_not_restart_what_ended_with_78(checkout: Path) -> None:
    """The code is agreed upon with the unit's template."""
    unit = (checkout / "roles" / "service" / "templates" / "unit.service.j2").read_text()
    assert f"\nRestartPreventExitStatus={CONFIGURATION_ERROR}\n" in unit
    assert "\nRestart=always\n" in unit
    assert "\nStartLimitIntervalSec=0\n" in unit


@pytest.fixture
def variables(serve: Callable[..., Served], tmp_path: Path) -> dict[str, str]:
    """The environment of a producer of a simulator; Kafka and HDFS are away."""
    spool = tmp_path / "spool"
    spool.mkdir()
    return {
        **COMMON,
        **PRODUCER,
        "BERNY_METRICS_PORT": free_port(),
        "BERNY_SPOOL_DIR": str(spool),
        "BERNY_SPOOL_MAX_BYTES": "50000000",
        "PRIM_BASE_URL": serve(clock=time.time).url,
        "PRIM_POLL_SECONDS": "0.1",
        "BERNY_DATA_ORIGIN": "simulated",
    }


@contextmanager
def running(variables: dict[str, str]) -> Iterator[Spool]:
    """Run a producer, and kill it in the end; yields its spool."""
    with process(producer.__name__, variables) as stage:
        try:
            deadline = time.monotonic() + 30
            folder = Path(variables["BERNY_SPOOL_DIR"])
            while not metric(variables, "berny_ready"):
                assert stage.poll() is None, stage.communicate()[1]
                assert time.monotonic() < deadline
                time.sleep(0.05)
            spool = Spool(folder, 50_000_000, ["kafka", "hdfs"])
            yield spool
            spool.close()
        finally:
            stage.send_signal(signal.SIGKILL)
            stage.communicate()


def metric(variables: dict[str, str], name: str) -> float:
    """Return a metric of a stage, 0 where it does not answer yet."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{variables['BERNY_METRICS_PORT']}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
    except OSError:
        return 0
    return next((float(line.split()[-1]) for line in lines if line.startswith(f"{name} ")), 0)


def until(met: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + 30
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def asked(variables: dict[str, str]) -> int:
    """Return how many answers the simulator has given."""
    return int(requests.get(f"{variables['PRIM_BASE_URL']}/_simulator/stats", timeout=5).json()["answers"])


@pytest.mark.parametrize("status", ["401", "403"])
def test_refused_key_ends_the_producer_with_78(variables: dict[str, str], status: str) -> None:
    """All of its threads end, and the reason is the last line: that is what a failed play shows."""
    fault = {"kind": status, "seconds": 1000}
    requests.post(f"{variables['PRIM_BASE_URL']}/_simulator/faults", json=fault, timeout=5).raise_for_status()
    code, said = ended(producer.__name__, variables)
    assert code == 78, said
    assert "PRIM_API_KEY is missing, wrong or not allowed" in said.strip().splitlines()[-1]
    assert variables["PRIM_API_KEY"] not in said


@pytest.mark.parametrize(
    ("wrong", "told", "calls"),
    [
        ({}, "returned 400: ErrorCondition: Le couple MonitoringRef/LineRef n'existe pas", 1),
        ({"PRIM_API_KEY": PRODUCER["PRIM_API_KEY"] + "\n"}, "PRIM_API_KEY can't be sent: character 26 of 26", 0),
        ({"PRIM_API_KEY": ""}, "PRIM_API_KEY is empty", 0),
        ({"PRIM_BASE_URL": "prim.example"}, "PRIM_BASE_URL is 'prim.example': it has to be http:// or https://", 0),
        ({"PRIM_PROXY": "proxy:3128"}, "PRIM_PROXY is 'proxy:3128': it has to be http:// or https://", 0),
    ],
)
def test_what_no_retry_mends_ends_the_producer_with_78(
    variables: dict[str, str], wrong: dict[str, str], told: str, calls: int
) -> None:
    """The last line says what was asked and what came back, without the key; the quota is spent on nothing more."""
    fault = {"kind": "400", "seconds": 1000}
    requests.post(f"{variables['PRIM_BASE_URL']}/_simulator/faults", json=fault, timeout=5).raise_for_status()
    code, said = ended(producer.__name__, variables | wrong)
    assert code == 78, said
    assert told in parsed(said.strip().splitlines()[-1])["message"]
    assert PRODUCER["PRIM_API_KEY"] not in said
    spool = Spool(Path(variables["BERNY_SPOOL_DIR"]), 50_000_000, ["kafka", "hdfs"])
    assert spool.calls(time.strftime("%Y-%m-%d", time.gmtime())) == calls
    spool.close()


def test_spool_holds_while_everything_else_is_away(variables: dict[str, str], tmp_path: Path) -> None:
    """Without Kafka and HDFS polling goes on; a killed producer finds what it kept, and goes on after it."""
    with running(variables) as spool:
        until(lambda: len(spool.read(0)) >= 5)
    kept = Spool(tmp_path / "spool", 1 << 30, ["kafka", "hdfs"])
    before = kept.read(0)
    assert kept.cursor("hdfs") == 0
    # The simulator's first responses may have nothing that would have to be published.
    first = next(answer.offset for answer in before if any(prim.visits(json.loads(answer.body))))
    assert kept.cursor("kafka") < first
    truth = [json.loads(line) for line in (tmp_path / "truth-0.jsonl").read_text().splitlines()]
    told: dict[int, list[str]] = {line["answer"]: [] for line in truth}
    for line in truth:
        if "identity" in line:
            told[line["answer"]].append(line["identity"])
    came = [[prim.identity(visit) for visit in prim.visits(json.loads(answer.body))] for answer in before]
    assert came == list(told.values())[: len(came)], "each answer is there, whole and in order"
    assert len(told) - len(came) <= 1, "at most the one in flight was not acknowledged"
    with running(variables) as spool:
        until(lambda: len(spool.read(before[-1].offset)) >= 1)
    assert kept.read(0)[: len(before)] == before
    kept.close()


def test_quota_is_kept_across_restarts(variables: dict[str, str]) -> None:
    """A key that is used up is no reason to use it up again: calls are counted on disk, before they are made."""
    variables["PRIM_DAILY_QUOTA"] = "3"
    with running(variables) as spool:
        until(lambda: len(spool.read(0)) == 3)
    with running(variables):
        time.sleep(1)
    assert asked(variables) == 3


def test_restart_does_not_poll_sooner(variables: dict[str, str]) -> None:
    """A producer that keeps being killed keeps to the pace of its key."""
    variables["PRIM_POLL_SECONDS"] = "600"
    with running(variables) as spool:
        until(lambda: len(spool.read(0)) == 1)
    with running(variables):
        time.sleep(1)
    assert asked(variables) == 1


def test_last_call_a_month_ahead_holds_up_no_poll(variables: dict[str, str], tmp_path: Path) -> None:
    """The clock was wrong when it was made: the wait is that between two calls, and it is logged, once."""
    spool = Spool(tmp_path / "spool", 50_000_000, ["kafka", "hdfs"])
    ahead = time.time() + 30 * 86400
    spool.count_call(time.strftime("%Y-%m-%d", time.gmtime(ahead)), ahead)
    spool.close()
    with process(producer.__name__, variables | {"PRIM_POLL_SECONDS": "0.5"}) as stage:
        try:
            until(lambda: asked(variables) >= 3)
        finally:
            stage.kill()
            _, said = stage.communicate()
    assert said.count("the recorded time of the last call is in the future") == 1, said


def test_producer_that_should_have_polled_and_has_not_is_overdue(
    variables: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its spool is full, so it pauses; once there is room again it is in time again."""
    monkeypatch.setattr(poller, "LATE_SECONDS", 0.5)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("BERNY_SPOOL_MAX_BYTES", "1")
    stop = threading.Event()
    running = producer.poller(read_settings(producer.Settings), stop)
    spool = Spool(tmp_path / "spool", 1, ["kafka", "hdfs"])
    polling = threading.Thread(target=lambda: running.poll(running.spool()))
    polling.start()
    try:
        until(lambda: asked(variables) == 1)
        assert overdue() == 0
        until(lambda: overdue() > 1)
        assert asked(variables) == 1
        monkeypatch.setattr(Spool, "append", lambda *words: 1)
        until(lambda: asked(variables) > 3)
        assert overdue() == 0
    finally:
        stop.set()
        polling.join()
        spool.close()


def overdue() -> float:
    """Return the metric of this process."""
    return REGISTRY.get_sample_value("berny_overdue_seconds") or 0.0


def test_overdue_stage_is_ready_and_not_healthy() -> None:
    """By its metrics, as berny-probe asks a stage: stages after it may start, and health says what is wrong."""
    server, thread = start_http_server(0, addr="127.0.0.1")
    here = {"nodes": ["n"], "unit": "berny-p-s", "kind": "stream", "metrics_port": server.server_port}
    facts = {"nodes": {"n": {"machine": "127.0.0.1"}, "m": {}}, "services": {},
             "pipelines": {"p": {"name": "p", "stages": {"s": here | {"needs": []}}}}}  # fmt: skip
    try:
        READY.set(1)
        expect(60)
        health = ask(Cluster(facts, "m"), "berny-p-s")
        assert (health.ready, health.healthy) == (True, True), health
        expect(-7)
        health = ask(Cluster(facts, "m"), "berny-p-s")
        assert (health.ready, health.healthy) == (True, False)
        assert "its next work is 7 s overdue" in health.detail
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_sigterm_ends_a_producer_in_order(variables: dict[str, str]) -> None:
    """Nothing waits for a sink then: the end is soon, and it is no failure."""
    requests.post(f"{variables['PRIM_BASE_URL']}/_simulator/run", json={"rate": 0}, timeout=5).raise_for_status()
    with process(producer.__name__, variables | {"PRIM_POLL_SECONDS": "600"}) as stage:
        until(lambda: metric(variables, "berny_ready") == 1 and stage.poll() is None)
        stage.send_signal(signal.SIGTERM)
        try:
            _, said = stage.communicate(timeout=20)
        finally:
            stage.kill()
    assert stage.returncode == 0, said


FAILING = """
import sys
from berny.runtime import stage
from berny.runtime.files import FilesError

def run(settings, stop):
    raise FilesError("/user/hdfs/weather: connection refused") from OSError("refused")

stage.main(stage.EnvironmentSettings, run)
"""


def test_work_that_failed_is_one_line_and_the_unit_tries_again() -> None:
    """A person reads why, and no traceback."""
    variables = {"BERNY_PIPELINE": "x", "BERNY_STAGE": "y", "BERNY_METRICS_PORT": "0"}
    inherited = {"PYTHONPATH": str(Path(__file__).resolve().parents[2] / "src"), "PATH": os.environ["PATH"]}
    done = subprocess.run([sys.executable, "-c", FAILING], env=inherited | variables, capture_output=True, text=True)
    assert done.returncode == 1
    said = "the work failed and is done again: /user/hdfs/weather: connection refused"
    assert done.stderr == f'level=error logger=stage message="{said}"\n'
