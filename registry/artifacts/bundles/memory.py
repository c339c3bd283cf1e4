"""How much memory what strangers sent may take, all of them together: who would take more waits for
room, in order.

The rules bound what one bundle costs to judge; here it is seen to that a hundred at once cost no
more.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from registry.errors import Unavailable

SIZE = 112 << 20
"""Bytes that bundles may take while they are judged: as much as the costliest alone."""
LINE = 16
"""So many wait; each keeps one of the 40 threads that answer requests."""
PATIENCE = 30.0


class Held:
    """What one of them has taken."""

    def __init__(self, room: Room, size: int) -> None:
        self._room, self._size = room, size

    def keep(self, size: int) -> None:
        """Give back all but so many bytes; more than were taken it never is."""
        kept = min(size, self._size)
        self._room._back(self._size - kept)
        self._size = kept


class Room:
    """So many bytes, taken in the order in which they are asked for, so that large ones are not
    passed for ever.
    """

    def __init__(self, size: int = SIZE, line: int = LINE, patience: float = PATIENCE) -> None:
        self._size = self._free = size
        self._most, self._patience = line, patience
        self._changed = threading.Condition()
        self._line: deque[object] = deque()

    @contextmanager
    def take(self, size: int) -> Iterator[Held]:
        """So many bytes, or all there are; Unavailable (`judging-busy`) when too many wait, or it
        takes too long.
        """
        held = Held(self, min(size, self._size))
        self._wait(held)
        try:
            yield held
        finally:
            held.keep(0)

    @property
    def waiting(self) -> int:
        """How many stand in line."""
        return len(self._line)

    def _wait(self, held: Held) -> None:
        until = time.monotonic() + self._patience
        with self._changed:
            if len(self._line) >= self._most:
                raise _busy(f"{len(self._line)} bundles wait for their turn already.")
            self._line.append(held)
            try:
                while self._line[0] is not held or self._free < held._size:
                    if not self._changed.wait(until - time.monotonic()):
                        raise _busy("The bundles before this one take too long to judge.")
                self._free -= held._size
            finally:
                self._line.remove(held)
                self._changed.notify_all()

    def _back(self, size: int) -> None:
        with self._changed:
            self._free += size
            self._changed.notify_all()


def _busy(detail: str) -> Unavailable:
    return Unavailable(
        "judging-busy",
        detail,
        retry_after=2,
        sent=False,
    )


JUDGING = Room()
"""That of this process."""
