"""docs/demo.md: what a demo typed and what came of it, written from the demo's result file."""

from __future__ import annotations

import re
import shlex
from itertools import pairwise
from typing import Any

from trainer.demo.__main__ import STEPS

WIDTH = 112

INTRODUCTION = """\
# The demo, step by step

`make demo` takes one adapter from its data to production, back, and through an audit. Below are
the commands of one run and what came of them. Each command was typed by the account before the `$`,
which has just the role it needs; training, evaluation and traffic happen in between. The figures of
the same run are in the [README](../README.md#try-it) and in [performance.md](performance.md).

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
    parts = [INTRODUCTION, _block(transcript["up"])]
    for number, step in enumerate(STEPS, 1):
        title = " ".join((step.__doc__ or "").split()).rstrip(".")
        parts += [f"## {number}. {title}\n", _block(transcript[step.__name__])]
    return "\n".join([*filter(None, parts), ENDING])


def _block(lines: list[str]) -> str:
    return "\n".join(["```console", *map(_line, lines), "```\n"]) if lines else ""


def _line(line: str) -> str:
    """A command, broken before its options where it is long; or what was printed, as it was."""
    match = re.fullmatch(r"(\w* ?\$) (.+)", line)
    if match is None:
        return line
    rows = [match[1]]
    for part in _parts(shlex.split(match[2])):
        if len(rows[-1]) + len(part) > WIDTH:
            rows[-1] += " \\"
            rows.append("     ")
        rows[-1] += f" {part}"
    return "\n".join(rows)


def _parts(words: list[str]) -> list[str]:
    """The words as a shell reads them, each option together with its value."""
    parts: list[str] = []
    for before, word in pairwise(["", *words]):
        quoted = shlex.quote(word)
        if before.startswith("--") and not word.startswith("--"):
            parts[-1] += f" {quoted}"
        else:
            parts.append(quoted)
    return parts
