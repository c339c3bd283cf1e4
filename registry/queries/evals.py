"""Frozen eval suites, and the eval runs of versions on them."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import ColumnElement, select, true
from sqlalchemy.orm import Session, aliased

from registry.db.evals import EvalMetric, EvalRun, EvalSuite, EvalSuiteVersion, suite_version
from registry.db.store import Store
from registry.db.training_runs import Lease
from registry.db.versions import Node, by_ref
from registry.errors import NotFound
from registry.queries.pages import MAX_PAGE_ROWS, check_limit, plain_ref, seen
from registry.queries.training_runs import check_state
from registry.rules.actors import Actor
from registry.views.evals import EvalRunView, MetricView, SuiteView

SuiteNode = aliased(Node)


def suites(store: Store, actor: Actor) -> list[SuiteView]:
    """Every frozen suite version of the teams the caller sees, by name, newest first."""
    with store.read(actor) as session:
        return _suites(session, actor, true())


def suite(store: Store, actor: Actor, ref: str) -> SuiteView:
    """The suite version that a reference names, or NotFound; a bare name means the newest."""
    with store.read(actor) as session:
        version, _ = suite_version(session, ref)
        return _suites(session, actor, EvalSuiteVersion.id == version.id)[0]


def _suites(session: Session, actor: Actor, which: ColumnElement[bool]) -> list[SuiteView]:
    rows = session.execute(
        select(EvalSuiteVersion, SuiteNode.ref, Node.ref)
        .join(EvalSuite, EvalSuite.id == EvalSuiteVersion.suite_id)
        .join(SuiteNode, SuiteNode.id == EvalSuiteVersion.id)
        .join(Node, Node.id == EvalSuiteVersion.dataset_version_id)
        .where(which, seen(actor, EvalSuite.team))
        .order_by(EvalSuite.team, EvalSuite.name, EvalSuiteVersion.number.desc())
    )
    return [
        SuiteView(
            id=row.id,
            ref=plain_ref(ref),
            number=row.number,
            digest=row.digest,
            dataset=plain_ref(dataset),
            split=row.split,
            metric=row.metric,
            decoding=row.decoding,
            normalisation=row.normalisation,
            items=row.items,
            items_sha256=row.blob_id,
            created_at=row.created_at,
        )
        for row, ref, dataset in rows
    ]


def eval_run(store: Store, actor: Actor, run_id: UUID) -> EvalRunView:
    """The eval run of that id, or NotFound."""
    with store.read(actor) as session:
        views = _views(session, actor, EvalRun.id == run_id, 1)
    if not views:
        raise NotFound("eval-run-unknown", f"There is no eval run {run_id}.")
    return views[0]


def eval_runs(
    store: Store,
    actor: Actor,
    subject: str | None = None,
    *,
    suite: str | None = None,
    state: str | None = None,
    limit: int = MAX_PAGE_ROWS,
) -> list[EvalRunView]:
    """The newest eval runs of the teams the caller sees, newest first.

    With `subject`, `suite` or `state`, only those of one version, on one suite version or in one
    state. Raises Invalid `bad-state` for an unknown state.
    """
    with store.read(actor) as session:
        which: ColumnElement[bool] = true()
        if subject is not None:
            which = EvalRun.subject_id == by_ref(session, subject, gone=True)[0].id
        if suite is not None:
            which &= EvalRun.suite_version_id == suite_version(session, suite)[0].id
        if state is not None:
            which &= EvalRun.state == check_state(state)
        return _views(session, actor, which, check_limit(limit))


def _views(
    session: Session, actor: Actor, which: ColumnElement[bool], limit: int
) -> list[EvalRunView]:
    rows = session.execute(
        select(EvalRun, Node.ref, SuiteNode.ref, Lease.progress)
        .join(Node, Node.id == EvalRun.subject_id)
        .join(SuiteNode, SuiteNode.id == EvalRun.suite_version_id)
        .outerjoin(Lease, Lease.id == EvalRun.id)
        .where(which, seen(actor, Node.team))
        .order_by(EvalRun.created_at.desc(), EvalRun.id)
        .limit(limit)
    ).all()
    metrics: dict[UUID, list[MetricView]] = {row[0].id: [] for row in rows}
    measured = (
        select(EvalMetric).where(EvalMetric.eval_run_id.in_(metrics)).order_by(EvalMetric.name)
    )
    for metric in session.scalars(measured):
        metrics[metric.eval_run_id].append(
            MetricView(
                name=metric.name,
                value=metric.value,
                n=metric.n,
                ci_low=metric.ci_low,
                ci_high=metric.ci_high,
                higher_is_better=metric.higher_is_better,
            )
        )
    return [
        EvalRunView(
            id=run.id,
            subject=subject,
            suite=plain_ref(suite),
            state=run.state,
            attempt=run.attempt,
            progress=progress or {},
            metrics=metrics[run.id],
            samples_sha256=run.samples_blob_id,
            error=run.error,
            created_at=run.created_at,
            finished_at=run.finished_at,
        )
        for run, subject, suite, progress in rows
    ]
