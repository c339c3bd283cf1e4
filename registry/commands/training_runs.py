"""Queue training runs, finish them with the trainer's signed report, or cancel them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID, uuid4

from registry.artifacts.datasets.rows import TRAIN, sound_lines
from registry.artifacts.feasibility import recipes as feasibility
from registry.artifacts.feasibility.recipes import Base, Reading, Rows, Training
from registry.artifacts.methods.plans import Plan
from registry.artifacts.weights.tensors import File
from registry.blobs.store import Blobs
from registry.db import datasets, senders, training_runs, versions, work
from registry.db.datasets import DatasetVersion
from registry.db.lines import expected_domain, open_line
from registry.db.sight import Sighted
from registry.db.store import Store, Tx
from registry.db.training_runs import Lease, TrainingRun
from registry.db.training_runs import SignedReport as SignedReport
from registry.db.versions import Blob, Line, Node, Version
from registry.documents import canonical
from registry.errors import Invalid, Refused
from registry.fields import by_path, described
from registry.proof.merkle import Frontier
from registry.rules import recipes
from registry.rules.actions import Action
from registry.rules.actors import Actor, require
from registry.rules.recipes import Recipe
from registry.rules.refs import Ref, parse_line
from registry.rules.versions import usable


@dataclass(frozen=True, slots=True)
class TrainingRequest:
    """A recipe to run for an adapter, on a base and a data set.

    `meta` and `domain` go into the metadata of every version that the run registers.
    """

    adapter: str
    base: str
    dataset: str
    recipe: dict[str, Any]
    domain: str | None
    meta: dict[str, Any]


def queue(store: Store, blobs: Blobs, actor: Actor, request: TrainingRequest) -> UUID:
    """Queue a recipe on a registered base and data set; a new adapter gets its line here.

    Whatever is known to fail is refused now and not when a trainer is free: the recipe is judged
    by the base's and the data set's files, without a session, and entered in one transaction.
    Raises Invalid for a bad recipe or name, a missing domain, and a recipe that does not fit;
    Refused when the base or the data set is not registered.
    """
    ref = parse_line(request.adapter)
    assert ref.team is not None
    recipe = recipes.parse(request.recipe)
    with store.judging(actor, Action.TRAINING_QUEUE, ref.team), store.read(actor) as session:
        require(actor, Action.TRAINING_QUEUE, ref.team, work.clock(session))
        domain = expected_domain(session, ref, "adapter", request.domain)
        if domain is None:
            raise _no_domain(ref)
        base, rows, root = _inputs(session, request)
    with store.judging(actor, Action.TRAINING_QUEUE, ref.team):
        _must_fit(recipe, base, rows, {**request.meta, "domain": domain}, blobs)
        # Bytes before rows: they are published before any row names them.
        readable = _of_train(rows, root, blobs)
    # What was judged is what is entered, also if a newer version appeared meanwhile.
    request = replace(request, base=base.ref, dataset=rows.ref)
    with store.write(actor, Action.TRAINING_QUEUE, ref.team) as tx:
        tx.within(ref.team)
        versions.hold_blob(tx.session, blobs, readable.file.sha256, readable.file.size)
        return _entered(tx, ref, request, recipe.as_dict(), readable)


def _inputs(session: Sighted, request: TrainingRequest) -> tuple[Base, Rows, str]:
    """The base, the data set and its record root."""
    version, node = _fit_base(session, request)
    data, data_node = _fit_data(session, request)
    return (
        Base(
            node.ref,
            version.base_root or "",
            [File(*row) for row in versions.files(session, version.id)],
        ),
        Rows(
            data_node.ref.removeprefix("dataset:"),
            File("rows.jsonl", data.blob_id, session.get_one(Blob, data.blob_id).size),
            data.splits,
        ),
        data.record_root,
    )


def _fit_base(
    session: Sighted, request: TrainingRequest, *, share: bool = False
) -> tuple[Version, Node]:
    version, line, node = versions.by_ref(session, request.base, share=share)
    if line.kind == "adapter" or not usable(version.state):
        raise Refused(
            "unfit-base",
            f"{node.ref} is {'an adapter' if line.kind == 'adapter' else version.state}.",
            "Name a registered base model or checkpoint.",
            subject=request.adapter,
        )
    return version, node


def _fit_data(
    session: Sighted, request: TrainingRequest, *, share: bool = False
) -> tuple[DatasetVersion, Node]:
    data, node = datasets.by_ref(session, request.dataset, share=share)
    if not usable(data.state):
        raise Refused(
            "unfit-parent",
            f"{request.dataset} is {data.state}.",
            subject=request.adapter,
        )
    return data, node


def _no_domain(ref: Ref) -> Invalid:
    return Invalid(
        "domain-missing",
        f"{ref.line} has no business domain yet, and the request names none.",
    )


def _must_fit(recipe: Recipe, base: Base, rows: Rows, meta: dict[str, Any], blobs: Blobs) -> None:
    """Raise Invalid `unfit-recipe`, which lists everything that would fail later."""
    training = Training(
        Plan(recipe.targets, recipe.layers, recipe.rank, recipe.alpha),
        Reading(recipe.template, recipe.max_length, recipe.system),
        base,
        rows,
        meta,
    )
    wrong = feasibility.problems(training, blobs.read)
    if wrong:
        raise Invalid(
            "unfit-recipe",
            described(f"This cannot be trained on {base.ref} with {rows.ref}", wrong),
            problems=by_path(wrong),
        )


@dataclass(frozen=True, slots=True)
class _Readable:
    """The file that the trainer reads, with the record root over its rows.

    `made` says that the registry wrote it, so that its requester may name it.
    """

    file: File
    root: str
    made: bool


def _of_train(rows: Rows, root: str, blobs: Blobs) -> _Readable:
    """The lines of the split that is trained on; the data set's own file if it has no others.

    A suite is made of other splits, and a trainer that read them would know its expected answers.
    """
    if rows.splits.keys() == {TRAIN}:
        return _Readable(rows.file, root, made=False)
    own_root = Frontier()

    def lines() -> Iterator[bytes]:
        for line, row in sound_lines(rows.file, blobs.read, TRAIN):
            own_root.add(row.leaf)
            yield line + b"\n"

    stored = blobs.put(lines())
    return _Readable(File(rows.file.path, stored.sha256, stored.size), own_root.text(), made=True)


def _entered(
    tx: Tx, ref: Ref, request: TrainingRequest, recipe: dict[str, Any], readable: _Readable
) -> UUID:
    """Write the run; what it reads is locked, and must still be fit."""
    line = open_line(tx, ref, "adapter", request.domain)
    if line.domain is None:
        raise _no_domain(ref)
    base, _ = _fit_base(tx.session, request, share=True)
    data, _ = _fit_data(tx.session, request, share=True)
    if readable.made:
        senders.note(tx.session, tx.actor, readable.file.sha256, whole=True)
    run = tx.add(
        TrainingRun(
            id=uuid4(),
            line_id=line.id,
            base_version_id=base.id,
            dataset_version_id=data.id,
            rows_blob_id=readable.file.sha256,
            rows_root=readable.root,
            recipe=recipe,
            recipe_digest=canonical.digest(recipe),
            meta={**request.meta, "domain": line.domain},
            state="queued",
            attempt=0,
            requested_by=tx.actor.account,
            created_at=tx.now,
        )
    )
    tx.audit(
        f"training-run:{run.id}",
        adapter=request.adapter,
        base=request.base,
        dataset=request.dataset,
        recipe=run.recipe_digest,
    )
    return run.id


def finish(store: Store, actor: Actor, run_id: UUID, signed: SignedReport) -> None:
    """Finish a training run with its report, signed by an enrolled key of the trainer.

    The same report again changes nothing. Raises Conflict when the lease is lost, Refused when the
    report does not match the run or an output is missing, Unverified when the signature is not the
    trainer's.
    """
    report = signed.report
    with store.write(actor, Action.TRAINING_FINISH) as tx:
        run = training_runs.by_id(tx.session, run_id, lock=True)
        line = tx.get(Line, run.line_id)
        tx.within(line.team)
        if run.state == "succeeded" and run.report == report:
            tx.audit(f"training-run:{run.id}", repeated=True)
            return
        training_runs.must_hold(tx.session, run, actor.account, signed.attempt)
        training_runs.must_have_signed(
            tx.session, actor.account, signed, "training-report", line.ref
        )
        _check_report(tx, run, signed.attempt, report)
        run.state, run.finished_at = "succeeded", tx.now
        run.report, run.report_key, run.report_signature = report, signed.key, signed.signature
        tx.session.delete(tx.get(Lease, run.id))
        tx.audit(
            f"training-run:{run.id}",
            outputs=[output["ref"] for output in report["outputs"]],
            report=canonical.digest(report),
        )


def _check_report(tx: Tx, run: TrainingRun, attempt: int, report: dict[str, Any]) -> None:
    """Check that the report matches the run, and its outputs the versions that were registered."""
    reported = (report.get("run"), report.get("attempt"), report.get("recipe_digest"))
    if reported != (str(run.id), attempt, run.recipe_digest):
        raise Refused(
            "report-mismatch",
            "The report is about another training run, attempt or recipe.",
            subject=f"training-run:{run.id}",
        )
    outputs = report.get("outputs")
    sound = isinstance(outputs, list) and all(
        isinstance(output, dict)
        and type(output.get("step")) is int
        and isinstance(output.get("ref"), str)
        for output in outputs
    )
    if not sound:
        raise Invalid(
            "bad-report",
            "The report's outputs must be a list of {step, ref, manifest_digest}.",
            "Report every version that this training run registered.",
        )
    versions.must_keep_outputs(tx.session, run.id)
    versions_by_step = versions.of_training_run(tx.session, run.id)
    if drafts := [ref for ref, _, state in versions_by_step.values() if state == "draft"]:
        raise Refused(
            "output-incomplete",
            f"{', '.join(drafts)} is still a draft: required facts are missing.",
            "Queue the training again, with the missing facts in its meta.",
            subject=f"training-run:{run.id}",
        )
    registered = {step: (ref, digest) for step, (ref, digest, _) in versions_by_step.items()}
    listed = {
        output["step"]: (output["ref"], output.get("manifest_digest"))
        for output in report["outputs"]
    }
    if listed != registered or set(listed) != set(run.recipe["publish_at"]):
        raise Refused(
            "report-mismatch",
            "The reported outputs are not the versions that this training run registered.",
            "Register every step that the recipe publishes, then report.",
            subject=f"training-run:{run.id}",
        )


def cancel(store: Store, actor: Actor, run_id: UUID) -> None:
    """Cancel a training run; its worker learns it with the next heartbeat.

    Cancelling again changes nothing. Raises Refused when the run has ended.
    """
    with store.write(actor, Action.WORK_CANCEL) as tx:
        run = training_runs.by_id(tx.session, run_id, lock=True)
        tx.within(tx.get(Line, run.line_id).team)
        if run.state in ("succeeded", "failed"):
            raise Refused(
                "illegal-transition",
                f"The training run has {run.state} already.",
                "Only a queued or running training run can be cancelled.",
                subject=f"training-run:{run.id}",
            )
        if run.state != "cancelled":
            run.state, run.finished_at = "cancelled", tx.now
        tx.audit(f"training-run:{run.id}")
