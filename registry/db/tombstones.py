"""Tombstones: what was deleted, when, by whom and why.

The number, manifest, roots, lineage and events of a deleted version stay.
"""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, select, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from registry.db.table import Moment, Table, one_of
from registry.errors import NotFound
from registry.rules.versions import State

HOW = ("deleted", "discarded", "expired")


class Tombstone(Table):
    """One deleted version or data set version; `was` is its state before. The row never changes."""

    __tablename__ = "tombstone"
    id: Mapped[UUID] = mapped_column(ForeignKey("node.id"), primary_key=True)
    how: Mapped[str]
    was: Mapped[str]
    reason_commitment: Mapped[str]
    deleted_by: Mapped[UUID | None]
    at: Mapped[Moment]
    __table_args__ = (
        CheckConstraint(one_of("how", *HOW), name="how"),
        CheckConstraint(
            one_of("was", *(state for state in State if state is not State.DELETED)), name="was"
        ),
    )


def find(session: Session, node_id: UUID) -> Tombstone | None:
    """The tombstone of a version, if it was deleted."""
    return session.get(Tombstone, node_id)


def of(session: Session, ids: list[UUID]) -> dict[UUID, Tombstone]:
    """The tombstones of many versions in one statement, by id."""
    stones = session.scalars(select(Tombstone).where(Tombstone.id.in_(ids)))
    return {stone.id: stone for stone in stones}


def refusal(session: Session, node_id: UUID, ref: str) -> NotFound:
    """The error for a reference to a deleted version.

    It says when the version was deleted, by whom (an id) and why (a commitment).
    """
    stone = session.get(Tombstone, node_id)
    if stone is None:
        return NotFound("deleted", f"{ref} was deleted.", "Use another version.")
    who = str(stone.deleted_by) if stone.deleted_by else "the registry itself"
    return NotFound(
        "deleted",
        f"{ref} was {stone.how} on {stone.at:%Y-%m-%d %H:%M} UTC by {who}; reason "
        f"{stone.reason_commitment}.",
        f"Use another version: its number never comes back. See countersign retention show {ref}.",
        ref=ref,
        how=stone.how,
        at=stone.at.isoformat(),
        by=str(stone.deleted_by) if stone.deleted_by else None,
        reason_commitment=stone.reason_commitment,
    )


def one_at_a_time(session: Session) -> None:
    """Make deletions and new holds run one at a time; call it before locking any row."""
    session.execute(text("select one_keeper()"))
