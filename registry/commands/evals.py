"""Freeze eval suites, queue eval runs, and finish them.

The registry recomputes every number from the samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from registry.artifacts.datasets import rows
from registry.artifacts.datasets.rows import Item
from registry.artifacts.datasets.samples import expected_answers, read_samples
from registry.artifacts.feasibility import suites
from registry.artifacts.weights.tensors import File
from registry.blobs.store import Blobs
from registry.db import (
    datasets,
    evidence,
    reviews,
    senders,
    training_runs,
    versions,
    work,
)
from registry.db import evals as table
from registry.db.evals import EvalMetric, EvalRun, EvalSuite, EvalSuiteVersion
from registry.db.lineage import LineageEdge
from registry.db.sight import Sighted
from registry.db.store import Store, Tx
from registry.db.training_runs import Lease
from registry.db.training_runs import SignedReport as SignedReport
from registry.db.versions import Line, Node, Version
from registry.documents import canonical
from registry.errors import Invalid, Refused, TooLarge, Unverified
from registry.rules import evals, gates, probes
from registry.rules.actions import Action
from registry.rules.actors import Actor, require
from registry.rules.recipes import is_system_prompt
from registry.rules.refs import parse_line
from registry.rules.versions import usable

MAX_SAMPLES_BYTES = 256 << 20


def _decoding(options: dict[str, Any]) -> dict[str, Any]:
    """The complete decoding options, or Invalid.

    Decoding is always greedy, so that the same weights give the same answers.
    """
    decoding = {"template": "chat", "max_new_tokens": 8, "system": None, "stop": [], **options}
    sound = (
        set(decoding) == {"template", "max_new_tokens", "system", "stop"}
        and decoding["template"] in ("chat", "plain")
        and type(decoding["max_new_tokens"]) is int
        and 1 <= decoding["max_new_tokens"] <= 4096
        and (decoding["system"] is None or is_system_prompt(decoding["system"]))
    )
    if not sound:
        raise Invalid(
            "bad-decoding",
            "Decoding is {template: chat|plain, max_new_tokens: 1..4096, system: text or null, "
            "stop: a list of texts}; a system prompt is not blank.",
            "Correct these four options and leave out all others.",
        )
    evals.check_stop(decoding["stop"])
    return decoding


@dataclass(frozen=True, slots=True)
class SuiteRequest:
    """A suite to freeze: one split of a data set, with the metric and the decoding."""

    name: str
    dataset: str
    split: str
    metric: str
    decoding: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Measured:
    """What the samples show: how many of `items` answers are correct by the metric, and which."""

    metric: str
    correct: int
    items: int
    outcomes: str


def _check_systems(items: Sequence[Item], system: str | None) -> None:
    """Raise Invalid `system-prompts-differ` where the suite and a row each have their own."""
    own = next((item.system for item in items if item.system not in (None, system)), None)
    if system is not None and own is not None:
        raise Invalid(
            "system-prompts-differ",
            f"The suite has a system prompt, and a row of the split has another: {own[:60]!r}.",
        )


def freeze(store: Store, blobs: Blobs, actor: Actor, request: SuiteRequest) -> UUID:
    """Freeze a data set's split as the next version of a suite, and return its id.

    A suite that already has the same items, metric and decoding gets no second version. Raises
    Refused when the data set is not registered, Invalid for an empty split or an unknown metric.
    """
    name, split, metric = request.name, request.split, request.metric
    ref = parse_line(name)
    assert ref.team is not None and ref.name is not None
    if metric not in evals.METRICS:
        raise Invalid(
            "bad-metric", f"There is no metric '{metric[:40]}'.", f"Use {', '.join(evals.METRICS)}."
        )
    decoding = _decoding(request.decoding)
    store.check(actor, Action.SUITE_FREEZE, ref.team)
    with store.read(actor) as session:
        data, data_node = datasets.by_ref(session, request.dataset)
    file = File("rows.jsonl", data.blob_id, blobs.size(data.blob_id))
    items = rows.suite_items(rows.sound_rows(file, blobs.read), split)
    _check_systems(items, decoding["system"])
    scoring = evals.Scoring(metric, tuple(decoding["stop"]))
    for item in items:
        scoring.check_answer(item.prompt, item.expected)
    # Bytes before rows: the items are published before any row names them.
    stored, prompts = blobs.put([rows.encode_items(items)]), blobs.put([rows.encode_prompts(items)])
    digest = canonical.digest(
        {
            "items": stored.sha256,
            "metric": metric,
            "decoding": decoding,
            "normalisation": evals.NORMALISATION,
        }
    )
    with store.write(actor, Action.SUITE_FREEZE, ref.team) as tx:
        tx.within(ref.team)
        data, data_node = datasets.by_ref(
            tx.session, data_node.ref.removeprefix("dataset:"), share=True
        )
        if not usable(data.state):
            raise Refused(
                "unfit-parent", f"{data_node.ref} is {data.state}.", "Name another.", subject=name
            )
        suite = table.line(tx.session, ref, lock=True)
        if suite is None:
            suite = tx.add(
                EvalSuite(
                    id=uuid4(),
                    team=ref.team,
                    name=ref.name,
                    created_by=actor.account,
                    created_at=tx.now,
                )
            )
        same = table.of_digest(tx.session, suite.id, digest)
        if same is not None:
            tx.audit(f"suite:{name}@v{same.number}", found=True)
            return same.id
        number = table.highest(tx.session, suite.id) + 1
        for made in (stored, prompts):
            versions.hold_blob(tx.session, blobs, made.sha256, made.size)
            # The items are made for the actor, of rows that they may read.
            senders.note(tx.session, actor, made.sha256, whole=True)
        node = tx.add(Node(id=uuid4(), kind="suite", team=ref.team, ref=f"suite:{name}@v{number}"))
        tx.add(
            EvalSuiteVersion(
                id=node.id,
                suite_id=suite.id,
                number=number,
                digest=digest,
                dataset_version_id=data.id,
                split=split,
                metric=metric,
                decoding=decoding,
                normalisation=evals.NORMALISATION,
                items=len(items),
                blob_id=stored.sha256,
                prompts_blob_id=prompts.sha256,
                created_by=actor.account,
                created_at=tx.now,
            )
        )
        tx.add(
            LineageEdge(
                id=uuid4(),
                child_id=node.id,
                child_seq=node.seq,
                parent_id=data_node.id,
                parent_seq=data_node.seq,
                relation="derived_from",
                grade="verified",
                created_at=tx.now,
            )
        )
        tx.audit(node.ref, items=len(items), digest=digest)
        return node.id


def queue(store: Store, blobs: Blobs, actor: Actor, subject: str, suite: str) -> UUID:
    """Queue an eval run of a suite on a version, and return its id.

    A queued or running eval run of that suite on that version is returned instead. Raises Refused
    when the version is not registered or cannot be evaluated, and when its chat template cannot ask
    the suite: that is tried on the suite's first item, without a session.
    """
    with store.judging(actor, Action.EVAL_QUEUE, None), store.read(actor) as session:
        now = work.clock(session)
        require(actor, Action.EVAL_QUEUE, None, now)
        version, line, version_node = _fit_subject(session, subject)
        require(actor, Action.EVAL_QUEUE, line.team, now)
        suite_version, _ = table.suite_version(session, suite)
        asked = _asked(session, version, line)
    with store.judging(actor, Action.EVAL_QUEUE, line.team):
        _must_answer(blobs, asked, suite_version, version_node.ref)
    with store.write(actor, Action.EVAL_QUEUE) as tx:
        version, line, version_node = _fit_subject(tx.session, subject, share=True)
        tx.within(line.team)
        suite_version, suite_node = table.suite_version(tx.session, suite)
        active = table.active(tx.session, version.id, suite_version.id)
        if active is not None:
            tx.audit(f"eval-run:{active.id}", found=True)
            return active.id
        identity = uuid4()
        node = tx.add(
            Node(id=identity, kind="eval_run", team=line.team, ref=f"eval-run:{identity}")
        )
        tx.add(
            EvalRun(
                id=identity,
                subject_id=version.id,
                suite_version_id=suite_version.id,
                state="queued",
                attempt=0,
                requested_by=actor.account,
                created_at=tx.now,
            )
        )
        for parent in (version_node, suite_node):
            tx.add(
                LineageEdge(
                    id=uuid4(),
                    child_id=node.id,
                    child_seq=node.seq,
                    parent_id=parent.id,
                    parent_seq=parent.seq,
                    relation="evaluated_on",
                    grade="observed",
                    created_at=tx.now,
                )
            )
        tx.audit(node.ref, subject=version_node.ref, suite=suite_node.ref)
        return identity


def _fit_subject(
    session: Sighted, subject: str, *, share: bool = False
) -> tuple[Version, Line, Node]:
    """The version to evaluate, with its line and node; it and its base must be usable."""
    version, line, node = versions.by_ref(session, subject, share=share)
    if not usable(version.state):
        raise Refused(
            "unfit-subject",
            f"{subject} is {version.state}.",
            "Evaluate a registered version.",
            subject=subject,
        )
    if version.base_version_id is not None:
        base, _, base_node = versions.by_id(session, version.base_version_id, share=share)
        if not usable(base.state):
            raise Refused(
                "unfit-base",
                f"{base_node.ref}, the base of {node.ref}, is {base.state}: no trainer gets it.",
                "Evaluate a version on a registered base.",
                subject=subject,
            )
    evals.check_subject(node.ref, version.facts.get("loads_as"))
    return version, line, node


def _asked(session: Sighted, version: Version, line: Line) -> list[File]:
    """The files of the model whose tokenizer and chat template count: an adapter has its base's."""
    base = version.base_version_id if line.kind == "adapter" else None
    model = version.id if base is None else base
    return [File(*row) for row in versions.files(session, model)]


