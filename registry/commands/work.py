"""Lease training runs and eval runs to trainers, oldest first.

Work whose lease ran out goes back to the queue.
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
from registry.db.work import Worker as Worker
from registry.errors import Conflict
from registry.rules import curves
from registry.rules.actions import Action
from registry.rules.actors import SYSTEM, Actor

MAX_ATTEMPTS = 5
"""Attempts at one run before a lost worker makes it fail."""


def lease(store: Store, actor: Actor, worker: Worker, seconds: int) -> tuple[UUID, int] | None:
    """Lease the oldest queued work of the caller's teams; None when there is none.

    A worker that started again first gets what its dead process had, as a new attempt: it has the
    save points, and nobody has to wait for the lease to end. Returns the run's id and the number of
    the attempt. Two workers never get the same work.
    """
    # An empty queue is the common answer and leaves no trace in the log. The role is checked first.
    store.check(actor, Action.WORK_LEASE, None)
    with store.read(actor) as session:
        # The last attempt is not taken back: its lease ends, and the run with it.
        own = table.left_behind(session, worker, MAX_ATTEMPTS)
        if not own and not table.any_queued(session):
            return None
    with store.write(actor, Action.WORK_LEASE) as tx:
        taken = (table.take_back(tx.session, run_id, actor.account, worker) for run_id in own)
        queued = next((run for run in taken if run), None) or table.take_queued(tx.session)
        if queued is None:
            raise Conflict(
                "queue-empty",
                "Another worker took the last piece of work.",
            )
        run, team = queued
        tx.within(team)
        run.state, run.attempt, run.trainer_id = "running", run.attempt + 1, actor.account
        run.started_at = run.started_at or tx.now
        assert actor.account is not None
        expires = tx.now + timedelta(seconds=seconds)
        lease = tx.session.get(Lease, run.id) or Lease(id=run.id, progress={})
        lease.worker, lease.account_id = worker.name[:120], actor.account
        lease.identity, lease.progress = worker.identity, {}
        lease.attempt, lease.expires_at = run.attempt, expires
        tx.session.add(lease)
        # The job is only an alarm: it reads from the row whether the lease really ran out.
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
    """Extend the caller's lease and note the progress; True when the work was cancelled meanwhile.

    Raises Conflict `lease-lost` when the work is no longer leased to the caller.
    """
    with store.upkeep("heartbeat") as session:
        lease = session.get(Lease, run_id, with_for_update=True)
        if lease is None or (lease.account_id, lease.attempt) != (actor.account, heartbeat.attempt):
            raise Conflict(
                "lease-lost", "This work is no longer leased to you.", "Stop this attempt."
            )
        lease.expires_at = table.clock(session) + timedelta(seconds=heartbeat.seconds)
        lease.progress = curves.extended(lease.progress, heartbeat.progress)
        return table.state_of(session, lease) == "cancelled"


def requeue(store: Store, actor: Actor, run_id: UUID, attempt: int, reason: str) -> None:
    """Give leased work back to the queue; the next worker goes on from the last save point."""
    with store.write(actor, Action.WORK_REQUEUE) as tx:
        run, team = table.by_id(tx.session, run_id, lock=True)
        tx.within(team)
        training_runs.must_hold(tx.session, run, actor.account, attempt)
        run.state = "queued"
        tx.session.delete(tx.get(Lease, run.id))
        tx.audit(table.subject(run), attempt=attempt, note=reason[:200])


def requeue_lost(store: Store) -> int:
    """Put work whose lease ran out back into the queue, or fail it after MAX_ATTEMPTS.

    Returns how many runs changed.
    """
    with store.read(SYSTEM) as session:
        lost = table.lost(session)
    return sum(_requeue_lost(store, run_id) for run_id in lost)


def _requeue_lost(store: Store, run_id: UUID) -> bool:
    """Take one run from a silent worker, unless it has sent a heartbeat: then nothing is logged."""
    with suppress(Conflict), store.write(SYSTEM, Action.WORK_RECLAIM) as tx:
        run, team = table.by_id(tx.session, run_id, lock=True)
        lease = tx.session.get(Lease, run.id, with_for_update=True)
        if run.state != "running" or lease is None or lease.expires_at > tx.moment():
            raise Conflict("not-lost", f"{table.subject(run)} is {run.state}, and not lost.")
        tx.team = team
        tx.audit(table.subject(run), attempt=run.attempt)
        if run.attempt >= MAX_ATTEMPTS:
            run.state, run.finished_at = "failed", tx.now
            run.error = f"The worker was lost {MAX_ATTEMPTS} times."
        else:
            run.state = "queued"
        tx.session.delete(lease)
        return True
    return False


def fail(store: Store, actor: Actor, run_id: UUID, attempt: int, error: str) -> None:
    """End work that cannot succeed, with its error; a retry is a new run."""
    with store.write(actor, Action.WORK_FAIL) as tx:
        run, team = table.by_id(tx.session, run_id, lock=True)
        tx.within(team)
        training_runs.must_hold(tx.session, run, actor.account, attempt)
        run.state, run.finished_at, run.error = "failed", tx.now, error[:4000]
        tx.session.delete(tx.get(Lease, run.id))
        tx.audit(table.subject(run), attempt=attempt)
