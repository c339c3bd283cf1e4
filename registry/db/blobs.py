# ruff: noqa: S608 - only names of our own tables are put into SQL; every value is a parameter
"""Find the bytes that no row needs any more.

A collection plans with them, then tests each digest again under its lock.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from registry.blobs.store import Blobs
from registry.db.senders import BlobSender
from registry.db.table import Table
from registry.db.versions import Blob

OWNED = {
    "version_file": "version_id",
    "dataset_version": "id",
    "training_run": "dataset_version_id",
}
"""Table -> the column with the version's id.

A row of these tables stops needing its bytes once its version has a tombstone and no hold.
"""


@dataclass
class Plan:
    """What a collection would take, as digest -> size in bytes.

    `unnamed`: blobs whose rows belong only to deleted versions. `orphans`: bytes that no row ever
    named. `leftovers`: bytes whose row says that they were collected, left behind by a collection
    that was interrupted.
    """

    unnamed: dict[str, int] = field(default_factory=dict)
    orphans: dict[str, int] = field(default_factory=dict)
    leftovers: dict[str, int] = field(default_factory=dict)

    @property
    def everything(self) -> dict[str, int]:
        return {**self.unnamed, **self.orphans, **self.leftovers}


def namers() -> Iterator[tuple[str, str]]:
    """Every (table, column) that names a blob.

    They are read from the metadata, so that a new one cannot be forgotten.
    """
    for name, table in sorted(Table.metadata.tables.items()):
        for column in table.columns:
            if any(key.target_fullname == "blob.id" for key in column.foreign_keys):
                yield name, column.name


def _unnamed() -> str:
    clauses = []
    for table, column in namers():
        owner = OWNED.get(table)
        needs = (
            ""
            if owner is None
            else (
                " and (not exists (select from tombstone t"
                f" where t.id = n.{owner} and t.at <= :before)"
                f" or exists (select from holds_on(n.{owner})))"
            )
        )
        clauses.append(f"not exists (select from {table} n where n.{column} = b.id{needs})")
    clauses.append("not exists (select from blob_sender s where s.id = b.id and s.at > :before)")
    return (
        f"select b.id, b.size from blob b where b.collected_at is null and {' and '.join(clauses)}"
    )


def plan(session: Session, blobs: Blobs, before: datetime) -> Plan:
    """The bytes that nothing has needed since `before`.

    It takes one pass over the rows and one listing of the store.
    """
    plan = Plan()
    plan.unnamed = {
        row.id: row.size for row in session.execute(text(_unnamed()), {"before": before})
    }
    old = ((digest, size) for digest, size, at in blobs.published() if at < before)
    while page := list(islice(old, 1000)):
        digests = [digest for digest, _ in page]
        rows = dict(
            session.execute(select(Blob.id, Blob.collected_at).where(Blob.id.in_(digests))).all()
        )
        sent = set(
            session.scalars(
                select(BlobSender.id).where(BlobSender.id.in_(digests), BlobSender.at > before)
            )
        )
        for digest, size in page:
            if digest in sent:
                continue
            if digest not in rows:
                plan.orphans[digest] = size
            elif rows[digest] is not None:
                plan.leftovers[digest] = size
    return plan


def try_lock(session: Session, digest: str) -> bool:
    """Take the lock that `hold_blob` takes; False when a transaction is naming these bytes now."""
    return bool(
        session.scalar(
            text("select pg_try_advisory_xact_lock(hashtextextended(:blob, 7))"), {"blob": digest}
        )
    )


def still_unnamed(session: Session, digest: str, before: datetime) -> Blob | None:
    """The row of these bytes, if still nothing needs them.

    Call it under the lock: the plan may be out of date.
    """
    row = session.execute(
        text(f"{_unnamed()} and b.id = :digest"), {"before": before, "digest": digest}
    ).one_or_none()
    return None if row is None else session.get_one(Blob, row.id, populate_existing=True)


def needed(session: Session, digest: str, before: datetime) -> bool:
    """Whether a row says that these bytes are here, or an account has sent or used them since.

    Call it under the lock.
    """
    named = select(Blob.id).where(Blob.id == digest, Blob.collected_at.is_(None))
    sent = select(BlobSender.id).where(BlobSender.id == digest, BlobSender.at > before)
    return session.scalar(named.union_all(sent).limit(1)) is not None


def moment(session: Session) -> datetime:
    """The database's clock, by which tombstones are dated."""
    now: datetime = session.execute(text("select clock_timestamp()")).scalar_one()
    return now
