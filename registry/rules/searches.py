"""What somebody looks for, read into exact terms of the search index; every wrong filter is
named.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from registry.errors import Invalid
from registry.rules.refs import NAME, Ref, parse_ref
from registry.rules.tags import LONGEST_VALUE, check_key
from registry.rules.versions import State

KINDS = ("base", "adapter", "checkpoint")
SORTS = ("created", "name")
SORT = re.compile(r"metric:([A-Za-z0-9][A-Za-z0-9_.@/-]{0,80})(:lowest)?")
WORD = re.compile(r"[a-z0-9]+")
METRIC = re.compile(
    r"([A-Za-z0-9][A-Za-z0-9_.@/-]{0,80}?)\s*(>=|<=|=|>|<)\s*(-?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?)"
)
HEX = re.compile(r"(?:sha256:)?([0-9a-f]{6,64})")
MOST = 20
LONGEST_WORD = 64
MOST_THREES = 16


@dataclass(frozen=True, slots=True)
class Bound:
    """A metric and the side of a number it must be on."""

    name: str
    relation: str
    value: float


@dataclass(frozen=True, slots=True)
class Search:
    """A search as exact terms that must all hold, words, bounds of metrics, moments, and a digest's
    beginning.

    `ids` and `born` are what a query found out: who has that digest, and between which births the
    moments lie.
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
        """A short digest of the search: a cursor carries it, so that no other search can take the
        cursor up.
        """
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]

    def narrowed(self, *terms: str, **found: Any) -> Search:
        """The same search with more terms, and what was found out about it."""
        return replace(self, terms=(*self.terms, *terms), **found)

    def grams(self) -> list[str]:
        """Threes every match of the words must have: from within a word, but of two letters its
        beginning; not all of many.
        """
        threes = [
            f"  {word}"[at : at + 3]
            for word in self.words
            for at in (range(2, len(word)) if len(word) > 2 else range(len(word)))
        ]
        return [f"g:{three}" for three in dict.fromkeys(threes)][:: len(threes) // MOST_THREES + 1]

    def named_metrics(self) -> list[str]:
        """The metrics this search speaks of, whose values its answer shows."""
        return [
            *dict.fromkeys(
                [*(bound.name for bound in self.metrics), *filter(None, [self.sort_metric])]
            )
        ]


def parse(
    *,
    q: str | None = None,
    name: str | None = None,
    kind: str | None = None,
    team: str | None = None,
    tag: Sequence[str] = (),
    base: str | None = None,
    dataset: str | None = None,
    licence: str | None = None,
    domain: str | None = None,
    method: str | None = None,
    variant: str | None = None,
    risk: str | None = None,
    by: str | None = None,
    since: str | None = None,
    until: str | None = None,
    metric: Sequence[str] = (),
    state: str | None = None,
    digest: str | None = None,
    deleted: bool = False,
    sort: str = "created",
) -> Search:
    """Read every filter; Invalid names the first that means nothing. An empty text is no filter."""
    plain = {
        "licence": licence,
        "domain": domain,
        "method": method,
        "variant": variant,
        "risk": risk,
    }
    for said in (q, name, team, by, *plain.values(), *tag, *metric):
        if said and ("\0" in said or len(said) > 400):
            raise Invalid(
                "bad-filter",
                "A filter holds a NUL character or more than 400 characters.",
                "Shorten it.",
            )
    if len(tag) > MOST or len(metric) > MOST:
        raise Invalid(
            "bad-filter", f"More than {MOST} filters of one sort.", "Ask for fewer at once."
        )
    terms = []
    if name:
        terms.append(f"line:{name}" if "/" in name else f"name:{name}")
    for label, value, allowed in (("kind", kind, KINDS), ("state", state, tuple(State))):
        if value:
            terms.append(f"{label}:{_one_of(label, value, allowed)}")
    if team:
        if not NAME.fullmatch(team):
            raise Invalid(
                "bad-filter", f"'{team[:60]}' can be no team.", "Use the team's short name."
            )
        terms.append(f"team:{team}")
    terms += [_tag(one) for one in tag if one]
    terms += [f"{label}:{value.lower()}" for label, value in plain.items() if value]
    return Search(
        tuple(dict.fromkeys(terms)),
        tuple(_words(q or "")),
        tuple(_metric(one) for one in metric if one),
        _digest(digest) if digest else None,
        parse_ref(base) if base else None,
        parse_ref(dataset) if dataset else None,
        by or None,
        _moment(since) if since else None,
        _moment(until) if until else None,
        deleted or state == "deleted",
        *_sort(sort or "created"),
    )


FILTERS = frozenset(parse.__kwdefaults__ or ())
SEVERAL = frozenset({"tag", "metric"})


def check_names(asked: Iterable[str], known: Set[str]) -> None:
    """Refuse a filter that is not known, and one said twice that stands once: left out in silence,
    all would match.
    """
    for name, times in Counter(asked).items():
        if name not in known:
            raise Invalid(
                "bad-filter",
                f"There is no filter '{name[:40]}'.",
                f"Use one of {', '.join(sorted(known))}.",
            )
        if times > 1 and name not in SEVERAL:
            raise Invalid(
                "bad-filter",
                f"The filter '{name}' stands there {times} times.",
                "Say it once; only tag and metric may be repeated.",
            )


def _sort(text: str) -> tuple[str, str | None]:
    if (said := SORT.fullmatch(text)) is not None:
        return ("lowest" if said[2] else "highest"), said[1]
    if text not in SORTS:
        raise Invalid(
            "bad-filter",
            f"There is no order '{text[:40]}'.",
            "Use created, name, or metric:NAME (highest first; metric:NAME:lowest).",
        )
    return text, None


def _moment(text: str) -> datetime:
    try:
        said = datetime.fromisoformat(text.strip())
    except ValueError:
        raise Invalid(
            "bad-filter",
            f"'{text[:40]}' is no date.",
            "Write it like 2026-11-22, or with a time, in UTC.",
        ) from None
    return said if said.tzinfo else said.replace(tzinfo=UTC)


def _words(text: str) -> list[str]:
    words = WORD.findall(text.lower())
    if text.strip() and not words:
        raise Invalid(
            "bad-filter",
            f"'{text[:60]}' holds no letter or digit to look for.",
            "Search by parts of a name: a-z, 0-9.",
        )
    if len(words) > MOST:
        raise Invalid("bad-filter", f"More than {MOST} words.", "Use fewer words.")
    return [*dict.fromkeys(word[:LONGEST_WORD] for word in words)]


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
    if colon and not 1 <= len(value) <= LONGEST_VALUE:
        raise Invalid(
            "bad-filter",
            f"The tag filter '{text[:60]}' has no value of 1 to {LONGEST_VALUE} characters.",
            "Write key:value, or the key alone for any value.",
        )
    return f"tag:{key}:{value}" if colon else f"tag:{key}"


def _metric(text: str) -> Bound:
    said = METRIC.fullmatch(text.strip())
    if said is None or not math.isfinite(float(said[3])):
        raise Invalid(
            "bad-filter",
            f"The metric filter '{text[:60]}' cannot be read.",
            "Write name>=0.5; the relations are >=, <=, >, < and =.",
        )
    return Bound(said[1], said[2], float(said[3]))


def _digest(text: str) -> str:
    said = HEX.fullmatch(text.strip().lower())
    if said is None:
        raise Invalid(
            "bad-filter", f"'{text[:80]}' begins no digest.", "Give 6 to 64 hex digits of it."
        )
    return said[1]
