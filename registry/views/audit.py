"""The audit log, as answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True)
class EventView:
    """One entry of the log; `seq` and `leaf` are null until the sequencer has numbered it.

    `reason` is the text that the entry commits to, "(erased)" once it is erased, and null where the
    act had none or the caller may not read it.
    """

    id: UUID
    seq: int | None
    leaf: str | None
    at: datetime
    actor: str
    via: str
    action: str
    subject: str
    team: str | None
    outcome: str
    facts: dict[str, Any]
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class EventPage:
    """One page of the log, newest first."""

    items: list[EventView]
    next: str | None


@dataclass(frozen=True, slots=True)
class TreeHeadView:
    """The newest signed tree head: a C2SP checkpoint note and the verifier key that signed it.

    `pending` counts the events that have no number yet.
    """

    size: int
    root: str
    note: str
    key: str
    pending: int


@dataclass(frozen=True, slots=True)
class LogProofView:
    """A proof of RFC 6962 against a signed tree head of `size` entries.

    With `seq`, it proves that the entry with the hash `leaf` is in the log at that place. With
    `old_size`, it proves that the first `old_size` entries of the log are those that were signed
    then. `hashes` are `sha256:<hex>`, lowest first.
    """

    size: int
    root: str
    note: str
    hashes: list[str]
    seq: int | None = None
    leaf: str | None = None
    old_size: int | None = None


@dataclass(frozen=True, slots=True)
class LogCheckView:
    """The result of recomputing the whole log; `ok` if every leaf, root and signature agrees."""

    ok: bool
    events: int
    size: int
    root: str
    heads: int
    votes: int
    problems: list[str]
