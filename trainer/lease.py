"""A lease kept alive beside the work it covers, and one ear for the order to stop."""

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
BEAT = (
    1.0,
    3.0,
)  # seconds between beats: a third of the lease, within these bounds; people watch the progress
AWAY = Retry(
    lambda error: isinstance(error, (Unavailable, Fault)), patience=900.0, first=1.0, longest=30.0
)
"""A report is tried again for a quarter of an hour while the registry is away."""


class Gone(Exception):
    """The work is not ours any more: cancelled, taken over, or this worker was told to stop. There
    is nothing to do.
    """


class Lease:
    """One leased piece of work; `state` says whether it is still ours."""

    def __init__(self, registry: Countersign, work: WorkView, stopping: threading.Event) -> None:
        self.work = work
        self.progress: dict[str, Any] = {}
        self.state: Literal["held", "cancelled", "lost"] = "held"
        self._registry = registry
        self._stopping = stopping
        self._over = threading.Event()
        # Two clocks are compared here, so a wrong one is bounded rather than believed.
        left = (work.expires_at - datetime.now(UTC)).total_seconds()
        self._every = min(max(left / 3, BEAT[0]), BEAT[1])
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def check(self) -> None:
        """Raise Gone unless the work is still ours and wanted."""
        if self.state != "held" or self._stopping.is_set():
            raise Gone(self.state)

    def patiently(self, attempt: Callable[[], T]) -> T:
        """Tell the registry something that must not be lost: tried again while it is away, up to a
        quarter of an hour.

        Every such call of ours means the same when it arrives twice. Raises Gone when the lease
        ended meanwhile.
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
                "the registry is away; work goes on, the report is tried again in %.0f s: %s",
                pause,
                error,
            )

        return AWAY.call(checked, wait=self._stopping.wait, on_wait=on_wait)

    def _beat(self) -> None:
        while not self._over.wait(self._every):
            try:
                if self._registry.beat(self.work.id, self.work.attempt, self.progress):
                    self.state = "cancelled"
            except (Conflict, NotFound, Unauthenticated, Forbidden) as error:
                LOG.warning("the lease of %s is lost: %s", self.work.id, error)
                self.state = "lost"
            except RegistryError as error:
                # Away, not gone: if it stays away too long another worker gets the work, and the
                # next beat says so.
                LOG.warning("the beat for %s did not arrive: %s", self.work.id, error)
            if self.state != "held":
                return
