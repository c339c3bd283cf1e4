"""The sequencer's SQL: its leadership, the outbox, the leaves and the tree heads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, func, insert, select, text
from sqlalchemy.orm import Session

from registry.db.audit import Event, Leaf, TreeHead
from registry.proof import merkle

LEADER_LOCK = 0x73657175  # "sequ"


@contextmanager
def leadership(engine: Engine) -> Iterator[bool]:
    """Hold the sequencer's session lock if it is free; it is released with the connection."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        leading = bool(
            connection.scalar(text("select pg_try_advisory_lock(:leader)"), {"leader": LEADER_LOCK})
        )
        try:
            yield leading
        finally:
            if leading and not connection.invalidated:
                connection.execute(
                    text("select pg_advisory_unlock(:leader)"), {"leader": LEADER_LOCK}
                )


def newest_head(session: Session) -> TreeHead | None:
    """The largest tree head."""
    return session.scalars(select(TreeHead).order_by(TreeHead.size.desc()).limit(1)).one_or_none()


def leaf_hashes(session: Session, size: int) -> list[bytes]:
    """The first `size` leaf hashes, recomputed from the events, not read from the leaves."""
    statement = (
        select(Event.entry)
        .join(Leaf, Leaf.event_id == Event.id)
        .where(Leaf.seq < size)
        .order_by(Leaf.seq)
    )
    return [
        merkle.leaf_hash(entry)
        for entry in session.scalars(statement.execution_options(yield_per=1000))
    ]


def number_pending(session: Session, limit: int) -> int:
    """Number up to `limit` pending events in the order of their places, and write the new head.

    Returns how many there were. The primary keys on `seq` and `size` make a second writer fail
    rather than fork the log.
    """
    pending = session.execute(
        text(
            """
            with taken as (
                delete from event_pending where place in (
                    select place from event_pending order by place limit :limit
                    for update skip locked
                ) returning place, event_id
            )
            select t.event_id, e.entry from taken t join event e on e.id = t.event_id
            order by t.place
            """
        ),
        {"limit": limit},
    ).all()
    if not pending:
        return 0
    head = newest_head(session)
    frontier = merkle.Frontier.load(head.size, list(head.frontier)) if head else merkle.Frontier()
    first = frontier.size
    leaves = []
    for offset, row in enumerate(pending):
        leaf = merkle.leaf_hash(bytes(row.entry))
        frontier.append(leaf)
        leaves.append({"seq": first + offset, "event_id": row.event_id, "hash": leaf})
    session.execute(insert(Leaf), leaves)
    session.execute(
        insert(TreeHead).values(
            size=frontier.size,
            root="sha256:" + frontier.root().hex(),
            frontier=frontier.dump(),
            note=None,
            made_at=func.clock_timestamp(),
        )
    )
    return len(pending)
