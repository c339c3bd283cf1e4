"""What is kept and why: classes, holds, tombstones, what a collection would take, what teams
use.
"""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, func, select, text
from sqlalchemy.orm import Session, aliased

from registry.blobs.store import Blobs
from registry.db import blobs as bytes_table
from registry.db import quotas as quota_table
from registry.db import retention as table
from registry.db import subjects, tombstones
from registry.db.accounts import names, personal_texts
from registry.db.datasets import Dataset
from registry.db.retention import LegalHold, RetentionClass
from registry.db.store import Store
from registry.db.table import one_of
from registry.db.tombstones import Tombstone
from registry.db.versions import Line, Node
from registry.errors import NotFound
from registry.queries.pages import cursor_after, key_in, length, plain_ref
from registry.rules import retention as rules
from registry.rules.actors import Actor, Matter, may_read, require_reader
from registry.rules.quotas import Limits, check_limits
from registry.rules.versions import USABLE, State
from registry.views.retention import (
    ClassView,
    CollectionView,
    DuePage,
    DueView,
    HoldPage,
    HoldView,
    KeepingView,
    QuotaView,
    TombstoneView,
)

HeldLine, HeldData = aliased(Line), aliased(Dataset)
MOST_DIGESTS = 1000


def classes(store: Store, actor: Actor) -> list[ClassView]:
    """Every retention class, the shortest first."""
    with store.read(actor) as session:
        rows = table.classes(session)
        said = personal_texts(session, {row.reason_commitment for row in rows})
        called = names(session, {row.defined_by for row in rows})
        return [_class(row, called, said) for row in rows]


def _class(row: RetentionClass, called: dict[UUID | None, str], said: dict[str, str]) -> ClassView:
    return ClassView(
        row.name,
        row.keep_days,
        row.counted_from,
        row.after,
        row.draft_days,
        called.get(row.defined_by),
        row.defined_at,
        said.get(row.reason_commitment),
    )


def holds(
    store: Store,
    actor: Actor,
    over: str | None = None,
    standing: bool = True,
    cursor: str | None = None,
    limit: int = 50,
) -> HoldPage:
    """One page of holds, newest first: those that stand (or all), of the teams the actor sees.

    `over`: those that keep this one version or data set version, also by what derives from it. The
    case and the reasons are withheld from whoever neither places and lifts holds nor supervises it.
    """
    require_reader(actor, Matter.KEEPING)
    shown = may_read(actor, Matter.CASE)
    team: ColumnElement[str | None] = func.coalesce(Node.team, HeldLine.team, HeldData.team)
    statement = (
        select(LegalHold, Node.ref, HeldLine, HeldData)
        .outerjoin(Node, Node.id == LegalHold.node_id)
        .outerjoin(HeldLine, HeldLine.id == LegalHold.line_id)
        .outerjoin(HeldData, HeldData.id == LegalHold.dataset_id)
        .order_by(LegalHold.number.desc())
        .limit(length(limit) + 1)
    )
    if (teams := actor.teams()) is not None:
        statement = statement.where(team.in_(teams))
    if standing:
        statement = statement.where(LegalHold.lifted_at.is_(None))
    if cursor is not None:
        statement = statement.where(LegalHold.number < key_in(cursor, int)[0])
    with store.read(actor) as session:
        if over is not None:
            subject = subjects.by_ref(session, over, gone=True)
            statement = statement.where(
                LegalHold.number.in_(table.holds_on(session, subject.node.id))
            )
        found = session.execute(statement).all()
        rows = found[:limit]
        said = personal_texts(
            session,
            {
                one
                for row in rows
                for one in (
                    row[0].case_commitment,
                    row[0].reason_commitment,
                    row[0].lift_reason_commitment,
                )
                if one and shown
            },
        )
        called = names(
            session, {one for row in rows for one in (row[0].placed_by, row[0].lifted_by)}
        )
    items = [
        _hold(row[0], row[1] or _line_name(row[2], row[3]), said, called, not shown) for row in rows
    ]
    return HoldPage(items, cursor_after((rows[-1][0].number,)) if len(found) > limit else None)


def _line_name(line: Line | None, dataset: Dataset | None) -> str:
    if line is not None:
        return line.ref
    return f"{subjects.PREFIX}{dataset.team}/{dataset.name}" if dataset is not None else ""


def _hold(
    hold: LegalHold, over: str, said: dict[str, str], called: dict[UUID | None, str], withheld: bool
) -> HoldView:
    return HoldView(
        number=hold.number,
        over=over,
        case=said.get(hold.case_commitment),
        reason=said.get(hold.reason_commitment),
        placed_by=called.get(hold.placed_by),
        placed_at=hold.placed_at,
        lifted_by=called.get(hold.lifted_by) if hold.lifted_by else None,
        lifted_at=hold.lifted_at,
        lift_reason=said.get(hold.lift_reason_commitment or ""),
        withheld=withheld,
    )


