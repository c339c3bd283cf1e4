"""Data sets and their frozen versions."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint, func, select, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from registry.db import tombstones
from registry.db.sight import Sighted
from registry.db.table import Id, Moment, Table, hex_digest, one_of
from registry.db.versions import NUMBERED, STATES, Node
from registry.errors import NotFound
from registry.rules.refs import Ref, parse_ref
from registry.rules.versions import STANDING


class Dataset(Table):
    """A data set's line `team/name`."""

    __tablename__ = "dataset"
    id: Mapped[Id]
    team: Mapped[str]
    name: Mapped[str]
    created_by: Mapped[UUID | None]
    created_at: Mapped[Moment]
    __table_args__ = (UniqueConstraint("team", "name"),)


class DatasetVersion(Table):
    """One file of rows with its full record root; frozen once numbered."""

    __tablename__ = "dataset_version"
    id: Mapped[UUID] = mapped_column(ForeignKey("node.id"), primary_key=True)
    dataset_id: Mapped[UUID] = mapped_column(ForeignKey("dataset.id"), index=True)
    number: Mapped[int | None]
    state: Mapped[str]
    blob_id: Mapped[str] = mapped_column(ForeignKey("blob.id"), index=True)
    record_root: Mapped[str]
    rows: Mapped[int]
    splits: Mapped[dict[str, Any]]
    duplicates: Mapped[int]
    overlap: Mapped[int]
    meta: Mapped[dict[str, Any]]
    created_by: Mapped[UUID | None]
    created_at: Mapped[Moment]
    registered_at: Mapped[datetime | None]
    __table_args__ = (
        UniqueConstraint("dataset_id", "number"),
        Index(
            "uq_dataset_version_dataset_id_blob_id",
            "dataset_id",
            "blob_id",
            unique=True,
            postgresql_where=text(one_of("state", *STANDING)),
        ),
        CheckConstraint(one_of("state", *STATES), name="state"),
        CheckConstraint(NUMBERED, name="numbered"),
        CheckConstraint("number > 0", name="number"),
        CheckConstraint(hex_digest("record_root"), name="root"),
    )


def by_ref(
    session: Sighted,
    ref: Ref | str,
    *,
    share: bool = False,
    gone: bool = False,
) -> tuple[DatasetVersion, Node]:
    """The data set version that a reference names; a bare name means its newest numbered version.

    Raises NotFound; with the kind `deleted` for a deleted version, unless `gone` allows one.
    """
    if isinstance(ref, str):
        ref = parse_ref(ref)
    statement = (
        select(DatasetVersion, Node)
        .join(Node, Node.id == DatasetVersion.id)
        .join(Dataset, Dataset.id == DatasetVersion.dataset_id)
        .where(session.seen(Dataset.team))
    )
    if ref.team is None:
        statement = statement.where(DatasetVersion.record_root.like(f"sha256:{ref.digest}%"))
    else:
        statement = statement.where(Dataset.team == ref.team, Dataset.name == ref.name)
        if ref.number is not None or ref.channel is not None:
            statement = statement.where(Node.ref == f"dataset:{ref}")
        else:
            statement = statement.where(DatasetVersion.number.is_not(None))
    statement = statement.order_by(
        DatasetVersion.state == "deleted", DatasetVersion.number.desc().nulls_last()
    ).limit(1)
    if share:
        statement = statement.with_for_update(of=DatasetVersion, read=True)
    row = session.execute(statement).one_or_none()
    if row is None:
        raise NotFound(
            "dataset-unknown",
            f"There is no data set version '{ref}'.",
        )
    if row[0].state == "deleted" and not gone:
        raise tombstones.refusal(session, row[0].id, row[1].ref.removeprefix("dataset:"))
    return row[0], row[1]


def line(session: Sighted, ref: Ref, *, lock: bool = False) -> Dataset | None:
    """The data set's line, if there is one."""
    statement = select(Dataset).where(
        Dataset.team == ref.team, Dataset.name == ref.name, session.seen(Dataset.team)
    )
    return session.scalars(statement.with_for_update() if lock else statement).one_or_none()


def draft_of(session: Session, dataset_id: UUID, sha256: str) -> DatasetVersion | None:
    """The draft of these bytes, if there is one."""
    return _of_bytes(session, dataset_id, sha256, numbered=False)


def numbered(session: Session, dataset_id: UUID, sha256: str) -> DatasetVersion | None:
    """The numbered version of these bytes, if there is one."""
    return _of_bytes(session, dataset_id, sha256, numbered=True)


def _of_bytes(
    session: Session, dataset_id: UUID, sha256: str, *, numbered: bool
) -> DatasetVersion | None:
    has_number = DatasetVersion.number.is_not(None) if numbered else DatasetVersion.number.is_(None)
    statement = select(DatasetVersion).where(
        DatasetVersion.dataset_id == dataset_id,
        DatasetVersion.blob_id == sha256,
        has_number,
        DatasetVersion.state != "deleted",
    )
    return session.scalars(statement).first()


def highest(session: Session, dataset_id: UUID) -> int:
    """The highest number that the data set ever assigned; lock its line first."""
    statement = select(func.coalesce(func.max(DatasetVersion.number), 0)).where(
        DatasetVersion.dataset_id == dataset_id
    )
    return session.scalar(statement) or 0


def find(session: Session, version_id: UUID, *, lock: bool = False) -> DatasetVersion | None:
    """The data set version of that id, if there is one."""
    return session.get(DatasetVersion, version_id, with_for_update=lock or None)
