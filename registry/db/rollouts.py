"""Channels, route generations and rollouts: what serves where, and how it came to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint, select, text
from sqlalchemy.dialects.postgresql import ExcludeConstraint
from sqlalchemy.orm import Mapped, Session, mapped_column

from registry.db.table import Id, Moment, Table, one_of
from registry.errors import NotFound
from registry.rules.refs import ENVIRONMENTS
from registry.rules.rollouts import Stable

STATES = (
    "pending",
    "shadowing",
    "canary",
    "paused",
    "inconclusive",
    "promoting",
    "succeeded",
    "aborted",
    "rolled_back",
    "expired",
    "superseded",
)
ACTIVE = "'pending', 'shadowing', 'canary', 'paused', 'inconclusive', 'promoting'"


class Channel(Table):
    """A place that serves an adapter for a use case within one environment."""

    __tablename__ = "channel"
    id: Mapped[Id]
    line_id: Mapped[UUID] = mapped_column(ForeignKey("line.id"))
    environment: Mapped[str]
    name: Mapped[str]
    use_case_id: Mapped[UUID] = mapped_column(ForeignKey("use_case.id"))
    base_version_id: Mapped[UUID] = mapped_column(ForeignKey("version.id"))
    created_at: Mapped[Moment]
    __table_args__ = (
        UniqueConstraint("line_id", "environment", "name"),
        CheckConstraint(one_of("environment", *ENVIRONMENTS), name="environment"),
        # `team/name@v7` must not have two meanings.
        CheckConstraint("name !~ '^(v[0-9]+$|v0|sha256|draft-)'", name="name"),
    )


class Rollout(Table):
    """One version's way into a channel. A retry is a new row."""

    __tablename__ = "rollout"
    id: Mapped[Id]
    channel_id: Mapped[UUID] = mapped_column(ForeignKey("channel.id"), index=True)
    version_id: Mapped[UUID] = mapped_column(ForeignKey("version.id"))
    review_id: Mapped[UUID] = mapped_column(ForeignKey("review.id"))
    state: Mapped[str]
    weight_bp: Mapped[int]
    rollback_target_id: Mapped[UUID | None] = mapped_column(ForeignKey("version.id"))
    started_by: Mapped[UUID | None]
    started_at: Mapped[Moment]
    ended_at: Mapped[datetime | None]
    __table_args__ = (
        CheckConstraint(one_of("state", *STATES), name="state"),
        CheckConstraint("weight_bp between 0 and 10000", name="weight"),
        CheckConstraint(f"state in ({ACTIVE}) or weight_bp = 0", name="terminal_weight"),
        CheckConstraint(f"(state in ({ACTIVE})) = (ended_at is null)", name="ended"),
        # At most one active rollout a channel, whatever races.
        Index(
            "uq_rollout_active",
            "channel_id",
            unique=True,
            postgresql_where=text(f"state in ({ACTIVE})"),
        ),
    )


