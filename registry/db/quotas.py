"""Quotas: what a team may use, and what it uses."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Identity, Index, select, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from registry.db.table import Id, Moment, Table
from registry.rules.quotas import Limits, Usage, check_fits


class Quota(Table):
    """A team's limits from a moment on. The newest row counts; null means unlimited."""

    __tablename__ = "quota"
    id: Mapped[Id]
    number: Mapped[int] = mapped_column(BigInteger, Identity(), unique=True)
    team: Mapped[str]
    max_bytes: Mapped[int | None] = mapped_column(BigInteger)
    max_versions: Mapped[int | None] = mapped_column(BigInteger)
    reason_commitment: Mapped[str]
    set_by: Mapped[UUID | None]
    set_at: Mapped[Moment]
    __table_args__ = (
        CheckConstraint("max_bytes >= 0 and max_versions >= 0", name="limits"),
        Index("ix_quota_team", "team", "number"),
    )


def limits(session: Session, team: str) -> Limits:
    """The team's limits in force; without a quota, no limits."""
    quota = session.scalars(
        select(Quota).where(Quota.team == team).order_by(Quota.number.desc()).limit(1)
    ).one_or_none()
    return Limits(quota.max_bytes, quota.max_versions) if quota else Limits()


def usage(session: Session, team: str) -> Usage:
    """What a team uses now."""
    row = session.execute(text("select * from team_usage(:team)"), {"team": team}).one()
    return Usage(row.bytes, row.versions)


def must_fit(session: Session, team: str) -> None:
    """Raise unless what was just added fits into the team's quota.

    It takes the team's lock, so that two registrations at once are both counted.
    """
    allowed = limits(session, team)
    if allowed == Limits():
        return
    session.execute(
        text("select pg_advisory_xact_lock(hashtextextended(:team, 11))"), {"team": team}
    )
    check_fits(team, allowed, usage(session, team))
