"""Retention classes, their assignment to lines, data sets and teams, and legal holds."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Identity, Index, func, select, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from registry.db.datasets import Dataset
from registry.db.sight import Sighted
from registry.db.table import Id, Moment, Table, one_of
from registry.db.versions import Line, Node
from registry.errors import NotFound
from registry.rules.retention import STANDARD, Need, Terms


class RetentionClass(Table):
    """Named terms of how long a version is kept. They are frozen: other terms need a new class."""

    __tablename__ = "retention_class"
    id: Mapped[Id]
    name: Mapped[str] = mapped_column(unique=True)
    keep_days: Mapped[int]
    counted_from: Mapped[str]
    after: Mapped[str]
    draft_days: Mapped[int]
    reason_commitment: Mapped[str]
    defined_by: Mapped[UUID | None]
    defined_at: Mapped[Moment]
    __table_args__ = (
        CheckConstraint(
            "keep_days between 0 and 36500 and draft_days between 1 and 3650", name="days"
        ),
        CheckConstraint(one_of("counted_from", "registration", "service"), name="counted_from"),
        CheckConstraint(one_of("after", "may-go", "due"), name="after"),
    )

    @property
    def terms(self) -> Terms:
        return _terms(self.name, self.keep_days, self.counted_from, self.after, self.draft_days)


class RetentionSetting(Table):
    """The assignment of a class to a line, a data set or (kind and name null) a whole team.

    A setting of the line or data set counts before one of its team, and a newer before an older.
    """

    __tablename__ = "retention_setting"
    id: Mapped[Id]
    number: Mapped[int] = mapped_column(BigInteger, Identity(), unique=True)
    team: Mapped[str]
    kind: Mapped[str | None]
    name: Mapped[str | None]
    class_id: Mapped[UUID] = mapped_column(ForeignKey("retention_class.id"))
    reason_commitment: Mapped[str]
    set_by: Mapped[UUID] = mapped_column(ForeignKey("account.id"))
    set_at: Mapped[Moment]
    __table_args__ = (
        CheckConstraint(one_of("kind", "line", "dataset"), name="kind"),
        CheckConstraint("(kind is null) = (name is null)", name="scope"),
        Index("ix_retention_setting_scope", "team", "kind", "name"),
    )


class LegalHold(Table):
    """An order that nothing of a version, a line or a data set is deleted until it is lifted."""

    __tablename__ = "legal_hold"
    id: Mapped[Id]
    number: Mapped[int] = mapped_column(Identity(), unique=True)
    node_id: Mapped[UUID | None] = mapped_column(ForeignKey("node.id"))
    line_id: Mapped[UUID | None] = mapped_column(ForeignKey("line.id"))
    dataset_id: Mapped[UUID | None] = mapped_column(ForeignKey("dataset.id"))
    case_commitment: Mapped[str]
    reason_commitment: Mapped[str]
    placed_by: Mapped[UUID] = mapped_column(ForeignKey("account.id"))
    placed_at: Mapped[Moment]
    lifted_by: Mapped[UUID | None] = mapped_column(ForeignKey("account.id"))
    lifted_at: Mapped[datetime | None]
    lift_reason_commitment: Mapped[str | None]
    __table_args__ = (
        CheckConstraint("num_nonnulls(node_id, line_id, dataset_id) = 1", name="one_thing"),
        CheckConstraint(
            "num_nonnulls(lifted_by, lifted_at, lift_reason_commitment) in (0, 3)", name="lifted"
        ),
        CheckConstraint("lifted_by <> placed_by", name="four_eyes"),
        Index("ix_legal_hold_standing", "number", postgresql_where=text("lifted_at is null")),
    )


def _terms(name: str, keep_days: int, counted_from: str, after: str, draft_days: int = 30) -> Terms:
    return Terms(
        name,
        keep_days,
        "registration" if counted_from == "registration" else "service",
        "due" if after == "due" else "may-go",
        draft_days,
    )


def class_by_name(session: Session, name: str) -> RetentionClass:
    """The class of that name, or NotFound."""
    retention_class = find_class(session, name)
    if retention_class is None:
        raise NotFound("retention-unknown", f"There is no retention class '{name[:60]}'.")
    return retention_class


def find_class(session: Session, name: str) -> RetentionClass | None:
    """The class of that name, if there is one."""
    return session.scalars(select(RetentionClass).where(RetentionClass.name == name)).one_or_none()


def classes(session: Session) -> list[RetentionClass]:
    """Every class, the shortest first."""
    return list(
        session.scalars(
            select(RetentionClass).order_by(RetentionClass.keep_days, RetentionClass.name)
        )
    )


def in_force(session: Session, team: str, kind: str | None, name: str | None) -> RetentionClass:
    """The class for a version registered now: the line's, else the team's, else `standard`."""
    class_id = session.scalar(
        text("select class_of(:team, :kind, :name, 'infinity')"),
        {"team": team, "kind": kind, "name": name},
    )
    if class_id is None:
        return class_by_name(session, STANDARD)
    return session.get_one(RetentionClass, class_id)


def terms_of(
    session: Session, node_id: UUID
) -> tuple[list[Terms], datetime | None, datetime | None]:
    """All terms a version was ever under, when they start, and when the version last served."""
    rows = session.execute(text("select * from retention_terms(:id)"), {"id": node_id}).all()
    served = session.scalar(text("select service_end(:id)"), {"id": node_id})
    terms = [_terms(row[0], row.keep_days, row.counted_from, row.after) for row in rows]
    return terms, rows[0].since if rows else None, served


def holds_on(session: Session, node_id: UUID) -> tuple[int, ...]:
    """The numbers of the holds over a version or over anything that derives from it."""
    return tuple(session.scalars(text("select holds_on(:id)"), {"id": node_id}))


def needs(session: Session, node_id: UUID) -> tuple[Need, ...]:
    """What still needs a version, as PostgreSQL's own guard sees it."""
    return tuple(
        Need(row.why, row.what)
        for row in session.execute(text("select * from needs(:id)"), {"id": node_id})
    )


