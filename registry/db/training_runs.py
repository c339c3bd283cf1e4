"""Training runs, and the leases that workers have on training runs and eval runs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, select, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from registry.db.accounts import SigningKey
from registry.db.sight import Sighted
from registry.db.table import Id, Moment, Table, hex_digest, one_of
from registry.db.versions import Line
from registry.errors import Conflict, NotFound, Unverified
from registry.proof import keys
from registry.proof.keys import Context

STATES = ("queued", "running", "succeeded", "failed", "cancelled")
ENDED = ("succeeded", "failed", "cancelled")


class TrainingRun(Table):
    """A recipe that is executed. The row and its lease are the only queue of training.

    `rows_blob_id` is what its trainer reads of the data set: the lines of the train split and no
    others. `rows_root` is the record root over these rows.
    """

    __tablename__ = "training_run"
    id: Mapped[Id]
    line_id: Mapped[UUID] = mapped_column(ForeignKey("line.id"), index=True)
    # These reference node, not version: version references training_run, and a circle of foreign
    # keys has no order of creation.
    base_version_id: Mapped[UUID] = mapped_column(ForeignKey("node.id"))
    dataset_version_id: Mapped[UUID] = mapped_column(ForeignKey("node.id"))
    rows_blob_id: Mapped[str] = mapped_column(ForeignKey("blob.id"), index=True)
    rows_root: Mapped[str]
    recipe: Mapped[dict[str, Any]]
    recipe_digest: Mapped[str]
    meta: Mapped[dict[str, Any]]
    state: Mapped[str]
    attempt: Mapped[int]
    requested_by: Mapped[UUID | None]
    trainer_id: Mapped[UUID | None] = mapped_column(ForeignKey("account.id"))
    report: Mapped[dict[str, Any] | None]
    report_key: Mapped[str | None] = mapped_column(ForeignKey("signing_key.id"))
    report_signature: Mapped[str | None]
    error: Mapped[str | None]
    created_at: Mapped[Moment]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    __table_args__ = (
        CheckConstraint(one_of("state", *STATES), name="state"),
        CheckConstraint(hex_digest("recipe_digest"), name="recipe"),
        CheckConstraint(hex_digest("rows_root"), name="rows"),
        CheckConstraint("(state = 'succeeded') = (report is not null)", name="reported"),
        CheckConstraint(
            "report is null or (report_key is not null and report_signature is not null)",
            name="signed",
        ),
        # Workers ask for the oldest queued row, so the index contains only queued rows.
        Index("ix_training_run_queued", "created_at", postgresql_where=text("state = 'queued'")),
    )


class Lease(Table):
    """The worker of a run, until when, and its progress.

    Heartbeats renew it, so it is upkeep and not governed. A worker that gives its `identity` may
    take the lease of its own dead process back before it ends.
    """

    __tablename__ = "lease"
    governed = False
    id: Mapped[Id]
    worker: Mapped[str]
    identity: Mapped[str | None]
    account_id: Mapped[UUID] = mapped_column(ForeignKey("account.id"))
    attempt: Mapped[int]
    expires_at: Mapped[Moment]
    progress: Mapped[dict[str, Any]]


def by_id(session: Sighted, run_id: UUID, *, lock: bool = False) -> TrainingRun:
    """The training run of that id, or NotFound. It belongs to the team of its adapter."""
    statement = (
        select(TrainingRun)
        .join(Line, Line.id == TrainingRun.line_id)
        .where(TrainingRun.id == run_id, session.seen(Line.team))
    )
    run = session.scalars(
        statement.with_for_update(of=TrainingRun) if lock else statement
    ).one_or_none()
    if run is None:
        raise NotFound("training-run-unknown", f"There is no training run {run_id}.")
    return run


def must_hold(session: Session, run: Any, account: UUID | None, attempt: int) -> Lease:
    """The account's lease on a training run or eval run, or Conflict `lease-lost`.

    A worker that has lost its lease may no longer report.
    """
    lease = session.get(Lease, run.id)
    if (
        run.state != "running"
        or lease is None
        or (lease.account_id, lease.attempt) != (account, attempt)
    ):
        raise Conflict(
            "lease-lost",
            f"This work is {run.state} and not leased to you for attempt {attempt}.",
            "Stop this attempt; it was taken over, cancelled or has ended.",
            subject=str(run.id),
        )
    return lease


@dataclass(frozen=True, slots=True)
class SignedReport:
    """A trainer's report on one attempt at a run, signed by the key of that id."""

    attempt: int
    report: dict[str, Any]
    key: str
    signature: str


def must_have_signed(
    session: Session, account: UUID | None, signed: SignedReport, context: Context, subject: str
) -> None:
    """Raise Unverified unless an enrolled, unrevoked key of this account signed this report."""
    signer = session.get(SigningKey, signed.key)
    if (
        signer is None
        or signer.account_id != account
        or signer.revoked_at is not None
        or not keys.verify_document(signer.public_key, signed.report, context, signed.signature)
    ):
        raise Unverified(
            "bad-signature",
            "The report is not signed by an enrolled key of this trainer.",
            "Enrol the trainer's key, then sign exactly the report that you send.",
            subject=subject,
        )