def _must_answer(blobs: Blobs, files: list[File], suite: EvalSuiteVersion, subject: str) -> None:
    """Raise Refused `unfit-suite` when the first item of a suite cannot be asked."""
    head = blobs.read(suite.blob_id, 0, min(blobs.size(suite.blob_id), 2 * rows.MAX_LINE_BYTES))
    first = rows.decode_items(head.partition(b"\n")[0])[0]
    if (problem := suites.problem(files, suite.decoding, first.prompt, blobs.read)) is not None:
        raise Refused("unfit-suite", problem, subject=subject)


def finish(store: Store, blobs: Blobs, actor: Actor, run_id: UUID, signed: SignedReport) -> None:
    """Finish an eval run. The registry counts: trainers return answers and know no expected ones.

    Open reviews and approvals whose gate no longer gives the same outcome with this run are void.
    The same report again changes nothing. Raises Conflict (lease lost), Refused (wrong subject),
    Invalid or TooLarge (report, samples), Unverified (signature, or counts that the samples
    contradict).
    """
    report = signed.report
    samples_sha256 = str(report.get("samples_sha256", ""))
    with store.read(actor) as session:
        run = table.run_by_id(session, run_id)
        suite = session.get_one(EvalSuiteVersion, run.suite_version_id)
    senders.must_have(store, blobs, actor, [("The samples", samples_sha256, None)])
    items = rows.decode_items(b"".join(blobs.stream(suite.blob_id)))
    if blobs.size(samples_sha256) > MAX_SAMPLES_BYTES:
        raise TooLarge("samples-too-large", "The samples are larger than 256 MiB.")
    with store.judging(actor, Action.EVAL_FINISH, None):
        scores = evals.score(
            read_samples(b"".join(blobs.stream(samples_sha256))),
            expected_answers(items),
            suite.scoring,
        )
    measured = Measured(suite.metric, scores.correct, len(items), evals.packed(scores))
    with store.write(actor, Action.EVAL_FINISH) as tx:
        run = table.run_by_id(tx.session, run_id, lock=True)
        version, line, _ = versions.by_id(tx.session, run.subject_id)
        tx.within(line.team)
        if run.state == "succeeded" and run.report == report:
            tx.audit(f"eval-run:{run.id}", repeated=True)
            return
        training_runs.must_hold(tx.session, run, actor.account, signed.attempt)
        training_runs.must_have_signed(tx.session, actor.account, signed, "eval-report", line.ref)
        _check_report(run, suite, version, signed, measured)
        table.hold(tx.session, run.subject_id, suite.id)
        probes.check_effect(report)
        _close(tx, blobs, run, signed, measured)
        void = _void(tx, run, suite)
        tx.audit(
            f"eval-run:{run.id}",
            correct=measured.correct,
            n=measured.items,
            samples=run.samples_blob_id,
            voided=void,
        )


