"""Follow queued work to its end: one bar on stderr, one line a change where there is no
terminal.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import click

from registry.cli.output import cell, note, state
from registry.errors import Fault

POLL = 1.0  # seconds between two looks
COUNTS = (("step", "steps"), ("item", "items"))  # how training and evaluation count their way
TOLD = ("phase", "loss")  # what else a person wants to see on the way; the rest is in the meters
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
    """Look again each second until the work ends, then return it; Fault when it did not succeed."""
    work, said = look(), ""
    while work.state not in ENDED:
        said = _say(label, work, said)
        time.sleep(POLL)
        work = look()
    _say(label, work, said)
    if sys.stderr.isatty():
        note("")
    if work.state != "succeeded":
        raise Fault(
            "work-cancelled" if work.state == "cancelled" else "work-failed",
            f"{label}: {work.error or work.state}.",
            "Fix the cause and queue it again.",
        )
    return work


def _say(label: str, work: Work, said: str) -> str:
    """One line, in place on a terminal; elsewhere only when state or tenth of the way changes."""
    line, share = f"{label}  {state(work.state)}", 0.0
    for count, of in COUNTS:
        done, total = work.progress.get(count), work.progress.get(of)
        if isinstance(done, int) and isinstance(total, int) and total > 0:
            share = done / total
            line += f"  {'█' * round(share * 24):░<24}  {done}/{total}"
    told = {name: work.progress[name] for name in TOLD if name in work.progress}
    line += f"  {cell(told)}" if told else ""
    if sys.stderr.isatty():
        click.echo(f"\r\033[K{line}", err=True, nl=False)
        return line
    key = f"{work.state} {int(share * 10)}"
    if key != said:
        note(line)
    return key
