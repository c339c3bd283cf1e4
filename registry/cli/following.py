"""Follow queued work to its end, with a progress line on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import click

from registry.cli.output import cell, note, state
from registry.errors import Fault

POLL = 1.0
"""Seconds between two polls."""
BAR_CHARACTERS = 24
COUNTS = (("step", "steps"), ("item", "items"))
"""The members of a progress document that count: of training runs, and of eval runs."""
DETAILS = ("phase", "loss")
"""The other members that are shown. The rest is for the meters."""
ENDED = frozenset({"succeeded", "failed", "cancelled"})


class Work(Protocol):
    """What training runs and eval runs have in common."""

    @property
    def state(self) -> str: ...

    @property
    def progress(self) -> dict[str, Any]: ...

    @property
    def error(self) -> str | None: ...


Followed = TypeVar("Followed", bound=Work)


def follow(label: str, look: Callable[[], Followed]) -> Followed:
    """Poll until the work ends, then return it. Raises Fault unless it succeeded."""
    work, shown = look(), ""
    while work.state not in ENDED:
        shown = _show(label, work, shown)
        time.sleep(POLL)
        work = look()
    _show(label, work, shown)
    if sys.stderr.isatty():
        note("")
    if work.state != "succeeded":
        raise Fault(
            "work-cancelled" if work.state == "cancelled" else "work-failed",
            f"{label}: {work.error or work.state}.",
            "Fix the cause and queue it again.",
        )
    return work


def _show(label: str, work: Work, shown: str) -> str:
    """Draw one line over the last on a terminal; elsewhere print one a state and tenth of the way.

    Returns what was shown, for the next call to compare.
    """
    line, share = f"{label}  {state(work.state)}", 0.0
    for count, of in COUNTS:
        done, total = work.progress.get(count), work.progress.get(of)
        if isinstance(done, int) and isinstance(total, int) and total > 0:
            share = done / total
            line += f"  {'█' * round(share * BAR_CHARACTERS):░<{BAR_CHARACTERS}}  {done}/{total}"
    details = {name: work.progress[name] for name in DETAILS if name in work.progress}
    line += f"  {cell(details)}" if details else ""
    if sys.stderr.isatty():
        click.echo(f"\r\033[K{line}", err=True, nl=False)
        return line
    key = f"{work.state} {int(share * 10)}"
    if key != shown:
        note(line)
    return key
