"""How much memory bundles may take while they are judged, all of them together.

Other rules limit what one bundle costs to judge. This one keeps a hundred at once within the same
limit: a request that needs more memory than is free waits for it, in order of arrival.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from registry.errors import Unavailable

MAX_JUDGING_BYTES = 112 << 20
"""Bytes that bundles may take while they are judged: the cost of the most expensive one."""
MAX_WAITING = 16
"""How many may wait; each occupies one of the 40 threads that answer requests."""
MAX_WAIT_SECONDS = 30.0


class Reservation:
    """The memory that one bundle has reserved."""

    def __init__(self, room: Room, size: int) -> None:
        self._room, self._size = room, size

    def shrink(self, size: int) -> None:
        """Return all but this many bytes; a reservation never grows."""
        remaining = min(size, self._size)
        self._room._release(self._size - remaining)
        self._size = remaining


class Room:
    """A number of bytes, granted in the order of the requests.

    The order keeps a large request from being overtaken by small ones forever.
    """

    def __init__(
        self,
        size: int = MAX_JUDGING_BYTES,
        line: int = MAX_WAITING,
        patience: float = MAX_WAIT_SECONDS,
    ) -> None:
        self._size = self._free = size
        self._max_waiting, self._patience = line, patience
        self._changed = threading.Condition()
        self._line: deque[object] = deque()

    @contextmanager
    def take(self, size: int) -> Iterator[Reservation]:
        """Reserve this many bytes, or all there are.

        Raises Unavailable (`judging-busy`) when too many wait already or the wait is too long.
        """
        reservation = Reservation(self, min(size, self._size))
        self._wait(reservation)
        try:
            yield reservation
        finally:
            reservation.shrink(0)

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._line)

    def _wait(self, reservation: Reservation) -> None:
        deadline = time.monotonic() + self._patience
        with self._changed:
            if len(self._line) >= self._max_waiting:
                raise _busy(f"{len(self._line)} bundles are already waiting to be judged.")
            self._line.append(reservation)
            try:
                while self._line[0] is not reservation or self._free < reservation._size:
                    if not self._changed.wait(deadline - time.monotonic()):
                        raise _busy("The bundles before this one take too long to judge.")
                self._free -= reservation._size
            finally:
                self._line.remove(reservation)
                self._changed.notify_all()

    def _release(self, size: int) -> None:
        with self._changed:
            self._free += size
            self._changed.notify_all()


def _busy(detail: str) -> Unavailable:
    return Unavailable("judging-busy", detail, retry_after=2, sent=False)


JUDGING = Room()
"""The room of this process."""