def hold_by_number(session: Sighted, number: int, *, lock: bool = False) -> LegalHold:
    """The hold of that number, or NotFound."""
    statement = (
        select(LegalHold)
        .outerjoin(Node, Node.id == LegalHold.node_id)
        .outerjoin(Line, Line.id == LegalHold.line_id)
        .outerjoin(Dataset, Dataset.id == LegalHold.dataset_id)
        .where(
            LegalHold.number == number,
            session.seen(func.coalesce(Node.team, Line.team, Dataset.team)),
        )
    )
    hold = session.scalars(
        statement.with_for_update(of=LegalHold) if lock else statement
    ).one_or_none()
    if hold is None:
        raise NotFound("hold-unknown", f"There is no legal hold {number}.")
    return hold


OVERDUE = text(
    # The draft days are those of the class that the line is under now. A draft whose training run
    # is still active is not overdue.
    """
    select v.id from version v join line l on l.id = v.line_id
    left join retention_class c on c.id = class_of(l.team, 'line', l.name, 'infinity')
    where v.state = 'draft' and (cast(:only as uuid) is null or v.id = :only)
      and v.created_at + coalesce(c.draft_days, 30) * interval '24 hours' <= clock_timestamp()
      and not exists (select from holds_on(v.id))
      and not exists (select from training_run t
                      where t.id = v.training_run_id and t.state in ('queued', 'running'))
    union all
    select v.id from dataset_version v join dataset d on d.id = v.dataset_id
    left join retention_class c on c.id = class_of(d.team, 'dataset', d.name, 'infinity')
    where v.state = 'draft' and (cast(:only as uuid) is null or v.id = :only)
      and v.created_at + coalesce(c.draft_days, 30) * interval '24 hours' <= clock_timestamp()
      and not exists (select from holds_on(v.id))
    """
)


def overdue_drafts(session: Session, only: UUID | None = None) -> list[UUID]:
    """The overdue drafts that nothing holds; with `only`, that draft if it is one of them."""
    return list(session.scalars(OVERDUE, {"only": only}))
