"""What a review may rely on, gathered from rows and bytes: one document, one digest, and nothing
anybody typed.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from registry.artifacts.datasets import rows
from registry.artifacts.datasets.rows import Item
from registry.artifacts.datasets.samples import expected_answers, read_samples
from registry.artifacts.tokenizers import chat_templates
from registry.artifacts.weights.tensors import File
from registry.blobs.store import Blobs
from registry.db import evals, lineage, versions
from registry.db.datasets import DatasetVersion
from registry.db.evals import EvalRun, EvalSuiteVersion
from registry.db.policies import PolicyVersion
from registry.db.training_runs import TrainingRun
from registry.db.use_cases import UseCase
from registry.db.versions import Node, Version
from registry.documents import canonical
from registry.rules import evals as rules


def gather(
    session: Session,
    blobs: Blobs,
    version: Version,
    node: Node,
    policy: PolicyVersion,
    use_case: UseCase,
) -> dict[str, Any]:
    """The evidence for a version under a policy: identity, data, eval runs paired item by item,
    contamination.

    What is missing is null: the gate then holds. Counts only; the verdict is computed from them,
    not stored here.
    """
    suite = evals.newest_version(session, use_case.suite_id)
    base = versions.by_id(session, version.base_version_id) if version.base_version_id else None
    data = [
        session.get_one(DatasetVersion, one)
        for one in lineage.parents(session, version.id, "tuned_on")
    ]
    items = rows.decode_items(b"".join(blobs.stream(suite.blob_id)))
    template = chat_templates.own_of(version.facts)
    return {
        "v": 1,
        "environment": policy.environment,
        "use_case": use_case.ref,
        "policy": {"ref": policy.ref, "digest": policy.digest},
        "subject": {
            "ref": node.ref,
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
        "datasets": [_dataset(session, one) for one in data],
        "training_run": _training(session, version.training_run_id),
        "suite": {
            "ref": session.get_one(Node, suite.id).ref.removeprefix("suite:"),
            "digest": suite.digest,
            "items": suite.items,
        },
        "eval": _paired(session, blobs, version.id, base and base[0].id, suite, items),
        "contamination": _contamination(blobs, data, items),
        # Only a template of its own is evidence; without one the document is what it always was.
        **(
            {"chat_template": {"source": template["source"], "digest": template["digest"]}}
            if template
            else {}
        ),
    }


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


def _paired(
    session: Session,
    blobs: Blobs,
    version_id: UUID,
    base_id: UUID | None,
    suite: EvalSuiteVersion,
    items: tuple[Item, ...],
) -> dict[str, Any] | None:
    """Both eval runs judged again from their samples and paired item by item; null unless both are
    there.
    """
    own = evals.newest_success(session, version_id, suite.id)
    other = evals.newest_success(session, base_id, suite.id) if base_id else None
    if own is None or other is None:
        return None
    adapter, base = (
        _scores(blobs, own, items, suite.metric),
        _scores(blobs, other, items, suite.metric),
    )
    paired = rules.pair(adapter.by_item, base.by_item)
    return {
        "metric": suite.metric,
        "suite": session.get_one(Node, suite.id).ref.removeprefix("suite:"),
        "suite_digest": suite.digest,
        "adapter": {
            "run": str(own.id),
            "samples_sha256": own.samples_blob_id,
            "correct": adapter.correct,
        },
        "base": {
            "run": str(other.id),
            "samples_sha256": other.samples_blob_id,
            "correct": base.correct,
        },
        "paired": {
            "n": paired.n,
            "both": paired.both,
            "only_adapter": paired.only_adapter,
            "only_base": paired.only_base,
            "neither": paired.neither,
        },
    }


def _scores(blobs: Blobs, run: EvalRun, items: tuple[Item, ...], metric: str) -> rules.Scores:
    assert run.samples_blob_id is not None
    return rules.score(
        read_samples(b"".join(blobs.stream(run.samples_blob_id))), expected_answers(items), metric
    )


def _contamination(
    blobs: Blobs, data: list[DatasetVersion], items: tuple[Item, ...]
) -> dict[str, Any] | None:
    """Exact overlap of everything trained on with the suite; null when nobody said what was trained
    on.
    """
    if not data:
        return None
    files = [File("rows.jsonl", one.blob_id, blobs.size(one.blob_id)) for one in data]
    prompts = (
        row.prompt
        for file in files
        for row in rows.sound_rows(file, blobs.read)
        if row.split == "train"
    )
    found = rows.overlap(prompts, items)
    return {
        "items": found.items,
        "train_rows": found.train_rows,
        "exact": found.exact,
        "examples": list(found.examples),
    }
