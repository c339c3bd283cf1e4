"""The queue over training runs and eval runs: their own rows are the truth, there is no second
queue.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from registry.db.evals import EvalRun
from registry.db.training_runs import Lease, TrainingRun
from registry.db.versions import Line, Version
from registry.errors import NotFound

Run = TrainingRun | EvalRun


def clock(session: Session) -> datetime:
    """PostgreSQL's wall clock: the only clock leases are judged by."""
    now: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
    return now


def subject(run: Run) -> str:
    """How the log names a piece of work."""
    return f"{'training-run' if isinstance(run, TrainingRun) else 'eval-run'}:{run.id}"


def any_queued(session: Session, teams: Collection[str] | None) -> bool:
    """Is there work waiting in these teams (None: all)?"""
    return any(session.execute(statement.limit(1)).first() for statement in _queued(teams))


def take_queued(session: Session, teams: Collection[str] | None) -> tuple[Run, str] | None:
    """Lock the oldest waiting work, past any that others are just taking; training before evals of
    the same age.
    """
    waiting: list[tuple[Run, str]] = []
    for statement, table in zip(_queued(teams), (TrainingRun, EvalRun), strict=True):
        row = session.execute(
            statement.limit(1).with_for_update(of=table, skip_locked=True)
        ).first()
        if row is not None:
            waiting.append((row[0], row[1]))
    return min(waiting, key=lambda pair: pair[0].created_at) if waiting else None


def _queued(teams: Collection[str] | None) -> Iterator[Select[Any, str]]:
    training = select(TrainingRun, Line.team).join(Line, Line.id == TrainingRun.line_id)
    evaluation = (
        select(EvalRun, Line.team)
        .join(Version, Version.id == EvalRun.subject_id)
        .join(Line, Line.id == Version.line_id)
    )
    for statement, table in ((training, TrainingRun), (evaluation, EvalRun)):
        ready = statement.where(table.state == "queued").order_by(table.created_at)
        yield ready if teams is None else ready.where(Line.team.in_(teams))


def by_id(session: Session, run_id: UUID, *, lock: bool = False) -> tuple[Run, str]:
    """The training run or eval run of that id, and its team."""
    run = session.get(TrainingRun, run_id, with_for_update=lock or None)
    if run is not None:
        return run, session.get_one(Line, run.line_id).team
    evaluation = session.get(EvalRun, run_id, with_for_update=lock or None)
    if evaluation is None:
        raise NotFound("work-unknown", f"There is no training run or eval run {run_id}.")
    line_id = session.get_one(Version, evaluation.subject_id).line_id
    return evaluation, session.get_one(Line, line_id).team


def state_of(session: Session, run_id: UUID) -> str:
    """The state of a training run or eval run."""
    return by_id(session, run_id)[0].state


def lost(session: Session) -> list[UUID]:
    """Running work whose lease ran out."""
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
