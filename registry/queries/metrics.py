"""The numbers behind /metrics, in one statement."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import text

from registry.db.store import Store
from registry.rules.actors import SYSTEM

NUMBERS = text(
    """
    select
        -- Leaves and the queue hold every event once. The newest number is read from an index;
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
    """Gauges: `events` = numbered + pending; `signed` is the size of the newest signed tree
    head.
    """

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
    """What the registry holds and waits for now; no names, so it needs no actor."""
    with store.read(SYSTEM) as session:
        row = session.execute(NUMBERS).one()
    return Numbers(row.leaves + row.pending, row.pending, row.signed, *row[3:])
