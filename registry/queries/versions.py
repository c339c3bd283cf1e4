"""Lines of base models, adapters and checkpoints, and the current facts about their versions."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import ColumnElement, func, or_, select, text, tuple_
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from registry.db import deprecations, effects
from registry.db import versions as table
from registry.db.accounts import names
from registry.db.reviews import Review
from registry.db.rollouts import Channel, RouteGeneration
from registry.db.store import Store
from registry.db.versions import KINDS, Blob, Line, Node, Version, VersionFile
from registry.errors import Invalid, NotFound
from registry.queries.pages import (
    FIRST_PAGE,
    PageRequest,
    check_limit,
    containing,
    cursor_after,
    key_in,
    seen,
    storable,
)
from registry.rules.actors import Actor
from registry.rules.refs import parse_line
from registry.rules.versions import GONE
from registry.views.versions import (
    ApprovalView,
    EffectView,
    FileView,
    LeftOutView,
    LinePage,
    LineView,
    MeasuredView,
    VersionView,
)

BaseNode = aliased(Node)
ChannelLine = aliased(Line)


@dataclass(frozen=True, slots=True)
class LineFilter:
    """Which lines: of one kind, of one team, or with `q` in their name or business domain."""

    kind: str | None = None
    team: str | None = None
    q: str | None = None


ALL_LINES = LineFilter()
DECIDED_ONCE = ("approved", "voided", "expired")
"""States of the reviews that a version's approvals list, if they were ever approved."""


def lines(
    store: Store,
    actor: Actor,
    filters: LineFilter = ALL_LINES,
    page: PageRequest = FIRST_PAGE,
) -> LinePage:
    """One page of the lines that meet every filter, by name; Invalid `bad-kind`, `bad-text`."""
    kind = filters.kind
    if kind is not None and kind not in KINDS:
        raise Invalid(
            "bad-kind", f"There is no kind '{kind[:40]}'.", f"Use one of {', '.join(KINDS)}."
        )
    statement = (
        select(Line)
        .where(seen(actor, Line.team))
        .order_by(Line.team, Line.name)
        .limit(check_limit(page.limit) + 1)
    )
    if kind is not None:
        statement = statement.where(Line.kind == kind)
    if filters.team is not None:
        statement = statement.where(Line.team == storable(filters.team))
    if filters.q:
        pattern = containing(filters.q)
        statement = statement.where(
            or_((Line.team + "/" + Line.name).ilike(pattern), Line.domain.ilike(pattern))
        )
    if page.cursor is not None:
        key = tuple_(*key_in(page.cursor, str, str))
        statement = statement.where(tuple_(Line.team, Line.name) > key)
    with store.read(actor) as session:
        results = session.scalars(statement).all()
        rows = results[: page.limit]
        newest_versions = _newest_versions(session, [row.id for row in rows])
        serves = _serves(
            session, actor, Version.line_id.in_([row.id for row in rows]), Version.line_id
        )
    views = []
    for row in rows:
        count, newest, state = newest_versions.get(row.id, (0, None, None))
        views.append(
            LineView(
                id=row.id,
                name=row.ref,
                team=row.team,
                kind=row.kind,
                domain=row.domain,
                versions=count,
                newest=newest,
                newest_state=state,
                serves=serves.get(row.id, []),
                created_at=row.created_at,
            )
        )
    has_next = len(results) > page.limit
    return LinePage(views, cursor_after((rows[-1].team, rows[-1].name)) if has_next else None)


def versions(store: Store, actor: Actor, line: str) -> list[VersionView]:
    """Every version of a line, newest first, or NotFound; drafts come before numbers."""
    ref = parse_line(line)
    with store.read(actor) as session:
        row = session.scalars(
            select(Line).where(Line.team == ref.team, Line.name == ref.name, seen(actor, Line.team))
        ).one_or_none()
        if row is None:
            raise NotFound(
                "line-unknown", f"There is no base model, adapter or checkpoint '{ref.line}'."
            )
        rows = session.execute(
            select(Version, Node)
            .join(Node, Node.id == Version.id)
            .where(Version.line_id == row.id)
            .order_by(Version.number.desc(), Node.seq.desc())
        )
        return _views(session, actor, [(version, row, node) for version, node in rows])


