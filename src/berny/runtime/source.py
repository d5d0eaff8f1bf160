"""The interface of a pipeline's source: it returns complete responses, or raises one of the errors here."""

from __future__ import annotations

import random
from typing import Protocol

from berny.runtime.stage import ConfigurationError

CAP_SECONDS = 300.0


class Refused(ConfigurationError):
    """A retry does not help: a person has to act. The message has the request and the response."""


class Unauthorized(Refused):
    """The key is refused."""


class NotFound(Refused):
    """The requested resource does not exist."""


class RetryLater(Exception):
    """The source can't respond now. ``seconds`` is how long it asked to wait, or None."""

    def __init__(self, reason: str, seconds: float | None = None) -> None:
        super().__init__(reason)
        self.seconds = seconds


class Source(Protocol):
    """Where responses come from."""

    def poll(self) -> bytes:
        """Return the body of one complete response, unparsed.

        Raises:
            Refused: a person has to act.
            RetryLater: the error may be transient.
        """


def backoff(attempt: int, retry_after: float | None = None) -> float:
    """Return the seconds to wait after ``attempt`` failures in a row: exponential with full jitter, at most 300.

    It is never less than ``retry_after``, which the source asked for.
    """
    return max(retry_after or 0.0, random.uniform(0, min(CAP_SECONDS, 2.0 ** min(attempt, 9))))
