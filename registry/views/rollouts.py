"""Channels, route generations, rollouts, recalls and the routing document, as answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from registry.views.versions import FileView


@dataclass(frozen=True, slots=True)
class RouteView:
    """What a channel serves now; `stable` and `candidate` are refs, `weight_bp` the candidate's
    share in basis points.
    """

    channel: str
    environment: str
    generation: int
    stable: str | None
    candidate: str | None
    weight_bp: int
    rollout: UUID | None = None
    rollout_state: str | None = None


@dataclass(frozen=True, slots=True)
class RefusalView:
    """What a command would answer now: the kind of problem, why, and a way out."""

    kind: str
    detail: str
    fix: str


@dataclass(frozen=True, slots=True)
class ActView:
    """One act that is possible now: the versions it may be given, what it does when none is named,
    and what refuses it then.

    A canary always names a version, so it has no `default`, and a `refusal` only where no version
    may start.
    """

    versions: list[str]
    default: str | None
    refusal: RefusalView | None


@dataclass(frozen=True, slots=True)
class ActsView:
    """What may be done to a channel now; whether the caller's role allows it is not asked."""

    canary: ActView
    promote: ActView
    rollback: ActView


@dataclass(frozen=True, slots=True)
class ChannelView:
    """A channel with its present route and the acts that are possible on it."""

    adapter: str
    channel: str
    environment: str
    use_case: str
    generation: int
    stable: str | None
    candidate: str | None
    weight_bp: int
    since: datetime
    rollout: UUID | None
    rollout_state: str | None
    review: int | None
    acts: ActsView


@dataclass(frozen=True, slots=True)
class GenerationView:
    """One entry of a channel's history; `version` is what stood as stable, `to` is null while it is
    in force.
    """

    generation: int
    version: str | None
    candidate: str | None
    weight_bp: int
    kind: str
    valid_from: datetime
    valid_to: datetime | None
    actor: str
    reason: str


@dataclass(frozen=True, slots=True)
class AsOfView:
    """What one channel served at a moment."""

    adapter: str
    channel: str
    environment: str
    generation: int
    version: str | None
    candidate: str | None
    weight_bp: int
    since: datetime
    review: int | None
    approved_by: list[str]


@dataclass(frozen=True, slots=True)
class RecallView:
    """What a recall ended: every version that fell and every channel that moved."""

    ref: str
    reason: str
    recalled: list[str]
    channels: list[RouteView]


@dataclass(frozen=True, slots=True)
class ArmView:
    """One arm of a route as a gateway needs it; `digest` is the manifest digest and names the
    engine's directory.
    """

    ref: str
    kind: str
    digest: str
    tensor_root: str
    files: list[FileView]


@dataclass(frozen=True, slots=True)
class RoutingEntry:
    """One channel's route: unit u is in the candidate's arm when bucket(salt, u) < weight_bp.

    `urgent` is the newest generation made by a kill, a recall or a rollback (0: none): a gateway
    still on an older one moves at once, before the new arms are loaded; else it may go on with the
    old route until they are.
    """

    model: str
    channel: str
    generation: int
    stable: ArmView | None
    candidate: ArmView | None
    weight_bp: int
    salt: str
    base: ArmView
    fallback_to_base: bool
    killed: bool
    urgent: int = 0


@dataclass(frozen=True, slots=True)
class RoutingView:
    """All routes of one environment; `etag` changes with any of them."""

    environment: str
    etag: str
    issued_at: datetime
    entries: list[RoutingEntry]
