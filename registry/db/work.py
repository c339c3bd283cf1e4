"""The queue of training runs and eval runs. Their own rows are the only queue."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from registry.db import evals, training_runs
from registry.db.evals import EvalRun
from registry.db.sight import Sighted
from registry.db.training_runs import Lease, TrainingRun
from registry.db.versions import Line, Node, Version
from registry.errors import NotFound

Run = TrainingRun | EvalRun


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker as it presents itself: the name that people see, and its identity.

    The identity is the same for a process that takes over the work folder of a dead one, and for no
    other process. Only what holds the lock of that folder may state it.
    """

    name: str
    identity: str | None = None


def clock(session: Session) -> datetime:
    """PostgreSQL's clock, the only one that leases are judged by."""
    now: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
    return now


def subject(run: Run) -> str:
    """The name of a run in the log."""
    return f"{'training-run' if isinstance(run, TrainingRun) else 'eval-run'}:{run.id}"


def any_queued(session: Sighted) -> bool:
    """Whether any work is queued."""
    return any(session.execute(statement.limit(1)).first() for statement in _queued(session))


def take_queued(session: Sighted) -> tuple[Run, str] | None:
    """Lock the oldest queued run, with its team; None if there is none.

    Runs that others are taking are skipped. Of the same age, training runs come first.
    """
    oldest: list[tuple[Run, str]] = []
    for statement, table in zip(_queued(session), (TrainingRun, EvalRun), strict=True):
        row = session.execute(
            statement.limit(1).with_for_update(of=table, skip_locked=True)
        ).first()
        if row is not None:
            oldest.append((row[0], row[1]))
    return min(oldest, key=lambda pair: pair[0].created_at) if oldest else None


def left_behind(session: Sighted, worker: Worker, attempts: int) -> list[UUID]:
    """The running work that a worker's own earlier process has leased, oldest first.

    Work that had so many attempts already is not among it.
    """
    if worker.identity is None:
        return []
    owned = select(Lease.id).where(
        Lease.account_id == session.actor.account,
        Lease.identity == worker.identity,
        Lease.attempt < attempts,
    )
    trainings = select(TrainingRun).where(TrainingRun.state == "running", TrainingRun.id.in_(owned))
    evaluations = select(EvalRun).where(EvalRun.state == "running", EvalRun.id.in_(owned))
    runs: list[Run] = [*session.scalars(trainings), *session.scalars(evaluations)]
    return [run.id for run in sorted(runs, key=lambda run: run.created_at)]


def take_back(
    session: Sighted, run_id: UUID, account: UUID | None, worker: Worker
) -> tuple[Run, str] | None:
    """Lock a run that a worker's own earlier process leased; None if it lost it meanwhile."""
    run, team = by_id(session, run_id, lock=True)
    lease = session.get(Lease, run_id, with_for_update=True)
    owner = (account, worker.identity)
    owned = lease is not None and (lease.account_id, lease.identity) == owner
    return (run, team) if owned and run.state == "running" else None


def _queued(session: Sighted) -> Iterator[Select[Any, str]]:
    training = select(TrainingRun, Line.team).join(Line, Line.id == TrainingRun.line_id)
    evaluation = (
        select(EvalRun, Line.team)
        .join(Version, Version.id == EvalRun.subject_id)
        .join(Line, Line.id == Version.line_id)
    )
    for statement, table in ((training, TrainingRun), (evaluation, EvalRun)):
        queued = statement.where(table.state == "queued", session.seen(Line.team))
        yield queued.order_by(table.created_at)


def by_id(session: Sighted, run_id: UUID, *, lock: bool = False) -> tuple[Run, str]:
    """The training run or eval run of that id with its team, or NotFound."""
    run: Run
    try:
        with suppress(NotFound):
            run = training_runs.by_id(session, run_id, lock=lock)
            return run, session.get_one(Line, run.line_id).team
        run = evals.run_by_id(session, run_id, lock=lock)
    except NotFound:
        raise NotFound("work-unknown", f"There is no training run or eval run {run_id}.") from None
    return run, session.get_one(Node, run.subject_id).team


def state_of(session: Session, lease: Lease) -> str:
    """The state of the training run or eval run that is leased."""
    run = session.get(TrainingRun, lease.id) or session.get_one(EvalRun, lease.id)
    return run.state


def lost(session: Session) -> list[UUID]:
    """The running work whose lease ran out."""
    running = (
        select(TrainingRun.id)
        .where(TrainingRun.state == "running")
        .union(select(EvalRun.id).where(EvalRun.state == "running"))
    )
    return list(
        session.scalars(
            select(Lease.id).where(Lease.expires_at < func.now(), Lease.id.in_(running))
        )
    )
