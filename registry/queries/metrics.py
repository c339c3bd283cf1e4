"""The numbers behind /metrics, in one statement."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import text

from registry.db.store import Store
from registry.rules.actors import SYSTEM

NUMBERS = text(
    """
    select
        -- Every event is either a leaf or in the queue. The newest number comes from an index, and
        -- the queue is short.
        coalesce((select max(seq) + 1 from leaf), 0) as leaves,
        (select count(*) from event_pending) as pending,
        coalesce((select max(size) from tree_head where note is not null), 0) as signed,
        (select count(*) from review where state = 'open') as open_reviews,
        (select count(*) from training_run where state = 'queued') as training_queued,
        (select count(*) from training_run where state = 'running') as training_running,
        (select count(*) from eval_run where state = 'queued') as eval_queued,
        (select count(*) from eval_run where state = 'running') as eval_running,
        (select count(*) from rollout where ended_at is null) as active_rollouts
    """
)


@dataclass(frozen=True, slots=True)
class Numbers:
    """Gauges. `events` counts numbered and pending ones; `signed` is the newest signed size."""

    events: int
    pending: int
    signed: int
    open_reviews: int
    training_queued: int
    training_running: int
    eval_queued: int
    eval_running: int
    active_rollouts: int


def numbers(store: Store) -> Numbers:
    """The current numbers. They contain no names, so no actor is needed."""
    with store.read(SYSTEM) as session:
        row = session.execute(NUMBERS).one()
    return Numbers(row.leaves + row.pending, row.pending, row.signed, *row[3:])
