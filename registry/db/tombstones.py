"""Tombstones: what was deleted, when, by whom and why; its number, manifest, roots, lineage and
events stay.
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
    """One deleted version or data set version; `was` is the state it had. Set once, for good."""

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
    """The tombstone over a thing, if it was deleted."""
    return session.get(Tombstone, node_id)


def of(session: Session, ids: list[UUID]) -> dict[UUID, Tombstone]:
    """The tombstones of many things in one statement, by id."""
    return {one.id: one for one in session.scalars(select(Tombstone).where(Tombstone.id.in_(ids)))}


def refusal(session: Session, node_id: UUID, ref: str) -> NotFound:
    """The answer to whoever names what was deleted: when, by whom and on what grounds, by id and
    commitment.
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
    """Deletions and new holds go one at a time; take this before any row's lock."""
    session.execute(text("select one_keeper()"))
