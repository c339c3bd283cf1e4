"""Reviews and their signed votes."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    Identity,
    Index,
    Select,
    UniqueConstraint,
    Uuid,
    and_,
    column,
    func,
    or_,
    select,
    text,
)
from sqlalchemy.orm import Mapped, Session, mapped_column

from registry.db.policies import PolicyVersion
from registry.db.sight import Sighted
from registry.db.table import Id, Moment, Table, hex_digest, one_of
from registry.db.use_cases import UseCase, UseCaseVersion
from registry.db.versions import Node, Version
from registry.errors import NotFound
from registry.rules.refs import ENVIRONMENTS

STATES = ("open", "approved", "rejected", "changes_requested", "withdrawn", "expired", "voided")


class Review(Table):
    """One version before one environment, under one policy version and on frozen evidence."""

    __tablename__ = "review"
    id: Mapped[Id]
    number: Mapped[int] = mapped_column(Identity(), unique=True)
    version_id: Mapped[UUID] = mapped_column(ForeignKey("version.id"), index=True)
    environment: Mapped[str]
    use_case_version_id: Mapped[UUID] = mapped_column(ForeignKey("use_case_version.id"))
    policy_version_id: Mapped[UUID] = mapped_column(ForeignKey("policy_version.id"))
    evidence: Mapped[dict[str, Any]]
    evidence_root: Mapped[str]
    verdict: Mapped[dict[str, Any]]
    note_commitment: Mapped[str]
    submitted_by: Mapped[UUID] = mapped_column(ForeignKey("account.id"))
    state: Mapped[str]
    opened_at: Mapped[Moment]
    decided_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    __table_args__ = (
        CheckConstraint(one_of("environment", *ENVIRONMENTS), name="environment"),
        CheckConstraint(one_of("state", *STATES), name="state"),
        CheckConstraint(hex_digest("evidence_root"), name="evidence"),
        CheckConstraint("(state = 'open') = (decided_at is null)", name="decided"),
        CheckConstraint("state <> 'approved' or expires_at is not null", name="approval_expires"),
        # One open or approved review for a version and an environment: the next opens only after
        # that one has ended.
        Index(
            "uq_review_live",
            "version_id",
            "environment",
            unique=True,
            postgresql_where=text("state in ('open', 'approved')"),
        ),
    )

    def void(self, at: datetime) -> None:
        """End an open review or an approval: what it rests on is no longer so. Routes stay."""
        if self.state == "open":
            self.decided_at = at
        self.state = "voided"


class Vote(Table):
    """One person's signed decision; it never changes."""

    __tablename__ = "vote"
    id: Mapped[Id]
    review_id: Mapped[UUID] = mapped_column(ForeignKey("review.id"))
    account_id: Mapped[UUID] = mapped_column(ForeignKey("account.id"))
    team: Mapped[str | None]
    verdict: Mapped[str]
    reason_commitment: Mapped[str]
    decision: Mapped[dict[str, Any]]
    decision_digest: Mapped[str]
    signature: Mapped[str]
    key_id: Mapped[str] = mapped_column(ForeignKey("signing_key.id"))
    at: Mapped[Moment]
    __table_args__ = (
        UniqueConstraint("review_id", "account_id"),
        CheckConstraint(one_of("verdict", "approve", "reject", "request_changes"), name="verdict"),
        CheckConstraint(hex_digest("decision_digest"), name="decision"),
        CheckConstraint(hex_digest("reason_commitment"), name="reason"),
    )


IS_LIVE = Review.state.in_(("open", "approved"))
"""An SQL condition: the review is open, or its approval is in force."""


def by_number(session: Sighted, number: int, *, lock: bool = False) -> Review:
    """The review of that number, or NotFound."""
    statement = (
        select(Review)
        .join(Node, Node.id == Review.version_id)
        .where(Review.number == number, session.seen(Node.team))
    )
    review = session.scalars(
        statement.with_for_update(of=Review) if lock else statement
    ).one_or_none()
    if review is None:
        raise NotFound("review-unknown", f"There is no review {number}.")
    return review


def votes_of(session: Session, review_id: UUID) -> list[Vote]:
    """The votes of a review, oldest first."""
    return list(
        session.scalars(select(Vote).where(Vote.review_id == review_id).order_by(Vote.at, Vote.id))
    )


def live(
    session: Session, version_id: UUID, environment: str, *, share: bool = False
) -> Review | None:
    """The open or approved review of a version in an environment."""
    statement = select(Review).where(
        Review.version_id == version_id, Review.environment == environment, IS_LIVE
    )
    return session.scalars(
        statement.with_for_update(read=True) if share else statement
    ).one_or_none()


