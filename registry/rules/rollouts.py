"""How a version reaches traffic: the states of a rollout as one table, shares, and sticky buckets.

What may be done to a channel at a moment is decided in `rules/channels`.
"""

from __future__ import annotations

import hashlib
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


TERMINAL = frozenset(
    {State.SUCCEEDED, State.ABORTED, State.ROLLED_BACK, State.EXPIRED, State.SUPERSEDED}
)
_FORWARD: dict[State, frozenset[State]] = {
    # Shadowing is a choice, so a canary may start without it.
    State.PENDING: frozenset({State.SHADOWING, State.CANARY}),
    State.SHADOWING: frozenset({State.CANARY}),
    # From one step of its ladder to the next, a canary stays a canary. Too little data at the end
    # of a step is neither a pass nor a failure: it holds until a person decides.
    State.CANARY: frozenset({State.CANARY, State.PAUSED, State.INCONCLUSIVE, State.PROMOTING}),
    State.PAUSED: frozenset({State.CANARY}),
    State.INCONCLUSIVE: frozenset({State.CANARY, State.PROMOTING}),
    State.PROMOTING: frozenset({State.SUCCEEDED}),
}
TRANSITIONS: dict[State, frozenset[State]] = {
    **{state: after | TERMINAL - {State.SUCCEEDED} for state, after in _FORWARD.items()},
    **dict.fromkeys(TERMINAL, frozenset()),
    # Aborting twice is the same as once, so that a person in a hurry may press again.
    State.ABORTED: frozenset({State.ABORTED}),
}
"""What each state may become; a trigger of PostgreSQL holds the same table."""


def advance(state: State, to: State) -> State:
    """Return `to` if a rollout may go there; Refused `illegal-transition` lists where it may go."""
    if to in TRANSITIONS[state]:
        return to
    legal = sorted(after.value for after in TRANSITIONS[state])
    raise Refused(
        "illegal-transition",
        f"A rollout that is {_words(state)} cannot become {_words(to)}.",
        "Start a new rollout: this one has ended."
        if state in TERMINAL
        else f"Possible now: {', '.join(map(_words, legal))}.",
        state=state.value,
        to=to.value,
        legal=legal,
    )


def _words(state: str) -> str:
    return state.replace("_", " ")


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
