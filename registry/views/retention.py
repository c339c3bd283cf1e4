"""How long things are kept, what holds them, what was deleted, and what teams use."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class ClassView:
    """A retention class; days counted from registration or from the last service, and what comes
    after.
    """

    name: str
    keep_days: int
    counted_from: str
    after: str
    draft_days: int
    defined_by: str | None
    defined_at: datetime
    reason: str | None


@dataclass(frozen=True, slots=True)
class SettingView:
    """Under which class what a line, a data set or a team registers from now on comes."""

    name: str
    retention: str
    shortened: bool


@dataclass(frozen=True, slots=True)
class HoldView:
    """A legal hold over a version, a line, a data set or one of its versions; lifted ones stay to
    be seen.

    `withheld`: its case and its reasons are not for this reader, and null for that; otherwise null
    was erased.
    """

    number: int
    over: str
    case: str | None
    reason: str | None
    placed_by: str | None
    placed_at: datetime
    lifted_by: str | None = None
    lifted_at: datetime | None = None
    lift_reason: str | None = None
    withheld: bool = False


@dataclass(frozen=True, slots=True)
class HoldPage:
    """One page of holds, the newest first."""

    items: list[HoldView]
    next: str | None


@dataclass(frozen=True, slots=True)
class TombstoneView:
    """What was deleted: how (deleted, discarded, expired), when, by whom and why."""

    ref: str
    how: str
    was: str
    at: datetime
    by: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class KeepingView:
    """What keeps one version: its classes, until when, the holds over it, and what still needs
    it.
    """

    ref: str
    state: str
    classes: list[str]
    kept_until: datetime | None
    due: bool
    holds: list[int]
    needs: list[str]
    tombstone: TombstoneView | None = None


@dataclass(frozen=True, slots=True)
class DueView:
    """A version or data set version whose every class says it is due, whose time is over, and that
    nothing needs.
    """

    ref: str
    kept_until: datetime


@dataclass(frozen=True, slots=True)
class DuePage:
    """One page of what is due for deletion, the oldest first."""

    items: list[DueView]
    next: str | None


@dataclass(frozen=True, slots=True)
class CollectionView:
    """What a collection of bytes took, or would take: rows no version needs, bytes no row names,
    and leftovers.
    """

    dry_run: bool
    unnamed: int
    orphans: int
    leftovers: int
    bytes: int
    removed: int
    digests: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class QuotaView:
    """What a team may use and uses; null is unlimited."""

    team: str
    max_bytes: int | None
    max_versions: int | None
    used_bytes: int
    used_versions: int
