"""Reviews: submit; review ls, show, approve, reject, request-changes, withdraw."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from registry.cli.gates import show_verdict
from registry.cli.output import emit, fields, json_option, state, table
from registry.cli.parameters import FOR_USE_CASE, IN_ENVIRONMENT, REASON
from registry.cli.session import connect, signer

if TYPE_CHECKING:
    from registry.client.reviews import Verdict
    from registry.views.reviews import ReviewView


@click.command()
@click.argument("ref", metavar="REF")
@IN_ENVIRONMENT
@FOR_USE_CASE
@click.option("--note", "text", required=True, help="What the reviewers should know.")
@json_option
def submit(ref: str, environment: str, usecase: str, text: str, as_json: bool) -> None:
    """Submit a version for review.

    \b
    Example:
      countersign submit acme/claims@v1 --env production --usecase acme/claims --note "The first"
    """
    with connect() as registry:
        submitted = registry.submit(ref, environment, usecase, text)
    if as_json:
        emit(submitted)
        return
    fields(
        f"Review {submitted.review}  {state('open')}",
        [("Evidence root", submitted.evidence_root), ("Gate", state(submitted.verdict))],
    )


@click.group()
def review() -> None:
    """List, show, decide and withdraw reviews.

    \b
    Example:
      countersign review approve 7 --reason "Gates pass, 20 samples read"
    """


@review.command("ls")
@click.option(
    "--state", "in_state", help="Only reviews in this state: open, approved, rejected, ..."
)
@json_option
def list_reviews(in_state: str | None, as_json: bool) -> None:
    """List reviews, newest first.

    \b
    Example:
      countersign review ls --state open
    """
    with connect() as registry:
        reviews = registry.reviews(in_state)
    if as_json:
        emit(reviews)
        return
    rows = [
        (
            review.number,
            review.version,
            review.environment,
            state(review.state),
            state(review.verdict.outcome),
            f"{review.approvals} of {review.approvals_needed}",
            review.opened_at,
        )
        for review in reviews
    ]
    table(["Review", "Version", "Environment", "State", "Gate", "Approvals", "Opened"], rows)


@review.command("show")
@click.argument("number", metavar="N", type=int)
@json_option
def show(number: int, as_json: bool) -> None:
    """Show one review with its evidence, gate and votes.

    \b
    Example:
      countersign review show 7
    """
    with connect() as registry:
        shown = registry.review(number)
        _show(shown, as_json, registry.version(shown.version).risks)


def _add_vote(verb: str, verdict: Verdict, sentence: str) -> None:
    """Add one kind of vote to the group. It signs the whole decision with the person's own key."""

    @review.command(
        verb,
        help=f"{sentence}.\n\nThe vote is signed with your own key.\n\n"
        f"\b\nExample:\n  countersign review {verb} 7 --reason "
        '"Gates pass, 20 samples read"',
    )
    @click.argument("number", metavar="N", type=int)
    @click.option("--reason", required=True, help="Why. Your signature covers a commitment to it.")
    @click.option(
        "--key-file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Your private key; by default signing.key in the configuration folder.",
    )
    @json_option
    def vote(number: int, reason: str, key_file: Path | None, as_json: bool) -> None:
        sign = signer(key_file, "decision")
        with connect() as registry:
            _show(registry.vote(number, verdict, reason, sign), as_json)


_add_vote("approve", "approve", "Approve a version")
_add_vote("reject", "reject", "Reject a version")
_add_vote("request-changes", "request_changes", "Request changes before a version may ship")


@review.command("withdraw")
@click.argument("number", metavar="N", type=int)
@REASON
@json_option
def withdraw(number: int, reason: str, as_json: bool) -> None:
    """Withdraw a submission.

    \b
    Example:
      countersign review withdraw 7 --reason "A better version is coming"
    """
    with connect() as registry:
        _show(registry.withdraw(number, reason), as_json)


def _show(review: ReviewView, as_json: bool, risks: Sequence[str] = ()) -> None:
    if as_json:
        emit(review)
        return
    fields(
        f"Review {review.number}  {state(review.state)}",
        [
            ("Version", review.version),
            ("Environment", review.environment),
            ("Use case", f"{review.use_case}, version {review.use_case_version}"),
            ("Purpose", review.purpose),
            ("Risk tier", review.risk_tier),
            ("Suite", review.suite),
            *(
                ("Trained on", f"{data['ref']}: {data['personal_data']}, {data['licence']}")
                for data in review.evidence.get("datasets") or ()
            ),
            *(("Risk", risk) for risk in risks),
            ("Note", review.note),
            ("Submitted by", review.submitted_by),
            ("Opened", review.opened_at),
            ("Decided", review.decided_at),
            ("Expires", review.expires_at),
            ("Evidence root", review.evidence_root),
            ("Approvals", f"{review.approvals} of {review.approvals_needed}"),
            ("May not vote", review.excluded),
        ],
    )
    show_verdict(review.verdict)
    if review.votes:
        rows = [
            (
                vote.account,
                vote.team,
                vote.verdict.replace("_", " "),
                vote.reason,
                vote.key,
                vote.at,
            )
            for vote in review.votes
        ]
        table(["Voter", "Team", "Verdict", "Reason", "Key", "At"], rows)
