"""Channels, route generations and rollouts: what serves where, and since when."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint, select, text
from sqlalchemy.dialects.postgresql import ExcludeConstraint
from sqlalchemy.orm import Mapped, Session, mapped_column, validates

from registry.db.table import Id, Moment, Table, one_of
from registry.rules.channels import unknown
from registry.rules.refs import ENVIRONMENTS
from registry.rules.rollouts import TERMINAL, State, advance

ACTIVE = ", ".join(f"'{state}'" for state in State if state not in TERMINAL)


class Channel(Table):
    """A place that serves one adapter in one environment for one use case."""

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
    """A version's way on a channel. A retry is a new row.

    Assigning `state` follows the transition table, or raises Refused `illegal-transition`.
    """

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
        CheckConstraint(one_of("state", *State), name="state"),
        CheckConstraint("weight_bp between 0 and 10000", name="weight"),
        CheckConstraint(f"state in ({ACTIVE}) or weight_bp = 0", name="terminal_weight"),
        CheckConstraint(f"(state in ({ACTIVE})) = (ended_at is null)", name="ended"),
        # At most one active rollout for each channel, whatever runs at the same time.
        Index(
            "uq_rollout_active",
            "channel_id",
            unique=True,
            postgresql_where=text(f"state in ({ACTIVE})"),
        ),
    )

    @validates("state")
    def _advanced(self, _: str, to: State) -> str:
        return (advance(State(self.state), to) if self.state else to).value

    def end(self, state: State, at: datetime) -> None:
        """End the rollout in a terminal state; it then has no traffic."""
        self.state, self.weight_bp, self.ended_at = state, 0, at


class RouteGeneration(Table):
    """What a channel serves from one moment on. Append-only; only `valid_to` is set later, once."""

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
        # As-of queries are exact because no two ranges of a channel overlap.
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
    """An order that a version, and all that derives from it, is unfit everywhere."""

    __tablename__ = "recall"
    id: Mapped[Id]
    node_id: Mapped[UUID] = mapped_column(ForeignKey("node.id"), unique=True)
    reason_commitment: Mapped[str]
    ordered_by: Mapped[UUID | None]
    at: Mapped[Moment]


def channel(
    session: Session, line_id: UUID, environment: str, name: str, *, lock: bool = False
) -> Channel:
    """The channel, or NotFound. A delivery command locks it before any other row."""
    channel = find_channel(session, line_id, environment, name, lock=lock)
    if channel is None:
        raise unknown(environment, name)
    return channel


def find_channel(
    session: Session, line_id: UUID, environment: str, name: str, *, lock: bool = False
) -> Channel | None:
    """The channel, if it exists."""
    statement = select(Channel).where(
        Channel.line_id == line_id, Channel.environment == environment, Channel.name == name
    )
    return session.scalars(statement.with_for_update() if lock else statement).one_or_none()


def open_generation(session: Session, channel_id: UUID) -> RouteGeneration | None:
    """The generation that the channel serves now, if it ever served."""
    statement = select(RouteGeneration).where(
        RouteGeneration.channel_id == channel_id, RouteGeneration.valid_to.is_(None)
    )
    return session.scalars(statement).one_or_none()


def active_rollout(session: Session, channel_id: UUID) -> Rollout | None:
    """The channel's one active rollout, if any."""
    statement = select(Rollout).where(Rollout.channel_id == channel_id, Rollout.ended_at.is_(None))
    return session.scalars(statement).one_or_none()


@dataclass(frozen=True, slots=True)
class Route:
    """What a channel's next generation serves, what kind of act makes it, and who acts.

    `reason` is a commitment. A route that names no version kills the channel.
    """

    kind: str
    stable: UUID | None
    rollout: UUID | None
    actor: UUID | None
    reason: str
    candidate: UUID | None = None
    weight_bp: int = 0
    salt: str = ""


def append(session: Session, channel: Channel, route: Route, at: datetime) -> RouteGeneration:
    """Close the channel's open generation and open the next one at the same instant.

    As-of queries therefore find no gap. Lock the channel first.
    """
    present = open_generation(session, channel.id)
    if present is not None:
        # Time moves forward on a channel even if a machine's clock was set back.
        at = max(at, present.valid_from + timedelta(microseconds=1))
        present.valid_to = at
        session.flush()
    generation = RouteGeneration(
        id=uuid4(),
        channel_id=channel.id,
        generation=present.generation + 1 if present else 1,
        kind=route.kind,
        stable_version_id=route.stable,
        candidate_version_id=route.candidate,
        weight_bp=route.weight_bp,
        salt=route.salt,
        killed=route.stable is None and route.candidate is None,
        rollout_id=route.rollout,
        actor_id=route.actor,
        reason_commitment=route.reason,
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
