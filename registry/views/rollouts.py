"""Channels, route generations, rollouts, recalls and the routing document, as answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from registry.views.versions import FileView


@dataclass(frozen=True, slots=True)
class RouteView:
    """What a channel serves now.

    `stable` and `candidate` are refs; `weight_bp` is the candidate's share in basis points.
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
    """The refusal that a command would answer now: the kind of problem, why, and a way out."""

    kind: str
    detail: str
    fix: str


@dataclass(frozen=True, slots=True)
class ActView:
    """One act on a channel: the versions that it may name, and what it does without one.

    `default` is the version it then uses, `refusal` what then refuses it. A canary always names a
    version, so it has no `default`, and a `refusal` only if no version may start.
    """

    versions: list[str]
    default: str | None
    refusal: RefusalView | None


@dataclass(frozen=True, slots=True)
class ActsView:
    """The acts that are possible on a channel now, whatever the roles of the caller."""

    canary: ActView
    promote: ActView
    rollback: ActView


@dataclass(frozen=True, slots=True)
class ChannelView:
    """A channel with its current route and the acts that are possible on it."""

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
    """One entry of a channel's history.

    `version` is the stable version; `valid_to` is null while the entry is in force.
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
    """What one channel was ordered to serve at a moment, and who had approved it.

    `by_policy`: the base was to serve, which needs no review where the policy allows it.
    """

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
    by_policy: bool = False


@dataclass(frozen=True, slots=True)
class RecallView:
    """The effect of a recall: every version recalled and every channel that changed."""

    ref: str
    reason: str
    recalled: list[str]
    channels: list[RouteView]


@dataclass(frozen=True, slots=True)
class PromptForm:
    """How the evidence of an approval put its prompts: template chat or plain, and system prompt.

    `system` is null where there was none.
    """

    template: str
    system: str | None


@dataclass(frozen=True, slots=True)
class ArmView:
    """One arm of a route, as a gateway needs it.

    `digest` is the manifest digest, after which the engine's directory is named. `prompt` is how
    the approved version was measured, and is served; null for what no review approved.
    """

    ref: str
    kind: str
    digest: str
    tensor_root: str
    files: list[FileView]
    prompt: PromptForm | None = None


@dataclass(frozen=True, slots=True)
class RoutingEntry:
    """One channel's route: unit u is in the candidate's arm if bucket(salt, u) < weight_bp.

    `urgent` is the newest generation made by a kill, a recall or a rollback, or 0. A gateway on an
    older generation leaves its route at once, before the new arms are loaded; otherwise it may keep
    the old route until they are.
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
    """All routes of one environment; `etag` changes when any of them does."""

    environment: str
    etag: str
    issued_at: datetime
    entries: list[RoutingEntry]
