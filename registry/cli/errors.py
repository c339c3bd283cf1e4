"""The command line's one table of refusals: exit codes, three lines for people, a problem object
for machines.
"""

from __future__ import annotations

import json
import os
from typing import Any

import click

from registry.errors import BundleRejected, RegistryError

INTERRUPTED = 130

# family -> (exit code, what it is in words)
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
    "unavailable": (7, "Out of reach"),
    "unverified": (8, "Does not verify"),
}


def exit_code(error: RegistryError) -> int:
    """0 ok, 1 fault, 2 usage, 3 refused, 4 auth, 5 not found, 6 conflict, 7 unreachable, 8 does not
    verify.
    """
    return EXITS[error.family][0]


def report(error: RegistryError, as_json: bool) -> None:
    """Say on stderr what happened, why, and what to do."""
    if as_json:
        click.echo(json.dumps(problem(error), ensure_ascii=False), err=True)
        return
    what = click.style(f"✗ {EXITS[error.family][1]} ({error.kind})", fg="red")
    click.echo(
        what, err=True, color=False if os.environ.get("NO_COLOR") else None
    )  # the command's context is gone
    for line in _detail(error):
        click.echo(f"  {line}", err=True)
    if error.fix:
        click.echo(f"  {error.fix}", err=True)
    if isinstance(error, BundleRejected):
        for defect in error.defects:
            where = f" {defect.where}" if defect.where else ""
            click.echo(
                f"  - {defect.file}{where}: {defect.detail} ({defect.rule})\n    {defect.fix}",
                err=True,
            )


def _detail(error: RegistryError) -> list[str]:
    """The detail; several problems with a document's fields stand on a line each."""
    problems = error.facts.get("problems")
    if not isinstance(problems, dict) or len(problems) < 2:
        return [error.detail]
    what = error.detail.partition(":")[0]
    return [f"{what}:", *(f"- {path}: {text}" for path, text in problems.items())]


def problem(error: RegistryError) -> dict[str, Any]:
    """The error as an RFC 9457 object, as the REST door words it, with the exit code in place of a
    status.
    """
    document = error.document()
    facts = dict(document["facts"])
    return document | {
        "request_id": facts.pop("request_id", None),
        "facts": facts,
        "exit_code": exit_code(error),
    }
