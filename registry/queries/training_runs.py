"""Training runs with their progress, meters and outputs."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import ColumnElement, select, true
from sqlalchemy.orm import Session, aliased

from registry.db.accounts import names
from registry.db.store import Store
from registry.db.training_runs import STATES, Lease, TrainingRun
from registry.db.versions import Line, Node, Version
from registry.errors import Invalid, NotFound
from registry.queries.pages import MAX_PAGE_ROWS, check_limit, plain_ref, seen
from registry.rules import curves
from registry.rules.actors import Actor
from registry.rules.refs import parse_line
from registry.views.training_runs import TrainingRunView

DataNode = aliased(Node)


def training_run(store: Store, actor: Actor, run_id: UUID) -> TrainingRunView:
    """The training run of that id, or NotFound."""
    with store.read(actor) as session:
        views = _views(session, actor, TrainingRun.id == run_id, 1)
    if not views:
        raise NotFound("training-run-unknown", f"There is no training run {run_id}.")
    return views[0]


def training_runs(
    store: Store,
    actor: Actor,
    adapter: str | None = None,
    state: str | None = None,
    *,
    limit: int = MAX_PAGE_ROWS,
) -> list[TrainingRunView]:
    """The newest training runs of the teams the caller sees, newest first.

    With `adapter` or `state`, only those of one adapter or in one state. Raises Invalid
    `bad-state` for an unknown state.
    """
    which: ColumnElement[bool] = true()
    if adapter is not None:
        line = parse_line(adapter)
        which &= (Line.team == line.team) & (Line.name == line.name)
    if state is not None:
        which &= TrainingRun.state == check_state(state)
    with store.read(actor) as session:
        return _views(session, actor, which, check_limit(limit))


def check_state(state: str) -> str:
    """The state, if training runs and eval runs can be in it; Invalid `bad-state` otherwise."""
    if state not in STATES:
        raise Invalid(
            "bad-state", f"A run is never '{state[:40]}'.", f"Use one of {', '.join(STATES)}."
        )
    return state


def _views(
    session: Session,
    actor: Actor,
    which: ColumnElement[bool],
    limit: int,
) -> list[TrainingRunView]:
    rows = session.execute(
        select(TrainingRun, Line, Node.ref, DataNode.ref, Lease.progress)
        .join(Line, Line.id == TrainingRun.line_id)
        .join(Node, Node.id == TrainingRun.base_version_id)
        .join(DataNode, DataNode.id == TrainingRun.dataset_version_id)
        .outerjoin(Lease, Lease.id == TrainingRun.id)
        .where(which, seen(actor, Line.team))
        .order_by(TrainingRun.created_at.desc(), TrainingRun.id)
        .limit(limit)
    ).all()
    outputs: dict[UUID, list[str]] = {row[0].id: [] for row in rows}
    published = (
        select(TrainingRun.id, Node.ref)
        .join(Version, Version.training_run_id == TrainingRun.id)
        .join(Node, Node.id == Version.id)
        .where(TrainingRun.id.in_(outputs))
        .order_by(Version.step)
    )
    for run_id, ref in session.execute(published):
        outputs[run_id].append(ref)
    names_by_id = names(
        session, {account for row in rows for account in (row[0].requested_by, row[0].trainer_id)}
    )
    views = []
    for run, line, base, dataset, progress in rows:
        report = run.report or {}
        views.append(
            TrainingRunView(
                id=run.id,
                adapter=line.ref,
                base=base,
                dataset=plain_ref(dataset),
                recipe=run.recipe,
                recipe_digest=run.recipe_digest,
                state=run.state,
                attempt=run.attempt,
                progress={
                    key: value
                    for key, value in (progress or {}).items()
                    if key not in ("curve", "first_row")
                },
                curve=curves.of(progress or {}),
                outputs=outputs[run.id],
                meters=report.get("meters") or {},
                environment=report.get("environment") or {},
                first_row=report.get("first_row") or (progress or {}).get("first_row") or {},
                mlflow_url=(report.get("mlflow") or {}).get("url"),
                error=run.error,
                requested_by=names_by_id[run.requested_by],
                trainer=names_by_id[run.trainer_id] if run.trainer_id else None,
                created_at=run.created_at,
                started_at=run.started_at,
                finished_at=run.finished_at,
            )
        )
    return views
