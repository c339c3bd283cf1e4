"""How people decide: who may vote, what exactly a person signs, and what the votes come to."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from registry.errors import Invalid, Refused
from registry.rules.policies import Quorum

VERDICTS = ("approve", "reject", "request_changes")


@dataclass(frozen=True, slots=True)
class Ballot:
    """One vote, as far as counting needs it."""

    account: UUID
    team: str | None
    verdict: str


def commitment(salt: bytes, reason: str) -> str:
    """What a signed decision holds of its reason, so that the text can be erased and the signature
    stays good.
    """
    return "sha256:" + hashlib.sha256(salt + reason.encode()).hexdigest()


def check_verdict(verdict: str) -> str:
    """One of the three verdicts."""
    if verdict not in VERDICTS:
        raise Invalid(
            "bad-verdict",
            f"There is no verdict '{verdict[:40]}'.",
            f"Use one of {', '.join(VERDICTS)}.",
        )
    return verdict


def check_reason(reason: str) -> str:
    """A reason of at least ten characters: auditors read it."""
    text = reason.strip()
    if not 10 <= len(text) <= 4000:
        raise Invalid(
            "reason-missing",
            "A decision needs a reason of 10 to 4000 characters.",
            "Write at least one sentence. Auditors read this.",
        )
    return text


def check_voter(
    voter: UUID, name: str, excluded: Mapping[UUID, str], ballots: Sequence[Ballot], review: int
) -> None:
    """Refuse whoever made, submitted or fed the version, and whoever has voted."""
    if voter in excluded:
        raise Refused(
            "self-approval",
            f"{name} {excluded[voter]}, so {name} can't decide on it.",
            subject=f"review:{review}",
        )
    if any(ballot.account == voter for ballot in ballots):
        raise Refused(
            "already-voted",
            f"{name} has voted in review {review}.",
            subject=f"review:{review}",
        )


def check_decision(signed: Mapping[str, Any], expected: Mapping[str, Any], review: int) -> None:
    """The decision signed must be about exactly this review; every field that differs is named."""
    wrong = sorted(key for key in {*signed, *expected} if signed.get(key) != expected.get(key))
    if wrong:
        raise Refused(
            "decision-mismatch",
            f"The decision signed differs from review {review} in {', '.join(wrong)}.",
            subject=f"review:{review}",
        )


def outcome(quorum: Quorum, ballots: Sequence[Ballot]) -> str:
    """What the votes come to: rejected and changes_requested at the first such vote, approved at
    the quorum, else open.
    """
    if any(ballot.verdict == "reject" for ballot in ballots):
        return "rejected"
    if any(ballot.verdict == "request_changes" for ballot in ballots):
        return "changes_requested"
    people = {ballot.account for ballot in ballots}
    teams = {ballot.team for ballot in ballots if ballot.team is not None}
    enough = len(people) >= quorum.approvals and (
        not quorum.distinct_teams or len(teams) >= quorum.approvals
    )
    return "approved" if enough else "open"
