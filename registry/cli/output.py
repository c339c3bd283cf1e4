"""How answers look: one JSON document, or tables with a glyph and a word for every state."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

LOOKS: dict[str, tuple[str, str | None]] = {
    "draft": ("○", None),
    "registered": ("●", None),
    "deprecated": ("–", None),
    "recalled": ("✗", "red"),
    "deleted": ("–", None),
    "discarded": ("–", None),
    "found": ("●", None),
    "refused": ("✗", "red"),
    "done": ("✓", "green"),
    "open": ("○", None),
    "approved": ("✓", "green"),
    "rejected": ("✗", "red"),
    "changes_requested": ("↺", "yellow"),
    "withdrawn": ("–", None),
    "expired": ("–", "yellow"),
    "voided": ("✗", "red"),
    "queued": ("○", None),
    "running": ("◆", "cyan"),
    "succeeded": ("✓", "green"),
    "failed": ("✗", "red"),
    "cancelled": ("–", None),
    "pass": ("✓", "green"),
    "fail": ("✗", "red"),
    "inconclusive": ("?", "yellow"),
    "serving": ("■", "green"),
    "canary": ("◆", "cyan"),
    "stopped": ("✗", "red"),
    "ok": ("✓", "green"),
    "fault": ("✗", "red"),
    "skipped": ("–", "yellow"),
    "valid": ("✓", "green"),
    "broken": ("✗", "red"),
    "current": ("●", "green"),
    "superseded": ("–", None),
}
"""State -> (glyph, colour). Glyph and word identify a state; the colour only repeats them."""


def json_option(command: Command) -> Command:
    """Add --json, which is the same for every command."""
    return click.option(
        "--json", "as_json", is_flag=True, help="Print one JSON document on stdout."
    )(command)


def emit(value: Any) -> None:
    """Print one JSON document on stdout, where nothing but data is printed."""
    click.echo(json.dumps(plain(value), indent=2, ensure_ascii=False))


def plain(value: Any) -> Any:
    """Convert views to JSON values, in the same form as REST."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return value if value is None or isinstance(value, str | int | float) else str(value)


def note(text: str) -> None:
    """Print a remark on stderr: it is not data."""
    click.echo(text, err=True)


def state(word: str) -> str:
    """Format a state as its glyph and word."""
    glyph, colour = LOOKS.get(word, ("·", None))
    return click.style(f"{glyph} {word.replace('_', ' ')}", fg=colour)


def cell(value: Any) -> str:
    """Format one value for people; no value is a dash."""
    if value is None or value == "" or value == []:
        return "–"
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    if isinstance(value, list | tuple):
        return ", ".join(cell(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {cell(item)}" for key, item in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def percent(basis_points: int) -> str:
    """Format basis points as a percentage: 500 is `5 %`."""
    return f"{basis_points / 100:g} %"


def table(
    heads: Sequence[str], rows: Sequence[Sequence[Any]], empty: str = "Nothing here yet."
) -> None:
    """Print aligned columns without borders, or one sentence on stderr if there are no rows."""
    if not rows:
        note(empty)
        return
    texts = [[cell(value) for value in row] for row in rows]
    widths = [
        max(len(click.unstyle(row[column])) for row in [heads, *texts])
        for column in range(len(heads))
    ]
    for row in ([click.style(head, bold=True) for head in heads], *texts):
        padded = [
            text + " " * (width - len(click.unstyle(text)))
            for text, width in zip(row, widths, strict=True)
        ]
        click.echo("  ".join(padded).rstrip())


def fields(title: str, pairs: Sequence[tuple[str, Any]]) -> None:
    """Print the name of a thing and its properties."""
    click.echo(click.style(title, bold=True))
    width = max((len(name) for name, _ in pairs), default=0)
    for name, value in pairs:
        click.echo(f"  {name:<{width}}  {cell(value)}")
