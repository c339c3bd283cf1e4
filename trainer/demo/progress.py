"""A progress bar: redrawn in place on a terminal, otherwise a plain line now and then."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TextIO

WIDTH = 30
"""Characters of the bar."""
QUIET_SECONDS = 10.0
"""The shortest time between two lines where the output is not a terminal."""


class Bar:
    """Shows the progress of one task. Its line ends with the `with` block."""

    def __init__(self, title: str, out: TextIO) -> None:
        self.title = title
        self.out = out
        self.live = out.isatty()
        self._last = 0.0
        self._text = ""

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.live and self._text:
            print(file=self.out, flush=True)

    def show(self, done: int, of: int, note: str) -> None:
        """Show `done` of `of` units and a note. While `of` is 0, show only the note."""
        filled = round(WIDTH * done / of) if of else 0
        bar = f" [{'=' * filled}{' ' * (WIDTH - filled)}] {done}/{of}" if of else ":"
        text = f"  {self.title}{bar} {note}"
        if text == self._text:
            return
        if self.live:
            print(f"\r{text:<100}", end="", file=self.out, flush=True)
        elif time.monotonic() - self._last > QUIET_SECONDS or (of and done == of):
            print(text, file=self.out, flush=True)
            self._last = time.monotonic()
        self._text = text
