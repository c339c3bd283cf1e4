"""Search over versions. Every step examines a bounded number of rows, whatever their total is.

1. A walk over the next versions in the requested order. Filters that many versions meet fill a page
   from it.
2. The term index, for one era of births at a time, newest first, among the eras in which every term
   occurs. In the order of birth its hits are the page. In another order they are the page if they
   are few enough to sort.
3. In another order with many hits, a longer walk.

A search that has examined its bound of rows without a full page ends there: the page is short and
has a cursor to continue from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from registry.db import accounts, datasets, tags, versions
from registry.db.sight import Sighted
from registry.db.store import Store
from registry.errors import Invalid
from registry.queries.pages import PageRequest, check_limit, cursor_after, key_in
from registry.queries.search_steps import ORDERS, REACH, Reach, Step, statement
from registry.rules.actors import Actor
from registry.rules.searches import Bound, Search
from registry.views.search import FacetsView, FacetView, VersionHit, VersionPage

FACETS = ("kind", "state", "team", "base", "domain", "licence", "method", "variant", "risk", "tag")
SHOWN_AS = {"base-ref": "base"}
"""Facets of the index that the answer shows under another name."""
MAX_FACET_VALUES = 20
SHOWN = text(
    """
    select v.id, n.ref, l.team || '/' || l.name as line, l.kind, l.team, v.number, v.state,
           v.manifest_digest, b.ref as base, l.domain, v.meta -> 'licence' as licence,
           v.facts -> 'method' as method, v.facts -> 'variant' as variant, v.created_at
    from version v join line l on l.id = v.line_id
    join node n on n.id = v.id left join node b on b.id = v.base_version_id
    where v.id = any(:ids)
    """
)
METRICS = text(
    """
    select version_id, name, value from version_metric
    where version_id = any(:ids) and name = any(:names)
    """
)
WITH_DIGEST = text(
    """
    select id from version where manifest_digest ~>=~ :low and manifest_digest ~<~ :high
    union select id from version where tensor_root ~>=~ :low and tensor_root ~<~ :high
    union select version_id from version_file where blob_id ~>=~ :bare and blob_id ~<~ :end
    limit :most
    """
)
# Births and moments have the same order except in transactions that overlap; a thousand neighbours
# leave room for those.
BIRTHS = text(
    """
    select
        (select min(seq) from (
            select seq from version_search where created_at >= cast(:since as timestamptz)
            order by created_at limit 1000) a) as first,
        (select max(seq) from (
            select seq from version_search where created_at < cast(:until as timestamptz)
            order by created_at desc limit 1000) b) as last
    """
)
# The versions with a metric on that side of a number, or null if they are many.
WITH_METRIC = """
    select case when count(*) <= :few then coalesce(array_agg(version_id), '{{}}') end from (
        select version_id from version_metric
        where name = :name and value {relation} :value limit :few + 1
    ) m
    """


@dataclass(frozen=True, slots=True)
class SearchPageRequest(PageRequest):
    """Which page of a search; `reach` bounds the rows that the search examines for it."""

    reach: Reach = REACH


FIRST_SEARCH_PAGE = SearchPageRequest()


def search(
    store: Store,
    actor: Actor,
    filters: Search,
    page: SearchPageRequest = FIRST_SEARCH_PAGE,
    *,
    facets: bool = False,
) -> VersionPage:
    """One page of the versions that meet every filter, of the teams the actor sees.

    The page is short if the search reached its bound first. With `facets`, the page counts values
    among the hits. Raises Invalid for a limit out of bounds or a cursor of another search, NotFound
    for an unknown base or data set.
    """
    check_limit(page.limit)
    mark = filters.mark()
    *_, shape = ORDERS[filters.order]
    key = None if page.cursor is None else _key(page.cursor, mark, shape)
    with store.read(actor) as session:
        # Keep the planner from reading whole tables, and from using one plan for all values: both
        # are slow only at scale.
        session.execute(
            text(
                "select set_config('enable_seqscan', 'off', true), "
                "set_config('plan_cache_mode', 'force_custom_plan', true)"
            )
        )
        names, filters = filters.named_metrics(), _resolved(session, filters, page.reach)
        hits, last = _hits(session, actor, filters, key, page)
        rows = hits[: page.limit]
        if len(hits) > page.limit:
            last = rows[-1].key
        ids = [row.id for row in rows]
        counted = None
        if facets:
            # The first page, if it is also the last, has all hits.
            is_whole = page.cursor is None and last is None
            within = filters.narrowed(ids=frozenset(ids)) if is_whole else filters
            counted = _facets(session, actor, within, len(ids), page.reach)
        shown = {row.id: row for row in session.execute(SHOWN, {"ids": ids})}
        tags_by_id = tags.of_versions(session, ids)
        metrics: dict[Any, dict[str, float]] = {}
        if names:
            for metric in session.execute(METRICS, {"ids": ids, "names": names}):
                metrics.setdefault(metric.version_id, {})[metric.name] = metric.value
    items = [
        _hit(shown[row.id], row.deleted, tags_by_id.get(row.id, {}), metrics.get(row.id, {}))
        for row in rows
    ]
    return VersionPage(items, None if last is None else cursor_after((mark, *last)), counted)


def _key(cursor: str, mark: str, shape: tuple[type, ...]) -> list[Any]:
    cursor_mark, *key = key_in(cursor, str, *shape)
    if cursor_mark != mark:
        raise Invalid("bad-cursor", "The cursor is of another search.")
    if shape == (str, str):
        try:
            return [repr(float(key[0])), str(UUID(key[1]))]
        except ValueError:
            raise Invalid("bad-cursor", "The cursor is not one of this list.") from None
    return key


def _resolved(session: Sighted, filters: Search, reach: Reach) -> Search:
    """The search with its base, data set, account, digest, moments and metrics in index terms.

    Raises NotFound for an unknown base or data set, Invalid for a digest that is too short.
    """
    terms: list[str] = []
    known: dict[str, Any] = {}
    if (base := filters.base) is not None:
        bare = base.team is not None and str(base) == base.line
        terms.append(f"base:{base.line if bare else versions.by_ref(session, base)[0].id}")
    if (data := filters.dataset) is not None:
        if data.team is not None and str(data) == data.line:
            terms.append(f"dataset:{data.line}")
        else:
            row, _ = datasets.by_ref(session, str(data))
            terms.append(f"dataset:{row.id}")
    if filters.by is not None:
        # An unknown account has added nothing, so no answer reveals whether an account exists.
        account = accounts.find(session, filters.by)
        terms.append(f"by:{account.id if account else None}")
    if (digest := filters.digest) is not None:
        prefix = {
            "low": f"sha256:{digest}",
            "high": f"sha256:{digest}g",  # g follows every hex digit
            "bare": digest,
            "end": f"{digest}g",
            "most": reach.digest_matches + 1,
        }
        ids = list(session.scalars(WITH_DIGEST, prefix))
        if len(ids) > reach.digest_matches:
            raise Invalid(
                "bad-filter",
                f"More than {reach.digest_matches:,} versions have a digest that begins with it.",
                "Give more digits, or the digest of a manifest or a tensor root.",
            )
        known["ids"] = frozenset(ids)
    if filters.since is not None or filters.until is not None:
        moments = {"since": filters.since, "until": filters.until}
        first, last = session.execute(BIRTHS, moments).one()
        known["born"] = (first if filters.since else None, last if filters.until else None)
    known["metrics"] = ()
    sorted_by = [Bound(filters.sort_metric, ">=", -math.inf)] if filters.sort_metric else []
    for bound in (*filters.metrics, *sorted_by):
        params = {"name": bound.name, "value": bound.value, "few": reach.sortable}
        # The rule of searches allows five relations.
        with_metric = session.scalar(text(WITH_METRIC.format(relation=bound.relation)), params)
        if with_metric is not None:
            known["ids"] = known.get("ids", frozenset(with_metric)) & frozenset(with_metric)
        elif bound in filters.metrics:
            known["metrics"] += (bound,)
    return filters.narrowed(*terms, **known)


def _hits(
    session: Session,
    actor: Actor,
    filters: Search,
    key: list[Any] | None,
    page: SearchPageRequest,
) -> tuple[list[Any], list[Any] | None]:
    """The hits of the page and one more, after the key; and where the search ended, if early."""
    reach, rows = page.reach, page.limit + 1

    def run(step: Step) -> tuple[list[Any], list[Any] | None, int]:
        sql, params = statement(actor, filters, step)
        results = list(session.execute(text(sql), params))
        return [row for row in results if row.id is not None], results[0].last, results[0].n

    if filters.ids is not None:
        size = len(filters.ids) + 1
        return run(Step("ids", key, candidates=size, enough=size, rows=rows))[0], None
    hits, last, _ = run(Step("walk", key, candidates=reach.walk, enough=rows, rows=rows))
    if last is None:
        return hits, None
    # A filter by a metric costs one more look-up for each candidate.
    rest, far = rows - len(hits), reach.later // (1 + len(filters.named_metrics()))
    eras = Step("eras", last, candidates=far, enough=rest, rows=rest, eras=reach.eras)
    if filters.order == "created":
        others, last, _ = run(eras)
        return hits + others, last
    others, end, count = run(replace(eras, enough=reach.sortable + 1))
    if count <= reach.sortable and end is None:
        return hits + others, None
    others, last, _ = run(Step("walk", last, candidates=far, enough=rest, rows=rest))
    return hits + others, last


def _facets(
    session: Session, actor: Actor, filters: Search, shown: int, reach: Reach
) -> FacetsView:
    """Values and counts among the hits. If there may be more hits, every count is a lower bound.

    Of tags the keys are counted; of a key that the search names, its values too.
    """
    keys = [term[4:] for term in filters.terms if term.startswith("tag:") and term.count(":") == 1]
    step = Step("eras", None, reach.sortable, reach.counted + 1, rows=None, eras=reach.eras)
    if filters.ids is not None:
        step = replace(step, source="ids", candidates=len(filters.ids) + 1)
    sql, params = statement(actor, filters, step)
    params |= {"keys": keys, "most_values": MAX_FACET_VALUES}
    first, *rows = session.execute(text(sql), params)
    at_least = first.n > reach.counted or first.value is not None
    values: dict[str, list[FacetView]] = {facet: [] for facet in FACETS}
    for row in rows:
        values[SHOWN_AS.get(row.facet, row.facet)].append(FacetView(row.value, row.n, at_least))
    total = min(first.n, reach.counted)
    return FacetsView(max(total, shown) if at_least else total, at_least, values)


def _hit(row: Any, deleted: bool, tags: dict[str, str], metrics: dict[str, float]) -> VersionHit:
    def text_or_none(value: Any) -> str | None:
        return value if isinstance(value, str) else None

    return VersionHit(
        ref=row.ref,
        line=row.line,
        kind=row.kind,
        team=row.team,
        number=row.number,
        state=row.state,
        digest=row.manifest_digest,
        base=row.base,
        domain=row.domain,
        licence=text_or_none(row.licence),
        method=text_or_none(row.method),
        variant=text_or_none(row.variant),
        created_at=row.created_at,
        deleted=deleted,
        tags=tags,
        metrics=metrics,
    )
