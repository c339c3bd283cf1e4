"""Deprecations: what should not be newly used, who deprecated it, and why."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import ForeignKey, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from registry.db.accounts import personal_texts
from registry.db.table import Moment, Table


class Deprecation(Table):
    """A deprecated version or data set version, by the id of its node.

    The row is written once and stays when the version is recalled or deleted later.
    """

    __tablename__ = "deprecation"
    id: Mapped[UUID] = mapped_column(ForeignKey("node.id"), primary_key=True)
    reason_commitment: Mapped[str]
    deprecated_by: Mapped[UUID | None]
    at: Mapped[Moment]


def reasons(session: Session, ids: Collection[UUID]) -> dict[UUID, str]:
    """Why each of these was deprecated, by id; `(erased)` where the text was erased."""
    if not ids:
        return {}
    rows = session.scalars(select(Deprecation).where(Deprecation.id.in_(ids))).all()
    texts = personal_texts(session, {row.reason_commitment for row in rows})
    return {row.id: texts.get(row.reason_commitment, "(erased)") for row in rows}