def _live_locked(session: Session, statement: Select[Review]) -> list[Review]:
    """The open and approved reviews of a statement, locked in the order of their numbers.

    Whoever locks several takes this order, so that two never wait for each other.
    """
    in_order = statement.where(IS_LIVE).order_by(Review.number)
    return list(session.scalars(in_order.with_for_update(of=Review)))


def void(session: Session, versions: list[UUID], now: datetime) -> None:
    """End the open and approved reviews of these versions.

    What may serve nowhere waits for nobody's vote.
    """
    for review in _live_locked(session, select(Review).where(Review.version_id.in_(versions))):
        review.void(now)


def resting_on_use_case(session: Session, use_case: UUID) -> list[Review]:
    """The open and approved reviews of a use case, locked."""
    statement = (
        select(Review)
        .join(UseCaseVersion, UseCaseVersion.id == Review.use_case_version_id)
        .where(UseCaseVersion.use_case_id == use_case)
    )
    return _live_locked(session, statement)


def resting_on_runs(session: Session, subject: UUID, suite_version: UUID) -> list[Review]:
    """The open and approved reviews that runs of a version on a suite version speak of, locked.

    Those are its own reviews on any suite, because a run may measure the version's effect, and, for
    a base, those on that suite of what is tuned on it.
    """
    statement = (
        select(Review)
        .join(UseCaseVersion, UseCaseVersion.id == Review.use_case_version_id)
        .join(Version, Version.id == Review.version_id)
        .where(
            or_(
                Version.id == subject,
                and_(
                    Version.base_version_id == subject,
                    UseCaseVersion.suite_version_id == suite_version,
                ),
            )
        )
    )
    return _live_locked(session, statement)


BARS = (
    text(
        """
        select r.id as review_id, v.created_by as account_id, 'registered this version' as why,
               1 as rank
        from review r join version v on v.id = r.version_id
        union all
        select r.id, d.created_by, 'brought its training data', 2 from review r
        join lineage_edge e on e.child_id = r.version_id and e.relation = 'tuned_on'
        join dataset_version d on d.id = e.parent_id
        union all
        select r.id, t.requested_by, 'asked for its training', 3 from review r
        join version v on v.id = r.version_id join training_run t on t.id = v.training_run_id
        union all
        select r.id, r.submitted_by, 'submitted this version', 4 from review r
        """
    )
    .columns(column("review_id", Uuid), column("account_id", Uuid), column("why"), column("rank"))
    .subquery("bars")
)
"""Every reason why a person may not vote; of two for one person, the higher rank is shown."""


def excluded(session: Session, review: Review) -> dict[UUID, str]:
    """The accounts that may not vote on a review, and why.

    They are those who submitted the version, asked for its training, brought its training data, or
    registered it.
    """
    return excluded_of(session, [review.id]).get(review.id, {})


def excluded_of(session: Session, reviews: list[UUID]) -> dict[UUID, dict[UUID, str]]:
    """As `excluded`, for many reviews in one statement, by review id."""
    reasons: dict[UUID, dict[UUID, str]] = {}
    statement = (
        select(BARS)
        .where(BARS.c.review_id.in_(reviews), BARS.c.account_id.is_not(None))
        .order_by(BARS.c.rank)
    )
    for row in session.execute(statement):
        reasons.setdefault(row.review_id, {})[row.account_id] = row.why
    return reasons


def decision(
    session: Session, review: Review, ref: str, account: UUID, team: str | None
) -> dict[str, Any]:
    """The document that a voter completes with verdict and reason commitment, then signs.

    It names everything that an approval binds.
    """
    policy = session.get_one(PolicyVersion, review.policy_version_id)
    case = session.get_one(UseCaseVersion, review.use_case_version_id)
    use_case = session.get_one(UseCase, case.use_case_id)
    subject, base = review.evidence["subject"], review.evidence["base"] or {}
    return {
        "v": 1,
        "review": review.number,
        "version_id": str(review.version_id),
        "version": ref,
        "manifest_digest": subject["manifest_digest"],
        "tensor_root": subject["tensor_root"],
        "base_root": base.get("base_root"),
        "environment": review.environment,
        "use_case": use_case.ref,
        "use_case_version": case.number,
        "policy": policy.ref,
        "policy_digest": policy.digest,
        "evidence_root": review.evidence_root,
        "account": str(account),
        "team": team,
    }


def overdue(session: Session) -> list[int]:
    """The numbers of the reviews whose approval has run out."""
    statement = select(Review.number).where(
        Review.state == "approved", Review.expires_at <= func.clock_timestamp()
    )
    return list(session.scalars(statement))
