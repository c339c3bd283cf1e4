# ruff: noqa: S608 - only constants of this file and of the rules are put into SQL; every value is a parameter
"""Search over versions: a bounded walk along the order asked for, and the term index when the walk finds too few.

The walk serves what is common (a page fills from the newest rows at once), the index what is rare or absent; each is
bounded, so a page costs the same among a thousand versions and a hundred thousand.
"""

from __future__ import annotations

from collections import Counter
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from registry.db import datasets, tags, versions
from registry.db.store import Store, utc
from registry.errors import Invalid, NotFound
from registry.queries.pages import cursor_after, key_in, length
from registry.rules.actors import Actor
from registry.rules.searches import Search
from registry.views.search import FacetsView, FacetView, VersionHit, VersionPage

WALK = 2000
CAP = 1000
FACETS = {"kind": "kind:", "state": "state:", "team": "team:", "licence": "licence:", "domain": "domain:",
          "base": "base-ref:", "tag": "tag:"}  # fmt: skip
MOST_VALUES = 20

# By sort: the order, what comes after a cursor's key, and the key's types.
ORDERS: dict[str, tuple[str, str, tuple[type, ...]]] = {
    "created": ("s.created_at desc, s.id desc",
                "(s.created_at, s.id) < (cast(:k0 as timestamptz), cast(:k1 as uuid))", (str, str)),
    "name": ("s.line, s.number, s.id", "(s.line, s.number, s.id) > (:k0, :k1, cast(:k2 as uuid))", (str, int, str)),
}  # fmt: skip
COLUMNS = "s.id, s.created_at, s.line, s.number, s.team, s.deleted, s.terms"

SHOWN = text(
    "select v.id, n.ref, l.team || '/' || l.name as line, l.kind, l.team, v.number, v.state, v.manifest_digest, "
    "b.ref as base, l.domain, v.meta -> 'licence' as licence, v.created_at from version v join line l on l.id = v.line_id "
    "join node n on n.id = v.id left join node b on b.id = v.base_version_id where v.id = any(:ids)"
)


def search(
    store: Store, actor: Actor, wanted: Search, cursor: str | None = None, limit: int = 50, facets: bool = False
) -> VersionPage:
    """One page of the versions that meet every filter, of the teams the actor sees.

    Raises Invalid for a limit out of bounds or a cursor of another search, NotFound for a base or data set unknown.
    """
    wanted_rows = length(limit) + 1
    mark = wanted.mark()
    _, _, shape = ORDERS[wanted.sort]
    key = None if cursor is None else _key(cursor, mark, shape)
    with store.read(actor) as session:
        # The planner is kept from reading whole tables, and from one plan for all values: both hurt only at scale.
        session.execute(text("select set_config('enable_seqscan', 'off', true), "
                             "set_config('plan_cache_mode', 'force_custom_plan', true)"))  # fmt: skip
        wanted = _resolved(session, actor, wanted)
        found = _found(session, actor, wanted, key, wanted_rows)
        rows = found[:limit]
        ids = [row.id for row in rows]
        shown = {row.id: row for row in session.execute(SHOWN, {"ids": ids})}
        tagged = tags.of_versions(session, ids)
        counted = _facets(_found(session, actor, wanted, None, CAP + 1)) if facets else None
    items = [_hit(shown[row.id], row.deleted, tagged.get(row.id, {})) for row in rows]
    more = len(found) > limit
    return VersionPage(items, cursor_after((mark, *_key_of(rows[-1], wanted.sort))) if more else None, counted)


def _key(cursor: str, mark: str, shape: tuple[type, ...]) -> list[Any]:
    said, *key = key_in(cursor, str, *shape)
    if said != mark:
        raise Invalid("bad-cursor", "That cursor is of another search.", "Begin again without a cursor.")
    try:
        UUID(key[-1])
    except ValueError:
        raise Invalid("bad-cursor", "That cursor is not one of this list.", "Begin again without a cursor.") from None
    return key


def _key_of(row: Any, sort: str) -> tuple[str | int, ...]:
    return (utc(row.created_at), str(row.id)) if sort == "created" else (row.line, row.number, str(row.id))


def _resolved(session: Session, actor: Actor, wanted: Search) -> Search:
    """A base and a data set as terms of the index; those that name one version must be there and be seen."""
    more = []
    if (base := wanted.base) is not None:
        bare = base.team is not None and str(base) == base.line
        more.append(f"base:{base.line}" if bare
                    else f"base:{versions.by_ref(session, base, teams=actor.teams())[0].id}")  # fmt: skip
    if (data := wanted.dataset) is not None:
        if data.team is not None and str(data) == data.line:
            more.append(f"dataset:{data.line}")
        else:
            row, node = datasets.by_ref(session, str(data))
            if not actor.sees(node.team):
                raise NotFound("dataset-unknown", f"There is no data set version '{data}'.", "Check the name.")
            more.append(f"dataset:{row.id}")
    return wanted.narrowed(*more)


