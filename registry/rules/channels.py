"""Which acts are possible on a channel now, why the others are not, and where a rollback goes.

Commands refuse by these functions; the channel's view, REST, the CLI and the console show their
answers. Roles and the signatures of votes are checked elsewhere: they depend on who asks and on
whether somebody tampered with the database, not on the channel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from registry.errors import Conflict, NotFound, Refused, RegistryError
from registry.rules.versions import check_may_start


@dataclass(frozen=True, slots=True)
class Version:
    """A version of the channel's line, and what is true of it on this channel at this moment.

    `base` is the ref of the base it is bound to; `same_base`: that base has the same root as
    the channel's base. `approved`: it has an approval for the channel's environment, which may
    have `expired`; `same_use_case`: that approval is for the channel's use case. `succeeded`:
    it was stable here after a finished promotion; `removed`: a rollback or recall ended its
    last time as stable.
    """

    ref: str
    number: int = 0
    state: str = "registered"
    base: str | None = None
    same_base: bool = True
    approved: bool = True
    expired: bool = False
    same_use_case: bool = True
    succeeded: bool = False
    removed: bool = False

    @property
    def may_return(self) -> bool:
        """Whether a rollback may put it back."""
        sound = self.approved and not self.expired and self.state != "recalled" and self.same_base
        return sound and self.succeeded and not self.removed


@dataclass(frozen=True, slots=True)
class Channel:
    """The situation of one channel; `base` is None while nothing was ever started on it.

    `stable`, `candidate` and `base` are refs, and so is `use_case`, which the first canary
    sets. `base_usable`: the base is neither recalled nor deleted. `base_allowed`: the policy in
    force lets the base serve in this environment. `taken_off` is the version from which the
    current generation rolled back. `versions` lists first the versions that may start, then
    every version that was stable here, the latest last.
    """

    line: str
    environment: str
    name: str
    kind: str = "adapter"
    base: str | None = None
    use_case: str | None = None
    base_usable: bool = True
    base_allowed: bool = True
    stable: str | None = None
    candidate: str | None = None
    taken_off: str | None = None
    versions: tuple[Version, ...] = ()

    @property
    def title(self) -> str:
        """The name for people: `team/name in production`, and the channel if its name differs."""
        own = "" if self.name == self.environment else f" (channel {self.name})"
        return f"{self.line} in {self.environment}{own}"

    def version(self, ref: str | None) -> Version | None:
        """The version with that ref, or None."""
        return next((version for version in self.versions if version.ref == ref), None)

    @property
    def stable_may_stay(self) -> bool:
        """Whether the stable version may keep serving: only a recall ends that, not an expiry."""
        if self.stable == self.base:
            return self.stable is not None and self.base_usable
        version = self.version(self.stable)
        return version is not None and version.state != "recalled"


def unknown(environment: str, name: str) -> NotFound:
    """The error for a channel on which nothing was ever started."""
    return NotFound(
        "channel-unknown",
        f"Nothing was ever started on channel '{name[:60]}' in {environment}.",
        "Start a canary first: countersign canary start REF --env E --share P.",
    )


def check_approved(channel: Channel, version: Version) -> None:
    """Check that a new route of this environment may name the version.

    Raises Refused `recalled`, `not-approved`, `approval-expired` or `another-use-case`.
    """
    if version.state == "recalled":
        raise Refused(
            "recalled",
            f"{version.ref} is recalled and may serve nowhere.",
            subject=version.ref,
        )
    if not version.approved:
        raise Refused(
            "not-approved",
            f"{version.ref} holds no approval in force for {channel.environment}.",
            f"Have it approved: countersign submit {version.ref} --env {channel.environment} "
            "--usecase U --note T.",
            subject=version.ref,
        )
    if version.expired:
        raise Refused(
            "approval-expired",
            f"The approval of {version.ref} for {channel.environment} has expired.",
            subject=version.ref,
        )
    if not version.same_use_case:
        raise Refused(
            "another-use-case",
            f"{channel.title} serves the use case {channel.use_case}, and {version.ref} is "
            f"approved for {channel.environment} for another one.",
            "Start it on another channel (--channel NAME), or start a version that was submitted "
            f"for this one: countersign submit REF --env {channel.environment} "
            f"--usecase {channel.use_case} --note T.",
            subject=version.ref,
        )


def check_canary(channel: Channel, ref: str) -> None:
    """Check that a canary of this version may start on the channel now.

    Raises Refused `unfit-subject`, `another-base`, `recalled`, `not-approved`, `approval-expired`,
    `another-use-case`, `deprecated`, `serves-already` or `not-servable`, Conflict
    `rollout-active`.
    """
    _check_kind(channel, ref)
    version = channel.version(ref) or Version(ref, approved=False)
    if not version.same_base:
        raise Refused(
            "another-base",
            f"{ref} was trained on another base than {channel.base}, the base of this channel.",
            subject=ref,
        )
    check_approved(channel, version)
    check_may_start(version.state, version.ref)
    if channel.base is None and version.base is None:
        raise Refused(
            "unfit-subject",
            f"{ref} names no base model, and the rest of a new channel's traffic goes to the base.",
            "Name a version that was registered with its base.",
            subject=ref,
        )
    if ref == channel.stable:
        raise Refused(
            "serves-already",
            f"{ref} serves all of this channel already.",
            "There is nothing to do.",
            subject=ref,
        )
    _check_free(channel)


def _check_kind(channel: Channel, ref: str) -> None:
    if channel.kind == "base":
        raise Refused(
            "unfit-subject",
            f"{ref} is a base model; only adapters and checkpoints are rolled out.",
            "Name an approved adapter version.",
            subject=ref,
        )


def _check_free(channel: Channel) -> None:
    """Check what prevents every canary, of any version."""
    if channel.candidate is not None:
        raise Conflict(
            "rollout-active",
            f"A canary of {channel.candidate} is active on this channel.",
        )
    if channel.base is None and not channel.base_allowed:
        raise Refused(
            "not-servable",
            "The first canary of a channel sends all other traffic to the base, and the policy of "
            f"{channel.environment} does not let the base serve.",
            "Publish a policy with fallback_to_base: true.",
            subject=channel.line,
        )


def to_promote(channel: Channel, ref: str | None = None) -> str:
    """The version that a promotion gives all traffic.

    It is the canary's version or, without a canary, the one that the last rollback took off.
    Another version that succeeded here before returns without a canary only by its name (`ref`):
    promoting twice must not put an older version back. Without a canary this is a new rollout,
    which a deprecated version may not start.

    Raises NotFound `channel-unknown`, Refused `another-canary`, `canary-first` or `deprecated`, or
    as `check_approved`.
    """
    if channel.base is None:
        raise unknown(channel.environment, channel.name)
    if channel.candidate is not None and ref not in (None, channel.candidate):
        raise Refused(
            "another-canary",
            f"The active canary of {channel.title} is {channel.candidate}, not {ref}.",
            subject=channel.line,
        )
    version = channel.version(channel.candidate or ref or channel.taken_off)
    again = version is not None and version.succeeded and version.ref != channel.stable
    if version is None or not (channel.candidate or again):
        raise Refused(
            "canary-first",
            f"{channel.title} has no active canary to promote.",
            "Start one first (countersign canary start REF --env E --share P), or name a version "
            "that succeeded here before.",
            subject=channel.line,
        )
    check_approved(channel, version)
    if channel.candidate is None:
        check_may_start(version.state, version.ref)
    return version.ref


def rollback_target(channel: Channel) -> str:
    """Where a rollback or a recall sends the traffic: a version that was stable here, or the base.

    Without its candidate, the channel keeps its stable version. In place of the stable version
    comes the last one that may return, otherwise the base where the policy allows it.

    Raises NotFound `channel-unknown`, Refused `nothing-to-roll-back` or `no-rollback-target`.
    """
    if channel.base is None:
        raise unknown(channel.environment, channel.name)
    if channel.candidate is not None and channel.stable is not None and channel.stable_may_stay:
        return channel.stable
    if channel.candidate is None and channel.stable == channel.base:
        raise Refused(
            "nothing-to-roll-back",
            f"{channel.title} serves its base model already.",
            "There is nothing to do.",
            subject=channel.line,
        )
    leaving = (channel.stable, channel.candidate)
    for version in reversed(channel.versions):
        if version.may_return and version.ref not in leaving:
            return version.ref
    if channel.base_usable and channel.base_allowed and channel.base not in leaving:
        return channel.base
    why = (
        "the policy does not let the base serve"
        if channel.base_usable
        else "the base itself may not serve"
    )
    raise Refused(
        "no-rollback-target",
        "There is nowhere to roll back to: no earlier version of this channel may serve, and "
        f"{why}.",
        leaving=channel.candidate or channel.stable,
        considered=[version.ref for version in channel.versions if version.succeeded],
    )


@dataclass(frozen=True, slots=True)
class Act:
    """One act: the versions it accepts, the default version, and why it is refused.

    `default` is None where a version must be named. `refusal` is the command's answer when no
    version is named; for a canary, it is the answer for every version.
    """

    versions: tuple[str, ...]
    default: str | None
    refusal: RegistryError | None


@dataclass(frozen=True, slots=True)
class Acts:
    """The acts on one channel at one moment."""

    canary: Act
    promote: Act
    rollback: Act


def acts(channel: Channel) -> Acts:
    """What may be done to a channel now, with which versions, or why not."""
    newest = [
        version.ref
        for version in sorted(channel.versions, key=lambda version: version.number, reverse=True)
    ]
    startable = tuple(ref for ref in newest if not _refusal(check_canary, channel, ref))
    promotable = tuple(ref for ref in newest if not _refusal(to_promote, channel, ref))
    no_promotion = _refusal(to_promote, channel)
    no_rollback = _refusal(rollback_target, channel)
    target = None if no_rollback else rollback_target(channel)
    return Acts(
        Act(startable, None, None if startable else _no_canary(channel)),
        Act(promotable, None if no_promotion else to_promote(channel), no_promotion),
        Act((target,) if target else (), target, no_rollback),
    )


def _no_canary(channel: Channel) -> RegistryError:
    """Why no version may start: what prevents them all, otherwise that none is approved."""
    served = f" and the use case {channel.use_case}" if channel.use_case else ""
    return (
        _refusal(_check_kind, channel, channel.line)
        or _refusal(_check_free, channel)
        or Refused(
            "not-approved",
            f"No other version of {channel.line} holds an approval in force for "
            f"{channel.environment}{served}.",
            f"Submit one (countersign submit REF --env {channel.environment}) and have it "
            "approved.",
            subject=channel.line,
        )
    )


def _refusal(rule: Callable[..., object], *args: object) -> RegistryError | None:
    try:
        rule(*args)
    except RegistryError as refusal:
        return refusal
    return None
