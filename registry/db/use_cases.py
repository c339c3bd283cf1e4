"""Use cases: why a version serves. What a use case says stands in its numbered versions."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, UniqueConstraint, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from registry.db.sight import Sighted
from registry.db.table import Id, Moment, Table, one_of
from registry.errors import NotFound
from registry.rules.refs import parse_line


class UseCase(Table):
    """The name of a use case; channels serve it through all its versions."""

    __tablename__ = "use_case"
    id: Mapped[Id]
    team: Mapped[str]
    name: Mapped[str]
    created_by: Mapped[UUID | None]
    created_at: Mapped[Moment]
    __table_args__ = (UniqueConstraint("team", "name"),)

    @property
    def ref(self) -> str:
        return f"{self.team}/{self.name}"


class UseCaseVersion(Table):
    """A purpose with its owner and risk tier, and the suite version whose results the gate reads.

    The row never changes. The first version has no reason for a change.
    """

    __tablename__ = "use_case_version"
    id: Mapped[Id]
    use_case_id: Mapped[UUID] = mapped_column(ForeignKey("use_case.id"))
    number: Mapped[int]
    purpose: Mapped[str]
    owner: Mapped[str]
    risk_tier: Mapped[str]
    suite_version_id: Mapped[UUID] = mapped_column(ForeignKey("eval_suite_version.id"))
    details: Mapped[dict[str, Any]]
    reason_commitment: Mapped[str | None]
    created_by: Mapped[UUID | None]
    created_at: Mapped[Moment]
    __table_args__ = (
        UniqueConstraint("use_case_id", "number"),
        CheckConstraint("number > 0", name="number"),
        CheckConstraint("(number = 1) = (reason_commitment is null)", name="reason"),
        CheckConstraint(one_of("risk_tier", "minimal", "limited", "high"), name="risk_tier"),
    )


def by_name(session: Sighted, name: str, *, lock: bool = False) -> UseCase:
    """The use case `team/name`, or NotFound."""
    ref = parse_line(name)
    statement = select(UseCase).where(
        UseCase.team == ref.team, UseCase.name == ref.name, session.seen(UseCase.team)
    )
    # FOR NO KEY UPDATE: channels that name the use case are not kept waiting, submissions are.
    use_case = session.scalars(
        statement.with_for_update(key_share=True) if lock else statement
    ).one_or_none()
    if use_case is None:
        raise NotFound("use-case-unknown", f"There is no use case '{name}'.")
    return use_case


def newest(session: Session, use_case: UseCase) -> UseCaseVersion:
    """The version of the use case that reviews rest on now; there always is one."""
    statement = (
        select(UseCaseVersion)
        .where(UseCaseVersion.use_case_id == use_case.id)
        .order_by(UseCaseVersion.number.desc())
        .limit(1)
    )
    return session.scalars(statement).one()