def keeping(store: Store, actor: Actor, ref: str | UUID) -> KeepingView:
    """What keeps one version or data set version, or its tombstone if it was deleted.

    By its id only for whoever has found it already: whose it is was judged there.
    """
    require_reader(actor, Matter.KEEPING)
    with store.read(actor) as session:
        subject = (
            subjects.by_id(session, ref)
            if isinstance(ref, UUID)
            else subjects.by_ref(session, ref, gone=True)
        )
        standing = subjects.standing(session, subject)
        terms = table.terms_of(session, subject.node.id)[0]
        stone = tombstones.find(session, subject.node.id)
        until = standing.kept_until
        over = until is not None and until <= bytes_table.moment(session)
        return KeepingView(
            ref=subject.ref,
            state=standing.state,
            classes=sorted({one.name for one in terms}),
            kept_until=until,
            due=over
            and stone is None
            and all(one.after == "due" for one in terms)
            and not standing.needs
            and not standing.holds,
            holds=list(standing.holds),
            needs=[
                rules.NEED_TEXTS[one.why].format(
                    plain_ref(one.what) if one.why == "beneath" else one.what
                )
                for one in standing.needs
            ],
            tombstone=None if stone is None else _tombstone(session, subject.ref, stone),
        )


def tombstone(store: Store, actor: Actor, node_id: UUID) -> TombstoneView | None:
    """The tombstone over a thing, if it was deleted; for whoever has found it already: whose it is
    was judged there.
    """
    with store.read(actor) as session:
        stone = tombstones.find(session, node_id)
        return (
            None
            if stone is None
            else _tombstone(session, subjects.by_id(session, node_id).ref, stone)
        )


# Only teams that ever chose such a class are looked at: the functions below are asked version by
# version.
DUE = text(
    f"""
    select n.seq, n.ref, n.team, kept_until(n.id) as kept_until from node n
    left join version v on v.id = n.id left join dataset_version d on d.id = n.id
    where n.seq > :after and (cast(:teams as text[]) is null or n.team = any(:teams))
      and n.team in (select s.team from retention_setting s join retention_class c on c.id = s.class_id
                     where c.after = 'due')
      and {one_of("coalesce(v.state, d.state)", *USABLE, State.RECALLED)}
      and not exists (select from tombstone t where t.id = n.id)
      and (select bool_and(t.after = 'due') from retention_terms(n.id) t)
      and kept_until(n.id) <= clock_timestamp()
      and not exists (select from holds_on(n.id)) and not exists (select from needs(n.id))
    order by n.seq limit :rows
    """
)


def due(store: Store, actor: Actor, cursor: str | None = None, limit: int = 50) -> DuePage:
    """One page of what is due for deletion, oldest first; a person deletes it, never the clock."""
    require_reader(actor, Matter.KEEPING)
    teams = actor.teams()
    params = {
        "after": key_in(cursor, int)[0] if cursor is not None else -1,
        "rows": length(limit) + 1,
        "teams": None if teams is None else sorted(teams),
    }
    with store.read(actor) as session:
        found = session.execute(DUE, params).all()
    rows = found[:limit]
    return DuePage(
        [DueView(plain_ref(row.ref), row.kept_until) for row in rows],
        cursor_after((rows[-1].seq,)) if len(found) > limit else None,
    )


def _tombstone(session: Session, ref: str, stone: Tombstone) -> TombstoneView:
    said = personal_texts(session, {stone.reason_commitment})
    return TombstoneView(
        ref,
        stone.how,
        stone.was,
        stone.at,
        names(session, {stone.deleted_by}).get(stone.deleted_by),
        said.get(stone.reason_commitment),
    )


def planned(store: Store, blobs: Blobs, actor: Actor, grace: timedelta) -> CollectionView:
    """What a collection would take now; nothing is touched. Administrators and auditors ask. At
    most 1,000 digests.
    """
    require_reader(actor, Matter.COLLECTION)
    with store.read(actor) as session:
        plan = bytes_table.plan(session, blobs, bytes_table.moment(session) - grace)
    return CollectionView(
        dry_run=True,
        unnamed=len(plan.unnamed),
        orphans=len(plan.orphans),
        leftovers=len(plan.leftovers),
        bytes=sum(plan.everything.values()),
        removed=0,
        digests=sorted(plan.everything)[:MOST_DIGESTS],
    )


def quota(store: Store, actor: Actor, team: str) -> QuotaView:
    """What a team may use, and uses; a team the actor does not see is NotFound."""
    require_reader(actor, Matter.QUOTA)
    check_limits(team, Limits())
    if not actor.sees(team):
        raise NotFound(
            "unknown",
            "There is no such thing.",
        )
    with store.read(actor) as session:
        return _quota(session, team)


def quotas(store: Store, actor: Actor) -> list[QuotaView]:
    """Every team that has anything, or a quota, of those the actor sees."""
    require_reader(actor, Matter.QUOTA)
    with store.read(actor) as session:
        found = session.scalars(
            text(
                "select team from line union select team from dataset union select team from "
                "quota order by team"
            )
        )
        return [_quota(session, team) for team in list(found) if actor.sees(team)]


def _quota(session: Session, team: str) -> QuotaView:
    allowed, used = quota_table.limits(session, team), quota_table.usage(session, team)
    return QuotaView(team, allowed.max_bytes, allowed.max_versions, used.bytes, used.versions)
