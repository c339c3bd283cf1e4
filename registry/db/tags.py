"""Tags on versions: free words that help to find a version and decide nothing."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, UniqueConstraint, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from registry.db.table import Id, Table
from registry.rules.tags import RESERVED


class VersionTag(Table):
    """One tag of a version. A removed tag has a null value, since rows are never deleted."""

    __tablename__ = "version_tag"
    id: Mapped[Id]
    version_id: Mapped[UUID] = mapped_column(ForeignKey("version.id"))
    key: Mapped[str]
    value: Mapped[str | None]
    set_by: Mapped[UUID | None]
    set_at: Mapped[datetime]
    __table_args__ = (
        UniqueConstraint("version_id", "key"),
        CheckConstraint("key ~ '^[a-z0-9][a-z0-9._/-]{0,62}$'", name="key"),
        CheckConstraint(
            f"key not in ({', '.join(repr(word) for word in RESERVED)})", name="reserved"
        ),
        CheckConstraint("value is null or length(value) between 1 and 256", name="value"),
    )


def by_key(session: Session, version_id: UUID, key: str) -> VersionTag | None:
    """The row of a key, whether its tag is set or removed; lock the version first."""
    statement = select(VersionTag).where(VersionTag.version_id == version_id, VersionTag.key == key)
    return session.scalars(statement).one_or_none()


def in_force(session: Session, version_id: UUID) -> list[VersionTag]:
    """The rows of a version's tags in force, by key."""
    statement = select(VersionTag).where(
        VersionTag.version_id == version_id, VersionTag.value.is_not(None)
    )
    return list(session.scalars(statement.order_by(VersionTag.key)))


def of_versions(session: Session, ids: Collection[UUID]) -> dict[UUID, dict[str, str]]:
    """The tags in force of many versions in one statement, by version."""
    statement = (
        select(VersionTag.version_id, VersionTag.key, VersionTag.value)
        .where(VersionTag.version_id.in_(ids), VersionTag.value.is_not(None))
        .order_by(VersionTag.key)
    )
    by_version: dict[UUID, dict[str, str]] = {}
    for version_id, key, value in session.execute(statement):
        if value is not None:
            by_version.setdefault(version_id, {})[key] = value
    return by_version
