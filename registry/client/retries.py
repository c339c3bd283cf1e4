"""When a failed call is tried again, for the client, the trainer's reports and MLflow alike."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")
MAX_DOUBLINGS = 30


@dataclass(frozen=True, slots=True)
class Retry:
    """Which failures are tried again, how far apart, and for how long.

    Pauses double from `first` to `longest` seconds. Each is up to `jitter` (a share of it) longer,
    so that the clients of a restarted server do not all come back in the same moment. An error
    whose facts name `retry_after` decides its own pause. Attempts end when the next one would come
    more than `patience` seconds after the first failure.
    """

    is_passing: Callable[[Exception], bool]
    """Is this a failure that may pass by itself?"""
    patience: float
    first: float
    longest: float
    jitter: float = 0.1

    def pause(self, failures: int, waited: float, error: Exception) -> float | None:
        """Seconds until the next attempt, or None to give up.

        `failures` counts from 1; `waited` is the time since the first of them, in seconds.
        """
        if not self.is_passing(error):
            return None
        asked = getattr(error, "facts", {}).get("retry_after")
        if asked is None:
            pause = min(self.first * 2 ** min(failures - 1, MAX_DOUBLINGS), self.longest)
            pause *= 1 + random.uniform(0, self.jitter)
        else:
            pause = float(asked)
        return pause if waited + pause <= self.patience else None

    def call(
        self,
        attempt: Callable[[], T],
        *,
        wait: Callable[[float], object] = time.sleep,
        on_wait: Callable[[Exception, float], None] | None = None,
    ) -> T:
        """The attempt's answer, or its last failure.

        `on_wait` is given each failure that is tried again, and the pause. A `wait` that raises
        ends the attempts.
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
