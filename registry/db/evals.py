"""Eval suites, their frozen versions, eval runs and metrics."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint, func, select, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from registry.db.sight import Sighted
from registry.db.table import Id, Moment, Table, hex_digest, one_of
from registry.db.training_runs import ENDED, STATES
from registry.db.versions import Node
from registry.errors import NotFound
from registry.rules.evals import Scoring
from registry.rules.refs import Ref, parse_ref


class EvalSuite(Table):
    """An eval suite's line `team/name`."""

    __tablename__ = "eval_suite"
    id: Mapped[Id]
    team: Mapped[str]
    name: Mapped[str]
    created_by: Mapped[UUID | None]
    created_at: Mapped[Moment]
    __table_args__ = (UniqueConstraint("team", "name"),)


class EvalSuiteVersion(Table):
    """Items, metric and decoding of a suite, frozen: the row never changes.

    `blob_id` are the items with their expected answers, `prompts_blob_id` what trainers get.
    """

    __tablename__ = "eval_suite_version"
    id: Mapped[UUID] = mapped_column(ForeignKey("node.id"), primary_key=True)
    suite_id: Mapped[UUID] = mapped_column(ForeignKey("eval_suite.id"), index=True)
    number: Mapped[int]
    digest: Mapped[str]
    dataset_version_id: Mapped[UUID] = mapped_column(ForeignKey("dataset_version.id"))
    split: Mapped[str]
    metric: Mapped[str]
    decoding: Mapped[dict[str, Any]]
    normalisation: Mapped[str]
    items: Mapped[int]
    blob_id: Mapped[str] = mapped_column(ForeignKey("blob.id"), index=True)
    prompts_blob_id: Mapped[str] = mapped_column(ForeignKey("blob.id"), index=True)
    created_by: Mapped[UUID | None]
    created_at: Mapped[Moment]
    __table_args__ = (
        UniqueConstraint("suite_id", "number"),
        UniqueConstraint("suite_id", "digest"),
        CheckConstraint(hex_digest("digest"), name="digest"),
        CheckConstraint("items > 0", name="items"),
        CheckConstraint("normalisation = 'nfc-1'", name="normalisation"),
    )

    @property
    def scoring(self) -> Scoring:
        """How this suite judges an answer."""
        return Scoring(self.metric, tuple(self.decoding["stop"]), self.normalisation)


class EvalRun(Table):
    """A suite executed on one version by a leased worker.

    `outcomes` are the right items that the registry counted in the samples (`evals.packed`).
    """

    __tablename__ = "eval_run"
    id: Mapped[UUID] = mapped_column(ForeignKey("node.id"), primary_key=True)
    subject_id: Mapped[UUID] = mapped_column(ForeignKey("version.id"), index=True)
    suite_version_id: Mapped[UUID] = mapped_column(ForeignKey("eval_suite_version.id"))
    state: Mapped[str]
    attempt: Mapped[int]
    requested_by: Mapped[UUID | None]
    trainer_id: Mapped[UUID | None] = mapped_column(ForeignKey("account.id"))
    samples_blob_id: Mapped[str | None] = mapped_column(ForeignKey("blob.id"), index=True)
    report: Mapped[dict[str, Any] | None]
    report_key: Mapped[str | None] = mapped_column(ForeignKey("signing_key.id"))
    report_signature: Mapped[str | None]
    outcomes: Mapped[str | None]
    error: Mapped[str | None]
    created_at: Mapped[Moment]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    __table_args__ = (
        CheckConstraint(one_of("state", *STATES), name="state"),
        CheckConstraint("(state = 'succeeded') = (report is not null)", name="reported"),
        CheckConstraint(
            "(outcomes is null) = (report is null) and outcomes ~ '^[0-9a-f]+$'", name="outcomes"
        ),
        CheckConstraint(
            "report is null or (report_key is not null and samples_blob_id is not null)",
            name="signed",
        ),
        Index("ix_eval_run_queued", "created_at", postgresql_where=text("state = 'queued'")),
        # One active eval run for a version and a suite version: the next may be queued only after
        # it has ended.
        Index(
            "uq_eval_run_active",
            "subject_id",
            "suite_version_id",
            unique=True,
            postgresql_where=text("state in ('queued', 'running')"),
        ),
    )


class EvalMetric(Table):
    """One number of an eval run, with its count and 95 % interval, as fractions 0..1."""

    __tablename__ = "eval_metric"
    id: Mapped[Id]
    eval_run_id: Mapped[UUID] = mapped_column(ForeignKey("eval_run.id"))
    name: Mapped[str]
    value: Mapped[float]
    n: Mapped[int]
    ci_low: Mapped[float]
    ci_high: Mapped[float]
    higher_is_better: Mapped[bool]
    __table_args__ = (
        UniqueConstraint("eval_run_id", "name"),
        CheckConstraint("n > 0 and ci_low <= value and value <= ci_high", name="interval"),
    )


def suite_by_name(session: Sighted, ref: Ref) -> EvalSuite:
    """The suite's line, or NotFound."""
    statement = select(EvalSuite).where(
        EvalSuite.team == ref.team, EvalSuite.name == ref.name, session.seen(EvalSuite.team)
    )
    suite = session.scalars(statement).one_or_none()
    if suite is None:
        raise NotFound("suite-unknown", f"There is no eval suite '{ref.line}'.")
    return suite