def statement(
    actor: Actor, wanted: Search, key: list[Any] | None, rows: int, *, walk: bool
) -> tuple[str, dict[str, Any]]:
    """The SQL of a search and its parameters, walking or through the indexes; apart, so that a test can explain it."""
    order, after, _ = ORDERS[wanted.sort]
    params: dict[str, Any] = {"rows": rows}
    start = ["true"]
    if key is not None:
        start.append(after)
        params |= {f"k{number}": part for number, part in enumerate(key)}
    met = [] if wanted.deleted else ["not s.deleted"]
    if (teams := actor.teams()) is not None:
        met.append("s.terms && cast(:teams as text[])")
        params["teams"] = [f"team:{team}" for team in sorted(teams)]
    if wanted.terms:
        met.append("s.terms @> cast(:terms as text[])")
        params["terms"] = list(wanted.terms)
    for number, bound in enumerate(wanted.metrics):
        where = (
            f"m.name = :m{number} and m.value {bound.relation} :v{number}"  # the relation is one of five, by the rule
        )
        met.append(f"exists (select 1 from version_metric m where m.version_id = s.id and {where})" if walk
                   else f"s.id in (select m.version_id from version_metric m where {where})")  # fmt: skip
        params |= {f"m{number}": bound.name, f"v{number}": bound.value}
    if wanted.digest is not None:
        low = f"sha256:{wanted.digest}"
        params |= {"low": low, "high": low + "g"}  # g follows every hex digit
        met.append("s.id in (select id from version where manifest_digest ~>=~ :low and manifest_digest ~<~ :high "
                   "union select id from version where tensor_root ~>=~ :low and tensor_root ~<~ :high)")  # fmt: skip
    where = " and ".join(met or ["true"])
    if walk:
        params["walk"] = WALK if met else rows
        return (f"select {COLUMNS} from (select * from version_search s where {' and '.join(start)} order by {order} "
                f"limit :walk) s where {where} order by {order} limit :rows", params)  # fmt: skip
    # Materialised, or the planner would walk the whole order in hope of an early end.
    return (f"with s as materialized (select s.id, s.created_at, s.line, s.number from version_search s "
            f"where {where}), page as (select * from s where {' and '.join(start)} order by {order} limit :rows) "
            f"select {COLUMNS} from page join version_search s on s.id = page.id order by {order}", params)  # fmt: skip


def _found(session: Session, actor: Actor, wanted: Search, key: list[Any] | None, rows: int) -> list[Any]:
    sql, params = statement(actor, wanted, key, rows, walk=True)
    found = list(session.execute(text(sql), params)) if wanted.digest is None else []
    if len(found) >= rows or (not wanted.terms and not wanted.metrics and wanted.digest is None
                              and actor.teams() is None and wanted.deleted):  # fmt: skip
        return found
    sql, params = statement(actor, wanted, key, rows, walk=False)
    return list(session.execute(text(sql), params))


def _facets(rows: list[Any]) -> FacetsView:
    """Values and counts among the first rows found; past the cap every count is a lower bound and says so."""
    beyond = len(rows) > CAP
    counts: dict[str, Counter[str]] = {facet: Counter() for facet in FACETS}
    for row in rows[:CAP]:
        for term in row.terms:
            for facet, prefix in FACETS.items():
                if term.startswith(prefix) and (facet != "tag" or term.count(":") == 1):
                    counts[facet][term[len(prefix) :]] += 1
    return FacetsView(min(len(rows), CAP), beyond, {
        facet: [FacetView(value, count, beyond) for value, count in
                sorted(found.items(), key=lambda one: (-one[1], one[0]))[:MOST_VALUES]]
        for facet, found in counts.items()
    })  # fmt: skip


def _hit(row: Any, deleted: bool, tagged: dict[str, str]) -> VersionHit:
    return VersionHit(
        ref=row.ref, line=row.line, kind=row.kind, team=row.team, number=row.number, state=row.state,
        digest=row.manifest_digest, base=row.base, domain=row.domain,
        licence=row.licence if isinstance(row.licence, str) else None, created_at=row.created_at, deleted=deleted,
        tags=tagged,
    )  # fmt: skip
