"""Search over versions: every step looks at a bounded number of rows, however many versions there
are.

1. A walk over the next versions in the order asked for: what is common fills a page from them.
2. The term index, asked for one era of births at a time, newest first, among the eras in which
  every term occurs. In
   the order of birth that is the page; in another order it is the page if these are few, sorted.
3. In another order, what is numerous: a longer walk.

A step that has looked at all it may and found no full page ends it there, short, with a cursor to
go on from.
"""

from __future__ import annotations

import math
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from registry.db import accounts, datasets, tags, versions
from registry.db.sight import Sighted
from registry.db.store import Store
from registry.errors import Invalid
from registry.queries.pages import cursor_after, key_in, length
from registry.queries.search_steps import ORDERS, REACH, Reach, statement
from registry.rules.actors import Actor
from registry.rules.searches import Bound, Search
from registry.views.search import FacetsView, FacetView, VersionHit, VersionPage

FACETS = ("kind", "state", "team", "base", "domain", "licence", "method", "variant", "risk", "tag")
SHOWN_AS = {"base-ref": "base"}
MOST_VALUES = 20
SHOWN = text(
    "select v.id, n.ref, l.team || '/' || l.name as line, l.kind, l.team, v.number, v.state, "
    "v.manifest_digest, "
    "b.ref as base, l.domain, v.meta -> 'licence' as licence, v.facts -> 'method' as method, "
    "v.facts -> 'variant' as variant, v.created_at from version v join line l on l.id = v.line_id "
    "join node n on n.id = v.id left join node b on b.id = v.base_version_id where v.id = any(:ids)"
)
MEASURED = text(
    "select version_id, name, value from version_metric where version_id = any(:ids) and name = "
    "any(:names)"
)
HOLDERS = text(
    "select id from version where manifest_digest ~>=~ :low and manifest_digest ~<~ :high union "
    "select id from version where tensor_root ~>=~ :low and tensor_root ~<~ :high union "
    "select version_id from version_file where blob_id ~>=~ :bare and blob_id ~<~ :end limit :most"
)
# Births and moments run side by side but for transactions that overlap: a thousand neighbours leave
# room for those.
BETWEEN = text(
    "select (select min(seq) from (select seq from version_search where created_at >= cast(:since "
    "as timestamptz) "
    "order by created_at limit 1000) a) as first, (select max(seq) from (select seq from "
    "version_search "
    "where created_at < cast(:until as timestamptz) order by created_at desc limit 1000) b) as last"
)
# Who has a metric on that side of a number, unless these are many.
MEASURERS = (
    "select case when count(*) <= :few then coalesce(array_agg(version_id), '{{}}') end from "
    "(select version_id from version_metric where name = :name and value {relation} :value limit "
    ":few + 1) m"
)


def search(
    store: Store,
    actor: Actor,
    wanted: Search,
    cursor: str | None = None,
    limit: int = 50,
    facets: bool = False,
    reach: Reach = REACH,
) -> VersionPage:
    """One page of the versions that meet every filter, of the teams the actor sees; short where
    `reach` ended it.

    Raises Invalid for a limit out of bounds or a cursor of another search, NotFound for a base or
    data set unknown.
    """
    length(limit)
    mark = wanted.mark()
    *_, shape = ORDERS[wanted.order]
    key = None if cursor is None else _key(cursor, mark, shape)
    with store.read(actor) as session:
        # The planner is kept from reading whole tables, and from one plan for all values: both hurt
        # only at scale.
        session.execute(
            text(
                "select set_config('enable_seqscan', 'off', true), "
                "set_config('plan_cache_mode', 'force_custom_plan', true)"
            )
        )
        names, wanted = wanted.named_metrics(), _resolved(session, wanted, reach)
        found, last = _found(session, actor, wanted, key, limit + 1, reach)
        rows = found[:limit]
        if len(found) > limit:
            last = rows[-1].key
        ids = [row.id for row in rows]
        counted = None
        if facets:
            # A first page without a next holds all hits.
            all_known = {} if cursor is not None or last is not None else {"ids": frozenset(ids)}
            counted = _facets(session, actor, wanted.narrowed(**all_known), len(ids), reach)
        shown = {row.id: row for row in session.execute(SHOWN, {"ids": ids})}
        tagged = tags.of_versions(session, ids)
        measured: dict[Any, dict[str, float]] = {}
        if names:
            for one in session.execute(MEASURED, {"ids": ids, "names": names}):
                measured.setdefault(one.version_id, {})[one.name] = one.value
    items = [
        _hit(shown[row.id], row.deleted, tagged.get(row.id, {}), measured.get(row.id, {}))
        for row in rows
    ]
    return VersionPage(items, None if last is None else cursor_after((mark, *last)), counted)


def _key(cursor: str, mark: str, shape: tuple[type, ...]) -> list[Any]:
    said, *key = key_in(cursor, str, *shape)
    if said != mark:
        raise Invalid("bad-cursor", "That cursor is of another search.")
    if shape == (str, str):
        try:
            return [repr(float(key[0])), str(UUID(key[1]))]
        except ValueError:
            raise Invalid(
                "bad-cursor",
                "That cursor is not one of this list.",
            ) from None
    return key


