"""How a version reaches traffic: sticky buckets, the rollout's states as one table, and where a
rollback goes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from registry.errors import Invalid, Refused

FULL_BP = 10_000
"""All traffic, in basis points: one hundredth of a percent is the smallest share."""

Arm = Literal["stable", "candidate"]


class State(StrEnum):
    """Where a rollout stands; the last five are terminal."""

    PENDING = "pending"
    SHADOWING = "shadowing"
    CANARY = "canary"
    PAUSED = "paused"
    INCONCLUSIVE = "inconclusive"
    PROMOTING = "promoting"
    SUCCEEDED = "succeeded"
    ABORTED = "aborted"
    ROLLED_BACK = "rolled_back"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"


class Event(StrEnum):
    """What can happen to a rollout."""

    SHADOW = "shadow"
    START = "start"
    STEP = "step"
    PAUSE = "pause"
    RESUME = "resume"
    RUN_DRY = "run_dry"
    EXTEND = "extend"
    PROMOTE = "promote"
    SUCCEED = "succeed"
    ABORT = "abort"
    ROLL_BACK = "roll_back"
    EXPIRE = "expire"
    SUPERSEDE = "supersede"


TERMINAL = frozenset(
    {State.SUCCEEDED, State.ABORTED, State.ROLLED_BACK, State.EXPIRED, State.SUPERSEDED}
)
_ENDINGS = {
    Event.ABORT: State.ABORTED,
    Event.ROLL_BACK: State.ROLLED_BACK,
    Event.EXPIRE: State.EXPIRED,
    Event.SUPERSEDE: State.SUPERSEDED,
}

TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.PENDING, Event.SHADOW): State.SHADOWING,
    # Shadowing is a choice, so a canary may start without it.
    (State.PENDING, Event.START): State.CANARY,
    (State.SHADOWING, Event.START): State.CANARY,
    (State.CANARY, Event.STEP): State.CANARY,
    (State.CANARY, Event.PAUSE): State.PAUSED,
    (State.PAUSED, Event.RESUME): State.CANARY,
    # Too little data at a step's end is neither a pass nor a failure: it holds until a person
    # decides.
    (State.CANARY, Event.RUN_DRY): State.INCONCLUSIVE,
    (State.INCONCLUSIVE, Event.EXTEND): State.CANARY,
    (State.CANARY, Event.PROMOTE): State.PROMOTING,
    (State.INCONCLUSIVE, Event.PROMOTE): State.PROMOTING,
    (State.PROMOTING, Event.SUCCEED): State.SUCCEEDED,
    **{
        (state, event): end
        for state in State
        if state not in TERMINAL
        for event, end in _ENDINGS.items()
    },
    # Aborting twice is the same as once, so that a person in a hurry may press again.
    (State.ABORTED, Event.ABORT): State.ABORTED,
}


def advance(state: State, event: Event) -> State:
    """The state after this event; Refused `illegal-transition` names what would be legal
    instead.
    """
    after = TRANSITIONS.get((state, event))
    if after is not None:
        return after
    legal = sorted(candidate.value for (at, candidate) in TRANSITIONS if at is state)
    raise Refused(
        "illegal-transition",
        f"A rollout that is {state.value} cannot {event.value.replace('_', ' ')}.",
        "Start a new rollout: this one has ended."
        if state in TERMINAL
        else f"Possible now: {', '.join(legal)}.",
        state=state.value,
        event=event.value,
        legal=legal,
    )


def bucket(salt: str, unit: str) -> int:
    """The unit's place in 0..9999, the same on every gateway and in every audit.

    (uint32 of the first four bytes of SHA-256(salt || unit)) * 10000 >> 32: multiply-shift keeps
    the bias of 10000 not dividing 2**32 below one part in 400,000. The salt is constant within a
    rollout and new for the next.
    """
    # surrogatepass: JSON may carry a lone surrogate, and a unit id must never make a request fail.
    head = hashlib.sha256((salt + unit).encode("utf-8", "surrogatepass")).digest()[:4]
    return (int.from_bytes(head, "big") * FULL_BP) >> 32


def arm(salt: str, unit: str | None, weight_bp: int) -> Arm:
    """The arm a unit belongs to. Raising the weight only adds units; without a unit id nobody is
    experimented upon.
    """
    if unit is None:
        return "stable"
    return "candidate" if bucket(salt, unit) < weight_bp else "stable"


def check_share(share_bp: int) -> int:
    """A canary's share in basis points, more than none and at most all; Invalid `bad-share`
    otherwise.
    """
    if not 0 < share_bp <= FULL_BP:
        raise Invalid(
            "bad-share",
            f"A share of {share_bp / 100:g} % cannot be served: it must be above 0 and at most "
            "100 %.",
            share_bp=share_bp,
        )
    return share_bp


def check_reason(text: str) -> str:
    """A reason with words in it, trimmed; Invalid `reason-missing` otherwise, since an auditor will
    ask for it.
    """
    reason = text.strip()
    if not reason:
        raise Invalid(
            "reason-missing",
            "This act needs a reason, and none was given.",
        )
    return reason


@dataclass(frozen=True, slots=True)
class Stable:
    """One version that stood as stable on a channel, and what is true of it at this moment.

    `succeeded`: it came by a promotion that finished; `left`: a rollback has taken traffic away
    from it since.
    """

    ref: str
    base_root: str
    succeeded: bool = True
    left: bool = False
    approved: bool = True
    expired: bool = False
    recalled: bool = False

    def fits(self, base_root: str) -> bool:
        """May it serve again, on this base?"""
        sound = self.approved and not self.expired and not self.recalled
        return sound and self.succeeded and not self.left and self.base_root == base_root


@dataclass(frozen=True, slots=True)
class Target:
    """Where a rollback goes: an earlier stable, or the base itself (`stable` is None)."""

    stable: Stable | None

    @property
    def is_base(self) -> bool:
        return self.stable is None


def rollback_target(
    history: Sequence[Stable],
    *,
    base_root: str,
    base_usable: bool,
    fallback_allowed: bool,
    leaving: str | None = None,
) -> Target:
    """The place to go back to: the last good stable, else the base where policy allows it, else
    Refused.

    `history` holds the channel's stables, newest last; `leaving` is the ref being rolled back from,
    never a target. A canary's rollback leaves the candidate, so the present stable is the first
    choice; a promoted version's rollback leaves that version. Raises Refused `no-rollback-target`.
    """
    for stable in reversed(history):
        if stable.ref != leaving and stable.fits(base_root):
            return Target(stable)
    if base_usable and fallback_allowed:
        return Target(None)
    why = (
        "the policy does not allow the base as a fall-back"
        if base_usable
        else "the base itself may not serve"
    )
    raise Refused(
        "no-rollback-target",
        "There is nowhere to roll back to: no earlier version of this channel may serve, and "
        f"{why}.",
        leaving=leaving,
        considered=[stable.ref for stable in history],
    )
