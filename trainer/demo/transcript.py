"""docs/demo.md: what a demo typed and what came of it, written from the demo's result file."""

from __future__ import annotations

import shlex
from typing import Any

from trainer.demo.__main__ import STEPS

WIDTH = 112

INTRODUCTION = """\
# The demo, step by step

`make demo` takes one adapter from its data to production, back, and through an audit. Below is what
it printed in one run. Each command was typed by the account before the `$`, which has just the role
it needs; training, evaluation and traffic happen in between. The figures of the same run are in the
[README](../README.md#try-it) and in [performance.md](performance.md).

A demo that was killed goes on where it was: each step first looks for what is done already.
`DEMO_BASE=tiny` runs the same steps in about a minute, with a random model.

The rows are split by text after duplicates were removed, so one licence may stand on both sides.
The gain shows that unseen notices are read, not that unseen licences are known. The weights are
dequantised from a Q4_1 file, as the metadata of the base says.
"""

ENDING = """\
`make docs` writes this page from `docs/demo-result.json`, the result file of one whole run.
"""


def page(result: dict[str, Any]) -> str:
    """The page: the title of each step as the code has it now, its lines as the demo printed
    them.
    """
    transcript = result["transcript"]
    parts = [INTRODUCTION]
    for number, step in enumerate(STEPS, 1):
        title = " ".join((step.__doc__ or "").split()).rstrip(".")
        parts.append(f"## {number}. {title}\n")
        if lines := transcript[step.__name__]:
            block = "\n".join(_line(line) for line in lines)
            parts.append(f"```console\n{block}\n```\n")
    return "\n".join([*parts, ENDING])


def _line(line: str) -> str:
    """A command, broken between its words where it is long; or what was printed, as it was."""
    who, typed, command = line.partition(" $ ")
    if not typed:
        return line
    rows = [f"{who} $"]
    for word in shlex.split(command):
        quoted = shlex.quote(word)
        if len(rows[-1]) + len(quoted) > WIDTH:
            rows[-1] += " \\"
            rows.append("     ")
        rows[-1] += f" {quoted}"
    return "\n".join(rows)
