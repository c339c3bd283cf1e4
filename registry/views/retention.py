"""Retention classes, legal holds, deletions, collections and quotas, as answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class ClassView:
    """A retention class: how many days, counted from registration or from the last service.

    `after` is what follows: a person may delete the version (may-go), or it is listed as due.
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
    """The retention class of whatever a line, a data set or a team registers from now on.

    `shortened` is true when the new class keeps for a shorter time than the one before.
    """

    name: str
    retention: str
    shortened: bool


@dataclass(frozen=True, slots=True)
class HoldView:
    """A legal hold over a version, a line, a data set or a data set version, in force or lifted.

    If `withheld`, the case and the reasons are null because this reader may not see them; otherwise
    null means erased.
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
    """One page of holds, newest first."""

    items: list[HoldView]
    next: str | None


@dataclass(frozen=True, slots=True)
class TombstoneView:
    """The record of a deletion: how (deleted, discarded, expired), when, by whom and why."""

    ref: str
    how: str
    was: str
    at: datetime
    by: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class KeepingView:
    """What keeps one version: its classes, until when, its holds, and what still needs it."""

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
    """A version or data set version that is due for deletion.

    All its classes end with due, its time has passed, and nothing needs or holds it.
    """

    ref: str
    kept_until: datetime


@dataclass(frozen=True, slots=True)
class DuePage:
    """One page of what is due for deletion, oldest first."""

    items: list[DueView]
    next: str | None


@dataclass(frozen=True, slots=True)
class CollectionView:
    """What a collection of bytes removed, or would remove.

    `unnamed` counts rows that only tombstones name, `orphans` bytes that no row ever named,
    `leftovers` bytes that an interrupted collection left.
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
    """The quota of a team and what it uses; null means unlimited."""

    team: str
    max_bytes: int | None
    max_versions: int | None
    used_bytes: int
    used_versions: int
