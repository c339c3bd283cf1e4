"""How a version reaches traffic: the states of a rollout as one table, shares and sticky buckets.

`rules/channels` decides what may be done to a channel at a given moment.
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
    """The state of a rollout; the last five are terminal."""

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
    # Shadowing is optional, so a canary may start without it.
    State.PENDING: frozenset({State.SHADOWING, State.CANARY}),
    State.SHADOWING: frozenset({State.CANARY}),
    # A canary stays a canary from one step of its ladder to the next. Too little data at the end of
    # a step is neither a pass nor a failure: the rollout waits until a person decides.
    State.CANARY: frozenset({State.CANARY, State.PAUSED, State.INCONCLUSIVE, State.PROMOTING}),
    State.PAUSED: frozenset({State.CANARY}),
    State.INCONCLUSIVE: frozenset({State.CANARY, State.PROMOTING}),
    State.PROMOTING: frozenset({State.SUCCEEDED}),
}
TRANSITIONS: dict[State, frozenset[State]] = {
    **{state: after | TERMINAL - {State.SUCCEEDED} for state, after in _FORWARD.items()},
    **dict.fromkeys(TERMINAL, frozenset()),
    # Aborting twice has the effect of aborting once, so a person in a hurry may press again.
    State.ABORTED: frozenset({State.ABORTED}),
}
"""The states that may follow each state; a trigger of PostgreSQL has the same table."""


def advance(state: State, to: State) -> State:
    """Return `to` if it may follow `state`; otherwise raise Refused `illegal-transition`."""
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
    """The unit's bucket in 0..9999, the same on every gateway and in every audit.

    It is (uint32 of the first four bytes of SHA-256(salt || unit)) * 10000 >> 32: multiply-shift
    keeps the bias of 10000 not dividing 2**32 below one part in 400,000. The salt is constant
    within a rollout and new for the next.
    """
    # surrogatepass: JSON may carry a lone surrogate, and a unit id must never make a request fail.
    head = hashlib.sha256((salt + unit).encode("utf-8", "surrogatepass")).digest()[:4]
    return (int.from_bytes(head, "big") * FULL_BP) >> 32


def arm(salt: str, unit: str | None, weight_bp: int) -> Arm:
    """The arm to which a unit belongs.

    A higher weight only adds units to the candidate. A request without a unit id always goes to the
    stable version.
    """
    if unit is None:
        return "stable"
    return "candidate" if bucket(salt, unit) < weight_bp else "stable"


def check_share(share_bp: int) -> int:
    """Check a canary's share in basis points; raises Invalid `bad-share` outside 1..10000."""
    if not 0 < share_bp <= FULL_BP:
        raise Invalid(
            "bad-share",
            f"A share of {share_bp / 100:g} % cannot be served: it must be above 0 and at most "
            "100 %.",
            share_bp=share_bp,
        )
    return share_bp


def check_reason(text: str) -> str:
    """The trimmed reason of an act; raises Invalid `reason-missing` when it is empty.

    Auditors ask for reasons.
    """
    reason = text.strip()
    if not reason:
        raise Invalid(
            "reason-missing",
            "This act needs a reason, and none was given.",
        )
    return reason