def version(store: Store, actor: Actor, ref: str, *, gone: bool = False) -> VersionView:
    """The version that a reference names, or NotFound; a deleted one only with `gone`."""
    with store.read(actor) as session:
        return _views(session, actor, [table.by_ref(session, ref, gone=gone)])[0]


def fallen(store: Store, actor: Actor, refs: Collection[str | None]) -> dict[str, str]:
    """The states of those of these versions that are deleted or recalled, by reference.

    It is one statement, for all references of a page.
    """
    statement = (
        select(Node.ref, Version.state)
        .join(Version, Version.id == Node.id)
        .where(Node.ref.in_(set(refs) - {None}), Version.state.in_(GONE), seen(actor, Node.team))
    )
    with store.read(actor) as session:
        return {row.ref: row.state for row in session.execute(statement)}


def _newest_versions(session: Session, ids: list[UUID]) -> dict[UUID, tuple[int, str, str]]:
    """By line, the count of numbered versions, and the ref and state of the newest.

    Without a numbered version the newest is a draft.
    """
    statement = (
        select(
            Version.line_id,
            func.count(Version.number).over(partition_by=Version.line_id),
            Node.ref,
            Version.state,
        )
        .ext(distinct_on(Version.line_id))
        .join(Node, Node.id == Version.id)
        .where(Version.line_id.in_(ids))
        .order_by(
            Version.line_id,
            Version.state == "deleted",
            Version.number.desc().nulls_last(),
            Node.seq.desc(),
        )
    )
    return {row[0]: (row[1], row[2], row[3]) for row in session.execute(statement)}


def _serves(
    session: Session, actor: Actor, which: ColumnElement[bool], by: InstrumentedAttribute[UUID]
) -> dict[UUID, list[str]]:
    """`environment/channel` of every current route to these versions, by version or by line."""
    statement = (
        select(by, Channel.environment + "/" + Channel.name)
        .distinct()
        .select_from(RouteGeneration)
        .join(
            Version,
            Version.id.in_(
                (RouteGeneration.stable_version_id, RouteGeneration.candidate_version_id)
            ),
        )
        .join(Channel, Channel.id == RouteGeneration.channel_id)
        .join(ChannelLine, ChannelLine.id == Channel.line_id)
        .where(
            RouteGeneration.valid_to.is_(None),
            ~RouteGeneration.killed,
            which,
            seen(actor, ChannelLine.team),
        )
    )
    channels: dict[UUID, list[str]] = {}
    for key, channel in session.execute(statement):
        channels.setdefault(key, []).append(channel)
    return {key: sorted(served) for key, served in channels.items()}


def _views(
    session: Session, actor: Actor, rows: list[tuple[Version, Line, Node]]
) -> list[VersionView]:
    ids = [version.id for version, _, _ in rows]
    bases = _nodes(
        session, {version.base_version_id for version, _, _ in rows if version.base_version_id}
    )
    files = files_of(session, ids)
    reviews = _reviews(session, ids)
    serves = _serves(session, actor, Version.id.in_(ids), Version.id)
    reasons = recall_reasons(
        session, [version.id for version, _, _ in rows if version.state == "recalled"]
    )
    deprecated = deprecations.reasons(session, ids)
    measured = effects.measured(session, ids)
    names_by_id = names(session, {version.created_by for version, _, _ in rows})
    return [
        VersionView(
            id=version.id,
            ref=node.ref,
            line=line.ref,
            kind=line.kind,
            number=version.number,
            state=version.state,
            manifest_digest=version.manifest_digest,
            tensor_root=version.tensor_root,
            base_root=version.base_root,
            base=bases[version.base_version_id].ref if version.base_version_id else None,
            base_kind=bases[version.base_version_id].kind if version.base_version_id else None,
            meta=version.meta,
            facts=version.facts,
            files=files.get(version.id, []),
            training_run=version.training_run_id,
            created_by=names_by_id[version.created_by],
            created_at=version.created_at,
            approvals=[
                review
                for review in reviews.get(version.id, [])
                if review.state in DECIDED_ONCE and review.expires_at is not None
            ],
            serves=serves.get(version.id, []),
            reviews=reviews.get(version.id, []),
            risks=version.facts.get("risks") or [],
            left_out=[LeftOutView(**entry) for entry in version.facts.get("left_out", [])],
            effect=_effect(version, measured.get(version.id)),
            recall_reason=reasons.get(version.id),
            deprecation_reason=deprecated.get(version.id),
        )
        for version, line, node in rows
    ]


