"""How people decide: who may vote, what exactly they sign, and the outcome of the votes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from registry.errors import Invalid, Refused
from registry.rules.policies import Quorum

VERDICTS = ("approve", "reject", "request_changes")


STATES_IN_WORDS = {"changes_requested": "closed: its reviewers asked for changes"}


def in_words(state: str) -> str:
    """The state of a review after "Review 3 is"."""
    return STATES_IN_WORDS.get(state, state)


@dataclass(frozen=True, slots=True)
class Ballot:
    """One vote, as far as counting needs it."""

    account: UUID
    team: str | None
    verdict: str


def commitment(salt: bytes, reason: str) -> str:
    """The salted digest of a reason that a signed decision contains instead of the text.

    The text can then be erased, and the signature remains valid.
    """
    return "sha256:" + hashlib.sha256(salt + reason.encode()).hexdigest()


def check_verdict(verdict: str) -> str:
    """Check a verdict; raises Invalid `bad-verdict` unless it is one of the three."""
    if verdict not in VERDICTS:
        raise Invalid(
            "bad-verdict",
            f"There is no verdict '{verdict[:40]}'.",
            f"Use one of {', '.join(VERDICTS)}.",
        )
    return verdict


def check_reason(reason: str, act: str = "A decision") -> str:
    """The trimmed reason of an act that cannot be undone, such as a decision or a recall.

    Raises Invalid `reason-missing` outside 10..4000 characters: one word says nothing.
    """
    text = reason.strip()
    if not 10 <= len(text) <= 4000:
        raise Invalid(
            "reason-missing",
            f"{act} needs a reason of 10 to 4000 characters.",
            "Write at least one sentence. Auditors read this.",
        )
    return text


def check_voter(
    voter: UUID, name: str, excluded: Mapping[UUID, str], ballots: Sequence[Ballot], review: int
) -> None:
    """Check that this person may vote.

    Raises Refused `self-approval` for those who made or submitted the version or supplied its data
    (`excluded` says what each of them did), `already-voted` for those who have voted.
    """
    if voter in excluded:
        raise Refused(
            "self-approval",
            f"{name} {excluded[voter]}, so {name} cannot decide on it.",
            subject=f"review:{review}",
        )
    if any(ballot.account == voter for ballot in ballots):
        raise Refused(
            "already-voted",
            f"{name} has voted in review {review}.",
            subject=f"review:{review}",
        )


def check_decision(signed: Mapping[str, Any], expected: Mapping[str, Any], review: int) -> None:
    """Check that the signed decision is about exactly this review.

    Raises Refused `decision-mismatch`, which names every field that differs.
    """
    wrong = sorted(key for key in {*signed, *expected} if signed.get(key) != expected.get(key))
    if wrong:
        raise Refused(
            "decision-mismatch",
            f"The signed decision differs from review {review} in {', '.join(wrong)}.",
            subject=f"review:{review}",
        )


def outcome(quorum: Quorum, ballots: Sequence[Ballot]) -> str:
    """The outcome of the votes.

    The first such vote makes it rejected or changes_requested, the quorum makes it approved;
    otherwise it is open.
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