def _void(tx: Tx, run: EvalRun, suite: EvalSuiteVersion) -> list[int]:
    """Void the reviews whose gate this run changes, and return their numbers."""
    void = []
    resting = reviews.resting_on_runs(tx.session, run.subject_id, suite.id)
    for review, policy, now in evidence.renewed(tx.session, resting):
        if gates.judge(policy.rules, now).outcome != review.verdict["outcome"]:
            review.void(tx.now)
            void.append(review.number)
    return void


def _check_report(
    run: EvalRun,
    suite: EvalSuiteVersion,
    version: Version,
    signed: SignedReport,
    measured: Measured,
) -> None:
    """Check that the report is about this run.

    It need not state counts; those that it states must be those of the samples.
    """
    report = signed.report
    reported = (
        report.get("run"),
        report.get("attempt"),
        report.get("suite_digest"),
        report.get("subject_root"),
        report.get("base_root"),
    )
    if reported != (
        str(run.id),
        signed.attempt,
        suite.digest,
        version.tensor_root,
        version.base_root,
    ):
        raise Refused(
            "report-mismatch",
            "The report is about another eval run, suite or subject.",
            subject=f"eval-run:{run.id}",
        )
    metrics = report.get("metrics")
    if metrics is None:
        return
    counts = metrics.get(suite.metric) if isinstance(metrics, dict) else None
    if not isinstance(counts, dict):
        raise Invalid(
            "bad-report",
            f"The report's metrics do not contain {suite.metric}.",
            "Leave metrics out: the registry counts. Or report {metric: {correct, n}}.",
        )
    if (counts.get("correct"), counts.get("n")) != (measured.correct, measured.items):
        raise Unverified(
            "metric-mismatch",
            f"The samples show {measured.correct} of {measured.items} correct, but the report says "
            f"{counts.get('correct')} of {counts.get('n')}.",
            subject=f"eval-run:{run.id}",
        )


def _close(tx: Tx, blobs: Blobs, run: EvalRun, signed: SignedReport, measured: Measured) -> None:
    samples = signed.report["samples_sha256"]
    versions.hold_blob(tx.session, blobs, samples, blobs.size(samples))
    run.state, run.finished_at = "succeeded", tx.now
    run.report, run.report_key, run.report_signature = signed.report, signed.key, signed.signature
    run.samples_blob_id, run.outcomes = samples, measured.outcomes
    low, high = evals.wilson(measured.correct, measured.items, 0.95)
    tx.add(
        EvalMetric(
            id=uuid4(),
            eval_run_id=run.id,
            name=measured.metric,
            value=measured.correct / measured.items,
            n=measured.items,
            ci_low=low,
            ci_high=high,
            higher_is_better=True,
        )
    )
    tx.session.delete(tx.get(Lease, run.id))
    tx.session.flush()
