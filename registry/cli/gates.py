"""Gates: gate check."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from registry.cli.output import emit, json_option, state, table
from registry.cli.parameters import FOR_USE_CASE, IN_ENVIRONMENT
from registry.cli.session import connect
from registry.errors import Refused

if TYPE_CHECKING:
    from registry.views.evals import VerdictView


@click.group()
def gate() -> None:
    """Check a version's evidence against a policy.

    \b
    Example:
      countersign gate check acme/claims@v1 --env production --usecase acme/claims
    """


@gate.command("check")
@click.argument("ref", metavar="REF")
@IN_ENVIRONMENT
@FOR_USE_CASE
@json_option
def check(ref: str, environment: str, usecase: str, as_json: bool) -> None:
    """Judge a version's evidence by an environment's policy.

    Exit with 3 unless it passes.

    \b
    Example:
      countersign gate check acme/claims@v1 --env production --usecase acme/claims
    """
    with connect() as registry:
        verdict = registry.gate(ref, environment, usecase)
    if as_json:
        emit(verdict)
    else:
        show_verdict(verdict)
    if verdict.outcome != "pass":
        not_passed = [
            f"{rule.rule} ({rule.outcome})" for rule in verdict.rules if rule.outcome != "pass"
        ]
        raise Refused(
            "gate-fail" if verdict.outcome == "fail" else "gate-inconclusive",
            f"{ref} does not pass {verdict.policy}: {', '.join(not_passed)}.",
            "Supply the missing evidence, or make a better version. No data is never a pass.",
        )


def show_verdict(verdict: VerdictView) -> None:
    """Show the outcome of a gate and of each of its rules."""
    click.echo(f"{state(verdict.outcome)}  by {verdict.policy}")
    rows = [(rule.rule, state(rule.outcome), rule.detail) for rule in verdict.rules]
    table(["Rule", "Result", "Detail"], rows, "The policy has no rule.")
