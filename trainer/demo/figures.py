"""Write the figures of a demo into the marked blocks of the documentation.

Usage: `python -m trainer.demo.figures RESULT.json [FILE ...]`; without FILE, README.md and
docs/performance.md. Every figure that the documentation quotes of the demo comes from a result file
that a demo wrote. A test compares the blocks with the committed one.
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


def _rate(accuracy: dict[str, Any]) -> str:
    interval = f"{accuracy['low']:.1%} to {accuracy['high']:.1%}"
    return f"{accuracy['value']:.1%} of {accuracy['n']} (95 % interval {interval})"


def _table(head: tuple[str, str], rows: dict[str, str]) -> str:
    """A Markdown table of two columns."""
    lines = [
        f"| {head[0]} | {head[1]} |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in rows.items()),
    ]
    return "\n".join(lines) + "\n"


def _machine(result: Result) -> dict[str, str]:
    """The machine that trained, where the report of the training run names it."""
    machine = result["training"].get("environment")
    if not machine:
        return {}
    facts = (machine["platform"], machine["device"], f"{machine['threads']} threads")
    return {"On": ", ".join((*facts, machine["dtype"]))}


def summary(result: Result) -> str:
    """The outcome of the main job, as a table."""
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
    """How long each step took and how fast the gateway followed, as a table."""
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
    """The document with its blocks written again; without a result they say that there is none.

    Raises Invalid `bad-figures` for a demo that did not run to its end.
    """
    if result is not None and "total_seconds" not in result:
        raise Invalid("bad-figures", "The demo of this result did not run to its end.")

    def block(match: re.Match[str]) -> str:
        return match[1] + match[2] + (NONE_YET if result is None else BLOCKS[match[1]](result))

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
