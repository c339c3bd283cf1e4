"""Decide together: gate check, submit, review."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from registry.cli.output import emit, fields, json_option, state, table
from registry.cli.session import connect, signer
from registry.errors import Refused
from registry.rules.refs import ENVIRONMENTS

if TYPE_CHECKING:
    from registry.client.reviews import Verdict
    from registry.views.evals import VerdictView
    from registry.views.reviews import ReviewView

ENVIRONMENT = click.Choice(ENVIRONMENTS)


@click.group()
def gate() -> None:
    """Check evidence against a policy.

    \b
    Example:
      countersign gate check acme/claims@v1 --env production --usecase acme/claims
    """


@gate.command("check")
@click.argument("ref", metavar="REF")
@click.option("--env", "environment", required=True, type=ENVIRONMENT)
@click.option("--usecase", required=True, metavar="team/name", help="The use case it is to serve.")
@json_option
def check(ref: str, environment: str, usecase: str, as_json: bool) -> None:
    """Judge a version's evidence by an environment's policy; exit 3 unless it passes.

    \b
    Example:
      countersign gate check acme/claims@v1 --env production --usecase acme/claims
    """
    with connect() as registry:
        verdict = registry.gate(ref, environment, usecase)
    if as_json:
        emit(verdict)
    else:
        _show_verdict(verdict)
    if verdict.outcome != "pass":
        short = [
            f"{rule.rule} ({rule.outcome})" for rule in verdict.rules if rule.outcome != "pass"
        ]
        raise Refused(
            "gate-fail" if verdict.outcome == "fail" else "gate-inconclusive",
            f"{ref} does not pass {verdict.policy}: {', '.join(short)}.",
            "Supply what is missing, or make a better version; no data is never a pass.",
        )


@click.command()
@click.argument("ref", metavar="REF")
@click.option("--env", "environment", required=True, type=ENVIRONMENT)
@click.option("--usecase", required=True, metavar="team/name", help="The use case it is to serve.")
@click.option("--note", "text", required=True, help="What the reviewers should know.")
@json_option
def submit(ref: str, environment: str, usecase: str, text: str, as_json: bool) -> None:
    """Submit a version for review.

    \b
    Example:
      countersign submit acme/claims@v1 --env production --usecase acme/claims --note "The first"
    """
    with connect() as registry:
        opened = registry.submit(ref, environment, usecase, text)
    if as_json:
        emit(opened)
    else:
        fields(
            f"Review {opened.review}  {state('open')}",
            [
                ("Evidence root", opened.evidence_root),
                ("Gate", state(opened.verdict)),
            ],
        )


@click.group()
def review() -> None:
    """Reviews: list, show, decide with a signature, withdraw.

    \b
    Example:
      countersign review approve 7 --reason "Gates pass, 20 samples read"
    """


@review.command("ls")
@click.option("--state", "wanted", help="Only those in one state: open, approved, rejected, ...")
@json_option
def list_reviews(wanted: str | None, as_json: bool) -> None:
    """List reviews, newest first.

    \b
    Example:
      countersign review ls --state open
    """
    with connect() as registry:
        reviews = registry.reviews(wanted)
    if as_json:
        emit(reviews)
    else:
        rows = [
            (
                one.number,
                one.version,
                one.environment,
                state(one.state),
                state(one.verdict.outcome),
                f"{one.approvals} of {one.approvals_needed}",
                one.opened_at,
            )
            for one in reviews
        ]
        table(["Review", "Version", "Environment", "State", "Gate", "Approvals", "Opened"], rows)


@review.command("show")
@click.argument("number", metavar="N", type=int)
@json_option
def show(number: int, as_json: bool) -> None:
    """Show one review: evidence, rules, votes, who is excluded.

    \b
    Example:
      countersign review show 7
    """
    with connect() as registry:
        _show(registry.review(number), as_json)


def _decide(verb: str, verdict: Verdict, sentence: str) -> None:
    """Add one verb of decision to the group; each signs the whole decision with the person's own
    key.
    """

    @review.command(
        verb,
        help=f"{sentence}, signed with your own key.\n\n\b\nExample:\n  countersign review {verb} "
        "7 --reason"
        ' "Gates pass, 20 samples read"',
    )
    @click.argument("number", metavar="N", type=int)
    @click.option("--reason", required=True, help="Why; it is bound into what you sign.")
    @click.option(
        "--key-file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Where your private key lies.",
    )
    @json_option
    def decide(number: int, reason: str, key_file: Path | None, as_json: bool) -> None:
        sign = signer(key_file, "decision")
        with connect() as registry:
            _show(registry.vote(number, verdict, reason, sign), as_json)


_decide("approve", "approve", "Approve a version")
_decide("reject", "reject", "Reject a version")
_decide("request-changes", "request_changes", "Ask for changes before a version may ship")


@review.command("withdraw")
@click.argument("number", metavar="N", type=int)
@click.option("--reason", required=True, help="Why.")
@json_option
def withdraw(number: int, reason: str, as_json: bool) -> None:
    """Take a submission back.

    \b
    Example:
      countersign review withdraw 7 --reason "A better version is coming"
    """
    with connect() as registry:
        _show(registry.withdraw(number, reason), as_json)


def _show(one: ReviewView, as_json: bool) -> None:
    if as_json:
        emit(one)
        return
    fields(
        f"Review {one.number}  {state(one.state)}",
        [
            ("Version", one.version),
            ("Environment", one.environment),
            ("Use case", one.use_case),
            ("Note", one.note),
            ("Submitted by", one.submitted_by),
            ("Opened", one.opened_at),
            ("Decided", one.decided_at),
            ("Expires", one.expires_at),
            ("Evidence root", one.evidence_root),
            ("Approvals", f"{one.approvals} of {one.approvals_needed}"),
            ("May not vote", one.excluded),
        ],
    )
    _show_verdict(one.verdict)
    if one.votes:
        rows = [
            (
                vote.account,
                vote.team,
                vote.verdict.replace("_", " "),
                vote.reason,
                vote.key,
                vote.at,
            )
            for vote in one.votes
        ]
        table(["Voter", "Team", "Verdict", "Reason", "Key", "At"], rows)


def _show_verdict(verdict: VerdictView) -> None:
    click.echo(f"{state(verdict.outcome)}  by {verdict.policy}")
    rows = [(rule.rule, state(rule.outcome), rule.detail) for rule in verdict.rules]
    table(["Rule", "Result", "Detail"], rows, "The policy has no rule.")
