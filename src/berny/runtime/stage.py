"""Common parts of all stages of pipelines: settings from the environment, logs, metrics, orderly shutdown."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

from prometheus_client import Counter, Gauge, Histogram, start_http_server
from pydantic import BaseModel, ConfigDict, ValidationError

CONFIGURATION_ERROR = 78
"""EX_CONFIG of sysexits.h: units do not restart a program that ends with it."""

READY = Gauge("berny_ready", "1 once the stage does its work")
RECORDS_IN = Counter("berny_records_in", "Records read")
RECORDS_OUT = Counter("berny_records_out", "Records that the sink has acknowledged")
DEAD_LETTERS = Counter("berny_dead_letters", "Records that could not be parsed and went to a dead-letter topic")
OVERDUE = Gauge("berny_overdue_seconds", "Seconds since the stage should have done its next work; 0 if it is on time")
LAG = Gauge("berny_lag_records", "Records that wait upstream of this stage")
WAITS = Gauge("berny_waits", "1 while the stage waits for what the label says", ["what"])
BATCH_SECONDS = Histogram("berny_batch_seconds", "Time from a batch's first record to its acknowledgement")
END_TO_END = Histogram(
    "berny_end_to_end_seconds",
    "Time from the fetch of an observation's response to its acknowledgement by this stage's sink",
    buckets=(0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 300, 3600),
)

Settings = TypeVar("Settings", bound="EnvironmentSettings")


class EnvironmentSettings(BaseModel):
    """Settings whose field names, in capitals, are environment variables."""

    model_config = ConfigDict(frozen=True)

    berny_pipeline: str
    berny_stage: str
    berny_metrics_port: int


class KafkaSettings(EnvironmentSettings):
    """Settings of a stage that reads or writes topics."""

    kafka_bootstrap_servers: str


class ConfigurationError(Exception):
    """The stage can't continue until a person acts; the message says what to do."""


class WorkFailed(Exception):
    """The work failed for a reason outside, and is done again later; the message says why."""


def read_settings(model: type[Settings]) -> Settings:
    """Read settings from the environment.

    Raises:
        ConfigurationError: variables are missing or malformed; the message names all of them.
    """
    values = {name: os.environ[name.upper()] for name in model.model_fields if name.upper() in os.environ}
    try:
        return model.model_validate(values)
    except ValidationError as error:
        wrong = "; ".join(f"{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors())
        raise ConfigurationError(f"the environment is wrong: {wrong}") from None


class LogfmtFormatter(logging.Formatter):
    """``level=… logger=… message="…" key=value``: one line per record, for the journal."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; fields come from ``extra={"fields": {…}}``."""
        message = record.getMessage()
        if record.exc_info and record.exc_info[1]:
            message += f": {type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
        words = [f"level={record.levelname.lower()}", f"logger={record.name}", f"message={_quoted(message)}"]
        words += [f"{key}={_quoted(str(value))}" for key, value in getattr(record, "fields", {}).items()]
        return " ".join(words)


def _quoted(text: str) -> str:
    text = text.replace("\n", " ")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"' if not text or set(text) & set(' "=') else text


def log(logger: logging.Logger, level: int, message: str, **fields: object) -> None:
    """Log a message with fields."""
    logger.log(level, message, extra={"fields": fields})


class Stop(threading.Event):
    """Set by SIGTERM and SIGINT."""

    def __init__(self) -> None:
        super().__init__()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._signalled)

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        self.set()


def main(model: type[Settings], run: Callable[[Settings, Stop], None]) -> None:
    """Run a stage: read its settings, serve its metrics; exit with 78 if a person has to act, with 1 if it is run again."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(LogfmtFormatter())
    for chatty in ("py4j", "hdfs.client"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logger = logging.getLogger("stage")
    try:
        settings = read_settings(model)
        start_http_server(settings.berny_metrics_port)
        run(settings, Stop())
    except ConfigurationError as error:
        log(logger, logging.ERROR, str(error))
        sys.exit(CONFIGURATION_ERROR)
    except WorkFailed as error:
        log(logger, logging.ERROR, f"the work failed and is done again: {error}")
        sys.exit(1)


def pause(stop: threading.Event, seconds: float) -> None:
    """Sleep until the time is over or the stage has to stop."""
    stop.wait(max(0.0, seconds))


def expect(seconds: float) -> None:
    """Announce that the stage's next work is due in ``seconds``; afterwards, ``berny_overdue_seconds`` increases.

    Infinite ``seconds`` mean that nothing is due.
    """
    due = time.monotonic() + seconds
    OVERDUE.set_function(lambda: max(0.0, time.monotonic() - due))


def waits_for(what: str) -> None:
    """Report what the stage waits for before it can do its work; nothing if the text is empty."""
    WAITS.clear()
    if what:
        WAITS.labels(what).set(1)


def since(moment: float) -> float:
    """Return the seconds since a Unix time."""
    return time.time() - moment
