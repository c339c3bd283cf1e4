"""`python -m trainer.demo.figures RESULT.json [FILE ...]`: write a demo's figures into the marked
blocks of the docs.

Every figure that the documentation quotes of the demo comes from a result file that a demo wrote,
and from nowhere else; a test compares the blocks with the committed one. Without FILE: README.md
and docs/performance.md.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from registry.errors import Invalid
from trainer.demo.table import TITLES

FILES = ("README.md", "docs/performance.md")
BLOCK = re.compile(r"(?<=<!-- figures: )(\w+)( -->\n).*?(?=<!-- /figures -->)", re.DOTALL)
NONE_YET = (
    "No result file is committed yet. `make demo` measures on your own machine and writes "
    "`var/demo/result.json`.\n"
)

Result = dict[str, Any]


def _rate(found: dict[str, Any]) -> str:
    return (
        f"{found['value']:.1%} of {found['n']} (95 % interval {found['low']:.1%} to "
        f"{found['high']:.1%})"
    )


def _table(head: tuple[str, str], rows: dict[str, str]) -> str:
    """Two columns of Markdown."""
    lines = [
        f"| {head[0]} | {head[1]} |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in rows.items()),
    ]
    return "\n".join(lines) + "\n"


def _machine(result: Result) -> dict[str, str]:
    """What it ran on, where the training run's report said so."""
    found = result["training"].get("environment")
    return (
        {
            "On": f"{found['platform']}, {found['device']}, {found['threads']} threads, "
            f"{found['dtype']}"
        }
        if found
        else {}
    )


def summary(result: Result) -> str:
    """What came out of the main job."""
    training, arms, log = result["training"], result["arms"], result["log"]
    loss = f"{training['loss_first']:.2f} to {training['loss_last']:.2f}"
    memory = f"{training['peak_memory_bytes'] / 2**20:,.0f} MB"
    rows = _machine(result) | {
        "Base, exactly right": _rate(result["accuracy_base"]),
        "Adapter, exactly right": _rate(result["accuracy_adapter"]),
        "Training": f"{training['steps']} steps in {training['seconds']:.0f} s, loss {loss}",
        "Peak memory of training": memory,
        "Canary at 5 %": f"{arms['candidate']} of {arms['requests']} requests",
        "Log": f"{log['events']} events, {log['votes']} signed votes, valid offline",
        "The whole demo": f"{result['total_seconds']:.0f} s",
    }
    head = (f"Main job on {result['base']}", f"measured {result['began'][:10]}")
    return _table(head, rows)


def times(result: Result) -> str:
    """How long each step took, and how fast the gateway followed."""
    rows = {
        title: f"{result['seconds'][step]:.1f}"
        for step, title in TITLES.items()
        if step in result["seconds"]
    }
    rows["From `up` to ready"] = f"{result['ready_seconds']:.1f}"
    for step in ("promotion", "rollback", "promotion_again"):
        followed = result[f"{step}_seconds_to_gateway"]
        rows[f"{TITLES[step]}, until the gateway serves it"] = f"{followed:.2f}"
    rows["In all, start and stop included"] = f"{result['total_seconds']:.1f}"
    rate = f"\nThe gateway answered {result['requests_per_second']:.2f} requests a second.\n"
    return _table((f"Step, on {result['base']}", "seconds"), rows) + rate


BLOCKS: dict[str, Callable[[Result], str]] = {"summary": summary, "times": times}


def rewrite(text: str, result: Result | None) -> str:
    """The document with its blocks made anew; without a result they say that there is none yet.

    Raises Invalid `bad-figures` for a demo that did not come to its end.
    """
    if result is not None and "total_seconds" not in result:
        raise Invalid(
            "bad-figures",
            "This result is of a demo that did not end.",
        )

    def block(found: re.Match[str]) -> str:
        return found[1] + found[2] + (NONE_YET if result is None else BLOCKS[found[1]](result))

    return BLOCK.sub(block, text)


def main(arguments: list[str]) -> int:
    """Rewrite the files in place."""
    if not arguments:
        print(__doc__, file=sys.stderr)
        return 2
    result = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    for path in map(Path, arguments[1:] or FILES):
        path.write_text(rewrite(path.read_text(encoding="utf-8"), result), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
