"""Work a trainer leases: training runs and eval runs, oldest first; lost leases go back to the
queue.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from registry.db import training_runs
from registry.db import work as table
from registry.db.store import Store
from registry.db.training_runs import Lease
from registry.errors import Conflict
from registry.rules.actions import Action
from registry.rules.actors import SYSTEM, Actor

ATTEMPTS = 5


def lease(store: Store, actor: Actor, worker: str, seconds: int) -> tuple[UUID, int] | None:
    """Take the oldest queued work of the caller's teams; None when there is none. Two workers never
    get the same.
    """
    # Nothing to do is the common answer, and leaves no trace in the log; but the role is asked for
    # first.
    store.check(actor, Action.WORK_LEASE, None)
    with store.read(actor) as session:
        if not table.any_queued(session):
            return None
    with store.write(actor, Action.WORK_LEASE) as tx:
        found = table.take_queued(tx.session)
        if found is None:
            raise Conflict(
                "queue-empty",
                "Another worker took the last piece of work.",
            )
        run, team = found
        tx.within(team)
        run.state, run.attempt, run.trainer_id = "running", run.attempt + 1, actor.account
        run.started_at = run.started_at or tx.now
        assert actor.account is not None
        expires = tx.now + timedelta(seconds=seconds)
        held = tx.session.get(Lease, run.id) or Lease(id=run.id, progress={})
        held.worker, held.account_id, held.attempt, held.expires_at = (
            worker[:120],
            actor.account,
            run.attempt,
            expires,
        )
        tx.session.add(held)
        # The job only wakes: whether the lease really ran out is read from its row then.
        tx.defer("requeue_lost", at=expires + timedelta(seconds=1))
        tx.audit(table.subject(run), attempt=run.attempt)
        return run.id, run.attempt


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A worker's progress in one attempt, with the seconds by which to extend its lease."""

    attempt: int
    progress: dict[str, Any]
    seconds: int


def beat(store: Store, actor: Actor, run_id: UUID, heartbeat: Heartbeat) -> bool:
    """Prolong the caller's lease and note how far he is; True when the work was called off
    meanwhile.

    Raises Conflict `lease-lost` when somebody else holds the work now.
    """
    with store.upkeep("heartbeat") as session:
        held = session.get(Lease, run_id, with_for_update=True)
        if held is None or (held.account_id, held.attempt) != (actor.account, heartbeat.attempt):
            raise Conflict(
                "lease-lost", "This work is not leased to you any more.", "Stop this attempt."
            )
        held.expires_at = table.clock(session) + timedelta(seconds=heartbeat.seconds)
        held.progress = heartbeat.progress
        return table.state_of(session, held) == "cancelled"


def requeue(store: Store, actor: Actor, run_id: UUID, attempt: int, reason: str) -> None:
    """Give work back politely; the next worker goes on from the last save point."""
    with store.write(actor, Action.WORK_REQUEUE) as tx:
        run, team = table.by_id(tx.session, run_id, lock=True)
        tx.within(team)
        training_runs.must_hold(tx.session, run, actor.account, attempt)
        run.state = "queued"
        tx.session.delete(tx.get(Lease, run.id))
        tx.audit(table.subject(run), attempt=attempt, note=reason[:200])


def requeue_lost(store: Store) -> int:
    """Put work whose lease ran out back into the queue, or fail it after too many attempts; how
    many there were.
    """
    with store.read(SYSTEM) as session:
        lost = table.lost(session)
    return sum(_requeue_lost(store, run_id) for run_id in lost)


def _requeue_lost(store: Store, run_id: UUID) -> bool:
    """Take one run from a worker that went silent, unless he spoke again: then nothing happened and
    nothing is logged.
    """
    with suppress(Conflict), store.write(SYSTEM, Action.WORK_RECLAIM) as tx:
        run, team = table.by_id(tx.session, run_id, lock=True)
        held = tx.session.get(Lease, run.id, with_for_update=True)
        if run.state != "running" or held is None or held.expires_at > tx.moment():
            raise Conflict("not-lost", f"{table.subject(run)} is {run.state}, and not lost by now.")
        tx.team = team
        tx.audit(table.subject(run), attempt=run.attempt)
        if run.attempt >= ATTEMPTS:
            run.state, run.finished_at = "failed", tx.now
            run.error = f"The worker was lost {ATTEMPTS} times."
        else:
            run.state = "queued"
        tx.session.delete(held)
        return True
    return False


def fail(store: Store, actor: Actor, run_id: UUID, attempt: int, error: str) -> None:
    """End work that cannot succeed, with its reason; a retry is a new row."""
    with store.write(actor, Action.WORK_FAIL) as tx:
        run, team = table.by_id(tx.session, run_id, lock=True)
        tx.within(team)
        training_runs.must_hold(tx.session, run, actor.account, attempt)
        run.state, run.finished_at, run.error = "failed", tx.now, error[:4000]
        tx.session.delete(tx.get(Lease, run.id))
        tx.audit(table.subject(run), attempt=attempt)
