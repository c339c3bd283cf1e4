"""What is kept and why: retention classes, holds, tombstones, planned collections, and quotas."""

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
from registry.queries.pages import (
    FIRST_PAGE,
    PageRequest,
    check_limit,
    cursor_after,
    key_in,
    plain_ref,
)
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
MAX_DIGESTS = 1000
"""The most digests that the plan of a collection lists."""


def classes(store: Store, actor: Actor) -> list[ClassView]:
    """Every retention class, shortest first."""
    with store.read(actor) as session:
        rows = table.classes(session)
        texts = personal_texts(session, {row.reason_commitment for row in rows})
        names_by_id = names(session, {row.defined_by for row in rows})
        return [_class(row, names_by_id, texts) for row in rows]


def _class(
    row: RetentionClass, names_by_id: dict[UUID | None, str], texts: dict[str, str]
) -> ClassView:
    return ClassView(
        row.name,
        row.keep_days,
        row.counted_from,
        row.after,
        row.draft_days,
        names_by_id.get(row.defined_by),
        row.defined_at,
        texts.get(row.reason_commitment),
    )


def holds(
    store: Store,
    actor: Actor,
    page: PageRequest = FIRST_PAGE,
    *,
    over: str | None = None,
    standing: bool = True,
) -> HoldPage:
    """One page of the holds of the teams the actor sees, newest first.

    Only those in force if `standing`. With `over`, only those that keep this version or data set
    version, also through what derives from it. The case and the reasons are withheld from actors
    who neither place and lift holds nor supervise that.
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
        .limit(check_limit(page.limit) + 1)
    )
    if (teams := actor.teams()) is not None:
        statement = statement.where(team.in_(teams))
    if standing:
        statement = statement.where(LegalHold.lifted_at.is_(None))
    if page.cursor is not None:
        statement = statement.where(LegalHold.number < key_in(page.cursor, int)[0])
    with store.read(actor) as session:
        if over is not None:
            subject = subjects.by_ref(session, over, gone=True)
            statement = statement.where(
                LegalHold.number.in_(table.holds_on(session, subject.node.id))
            )
        results = session.execute(statement).all()
        rows = results[: page.limit]
        legal_holds = [row[0] for row in rows]
        commitments = {
            commitment
            for hold in legal_holds
            for commitment in (
                hold.case_commitment,
                hold.reason_commitment,
                hold.lift_reason_commitment,
            )
            if commitment and shown
        }
        texts = personal_texts(session, commitments)
        people = {account for hold in legal_holds for account in (hold.placed_by, hold.lifted_by)}
        names_by_id = names(session, people)
    items = [
        _hold(row[0], row[1] or _line_name(row[2], row[3]), texts, names_by_id, not shown)
        for row in rows
    ]
    has_next = len(results) > page.limit
    return HoldPage(items, cursor_after((legal_holds[-1].number,)) if has_next else None)


def _line_name(line: Line | None, dataset: Dataset | None) -> str:
    if line is not None:
        return line.ref
    return f"{subjects.PREFIX}{dataset.team}/{dataset.name}" if dataset is not None else ""


def _hold(
    hold: LegalHold,
    over: str,
    texts: dict[str, str],
    names_by_id: dict[UUID | None, str],
    withheld: bool,
) -> HoldView:
    return HoldView(
        number=hold.number,
        over=over,
        case=texts.get(hold.case_commitment),
        reason=texts.get(hold.reason_commitment),
        placed_by=names_by_id.get(hold.placed_by),
        placed_at=hold.placed_at,
        lifted_by=names_by_id.get(hold.lifted_by) if hold.lifted_by else None,
        lifted_at=hold.lifted_at,
        lift_reason=texts.get(hold.lift_reason_commitment or ""),
        withheld=withheld,
    )


def keeping(store: Store, actor: Actor, ref: str | UUID) -> KeepingView:
    """What keeps one version or data set version, or its tombstone if it was deleted.

    By its id it is for callers that have resolved the reference already: whether the actor may see
    it was decided there.
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
        is_over = until is not None and until <= bytes_table.moment(session)
        is_needed = bool(standing.needs or standing.holds)
        return KeepingView(
            ref=subject.ref,
            state=standing.state,
            classes=sorted({term.name for term in terms}),
            kept_until=until,
            due=is_over
            and stone is None
            and all(term.after == "due" for term in terms)
            and not is_needed,
            holds=list(standing.holds),
            needs=[
                rules.NEED_TEXTS[need.why].format(
                    plain_ref(need.what) if need.why == "beneath" else need.what
                )
                for need in standing.needs
            ],
            tombstone=None if stone is None else _tombstone(session, subject.ref, stone),
        )


