"""The results of a search, and tags, as answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class VersionHit:
    """One version that a search found, as a list shows it.

    `metrics` are those that the search filters or sorts by.
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
    """How many of the hits have this value; `at_least` if the count stopped at its cap."""

    value: str
    count: int
    at_least: bool


@dataclass(frozen=True, slots=True)
class FacetsView:
    """The values of the hits by facet.

    `total` counts the hits up to a cap; `at_least` is true if it stopped there.
    """

    total: int
    at_least: bool
    values: dict[str, list[FacetView]]


@dataclass(frozen=True, slots=True)
class VersionPage:
    """One page of versions; pass `next` as cursor with exactly the same filters.

    A page examines a bounded number of versions, so it may be short or even empty and still have a
    `next`.
    """

    items: list[VersionHit]
    next: str | None
    facets: FacetsView | None = None


@dataclass(frozen=True, slots=True)
class TagsView:
    """The current tags of a version, by key."""

    ref: str
    tags: dict[str, str]


@dataclass(frozen=True, slots=True)
class TagView:
    """One tag of a version, and who set it to this value when."""

    key: str
    value: str
    set_by: str
    set_at: datetime
