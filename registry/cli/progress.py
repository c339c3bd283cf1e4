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

BAR_CHARACTERS = 24
DRAW_SECONDS = 0.1
"""Minimum time between two drawings."""
UNITS = ("B", "kB", "MB", "GB", "TB")


@contextmanager
def bar(label: str, size: int, as_json: bool) -> Iterator[Progress]:
    """Yield a progress bar for `size` bytes.

    Without a terminal it is one plain line, and with --json nothing.
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
            note("Stopped. Run the same command again to resume.")


class Bar(Progress):
    """One line, drawn over and over: what is done, how fast, and how long it will take."""

    def __init__(
        self,
        label: str,
        size: int,
        write: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._label, self._size, self._write, self._clock = label, size, write, clock
        self._done = self._hashed = self._not_sent = 0
        self._phase, self._phase_start, self._phase_base = "", clock(), 0
        self._drawn = -DRAW_SECONDS
        self._draw()

    def __call__(self, n: int) -> None:
        self._enter("sending", self._done)
        self._add(n)

    def hashed(self, n: int) -> None:
        self._hashed += n
        self._enter("hashing", self._hashed - n)
        self._draw()

    def known(self, n: int) -> None:
        self._not_sent += n
        self._add(n)

    def resumed(self, n: int) -> None:
        self._not_sent += n
        self._write("\r\033[K")
        note(f"Resumed: the registry has {human(n)} from an earlier attempt.")
        self._enter("", 0)
        self._add(n)

    def close(self) -> None:
        """Draw it a last time, and say how many bytes did not have to be sent."""
        self._phase = ""
        self._draw(now=True)
        self._write("\n")
        if self._not_sent:
            note(f"The registry already had {human(self._not_sent)} of {human(self._size)}.")

    def _add(self, n: int) -> None:
        self._done += n
        if self._done >= self._size:
            self._enter("checked by the registry", 0)
        self._draw(now=self._done >= self._size)

    def _enter(self, phase: str, base: int) -> None:
        """Start a phase at `base` bytes. Rates are those of the current phase since its start."""
        if phase != self._phase:
            self._phase, self._phase_start, self._phase_base = phase, self._clock(), base

    def _draw(self, now: bool = False) -> None:
        moment = self._clock()
        if not now and moment - self._drawn < DRAW_SECONDS:
            return
        self._drawn = moment
        done = self._hashed if self._phase == "hashing" else self._done
        share = min(done / self._size, 1.0) if self._size else 1.0
        full = int(share * BAR_CHARACTERS)
        text = (
            f"[{'#' * full}{'-' * (BAR_CHARACTERS - full)}] {share:>4.0%}  "
            f"{human(done)} of {human(self._size)}"
        )
        seconds, count = moment - self._phase_start, done - self._phase_base
        if self._phase in ("hashing", "sending") and seconds > 1.0 and count > 0:
            remaining = max(self._size - done, 0) * seconds / count
            text += f"  {human(count / seconds)}/s  {_clock(remaining)} left"
        if self._phase not in ("", "sending"):
            text += f"  {self._phase}"
        label = self._fitting_label(shutil.get_terminal_size().columns - len(text) - 3)
        self._write(f"\r\033[K{label}  {text}" if label else f"\r\033[K{text}")

    def _fitting_label(self, columns: int) -> str:
        """The label, cut to its end to fit the columns; empty where too little would be left."""
        if len(self._label) <= columns:
            return self._label
        return f"…{self._label[-(columns - 1) :]}" if columns > 8 else ""


def human(size: float) -> str:
    """Format bytes for people: 999 B, 1.5 MB, 12 GB."""
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
