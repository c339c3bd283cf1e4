"""The states of a version and of a data set version, what each allows, and the steps between them.

Every other list of states comes from here, the constraints of the tables included. The steps are
written once more in PostgreSQL and in the offline verifier, which import nothing; tests hold both
equal to this table.
"""

from __future__ import annotations

from enum import StrEnum

from registry.errors import Refused


class State(StrEnum):
    """Where a version stands. Approved and serving are no states: reviews and routes say those."""

    DRAFT = "draft"
    REGISTERED = "registered"
    DEPRECATED = "deprecated"
    RECALLED = "recalled"
    DELETED = "deleted"


TRANSITIONS: dict[State, frozenset[State]] = {
    State.DRAFT: frozenset({State.REGISTERED, State.RECALLED, State.DELETED}),
    State.REGISTERED: frozenset({State.DEPRECATED, State.RECALLED, State.DELETED}),
    State.DEPRECATED: frozenset({State.RECALLED, State.DELETED}),
    # A recall is of content: what was deleted may turn out unfit wherever it went before.
    State.DELETED: frozenset({State.RECALLED}),
    State.RECALLED: frozenset(),
}
"""The states that may follow each state. A version begins as a draft; nothing is resurrected."""

STANDING = (State.DRAFT, State.REGISTERED, State.DEPRECATED)
"""States in which the bytes are the line's own: the same bytes are found, not registered again."""

USABLE = (State.REGISTERED, State.DEPRECATED)
"""States in which a version may be built on, measured, reviewed and served."""

GONE = (State.DELETED, State.RECALLED)
"""States in which nobody gets the bytes any more."""


def usable(state: str) -> bool:
    """Whether a version in this state may be built on, measured, reviewed and served."""
    return state in USABLE


def may_start(state: str) -> bool:
    """Whether a rollout of a version in this state may start: that needs one that is current."""
    return state == State.REGISTERED


def check_may_start(state: str, ref: str) -> None:
    """Refuse a new rollout of a deprecated version (`deprecated`).

    What is recalled or deleted is refused before, with its own reason. A rollback is no new
    rollout: it goes back to what served before, deprecated or not.
    """
    if state == State.DEPRECATED:
        raise Refused(
            "deprecated",
            f"{ref} is deprecated: no new rollout of it may start.",
            "Start its successor. Where it serves it stays, and a rollback may return to it.",
            subject=ref,
        )


def bars_deprecation(state: str, ref: str) -> Refused | None:
    """Why a version in this state cannot be deprecated; None when it can be."""
    if State.DEPRECATED in TRANSITIONS[State(state)]:
        return None
    match State(state):
        case State.DEPRECATED:
            kind, detail = "already-deprecated", f"{ref} is deprecated already."
            fix = "Nothing more is needed."
        case State.DRAFT:
            kind, detail = "is-draft", f"{ref} is a draft, which serves nowhere."
            fix = "Discard it: countersign adapter discard, or dataset discard."
        case gone:
            kind, detail = gone.value, f"{ref} is {gone.value}, which says more."
            fix = "Nothing more is needed."
    return Refused(kind, detail, fix, subject=ref)