def suite_version(session: Sighted, ref: Ref | str) -> tuple[EvalSuiteVersion, Node]:
    """The suite version that a reference names, or NotFound; a bare name means the newest."""
    if isinstance(ref, str):
        ref = parse_ref(ref)
    if ref.name is None or ref.channel is not None:
        raise NotFound(
            "suite-unknown",
            f"'{ref}' names no eval suite: one is named team/name@v1, or team/name.",
        )
    statement = (
        select(EvalSuiteVersion, Node)
        .join(Node, Node.id == EvalSuiteVersion.id)
        .join(EvalSuite, EvalSuite.id == EvalSuiteVersion.suite_id)
        .where(EvalSuite.team == ref.team, EvalSuite.name == ref.name, session.seen(EvalSuite.team))
        .order_by(EvalSuiteVersion.number.desc())
        .limit(1)
    )
    if ref.number is not None:
        statement = statement.where(EvalSuiteVersion.number == ref.number)
    row = session.execute(statement).one_or_none()
    if row is None:
        raise NotFound("suite-unknown", f"There is no eval suite '{ref}'.")
    return row[0], row[1]


def run_by_id(session: Sighted, run_id: UUID, *, lock: bool = False) -> EvalRun:
    """The eval run of that id, or NotFound; it belongs to the team of the version it measures."""
    statement = (
        select(EvalRun)
        .join(Node, Node.id == EvalRun.subject_id)
        .where(EvalRun.id == run_id, session.seen(Node.team))
    )
    run = session.scalars(
        statement.with_for_update(of=EvalRun) if lock else statement
    ).one_or_none()
    if run is None:
        raise NotFound("eval-run-unknown", f"There is no eval run {run_id}.")
    return run


@dataclass(frozen=True, slots=True)
class EndedRuns:
    """The eval runs of some versions on some suite versions that have ended, oldest first."""

    by_subject: Mapping[tuple[UUID | None, UUID], list[EvalRun]]

    def of(self, subject: UUID | None, suite_version: UUID) -> list[EvalRun]:
        """Those of one version on one suite version; none where there is no version."""
        return self.by_subject.get((subject, suite_version), [])

    def outcomes(self, subject: UUID | None, suite_version: UUID) -> list[str]:
        """The outcomes of those that succeeded."""
        return [run.outcomes for run in self.of(subject, suite_version) if run.outcomes]


def ended_runs(
    session: Session, subjects: Collection[UUID | None], suite_versions: Collection[UUID]
) -> EndedRuns:
    """Every eval run of these versions on these suite versions that has ended, in one statement."""
    statement = (
        select(EvalRun)
        .where(
            EvalRun.subject_id.in_([subject for subject in subjects if subject]),
            EvalRun.suite_version_id.in_(suite_versions),
            EvalRun.state.in_(ENDED),
        )
        .order_by(EvalRun.created_at, EvalRun.id)
    )
    runs = defaultdict[tuple[UUID | None, UUID], list[EvalRun]](list)
    for run in session.scalars(statement):
        runs[run.subject_id, run.suite_version_id].append(run)
    return EndedRuns(runs)


def hold(session: Session, subject: UUID, suite_version_id: UUID) -> None:
    """Lock a version's node and a suite version, to let a run count.

    PostgreSQL locks both when a review opens (`review_guard`). A review therefore names every run
    that counts, and a run finds every review it speaks of. What a run measures of the version's
    effect counts on every suite, hence the node.
    """
    for statement in (
        select(Node.id).where(Node.id == subject),
        select(EvalSuiteVersion.id).where(EvalSuiteVersion.id == suite_version_id),
    ):
        session.execute(statement.with_for_update(key_share=True))


def line(session: Sighted, ref: Ref, *, lock: bool = False) -> EvalSuite | None:
    """The suite's line, if there is one."""
    statement = select(EvalSuite).where(
        EvalSuite.team == ref.team, EvalSuite.name == ref.name, session.seen(EvalSuite.team)
    )
    return session.scalars(statement.with_for_update() if lock else statement).one_or_none()


def of_digest(session: Session, suite_id: UUID, digest: str) -> EvalSuiteVersion | None:
    """The suite version of exactly these items, metric and decoding."""
    statement = select(EvalSuiteVersion).where(
        EvalSuiteVersion.suite_id == suite_id, EvalSuiteVersion.digest == digest
    )
    return session.scalars(statement).one_or_none()


def highest(session: Session, suite_id: UUID) -> int:
    """The highest number that the suite ever assigned; lock its line first."""
    highest_number = func.coalesce(func.max(EvalSuiteVersion.number), 0)
    return session.scalar(select(highest_number).where(EvalSuiteVersion.suite_id == suite_id)) or 0


def active(session: Session, subject_id: UUID, suite_version_id: UUID) -> EvalRun | None:
    """The queued or running eval run of a version on a suite version."""
    statement = select(EvalRun).where(
        EvalRun.subject_id == subject_id,
        EvalRun.suite_version_id == suite_version_id,
        EvalRun.state.in_(("queued", "running")),
    )
    return session.scalars(statement).one_or_none()
