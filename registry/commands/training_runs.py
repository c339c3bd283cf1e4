"""Queue training runs, finish them with the trainer's signed report, or cancel them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from registry.db import datasets, training_runs, versions
from registry.db.lines import open_line
from registry.db.store import Store, Tx
from registry.db.training_runs import Lease, TrainingRun
from registry.db.training_runs import SignedReport as SignedReport
from registry.db.versions import Line
from registry.documents import canonical
from registry.errors import Invalid, Refused
from registry.rules import recipes
from registry.rules.actions import Action
from registry.rules.actors import Actor
from registry.rules.refs import parse_line
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


def queue(store: Store, actor: Actor, request: TrainingRequest) -> UUID:
    """Queue a recipe on a registered base and data set; a new adapter gets its line here.

    Raises Invalid for a bad recipe, name or missing domain, Refused when the base or the data set
    is not registered.
    """
    adapter, base, dataset = request.adapter, request.base, request.dataset
    ref = parse_line(adapter)
    assert ref.team is not None
    recipe = recipes.parse(request.recipe).as_dict()
    with store.write(actor, Action.TRAINING_QUEUE, ref.team) as tx:
        tx.within(ref.team)
        line = open_line(tx, ref, "adapter", request.domain)
        if line.domain is None:
            raise Invalid(
                "domain-missing",
                f"{ref.line} has no business domain yet, and the request names none.",
            )
        base_version, base_line, _ = versions.by_ref(tx.session, base, share=True)
        data, _ = datasets.by_ref(tx.session, dataset, share=True)
        if base_line.kind == "adapter" or not usable(base_version.state):
            raise Refused(
                "unfit-base",
                f"{base} is not a registered base model or checkpoint.",
                "Name a registered base model or checkpoint.",
                subject=adapter,
            )
        if not usable(data.state):
            raise Refused(
                "unfit-parent",
                f"{dataset} is {data.state}.",
                subject=adapter,
            )
        run = tx.add(
            TrainingRun(
                id=uuid4(),
                line_id=line.id,
                base_version_id=base_version.id,
                dataset_version_id=data.id,
                recipe=recipe,
                recipe_digest=canonical.digest(recipe),
                meta={**request.meta, **({"domain": line.domain} if line.domain else {})},
                state="queued",
                attempt=0,
                requested_by=actor.account,
                created_at=tx.now,
            )
        )
        tx.audit(
            f"training-run:{run.id}",
            adapter=adapter,
            base=base,
            dataset=dataset,
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
