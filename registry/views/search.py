"""What a search finds, as answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class VersionHit:
    """One version found, as much of it as a list shows; `metrics` are those the search filters or
    sorts by.
    """

    ref: str
    line: str
    kind: str
    team: str
    number: int | None
    state: str
    digest: str
    base: str | None
    domain: str | None
    licence: str | None
    method: str | None
    variant: str | None
    created_at: datetime
    deleted: bool
    tags: dict[str, str]
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True)
class FacetView:
    """How many of the versions found have this value; `at_least` when counting stopped at the
    cap.
    """

    value: str
    count: int
    at_least: bool


@dataclass(frozen=True, slots=True)
class FacetsView:
    """The values the found versions have, by facet; `total` counts up to the cap and `at_least`
    says so.
    """

    total: int
    at_least: bool
    values: dict[str, list[FacetView]]


@dataclass(frozen=True, slots=True)
class VersionPage:
    """One page of versions; pass `next` as cursor with the very same filters.

    A page looks through a bounded number of versions: it may be short, even empty, and yet have a
    `next`.
    """

    items: list[VersionHit]
    next: str | None
    facets: FacetsView | None = None


@dataclass(frozen=True, slots=True)
class TagsView:
    """The tags of a version that are in force, by key."""

    ref: str
    tags: dict[str, str]


@dataclass(frozen=True, slots=True)
class TagView:
    """One tag of a version, and who gave it that value when."""

    key: str
    value: str
    set_by: str
    set_at: datetime
