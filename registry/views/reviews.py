"""Reviews, votes, and the decision a person signs, as answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from registry.views.evals import VerdictView


@dataclass(frozen=True, slots=True)
class SubmittedView:
    """The review that `submit` opened."""

    review: int
    evidence_root: str
    verdict: str


@dataclass(frozen=True, slots=True)
class VoteView:
    """A signed vote; the signature covers the digest of the canonical decision."""

    account: str
    account_id: UUID
    team: str | None
    verdict: str
    reason: str
    at: datetime
    key: str
    decision_digest: str
    signature: str


@dataclass(frozen=True, slots=True)
class ReviewView:
    """A version under review for an environment, under a policy version."""

    number: int
    version: str
    version_id: UUID
    environment: str
    use_case: str
    purpose: str
    risk_tier: str
    use_case_version: int
    suite: str
    policy: str
    policy_digest: str
    state: str
    note: str
    submitted_by: str
    opened_at: datetime
    decided_at: datetime | None
    expires_at: datetime | None
    withdrawn_because: str | None
    version_state: str
    evidence: dict[str, Any]
    evidence_root: str
    verdict: VerdictView
    votes: list[VoteView]
    approvals_needed: int
    approvals: int
    excluded: list[str]


@dataclass(frozen=True, slots=True)
class ReviewPage:
    """One page of reviews."""

    items: list[ReviewView]
    next: str | None


@dataclass(frozen=True, slots=True)
class DecisionDraft:
    """The decision that a person would sign.

    To vote, add `verdict` and `reason_commitment` to `decision`, canonicalise, hash and sign it.
    """

    review: int
    decision: dict[str, Any]