def tombstone(store: Store, actor: Actor, node_id: UUID) -> TombstoneView | None:
    """The tombstone of a node, if it was deleted.

    It is for callers that have resolved the reference already: whether the actor may see it was
    decided there.
    """
    with store.read(actor) as session:
        stone = tombstones.find(session, node_id)
        if stone is None:
            return None
        return _tombstone(session, subjects.by_id(session, node_id).ref, stone)


# Only teams that ever chose such a class are searched, because the functions in the conditions run
# once for each version.
DUE = text(
    f"""
    select n.seq, n.ref, n.team, kept_until(n.id) as kept_until from node n
    left join version v on v.id = n.id left join dataset_version d on d.id = n.id
    where n.seq > :after and (cast(:teams as text[]) is null or n.team = any(:teams))
      and n.team in (
          select s.team from retention_setting s join retention_class c on c.id = s.class_id
          where c.after = 'due')
      and {one_of("coalesce(v.state, d.state)", *USABLE, State.RECALLED)}
      and not exists (select from tombstone t where t.id = n.id)
      and (select bool_and(t.after = 'due') from retention_terms(n.id) t)
      and kept_until(n.id) <= clock_timestamp()
      and not exists (select from holds_on(n.id)) and not exists (select from needs(n.id))
    order by n.seq limit :rows
    """  # noqa: S608 - only constants of the rules are put into the SQL
)


def due(store: Store, actor: Actor, page: PageRequest = FIRST_PAGE) -> DuePage:
    """One page of what is due for deletion, oldest first. Only people delete it, not the clock."""
    require_reader(actor, Matter.KEEPING)
    teams = actor.teams()
    params = {
        "after": key_in(page.cursor, int)[0] if page.cursor is not None else -1,
        "rows": check_limit(page.limit) + 1,
        "teams": None if teams is None else sorted(teams),
    }
    with store.read(actor) as session:
        results = session.execute(DUE, params).all()
    rows = results[: page.limit]
    return DuePage(
        [DueView(plain_ref(row.ref), row.kept_until) for row in rows],
        cursor_after((rows[-1].seq,)) if len(results) > page.limit else None,
    )


def _tombstone(session: Session, ref: str, stone: Tombstone) -> TombstoneView:
    texts = personal_texts(session, {stone.reason_commitment})
    return TombstoneView(
        ref,
        stone.how,
        stone.was,
        stone.at,
        names(session, {stone.deleted_by}).get(stone.deleted_by),
        texts.get(stone.reason_commitment),
    )


def planned(store: Store, blobs: Blobs, actor: Actor, grace: timedelta) -> CollectionView:
    """What a collection would remove now, with at most `MAX_DIGESTS` digests; nothing is removed.

    Raises Forbidden unless the actor is an administrator or an auditor.
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
        digests=sorted(plan.everything)[:MAX_DIGESTS],
    )


def quota(store: Store, actor: Actor, team: str) -> QuotaView:
    """The quota of a team and what it uses; NotFound for a team that the actor does not see."""
    require_reader(actor, Matter.QUOTA)
    check_limits(team, Limits())
    if not actor.sees(team):
        raise NotFound("unknown", "There is no such thing.")
    with store.read(actor) as session:
        return _quota(session, team)


def quotas(store: Store, actor: Actor) -> list[QuotaView]:
    """The quotas of all teams the actor sees that have a line, a data set or a quota, by name."""
    require_reader(actor, Matter.QUOTA)
    with store.read(actor) as session:
        teams = session.scalars(
            text(
                "select team from line union select team from dataset "
                "union select team from quota order by team"
            )
        ).all()
        return [_quota(session, team) for team in teams if actor.sees(team)]


def _quota(session: Session, team: str) -> QuotaView:
    allowed, used = quota_table.limits(session, team), quota_table.usage(session, team)
    return QuotaView(team, allowed.max_bytes, allowed.max_versions, used.bytes, used.versions)