class RouteGeneration(Table):
    """Append-only truth of what a channel serves; only `valid_to` is ever set later, once."""

    __tablename__ = "route_generation"
    id: Mapped[Id]
    channel_id: Mapped[UUID] = mapped_column(ForeignKey("channel.id"))
    generation: Mapped[int]
    kind: Mapped[str]
    stable_version_id: Mapped[UUID | None] = mapped_column(ForeignKey("version.id"))
    candidate_version_id: Mapped[UUID | None] = mapped_column(ForeignKey("version.id"))
    weight_bp: Mapped[int]
    salt: Mapped[str]
    killed: Mapped[bool]
    rollout_id: Mapped[UUID | None] = mapped_column(ForeignKey("rollout.id"))
    actor_id: Mapped[UUID | None]
    reason_commitment: Mapped[str]
    valid_from: Mapped[Moment]
    valid_to: Mapped[datetime | None]
    __table_args__ = (
        UniqueConstraint("channel_id", "generation"),
        CheckConstraint("generation > 0", name="generation"),
        CheckConstraint(one_of("kind", "canary", "promote", "rollback", "recall"), name="kind"),
        CheckConstraint("weight_bp between 0 and 10000", name="weight"),
        CheckConstraint(
            "(candidate_version_id is null) = (weight_bp = 0)", name="candidate_weight"
        ),
        CheckConstraint("not killed or candidate_version_id is null", name="killed"),
        CheckConstraint("valid_to is null or valid_to > valid_from", name="range"),
        Index(
            "uq_route_generation_open",
            "channel_id",
            unique=True,
            postgresql_where=text("valid_to is null"),
        ),
        # As-of queries answer exactly because no two ranges of a channel overlap.
        ExcludeConstraint(
            ("channel_id", "="),
            (text("tstzrange(valid_from, valid_to)"), "&&"),
            using="gist",
            name="ex_route_generation_range",
        ),
        Index(
            "ix_route_generation_stable",
            "stable_version_id",
            postgresql_where=text("valid_to is null"),
        ),
        Index(
            "ix_route_generation_candidate",
            "candidate_version_id",
            postgresql_where=text("valid_to is null"),
        ),
    )


class Recall(Table):
    """An order that a thing, and all that derives from it, is unfit everywhere."""

    __tablename__ = "recall"
    id: Mapped[Id]
    node_id: Mapped[UUID] = mapped_column(ForeignKey("node.id"), unique=True)
    reason_commitment: Mapped[str]
    ordered_by: Mapped[UUID | None]
    at: Mapped[Moment]


def channel(
    session: Session, line_id: UUID, environment: str, name: str, *, lock: bool = False
) -> Channel:
    """The channel, or NotFound; lock it first of all rows a delivery command locks."""
    found = find_channel(session, line_id, environment, name, lock=lock)
    if found is None:
        raise NotFound(
            "channel-unknown",
            f"Nothing was ever started on channel '{name}' in {environment}.",
        )
    return found


def find_channel(
    session: Session, line_id: UUID, environment: str, name: str, *, lock: bool = False
) -> Channel | None:
    """The channel, if it exists."""
    statement = select(Channel).where(
        Channel.line_id == line_id, Channel.environment == environment, Channel.name == name
    )
    return session.scalars(statement.with_for_update() if lock else statement).one_or_none()


def open_generation(session: Session, channel_id: UUID) -> RouteGeneration | None:
    """What the channel serves now."""
    statement = select(RouteGeneration).where(
        RouteGeneration.channel_id == channel_id, RouteGeneration.valid_to.is_(None)
    )
    return session.scalars(statement).one_or_none()


def active_rollout(session: Session, channel_id: UUID) -> Rollout | None:
    """The channel's one active rollout, if any."""
    statement = select(Rollout).where(Rollout.channel_id == channel_id, Rollout.ended_at.is_(None))
    return session.scalars(statement).one_or_none()


def taken_off(session: Session, present: RouteGeneration) -> UUID | None:
    """The stable version that the channel's present generation rolled back from; None when it was
    no such rollback.
    """
    if present.kind != "rollback":
        return None
    before = select(RouteGeneration.stable_version_id).where(
        RouteGeneration.channel_id == present.channel_id,
        RouteGeneration.generation == present.generation - 1,
    )
    version = session.scalar(before)
    return version if version != present.stable_version_id else None


def generations(session: Session, channel_id: UUID) -> list[RouteGeneration]:
    """The channel's whole history, oldest first."""
    statement = (
        select(RouteGeneration)
        .where(RouteGeneration.channel_id == channel_id)
        .order_by(RouteGeneration.generation)
    )
    return list(session.scalars(statement))


@dataclass(frozen=True, slots=True)
class Stood:
    """A version that stood as stable on a channel; `stable` is what the rule `rollback_target` asks
    of it.
    """

    version_id: UUID
    is_base: bool
    stable: Stable


