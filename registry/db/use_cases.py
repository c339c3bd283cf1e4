"""Use cases: why a version serves."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, UniqueConstraint, select
from sqlalchemy.orm import Mapped, mapped_column

from registry.db.sight import Sighted
from registry.db.table import Id, Moment, Table, one_of
from registry.errors import NotFound
from registry.rules.refs import parse_line


class UseCase(Table):
    """A purpose with its owner and risk tier, and the eval suite whose results the gate reads."""

    __tablename__ = "use_case"
    id: Mapped[Id]
    team: Mapped[str]
    name: Mapped[str]
    purpose: Mapped[str]
    owner: Mapped[str]
    risk_tier: Mapped[str]
    suite_id: Mapped[UUID] = mapped_column(ForeignKey("eval_suite.id"))
    details: Mapped[dict[str, Any]]
    created_by: Mapped[UUID | None]
    created_at: Mapped[Moment]
    __table_args__ = (
        UniqueConstraint("team", "name"),
        CheckConstraint(one_of("risk_tier", "minimal", "limited", "high"), name="risk_tier"),
    )

    @property
    def ref(self) -> str:
        return f"{self.team}/{self.name}"


def by_name(session: Sighted, name: str) -> UseCase:
    """The use case `team/name`, or NotFound."""
    ref = parse_line(name)
    statement = select(UseCase).where(
        UseCase.team == ref.team, UseCase.name == ref.name, session.seen(UseCase.team)
    )
    use_case = session.scalars(statement).one_or_none()
    if use_case is None:
        raise NotFound("use-case-unknown", f"There is no use case '{name}'.")
    return use_case
