"""Serving profiles: frozen documents that say what a version may be served as."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, UniqueConstraint, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from registry.db.lineage import LineageEdge
from registry.db.table import Id, Moment, Table, hex_digest, one_of
from registry.rules.engines import ENGINES


class ServingProfile(Table):
    """One way to serve one version. Rows never change: a change of any part is a new profile."""

    __tablename__ = "serving_profile"
    id: Mapped[Id]
    version_id: Mapped[UUID] = mapped_column(ForeignKey("version.id"))
    base_version_id: Mapped[UUID | None] = mapped_column(ForeignKey("version.id"), index=True)
    system_prompt_id: Mapped[str | None] = mapped_column(ForeignKey("blob.id"), index=True)
    engine: Mapped[str]
    digest: Mapped[str]
    document: Mapped[dict[str, Any]]
    created_by: Mapped[UUID | None]
    created_at: Mapped[Moment]
    __table_args__ = (
        UniqueConstraint("version_id", "digest"),
        CheckConstraint(one_of("engine", *ENGINES), name="engine"),
        CheckConstraint(hex_digest("digest"), name="digest"),
        CheckConstraint("document ->> 'engine' is not distinct from engine", name="document"),
        CheckConstraint(
            "document ->> 'system_prompt' is not distinct from 'sha256:' || system_prompt_id",
            name="prompt",
        ),
    )


def same(session: Session, version_id: UUID, digest: str) -> ServingProfile | None:
    """The profile of this version with exactly this document, if there is one."""
    statement = select(ServingProfile).where(
        ServingProfile.version_id == version_id, ServingProfile.digest == digest
    )
    return session.scalars(statement).one_or_none()


def verified_quantisation(session: Session, child: UUID, parent: UUID) -> bool:
    """Whether `child` is a quantisation of `parent` by verified, not only claimed, descent."""
    statement = select(LineageEdge.id).where(
        LineageEdge.child_id == child,
        LineageEdge.parent_id == parent,
        LineageEdge.relation == "quantised_from",
        LineageEdge.grade == "verified",
    )
    return session.scalar(statement) is not None
