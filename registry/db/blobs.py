# ruff: noqa: S608 - only names of our own tables are put into SQL; every value is a parameter
"""Which bytes no row needs any more, found for a collection and tested again under each digest's
lock.
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

OWNED = {"version_file": "version_id", "dataset_version": "id"}
"""Where a row stops naming its bytes once a tombstone stands over its version, unless a hold stands
over that too.
"""


@dataclass
class Plan:
    """What a collection would take: digest -> bytes.

    `unnamed`: rows that only tombstones name. `orphans`: bytes no row ever named. `leftovers`:
    bytes whose row says they were collected, left by a collection that was cut short.
    """

    unnamed: dict[str, int] = field(default_factory=dict)
    orphans: dict[str, int] = field(default_factory=dict)
    leftovers: dict[str, int] = field(default_factory=dict)

    @property
    def everything(self) -> dict[str, int]:
        return {**self.unnamed, **self.orphans, **self.leftovers}


def namers() -> Iterator[tuple[str, str]]:
    """Every (table, column) that names a blob, read from the metadata, so that a new one cannot be
    forgotten.
    """
    for name, table in sorted(Table.metadata.tables.items()):
        for column in table.columns:
            if any(key.target_fullname == "blob.id" for key in column.foreign_keys):
                yield name, column.name


def _unnamed() -> str:
    clauses = []
    for table, column in namers():
        owner = OWNED.get(table)
        stands = (
            ""
            if owner is None
            else (
                f" and (not exists (select from tombstone t where t.id = n.{owner} and t.at <= "
                ":before) "
                f"or exists (select from holds_on(n.{owner})))"
            )
        )
        clauses.append(f"not exists (select from {table} n where n.{column} = b.id{stands})")
    clauses.append("not exists (select from blob_sender s where s.id = b.id and s.at > :before)")
    return (
        f"select b.id, b.size from blob b where b.collected_at is null and {' and '.join(clauses)}"
    )


def plan(session: Session, blobs: Blobs, before: datetime) -> Plan:
    """What could go: unneeded since before a moment. One pass over the rows, one listing of the
    store.
    """
    found = Plan()
    found.unnamed = {
        row.id: row.size for row in session.execute(text(_unnamed()), {"before": before})
    }
    old = ((one, size) for one, size, at in blobs.published() if at < before)
    while page := list(islice(old, 1000)):
        rows = dict(
            session.execute(
                select(Blob.id, Blob.collected_at).where(Blob.id.in_([one for one, _ in page]))
            ).all()
        )
        asked = set(
            session.scalars(
                select(BlobSender.id).where(
                    BlobSender.id.in_([one for one, _ in page]), BlobSender.at > before
                )
            )
        )
        for digest, size in page:
            if digest in asked:
                continue
            if digest not in rows:
                found.orphans[digest] = size
            elif rows[digest] is not None:
                found.leftovers[digest] = size
    return found


def try_lock(session: Session, digest: str) -> bool:
    """Take the lock that `hold_blob` takes; False when somebody is naming these bytes at this
    moment.
    """
    return bool(
        session.scalar(
            text("select pg_try_advisory_xact_lock(hashtextextended(:blob, 7))"), {"blob": digest}
        )
    )


def still_unnamed(session: Session, digest: str, before: datetime) -> Blob | None:
    """The row, if nothing needs its bytes: asked under the lock, for what was planned may be true
    no longer.
    """
    row = session.execute(
        text(f"{_unnamed()} and b.id = :digest"), {"before": before, "digest": digest}
    ).one_or_none()
    return None if row is None else session.get_one(Blob, row.id, populate_existing=True)


def wanted(session: Session, digest: str, before: datetime) -> bool:
    """Does a row say that these bytes are here, or did somebody send them, or ask for his own,
    since? Asked under the lock.
    """
    named = select(Blob.id).where(Blob.id == digest, Blob.collected_at.is_(None))
    asked = select(BlobSender.id).where(BlobSender.id == digest, BlobSender.at > before)
    return session.scalar(named.union_all(asked).limit(1)) is not None


def moment(session: Session) -> datetime:
    """The database's clock, by which tombstones are dated."""
    now: datetime = session.execute(text("select clock_timestamp()")).scalar_one()
    return now