def _resolved(session: Sighted, wanted: Search, reach: Reach) -> Search:
    """A base, a data set, an account, a digest and moments as what the index knows; what is named
    must be there.
    """
    more: list[str] = []
    known: dict[str, Any] = {}
    if (base := wanted.base) is not None:
        bare = base.team is not None and str(base) == base.line
        more.append(f"base:{base.line}" if bare else f"base:{versions.by_ref(session, base)[0].id}")
    if (data := wanted.dataset) is not None:
        if data.team is not None and str(data) == data.line:
            more.append(f"dataset:{data.line}")
        else:
            row, _ = datasets.by_ref(session, str(data))
            more.append(f"dataset:{row.id}")
    if wanted.by is not None:
        # Whoever is not known here has added nothing either: no answer tells whether such a person
        # exists.
        account = accounts.find(session, wanted.by)
        more.append(f"by:{account.id if account else None}")
    if (digest := wanted.digest) is not None:
        # g follows every hex digit.
        asked = {
            "low": f"sha256:{digest}",
            "high": f"sha256:{digest}g",
            "bare": digest,
            "end": digest + "g",
            "most": reach.holders + 1,
        }
        ids = list(session.scalars(HOLDERS, asked))
        if len(ids) > reach.holders:
            raise Invalid(
                "bad-filter",
                f"More than {reach.holders:,} versions hold something whose digest begins so.",
                "Give more digits, or the digest of a manifest or a tensor root.",
            )
        known["ids"] = frozenset(ids)
    if wanted.since is not None or wanted.until is not None:
        first, last = session.execute(BETWEEN, {"since": wanted.since, "until": wanted.until}).one()
        known["born"] = (first if wanted.since else None, last if wanted.until else None)
    known["metrics"] = ()
    for bound in (
        *wanted.metrics,
        *([Bound(wanted.sort_metric, ">=", -math.inf)] if wanted.sort_metric else ()),
    ):
        asked = {
            "name": bound.name,
            "value": bound.value,
            "few": reach.few,
        }  # one of five relations, by the rule
        few = session.scalar(text(MEASURERS.format(relation=bound.relation)), asked)
        if few is not None:
            known["ids"] = known.get("ids", frozenset(few)) & frozenset(few)
        elif bound in wanted.metrics:
            known["metrics"] += (bound,)
    return wanted.narrowed(*more, **known)


def _found(
    session: Session, actor: Actor, wanted: Search, key: list[Any] | None, rows: int, reach: Reach
) -> tuple[list[Any], list[Any] | None]:
    """The first rows after a key; and where the search ended, if it ended before it was sure of
    them.
    """

    def ask(
        source: str, after: list[Any] | None, most: int, rows: int, enough: int
    ) -> tuple[list[Any], list[Any] | None, int]:
        sql, params = statement(actor, wanted, after, source, most, enough, rows, reach.eras)
        got = list(session.execute(text(sql), params))
        return [row for row in got if row.id is not None], got[0].last, got[0].n

    if wanted.ids is not None:
        known = len(wanted.ids) + 1
        return ask("ids", key, known, rows, known)[0], None
    found, last, _ = ask("walk", key, reach.walk, rows, rows)
    if last is None:
        return found, None
    # What is asked of a metric is one look-up more for each candidate.
    rest, far = rows - len(found), reach.far // (1 + len(wanted.named_metrics()))
    if wanted.order == "created":
        more, last, _ = ask("eras", last, far, rest, rest)
    else:
        more, unsure, hits = ask("eras", last, far, rest, reach.few + 1)
        if hits <= reach.few and unsure is None:
            return found + more, None
        more, last, _ = ask("walk", last, far, rest, rest)
    return found + more, last


def _facets(session: Session, actor: Actor, wanted: Search, shown: int, reach: Reach) -> FacetsView:
    """Values and counts among some hits; when there may be more of them every count is a lower
    bound and says so.

    Of tags the keys are counted; of a key asked for, its values too.
    """
    keys = [term[4:] for term in wanted.terms if term.startswith("tag:") and term.count(":") == 1]
    source, most = ("eras", reach.few) if wanted.ids is None else ("ids", len(wanted.ids) + 1)
    sql, params = statement(actor, wanted, None, source, most, reach.counted + 1, None, reach.eras)
    first, *rows = session.execute(text(sql), params | {"keys": keys, "most_values": MOST_VALUES})
    at_least = first.n > reach.counted or first.value is not None
    values: dict[str, list[FacetView]] = {facet: [] for facet in FACETS}
    for row in rows:
        values[SHOWN_AS.get(row.facet, row.facet)].append(FacetView(row.value, row.n, at_least))
    total = min(first.n, reach.counted)
    return FacetsView(max(total, shown) if at_least else total, at_least, values)


def _hit(row: Any, deleted: bool, tagged: dict[str, str], measured: dict[str, float]) -> VersionHit:
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
        tags=tagged,
        metrics=measured,
    )
