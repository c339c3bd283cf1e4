"""Gather the evidence that a review may rely on.

It is one document with one digest, made from rows and bytes, and contains no text that somebody
typed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry.artifacts.datasets import rows
from registry.artifacts.datasets.rows import Item
from registry.artifacts.tokenizers import chat_templates
from registry.artifacts.weights.tensors import File
from registry.blobs.store import Blobs
from registry.db import effects, evals, lineage, versions
from registry.db.datasets import DatasetVersion
from registry.db.evals import EndedRuns, EvalRun, EvalSuiteVersion
from registry.db.policies import PolicyVersion
from registry.db.reviews import Review
from registry.db.training_runs import TrainingRun
from registry.db.use_cases import UseCase, UseCaseVersion
from registry.db.versions import Node, Version
from registry.documents import canonical
from registry.rules import evals as rules
from registry.rules.versions import GRADES


@dataclass(frozen=True)
class Subject:
    """What is judged: a version, its data sets, and the suite that measures it.

    `lineage` are the grades by which its data sets are known. `runs` are the ended eval runs of the
    version and its base on the suite.
    """

    session: Session
    blobs: Blobs
    version: Version
    datasets: tuple[DatasetVersion, ...]
    lineage: tuple[str, ...]
    suite: EvalSuiteVersion
    suite_ref: str
    runs: EndedRuns

    @cached_property
    def items(self) -> tuple[Item, ...]:
        """The items of the suite, read once."""
        return rows.decode_items(b"".join(self.blobs.stream(self.suite.blob_id)))


def gather(
    session: Session, blobs: Blobs, version: Version, policy: PolicyVersion, case: UseCaseVersion
) -> dict[str, Any]:
    """The evidence for a version under a policy.

    It holds the version's identity, its data, and what each rule of the gate reads
    (`READ_BY_RULES`). What is missing is null, and the gate then holds. It contains counts; the
    verdict is computed from them and stored elsewhere.
    """
    base = versions.by_id(session, version.base_version_id) if version.base_version_id else None
    suite = session.get_one(EvalSuiteVersion, case.suite_version_id)
    suite_ref = session.get_one(Node, suite.id).ref.removeprefix("suite:")
    runs = evals.ended_runs(session, {version.id, version.base_version_id}, {suite.id})
    data = lineage.parents(session, version.id, "tuned_on")
    subject = Subject(
        session=session,
        blobs=blobs,
        version=version,
        datasets=tuple(session.get_one(DatasetVersion, id) for id in data),
        lineage=tuple(data.values()),
        suite=suite,
        suite_ref=suite_ref,
        runs=runs,
    )
    parts = {name: read(subject) for name, read in READ_BY_RULES.items()}
    return {
        "v": 1,
        "environment": policy.environment,
        "use_case": session.get_one(UseCase, case.use_case_id).ref,
        "use_case_version": case.number,
        "policy": {"ref": policy.ref, "digest": policy.digest},
        "subject": {
            "ref": session.get_one(Node, version.id).ref,
            "version_id": str(version.id),
            "manifest_digest": version.manifest_digest,
            "tensor_root": version.tensor_root,
        },
        "base": base
        and {
            "ref": base[2].ref,
            "base_root": base[0].base_root,
            "manifest_digest": base[0].manifest_digest,
            "licence": base[0].meta.get("licence"),
        },
        "datasets": [
            {**_dataset(session, each), "lineage": grade}
            for each, grade in zip(subject.datasets, subject.lineage, strict=True)
        ],
        "training_run": _training(session, version.training_run_id),
        "suite": {
            "ref": suite_ref,
            "digest": suite.digest,
            "items": suite.items,
            "normalisation": suite.normalisation,
        },
        "runs": {
            "adapter": _runs(runs.of(version.id, suite.id)),
            "base": _runs(runs.of(version.base_version_id, suite.id)),
        },
        **{
            name: part
            for name, part in parts.items()
            if part is not None or name not in ONLY_WHERE_THERE
        },
    }


def renewed(
    session: Session, reviews: Collection[Review]
) -> list[tuple[Review, PolicyVersion, dict[str, Any]]]:
    """Each review with its policy and its evidence, in which eval runs count up to now.

    All runs of a version and its base count, so a later run may show what the first did not. Its
    effect is the version's, whatever suite a run measured it on. The reviews are locked meanwhile,
    so however many they are, this takes three statements.
    """
    if not reviews:
        return []
    loaded = session.execute(
        select(Review, PolicyVersion, Version, EvalSuiteVersion)
        .join(PolicyVersion, PolicyVersion.id == Review.policy_version_id)
        .join(Version, Version.id == Review.version_id)
        .join(UseCaseVersion, UseCaseVersion.id == Review.use_case_version_id)
        .join(EvalSuiteVersion, EvalSuiteVersion.id == UseCaseVersion.suite_version_id)
        .where(Review.id.in_([review.id for review in reviews]))
        .order_by(Review.number)
    ).all()
    ids = {version.id for _, _, version, _ in loaded}
    bases = {version.base_version_id for _, _, version, _ in loaded}
    runs = evals.ended_runs(session, ids | bases, {suite.id for _, _, _, suite in loaded})
    measured = effects.measured(session, ids)
    return [
        (
            review,
            policy,
            {
                **review.evidence,
                "eval": paired(
                    suite,
                    review.evidence["suite"]["ref"],
                    runs.outcomes(version.id, suite.id),
                    runs.outcomes(version.base_version_id, suite.id),
                ),
                "effect": effects.evidence(version, measured.get(version.id)),
            },
        )
        for review, policy, version, suite in loaded
    ]


def _dataset(session: Session, data: DatasetVersion) -> dict[str, Any]:
    ref = session.get_one(Node, data.id).ref.removeprefix("dataset:")
    return {
        "ref": ref,
        "record_root": data.record_root,
        "rows": data.rows,
        "state": data.state,
        "licence": data.meta.get("licence"),
        "personal_data": data.meta.get("personal_data"),
    }


def _training(session: Session, run_id: UUID | None) -> dict[str, Any] | None:
    run = session.get(TrainingRun, run_id) if run_id else None
    if run is None:
        return None
    return {
        "id": str(run.id),
        "recipe_digest": run.recipe_digest,
        "report_digest": run.report and canonical.digest(run.report),
    }


def _runs(ended: list[EvalRun]) -> dict[str, Any]:
    """All ended eval runs of a version on the suite: nobody chooses which of them count.

    Those that failed or were cancelled are counted, so that reviewers see how often somebody tried.
    """
    states = [run.state for run in ended]
    return {
        "succeeded": [
            {
                "run": str(run.id),
                "attempt": run.attempt,
                "samples_sha256": run.samples_blob_id,
                "correct": int(run.outcomes, 16).bit_count(),
            }
            for run in ended
            if run.outcomes is not None
        ],
        "failed": states.count("failed"),
        "cancelled": states.count("cancelled"),
    }


def paired(
    suite: EvalSuiteVersion, ref: str, own: list[str], other: list[str]
) -> dict[str, Any] | None:
    """The outcomes of a version and of its base, paired item by item (`rules.evals.pair`).

    None unless both the version and its base were evaluated. `ref` names the suite.
    """
    if not own or not other:
        return None
    counts = rules.pair(own, other, suite.items)
    return {
        "metric": suite.metric,
        "suite": ref,
        "suite_digest": suite.digest,
        "adapter": {
            "correct": counts.both + counts.only_adapter,
            "runs": len(own),
            "disagreeing": rules.disagreeing(own, suite.items),
        },
        "base": {
            "correct": counts.both + counts.only_base,
            "runs": len(other),
            "disagreeing": rules.disagreeing(other, suite.items),
        },
        "paired": asdict(counts),
    }


def _contamination(subject: Subject) -> dict[str, Any] | None:
    """Exact overlap of everything trained on with the suite; null when it is not known what was
    trained on.
    """
    if not subject.datasets:
        return None
    blobs = subject.blobs
    files = [
        File("rows.jsonl", data.blob_id, blobs.size(data.blob_id)) for data in subject.datasets
    ]
    run_id = subject.version.training_run_id
    run = subject.session.get_one(TrainingRun, run_id) if run_id else None
    recipe_system = run.recipe.get("system") if run else None
    train = (
        row if row.own_system else replace(row, system=recipe_system)
        for file in files
        for row in rows.sound_rows(file, blobs.read)
        if row.split == rows.TRAIN
    )
    overlap = rows.overlap(train, subject.items, subject.suite.decoding["system"])
    return {
        "items": overlap.items,
        "train_rows": overlap.train_rows,
        "exact": overlap.exact,
        "examples": list(overlap.examples),
        "lineage": min(subject.lineage, key=GRADES.index),
    }


def _chat_template(subject: Subject) -> dict[str, Any] | None:
    """The chat template that the version brings, if it is not that of its base."""
    template = chat_templates.own_of(subject.version.facts)
    return (
        None if template is None else {"source": template["source"], "digest": template["digest"]}
    )


READ_BY_RULES: dict[str, Callable[[Subject], dict[str, Any] | None]] = {
    "eval": lambda subject: paired(
        subject.suite,
        subject.suite_ref,
        subject.runs.outcomes(subject.version.id, subject.suite.id),
        subject.runs.outcomes(subject.version.base_version_id, subject.suite.id),
    ),
    "contamination": _contamination,
    "effect": lambda subject: effects.evidence(
        subject.version,
        effects.measured(subject.session, [subject.version.id]).get(subject.version.id),
    ),
    "companions": lambda subject: effects.left_out(subject.version),
    "chat_template": _chat_template,
}
"""Key in the evidence (`Rule.reads`) -> the function that gathers it."""
ONLY_WHERE_THERE = {"chat_template", "companions", "effect"}
"""Keys that are absent, rather than null, when there is nothing: most evidence has none."""
