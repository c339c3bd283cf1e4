"""How the command line reports errors: exit codes, lines for people, JSON for programs."""

from __future__ import annotations

import json
import os
from typing import Any

import click

from registry.errors import BundleRejected, Defect, RegistryError

INTERRUPTED = 130

EXITS: dict[str, tuple[int, str]] = {
    "fault": (1, "Something broke"),
    "invalid": (2, "That is not valid"),
    "too-large": (2, "That is too large"),
    "refused": (3, "Refused by a rule"),
    "rejected": (3, "The bundle was refused"),
    "unauthenticated": (4, "Not signed in"),
    "forbidden": (4, "Not allowed"),
    "not-found": (5, "Not found"),
    "conflict": (6, "Conflict"),
    "unavailable": (7, "Unavailable"),
    "unverified": (8, "Does not verify"),
}
"""Family of errors -> (exit code, title)."""


def exit_code(error: RegistryError) -> int:
    """Return the exit code of an error's family."""
    return EXITS[error.family][0]


def report(error: RegistryError, as_json: bool) -> None:
    """Print on stderr what happened, why, and what to do."""
    if as_json:
        click.echo(json.dumps(problem(error), ensure_ascii=False), err=True)
        return
    what = click.style(f"✗ {EXITS[error.family][1]} ({error.kind})", fg="red")
    # The context of the command, which knows of NO_COLOR, has ended by now.
    click.echo(what, err=True, color=False if os.environ.get("NO_COLOR") else None)
    for line in _detail(error):
        click.echo(f"  {line}", err=True)
    if error.fix:
        click.echo(f"  {error.fix}", err=True)
    if isinstance(error, BundleRejected):
        for group in error.groups():
            click.echo("\n".join(f"  {line}" for line in _group(group)), err=True)


SHOWN_PLACES = 3
"""How many places of the same defect are named; --json lists them all."""


def _group(defects: list[Defect]) -> list[str]:
    """The lines of defects of one file, rule and fix: the first in full, and the others counted."""
    first = defects[0]
    where = f" {first.where}" if first.where else ""
    lines = [f"- {first.file}{where}: {first.detail} ({first.rule})"]
    places = [defect.where for defect in defects[1:] if defect.where]
    if len(defects) > 1:
        named = ", ".join(places[:SHOWN_PLACES])
        rest = len(defects) - 1 - len(places[:SHOWN_PLACES])
        others = f"{len(defects) - 1} more like it" + (f": {named}" if named else "")
        lines.append(f"  {others}{f' and {rest} others' if named and rest else ''}")
    return [*lines, f"  {first.fix}"]


def _detail(error: RegistryError) -> list[str]:
    """The lines of the detail: several problems of a document have one line each."""
    problems = error.facts.get("problems")
    if not isinstance(problems, dict) or len(problems) < 2:
        return [error.detail]
    what = error.detail.partition(":")[0]
    return [f"{what}:", *(f"- {path}: {text}" for path, text in problems.items())]


def problem(error: RegistryError) -> dict[str, Any]:
    """Return the error as an RFC 9457 object, as in REST, but with the exit code, not a status."""
    document = error.document()
    facts = dict(document["facts"])
    return document | {
        "request_id": facts.pop("request_id", None),
        "facts": facts,
        "exit_code": exit_code(error),
    }
