"""Leased work with everything that a worker needs to start, by digest."""

from __future__ import annotations

from typing import cast
from uuid import UUID

from sqlalchemy.orm import Session

from registry.artifacts.bundles.names import Kind
from registry.db import versions
from registry.db import work as table
from registry.db.datasets import DatasetVersion
from registry.db.evals import EvalRun, EvalSuiteVersion
from registry.db.store import Store
from registry.db.training_runs import Lease, TrainingRun
from registry.db.versions import Blob, Line, Node
from registry.errors import Conflict
from registry.rules.actors import Actor
from registry.views.training_runs import (
    EvalWork,
    InputFile,
    InputView,
    RowsView,
    TrainingWork,
    WorkView,
)


def is_training(store: Store, actor: Actor, run_id: UUID) -> bool:
    """Whether this is a training run rather than an eval run.

    Raises NotFound if it is neither, or belongs to a team that the caller does not see.
    """
    with store.read(actor) as session:
        return isinstance(table.by_id(session, run_id)[0], TrainingRun)


def work(store: Store, actor: Actor, run_id: UUID) -> WorkView:
    """The caller's leased work with its inputs; Conflict `lease-lost` without the lease."""
    with store.read(actor) as session:
        run, _ = table.by_id(session, run_id)
        lease = session.get(Lease, run_id)
        if lease is None or lease.account_id != actor.account:
            raise Conflict(
                "lease-lost", "This work is no longer leased to you.", "Ask for other work."
            )
        training = _training(session, run) if isinstance(run, TrainingRun) else None
        evaluation = _evaluation(session, run) if isinstance(run, EvalRun) else None
        kind = "training_run" if training else "eval_run"
        return WorkView(run.id, kind, lease.attempt, lease.expires_at, training, evaluation)


def _version(session: Session, version_id: UUID) -> InputView:
    version, line, node = versions.by_id(session, version_id)
    files = [
        InputFile(path, sha256, size) for path, sha256, size in versions.files(session, version_id)
    ]
    # The root of an adapter is over its own tensors; that of a base is what binds adapters to it.
    root = version.tensor_root if line.kind == "adapter" else version.base_root
    return InputView(node.ref, cast(Kind, line.kind), root or "", files)


def _training(session: Session, run: TrainingRun) -> TrainingWork:
    data = session.get_one(DatasetVersion, run.dataset_version_id)
    rows = session.get_one(Blob, run.rows_blob_id)
    ref = session.get_one(Node, data.id).ref.removeprefix("dataset:")
    # Rows of other splits never leave for a trainer: suites are made of them.
    dataset = RowsView(
        ref, data.record_root, InputFile("rows.jsonl", rows.id, rows.size), run.rows_root
    )
    published = {
        str(step): ref for step, (ref, _, _) in versions.of_training_run(session, run.id).items()
    }
    return TrainingWork(
        session.get_one(Line, run.line_id).ref,
        run.recipe,
        run.recipe_digest,
        _version(session, run.base_version_id),
        dataset,
        published,
        dict(run.meta),
    )


def _evaluation(session: Session, run: EvalRun) -> EvalWork:
    suite = session.get_one(EvalSuiteVersion, run.suite_version_id)
    # Prompts alone: a trainer that knew the expected answers could send them back as its own.
    prompts = session.get_one(Blob, suite.prompts_blob_id)
    subject = versions.by_id(session, run.subject_id)[0]
    ref = session.get_one(Node, suite.id).ref.removeprefix("suite:")
    base = _version(session, subject.base_version_id) if subject.base_version_id else None
    return EvalWork(
        ref,
        suite.digest,
        suite.metric,
        suite.decoding,
        InputFile("prompts.jsonl", prompts.id, prompts.size),
        _version(session, run.subject_id),
        base,
    )
