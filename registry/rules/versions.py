"""The states of a version and of a data set version, what each allows, and the steps between them.

Every other list of states comes from here, including the constraints of the tables. PostgreSQL and
the offline verifier import nothing, so they repeat the steps; tests keep both equal to this table.
"""

from __future__ import annotations

from enum import StrEnum

from registry.errors import Refused


class State(StrEnum):
    """The state of a version. Approved and serving are not states: reviews and routes say those."""

    DRAFT = "draft"
    REGISTERED = "registered"
    DEPRECATED = "deprecated"
    RECALLED = "recalled"
    DELETED = "deleted"


TRANSITIONS: dict[State, frozenset[State]] = {
    State.DRAFT: frozenset({State.REGISTERED, State.RECALLED, State.DELETED}),
    State.REGISTERED: frozenset({State.DEPRECATED, State.RECALLED, State.DELETED}),
    State.DEPRECATED: frozenset({State.RECALLED, State.DELETED}),
    # A recall is about content: a deleted version may turn out unfit wherever it went before.
    State.DELETED: frozenset({State.RECALLED}),
    State.RECALLED: frozenset(),
}
"""The states that may follow each state. A version begins as a draft; nothing is resurrected."""

GRADES = ("claimed", "observed", "verified")
"""How well an edge of lineage is known, the weakest first.

Claimed: somebody says so. Observed: the registry was there. Verified: the bytes show it.
"""

STANDING = (State.DRAFT, State.REGISTERED, State.DEPRECATED)
"""States in which the bytes belong to the line: the same bytes are not registered again."""

USABLE = (State.REGISTERED, State.DEPRECATED)
"""States in which a version may be built on, measured, reviewed and served."""

GONE = (State.DELETED, State.RECALLED)
"""States in which nobody receives the bytes any more."""


def usable(state: str) -> bool:
    """Whether a version in this state may be built on, measured, reviewed and served."""
    return state in USABLE


def may_start(state: str) -> bool:
    """Whether a rollout of a version in this state may start: only a registered one is current."""
    return state == State.REGISTERED


def check_may_start(state: str, ref: str) -> None:
    """Refuse a new rollout of a deprecated version: Refused `deprecated`.

    Recalled and deleted versions are refused earlier, with their own reasons. A rollback is not a
    new rollout: it returns to what served before, deprecated or not.
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
        case State.DELETED:
            kind, detail = "already-deleted", f"{ref} was deleted already."
            fix = "Nothing more is needed."
        case _:
            kind, detail = "recalled", f"{ref} is recalled, which forbids more than a deprecation."
            fix = "Nothing more is needed."
    return Refused(kind, detail, fix, subject=ref)
