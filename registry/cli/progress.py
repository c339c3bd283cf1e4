"""A progress bar for bytes: on stderr, only on a terminal, and never beside --json."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from registry.cli.output import note
from registry.client import Progress

WIDTH = 24
EVERY = 0.1
"""Seconds between two pictures."""
UNITS = ("B", "kB", "MB", "GB", "TB")


@contextmanager
def bar(label: str, size: int, as_json: bool) -> Iterator[Progress]:
    """Whoever sends `size` bytes tells this how far he is; where nobody looks it is one plain line,
    or none at all.
    """
    if as_json:
        yield Progress()
        return
    if not sys.stderr.isatty():
        note(f"{label}: {human(size)}")
        yield Progress()
        return
    shown = Bar(label, size, lambda text: click.echo(text, err=True, nl=False))
    try:
        yield shown
    finally:
        shown.close()
        if isinstance(sys.exception(), KeyboardInterrupt):
            note("Stopped. The same command goes on from here.")


class Bar(Progress):
    """One line that is drawn over: what is done, how fast, how long it will take, and what need not
    be sent.
    """

    def __init__(
        self,
        label: str,
        size: int,
        write: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._label, self._size, self._write, self._clock = label, size, write, clock
        self._done = self._hashed = self._spared = 0
        self._doing, self._began, self._before, self._drawn = "", clock(), 0, -EVERY
        self._draw()

    def __call__(self, n: int) -> None:
        self._phase("sending", self._done)
        self._came(n)

    def hashed(self, n: int) -> None:
        self._hashed += n
        self._phase("hashing", self._hashed - n)
        self._draw()

    def known(self, n: int) -> None:
        self._spared += n
        self._came(n)

    def resumed(self, n: int) -> None:
        self._spared += n
        self._write("\r\033[K")
        note(f"Resumed: {human(n)} were there.")
        self._phase("", 0)
        self._came(n)

    def close(self) -> None:
        """Draw it a last time, and say what was spared."""
        self._doing = ""
        self._draw(now=True)
        self._write("\n")
        if self._spared:
            note(f"{human(self._spared)} of {human(self._size)} were there already.")

    def _came(self, n: int) -> None:
        self._done += n
        if self._done >= self._size:
            self._phase("checked by the registry", 0)
        self._draw(now=self._done >= self._size)

    def _phase(self, doing: str, before: int) -> None:
        """Rates are those of hashing or of sending since it began."""
        if doing != self._doing:
            self._doing, self._began, self._before = doing, self._clock(), before

    def _draw(self, now: bool = False) -> None:
        moment = self._clock()
        if not now and moment - self._drawn < EVERY:
            return
        self._drawn = moment
        done = self._hashed if self._doing == "hashing" else self._done
        part = min(done / self._size, 1.0) if self._size else 1.0
        full = int(part * WIDTH)
        text = (
            f"[{'#' * full}{'-' * (WIDTH - full)}] {part:>4.0%}  {human(done)} of "
            f"{human(self._size)}"
        )
        took, came = moment - self._began, done - self._before
        if self._doing in ("hashing", "sending") and took > 1.0 and came > 0:
            left = max(self._size - done, 0) * took / came
            text += f"  {human(came / took)}/s  {_clock(left)} left"
        if self._doing not in ("", "sending"):
            text += f"  {self._doing}"
        room = shutil.get_terminal_size().columns - len(text) - 3
        label = (
            self._label
            if len(self._label) <= room
            else f"…{self._label[-max(room - 1, 0) :]}"
            if room > 8
            else ""
        )
        self._write(f"\r\033[K{label}  {text}" if label else f"\r\033[K{text}")


def human(size: float) -> str:
    """Bytes as people say them: 999 B, 1.5 MB, 12 GB."""
    for unit in UNITS:
        if size < 999.5 or unit == UNITS[-1]:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 9.95 else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return (
        f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"
    )