STABLES = text(
    # `left`: what ended a version's last stand as stable was a rollback or a recall, not a better
    # version.
    """
    with route as (
        select g.channel_id, g.generation, g.stable_version_id as version_id,
               lead(g.kind) over later in ('rollback', 'recall')
                   and lead(g.stable_version_id) over later is distinct from g.stable_version_id as pushed,
               g.kind = 'promote' and coalesce(r.state, 'succeeded') = 'succeeded' as promoted
        from route_generation g left join rollout r on r.id = g.rollout_id
        where g.channel_id = any(:channels)
        window later as (partition by g.channel_id order by g.generation)
    ), stood as (
        select channel_id, version_id, max(generation) as newest, bool_or(promoted) as succeeded,
               coalesce((array_agg(pushed order by generation desc))[1], false) as was_left
        from route where version_id is not null group by channel_id, version_id
    )
    select s.channel_id, s.version_id, n.ref, v.id = c.base_version_id as is_base,
           coalesce(v.base_root, '') as base_root, s.succeeded, s.was_left, v.state = 'recalled' as recalled,
           a.id is not null as approved, coalesce(a.expires_at <= clock_timestamp(), false) as expired
    from stood s join channel c on c.id = s.channel_id join version v on v.id = s.version_id
    join node n on n.id = v.id
    left join review a on a.version_id = v.id and a.environment = c.environment and a.state = 'approved'
    order by s.channel_id, s.newest
    """
)


def stables(session: Session, channel: Channel) -> list[Stood]:
    """Every version that ever stood as stable on this channel, once, by its last stand, newest
    last.
    """
    return stables_of(session, [channel.id]).get(channel.id, [])


def stables_of(session: Session, channels: list[UUID]) -> dict[UUID, list[Stood]]:
    """The same for many channels in one statement, by channel id."""
    found: dict[UUID, list[Stood]] = {}
    for row in session.execute(STABLES, {"channels": channels}):
        stable = Stable(
            row.ref,
            row.base_root,
            succeeded=row.succeeded,
            left=row.was_left,
            approved=row.approved,
            expired=row.expired,
            recalled=row.recalled,
        )
        found.setdefault(row.channel_id, []).append(Stood(row.version_id, row.is_base, stable))
    return found


def append(
    session: Session,
    place: Channel,
    present: RouteGeneration | None,
    *,
    kind: str,
    stable: UUID | None,
    candidate: UUID | None,
    weight_bp: int,
    salt: str,
    killed: bool,
    rollout_id: UUID | None,
    actor_id: UUID | None,
    reason: str,
    at: datetime,
) -> RouteGeneration:
    """Close the channel's open generation and open the next one at the same instant; lock the
    channel first.
    """
    if present is not None:
        present.valid_to = at
        session.flush()
    generation = RouteGeneration(
        id=uuid4(),
        channel_id=place.id,
        generation=present.generation + 1 if present else 1,
        kind=kind,
        stable_version_id=stable,
        candidate_version_id=candidate,
        weight_bp=weight_bp,
        salt=salt,
        killed=killed,
        rollout_id=rollout_id,
        actor_id=actor_id,
        reason_commitment=reason,
        valid_from=at,
        valid_to=None,
    )
    session.add(generation)
    session.flush()
    return generation


def naming(session: Session, versions: list[UUID], *, lock: bool = False) -> list[Channel]:
    """The channels whose open generation names any of these versions, in lock order."""
    statement = (
        select(Channel)
        .join(RouteGeneration, RouteGeneration.channel_id == Channel.id)
        .where(
            RouteGeneration.valid_to.is_(None),
            RouteGeneration.stable_version_id.in_(versions)
            | RouteGeneration.candidate_version_id.in_(versions),
        )
        .order_by(Channel.id)
    )
    return list(session.scalars(statement.with_for_update(of=Channel) if lock else statement))
