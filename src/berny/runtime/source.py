"""What a pipeline polls: a source returns complete responses, or says why it can't."""

from __future__ import annotations

import random
from typing import Protocol

from berny.runtime.stage import ConfigurationError

CAP_SECONDS = 300.0


class Refused(ConfigurationError):
    """No retry helps: a person has to act. The message says what was asked and what came back."""


class Unauthorized(Refused):
    """The key is refused."""


class RetryLater(Exception):
    """The source can't respond now. ``seconds`` is what it asked to wait, or None."""

    def __init__(self, reason: str, seconds: float | None = None) -> None:
        super().__init__(reason)
        self.seconds = seconds


class Source(Protocol):
    """Where responses come from."""

    def poll(self) -> bytes:
        """Return the body of one complete response, unparsed.

        Raises:
            Refused: a person has to act.
            RetryLater: it may pass.
        """


def backoff(attempt: int, retry_after: float | None = None) -> float:
    """Return the seconds to wait after ``attempt`` failures in a row: exponential with full jitter, 300 at most.

    What the source asked for is the least.
    """
    return max(retry_after or 0.0, random.uniform(0, min(CAP_SECONDS, 2.0 ** min(attempt, 9))))