def _effect(version: Version, measured: MeasuredView | None) -> EffectView | None:
    """What a version changes, by its weights and, where a trainer measured it, by its answers."""
    by_weights = version.facts.get("effect")
    if by_weights is None:
        return None
    state = "measured" if measured is not None else by_weights["state"]
    return EffectView(**{**by_weights, "state": state}, measured=measured)


def _nodes(session: Session, ids: set[UUID]) -> dict[UUID, Node]:
    return {node.id: node for node in session.scalars(select(Node).where(Node.id.in_(ids)))}


def files_of(session: Session, ids: list[UUID]) -> dict[UUID, list[FileView]]:
    """The files of many versions, by version, each list by path; one statement."""
    statement = (
        select(VersionFile.version_id, VersionFile.path, Blob.id, Blob.size)
        .join(Blob, Blob.id == VersionFile.blob_id)
        .where(VersionFile.version_id.in_(ids))
        .order_by(VersionFile.path)
    )
    files: dict[UUID, list[FileView]] = {}
    for version_id, path, sha256, size in session.execute(statement):
        files.setdefault(version_id, []).append(FileView(path, sha256, size))
    return files


def _reviews(session: Session, ids: list[UUID]) -> dict[UUID, list[ApprovalView]]:
    """Every review in any state, by version, oldest first.

    One past its date is shown as expired even before the clock has expired it.
    """
    has_expired = (Review.state == "approved") & (Review.expires_at <= func.clock_timestamp())
    statement = (
        select(
            Review.version_id,
            Review.number,
            Review.environment,
            Review.state,
            Review.expires_at,
            has_expired,
        )
        .where(Review.version_id.in_(ids))
        .order_by(Review.number)
    )
    reviews: dict[UUID, list[ApprovalView]] = {}
    for version_id, number, environment, state, expires_at, expired in session.execute(statement):
        reviews.setdefault(version_id, []).append(
            ApprovalView(number, environment, "expired" if expired else state, expires_at)
        )
    return reviews


# Each version's own recall, else the newest recall of something it derives from.
RECALLS = text(
    """
    with recursive derives_from(version, id) as (
        select v, v from unnest(cast(:ids as uuid[])) v
        union
        select d.version, n.id from derives_from d cross join lateral (
            select e.parent_id as id from lineage_edge e where e.child_id = d.id
            union all select v.base_version_id from version v where v.id = d.id
        ) n
    )
    select distinct on (d.version) d.version, p.value
    from derives_from d join recall r on r.node_id = d.id
    left join personal p on p.commitment = r.reason_commitment
    order by d.version, r.node_id = d.version desc, r.at desc
    """
)


def recall_reasons(session: Session, ids: list[UUID]) -> dict[UUID, str]:
    """Why each of these versions is recalled: the reason of its own recall or an ancestor's."""
    if not ids:
        return {}
    rows = session.execute(RECALLS, {"ids": ids})
    return {row.version: row.value or "(erased)" for row in rows}
