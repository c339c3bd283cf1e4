"""The sequencer's SQL: the outbox, the leaves, the tree heads, and who leads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, func, insert, select, text
from sqlalchemy.orm import Session

from registry.db.audit import Event, Leaf, TreeHead
from registry.proof import merkle

LEADER = 0x73657175  # "sequ"


@contextmanager
def leadership(engine: Engine) -> Iterator[bool]:
    """Hold the session lock of the one sequencer, if it is free; it falls with the connection."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        leading = bool(
            connection.scalar(text("select pg_try_advisory_lock(:leader)"), {"leader": LEADER})
        )
        try:
            yield leading
        finally:
            if leading and not connection.invalidated:
                connection.execute(text("select pg_advisory_unlock(:leader)"), {"leader": LEADER})


def newest_head(session: Session) -> TreeHead | None:
    """The largest tree head."""
    return session.scalars(select(TreeHead).order_by(TreeHead.size.desc()).limit(1)).one_or_none()


def leaf_hashes(session: Session, size: int) -> list[bytes]:
    """The first leaf hashes, recomputed from the events themselves and not read from the leaves."""
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
    """Give pending events the next numbers, in the order of their places, and write the new head;
    how many there were.

    The primary keys on `seq` and `size` make a second writer fail rather than fork the log.
    """
    taken = session.execute(
        text(
            "with taken as (delete from event_pending where place in (select place from "
            "event_pending "
            "order by place limit :limit for update skip locked) returning place, event_id) "
            "select t.event_id, e.entry from taken t join event e on e.id = t.event_id order by "
            "t.place"
        ),
        {"limit": limit},
    ).all()
    if not taken:
        return 0
    head = newest_head(session)
    frontier = merkle.Frontier.load(head.size, list(head.frontier)) if head else merkle.Frontier()
    first = frontier.size
    leaves = []
    for offset, row in enumerate(taken):
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
    return len(taken)
