"""Reads the filters of a search into exact terms of the search index."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from registry.errors import Invalid
from registry.rules.refs import NAME, Ref, parse_ref
from registry.rules.tags import MAX_VALUE_LENGTH, check_key
from registry.rules.versions import State

KINDS = ("base", "adapter", "checkpoint")
SORTS = ("created", "name")
SORT = re.compile(r"metric:([A-Za-z0-9][A-Za-z0-9_.@/-]{0,80})(:lowest)?")
WORD = re.compile(r"[a-z0-9]+")
METRIC = re.compile(
    r"([A-Za-z0-9][A-Za-z0-9_.@/-]{0,80}?)\s*(>=|<=|=|>|<)"
    r"\s*(-?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?)"
)
HEX = re.compile(r"(?:sha256:)?([0-9a-f]{6,64})")
MAX_FILTERS = 20
"""Words, filters of tags or filters of metrics in one search."""
MAX_FILTER_LENGTH = 400
MAX_WORD_LENGTH = 64
MAX_GRAMS = 16


@dataclass(frozen=True, slots=True)
class Bound:
    """A metric and the bound that its value must meet."""

    name: str
    relation: str
    value: float


@dataclass(frozen=True, slots=True)
class Search:
    """A search: terms that must all match, words, bounds of metrics, moments, a digest's beginning.

    A query fills in `ids`, the versions that have the digest, and `born`, the range of creation
    numbers between the moments.
    """

    terms: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    metrics: tuple[Bound, ...] = ()
    digest: str | None = None
    base: Ref | None = None
    dataset: Ref | None = None
    by: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    deleted: bool = False
    order: str = "created"
    sort_metric: str | None = None
    ids: frozenset[UUID] | None = None
    born: tuple[int | None, int | None] = (None, None)

    def mark(self) -> str:
        """A short digest of the search; a cursor contains it, so that no other search uses it."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]

    def narrowed(self, *terms: str, **changes: Any) -> Search:
        """The same search with more terms and changed members."""
        return replace(self, terms=(*self.terms, *terms), **changes)

    def grams(self) -> list[str]:
        """Trigrams that every match of the words has.

        They are taken from within each word; a word of two letters gives its beginning. Of many
        trigrams only about `MAX_GRAMS` are used.
        """
        trigrams = [
            f"  {word}"[at : at + 3]
            for word in self.words
            for at in (range(2, len(word)) if len(word) > 2 else range(len(word)))
        ]
        step = len(trigrams) // MAX_GRAMS + 1
        return [f"g:{trigram}" for trigram in dict.fromkeys(trigrams)][::step]

    def named_metrics(self) -> list[str]:
        """The metrics that this search names; its answer shows their values."""
        return [
            *dict.fromkeys(
                [*(bound.name for bound in self.metrics), *filter(None, [self.sort_metric])]
            )
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """The filters of a search as a person writes them; an empty one does not filter."""

    q: str | None = None
    name: str | None = None
    kind: str | None = None
    team: str | None = None
    tag: Sequence[str] = ()
    base: str | None = None
    dataset: str | None = None
    licence: str | None = None
    domain: str | None = None
    method: str | None = None
    variant: str | None = None
    risk: str | None = None
    by: str | None = None
    since: str | None = None
    until: str | None = None
    metric: Sequence[str] = ()
    state: str | None = None
    digest: str | None = None
    deleted: bool = False
    sort: str = "created"


FILTERS = frozenset(field.name for field in fields(Filters))
REPEATABLE = frozenset({"tag", "metric"})


def parse(filters: Filters) -> Search:
    """Read every filter; raises Invalid `bad-filter`, which names the first wrong one."""
    exact = {
        name: getattr(filters, name) for name in ("licence", "domain", "method", "variant", "risk")
    }
    _check_sizes(filters, *exact.values())
    terms = []
    if name := filters.name:
        terms.append(f"line:{name}" if "/" in name else f"name:{name}")
    for label, value, allowed in (
        ("kind", filters.kind, KINDS),
        ("state", filters.state, tuple(State)),
    ):
        if value:
            terms.append(f"{label}:{_one_of(label, value, allowed)}")
    if team := filters.team:
        if not NAME.fullmatch(team):
            raise Invalid(
                "bad-filter", f"'{team[:60]}' cannot name a team.", "Use the team's short name."
            )
        terms.append(f"team:{team}")
    terms += [_tag(tag) for tag in filters.tag if tag]
    terms += [f"{label}:{value.lower()}" for label, value in exact.items() if value]
    order, sort_metric = _sort(filters.sort or "created")
    return Search(
        terms=tuple(dict.fromkeys(terms)),
        words=tuple(_words(filters.q or "")),
        metrics=tuple(_metric(metric) for metric in filters.metric if metric),
        digest=_digest(filters.digest) if filters.digest else None,
        base=parse_ref(filters.base) if filters.base else None,
        dataset=parse_ref(filters.dataset) if filters.dataset else None,
        by=filters.by or None,
        since=_moment(filters.since) if filters.since else None,
        until=_moment(filters.until) if filters.until else None,
        deleted=filters.deleted or filters.state == "deleted",
        order=order,
        sort_metric=sort_metric,
    )


def _check_sizes(filters: Filters, *exact: str | None) -> None:
    texts = (filters.q, filters.name, filters.team, filters.by, *exact)
    for text in (*texts, *filters.tag, *filters.metric):
        if text and ("\0" in text or len(text) > MAX_FILTER_LENGTH):
            raise Invalid(
                "bad-filter",
                f"A filter contains a NUL character or more than {MAX_FILTER_LENGTH} characters.",
                "Shorten it.",
            )
    if len(filters.tag) > MAX_FILTERS or len(filters.metric) > MAX_FILTERS:
        raise Invalid(
            "bad-filter", f"There are more than {MAX_FILTERS} filters of one kind.", "Use fewer."
        )


def check_names(names: Iterable[str], known: Set[str]) -> None:
    """Refuse an unknown filter, and a repeated one that may not be repeated: Invalid `bad-filter`.

    Ignored silently, such a filter would let everything match.
    """
    for name, times in Counter(names).items():
        if name not in known:
            raise Invalid(
                "bad-filter",
                f"There is no filter '{name[:40]}'.",
                f"Use one of {', '.join(sorted(known))}.",
            )
        if times > 1 and name not in REPEATABLE:
            raise Invalid(
                "bad-filter",
                f"The filter '{name}' is given {times} times.",
                "Give it once; only tag and metric may be repeated.",
            )


def _sort(text: str) -> tuple[str, str | None]:
    if (match := SORT.fullmatch(text)) is not None:
        return ("lowest" if match[2] else "highest"), match[1]
    if text not in SORTS:
        raise Invalid(
            "bad-filter",
            f"There is no order '{text[:40]}'.",
            "Use created, name, or metric:NAME (highest first; metric:NAME:lowest).",
        )
    return text, None


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise Invalid(
            "bad-filter",
            f"'{text[:40]}' is not a date.",
            "Write it like 2026-11-22, or with a time, in UTC.",
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _words(text: str) -> list[str]:
    words = WORD.findall(text.lower())
    if text.strip() and not words:
        raise Invalid(
            "bad-filter",
            f"'{text[:60]}' contains no letter or digit to search for.",
            "Search by parts of a name: a-z, 0-9.",
        )
    if len(words) > MAX_FILTERS:
        raise Invalid("bad-filter", f"There are more than {MAX_FILTERS} words.", "Use fewer words.")
    return [*dict.fromkeys(word[:MAX_WORD_LENGTH] for word in words)]


def _one_of(label: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise Invalid(
            "bad-filter",
            f"There is no {label} '{value[:40]}'.",
            f"Use one of {', '.join(allowed)}.",
        )
    return value


def _tag(text: str) -> str:
    key, colon, value = text.partition(":")
    check_key(key)
    if colon and not 1 <= len(value) <= MAX_VALUE_LENGTH:
        raise Invalid(
            "bad-filter",
            f"The tag filter '{text[:60]}' has no value of 1 to {MAX_VALUE_LENGTH} characters.",
            "Write key:value, or the key alone for any value.",
        )
    return f"tag:{key}:{value}" if colon else f"tag:{key}"


def _metric(text: str) -> Bound:
    match = METRIC.fullmatch(text.strip())
    if match is None or not math.isfinite(float(match[3])):
        raise Invalid(
            "bad-filter",
            f"The metric filter '{text[:60]}' cannot be read.",
            "Write name>=0.5; the relations are >=, <=, >, < and =.",
        )
    return Bound(match[1], match[2], float(match[3]))


def _digest(text: str) -> str:
    match = HEX.fullmatch(text.strip().lower())
    if match is None:
        raise Invalid(
            "bad-filter",
            f"'{text[:80]}' is not the beginning of a digest.",
            "Give 6 to 64 hex digits of it.",
        )
    return match[1]
