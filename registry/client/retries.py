"""When a failed call is retried: by the client, the trainer's reports and MLflow tracking."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")
MAX_DOUBLINGS = 30
"""Doublings after which the pause is no longer computed; `longest` has limited it by then."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Which failures are retried, how far apart, and for how long.

    Pauses double from `first` to `longest` seconds. Each is up to `jitter` (a share of it) longer,
    so that the clients of a restarted server do not all return at the same moment. An error whose
    facts contain `retry_after` sets its own pause. Attempts end when the next one would start more
    than `patience` seconds after the first failure.
    """

    is_passing: Callable[[Exception], bool]
    """Whether a failure may pass by itself."""
    patience: float
    first: float
    longest: float
    jitter: float = 0.1

    def pause(self, failures: int, waited: float, error: Exception) -> float | None:
        """Return the seconds until the next attempt, or None to give up.

        `failures` counts from 1; `waited` is the time since the first failure, in seconds.
        """
        if not self.is_passing(error):
            return None
        retry_after = getattr(error, "facts", {}).get("retry_after")
        if retry_after is None:
            pause = min(self.first * 2 ** min(failures - 1, MAX_DOUBLINGS), self.longest)
            pause *= 1 + random.uniform(0, self.jitter)
        else:
            pause = float(retry_after)
        return pause if waited + pause <= self.patience else None

    def call(
        self,
        attempt: Callable[[], T],
        *,
        wait: Callable[[float], object] = time.sleep,
        on_wait: Callable[[Exception, float], None] | None = None,
    ) -> T:
        """Return the attempt's result, or raise its last failure.

        `on_wait` receives each failure that is retried, and the pause. A `wait` that raises ends
        the attempts.
        """
        failures, began = 0, 0.0
        while True:
            try:
                return attempt()
            except Exception as error:
                now = time.monotonic()
                began = began if failures else now
                failures += 1
                pause = self.pause(failures, now - began, error)
                if pause is None:
                    raise
                if on_wait is not None:
                    on_wait(error, pause)
            wait(pause)
