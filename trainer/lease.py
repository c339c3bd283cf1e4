"""A lease, renewed beside the work it covers, which also learns when the work has to stop."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal, Self, TypeVar

from registry.client import Countersign
from registry.client.retries import Retry
from registry.errors import (
    Conflict,
    Fault,
    Forbidden,
    NotFound,
    RegistryError,
    Unauthenticated,
    Unavailable,
)
from registry.views.training_runs import WorkView

T = TypeVar("T")
LOG = logging.getLogger("trainer.lease")
BEAT_SECONDS = (1.0, 3.0)
"""Bounds of the time between beats, a third of the lease; people watch the progress they carry."""
RETRY = Retry(
    lambda error: isinstance(error, (Unavailable, Fault)), patience=900.0, first=1.0, longest=30.0
)
"""A call is tried again for a quarter of an hour while the registry is unreachable."""


class Gone(Exception):
    """The work has to stop: it was cancelled, another worker has it, or this worker stops."""


class Lease:
    """One leased piece of work; `state` says whether this worker still holds the lease."""

    def __init__(self, registry: Countersign, work: WorkView, stopping: threading.Event) -> None:
        self.work = work
        self.progress: dict[str, Any] = {}
        self.state: Literal["held", "cancelled", "lost"] = "held"
        self._registry = registry
        self._stopping = stopping
        self._over = threading.Event()
        # Two clocks are compared here. The bounds keep the beats sensible where one is wrong.
        remaining = (work.expires_at - datetime.now(UTC)).total_seconds()
        self._every = min(max(remaining / 3, BEAT_SECONDS[0]), BEAT_SECONDS[1])
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def check(self) -> None:
        """Raise Gone when the work has to stop."""
        if self.state != "held" or self._stopping.is_set():
            raise Gone(self.state)

    def patiently(self, attempt: Callable[[], T]) -> T:
        """Make a call that must not be lost, again and again while the registry is unreachable.

        It gives up after a quarter of an hour. Pass only calls that may arrive twice. Raises Gone
        when the work has to stop meanwhile.
        """

        def checked() -> T:
            self.check()
            try:
                return attempt()
            except Conflict as error:
                if error.kind == "lease-lost":
                    self.state = "lost"
                    raise Gone("lost") from error
                raise

        def on_wait(error: Exception, pause: float) -> None:
            LOG.warning(
                "the registry is unreachable; the work goes on, next attempt in %.0f s: %s",
                pause,
                error,
            )

        return RETRY.call(checked, wait=self._stopping.wait, on_wait=on_wait)

    def _beat(self) -> None:
        while not self._over.wait(self._every):
            try:
                if self._registry.beat(self.work.id, self.work.attempt, self.progress):
                    self.state = "cancelled"
            except (Conflict, NotFound, Unauthenticated, Forbidden) as error:
                LOG.warning("the lease of %s is lost: %s", self.work.id, error)
                self.state = "lost"
            except RegistryError as error:
                # The lease may still be valid. If another worker gets the work, the next beat that
                # arrives says so.
                LOG.warning("the beat for %s did not arrive: %s", self.work.id, error)
            if self.state != "held":
                return
