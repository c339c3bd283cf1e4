# ruff: noqa: S608 - only constants of this file and of the rules are put into SQL; every value is a parameter
"""Search over versions, in three steps that each cost a bounded amount, however many versions there are.

1. A walk along the order asked for: what is common fills a page from the first rows.
2. The term index, up to FEW hits: what is rare or absent is found whole and sorted.
3. What is numerous but not new: the index asked for one era of births at a time, among those in which every term
   occurs. In another order than that of birth the hits are sorted whole.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from registry.db import accounts, datasets, tags, versions
from registry.db.store import Store
from registry.errors import Invalid
from registry.queries.pages import cursor_after, key_in, length
from registry.rules.actors import Actor
from registry.rules.searches import Search
from registry.views.search import FacetsView, FacetView, VersionHit, VersionPage

WALK = 1000
FEW = CAP = 1000
ERA = 12  # bits; the view search_row makes the terms
MOST_HOLDERS = 5000
UNPLACED = ("g:", "line:", "name:")  # terms whose eras are not kept
FACETS = ("kind", "state", "team", "base", "domain", "licence", "method", "variant", "risk", "tag")
SHOWN_AS = {"base-ref": "base"}
MOST_VALUES = 20
COLUMNS = "s.id, s.seq, s.line, s.number, s.deleted"

# By sort: the order, what comes after a cursor's key, and the key's types.
ORDERS: dict[str, tuple[str, str, tuple[type, ...]]] = {
    "created": ("s.seq desc", "s.seq < :k0", (int,)),
    "name": ("s.line, s.number, s.seq", "(s.line, s.number, s.seq) > (:k0, :k1, :k2)", (str, int, int)),
    "highest": ("o.value desc, o.version_id desc",
                "(o.value, o.version_id) < (cast(:k0 as float8), cast(:k1 as uuid))", (str, str)),
    "lowest": ("o.value, o.version_id",
               "(o.value, o.version_id) > (cast(:k0 as float8), cast(:k1 as uuid))", (str, str)),
}  # fmt: skip

SHOWN = text(
    "select v.id, n.ref, l.team || '/' || l.name as line, l.kind, l.team, v.number, v.state, v.manifest_digest, "
    "b.ref as base, l.domain, v.meta -> 'licence' as licence, v.facts -> 'method' as method, "
    "v.facts -> 'variant' as variant, v.created_at from version v join line l on l.id = v.line_id "
    "join node n on n.id = v.id left join node b on b.id = v.base_version_id where v.id = any(:ids)"
)
MEASURED = text(
    "select version_id, name, value from version_metric where version_id = any(:ids) and name = any(:names)"
)
HOLDERS = text(
    "select id from version where manifest_digest ~>=~ :low and manifest_digest ~<~ :high union "
    "select id from version where tensor_root ~>=~ :low and tensor_root ~<~ :high union "
    "select version_id from version_file where blob_id ~>=~ :bare and blob_id ~<~ :end limit :most"
)
# Births and moments run side by side but for transactions that overlap: a thousand neighbours leave room for those.
BETWEEN = text(
    "select (select min(seq) from (select seq from version_search where created_at >= cast(:since as timestamptz) "
    "order by created_at limit 1000) a) as first, (select max(seq) from (select seq from version_search "
    "where created_at < cast(:until as timestamptz) order by created_at desc limit 1000) b) as last"
)
COUNTED = (
    "with found as materialized ({found}), counted as (select f, split_part(f, ':', 1) as facet, count(*) as n, "
    "row_number() over (partition by split_part(f, ':', 1) order by count(*) desc, f) as place "
    "from (select id from found limit 1000) first join version_search s on s.id = first.id, unnest(s.facets) f "
    "where f not like 'tag:%:%' or split_part(f, ':', 2) = any(:keys) group by f) "
    "select '' as facet, '' as value, count(*) as n, 0 as place from found union all "
    "select facet, substr(f, strpos(f, ':') + 1), n, place from counted where place <= :most order by facet, place"
)


def search(
    store: Store, actor: Actor, wanted: Search, cursor: str | None = None, limit: int = 50, facets: bool = False
) -> VersionPage:
    """One page of the versions that meet every filter, of the teams the actor sees.

    Raises Invalid for a limit out of bounds or a cursor of another search, NotFound for a base or data set unknown.
    """
    wanted_rows = length(limit) + 1
    mark = wanted.mark()
    _, _, shape = ORDERS[wanted.order]
    key = None if cursor is None else _key(cursor, mark, shape)
    with store.read(actor) as session:
        # The planner is kept from reading whole tables, and from one plan for all values: both hurt only at scale.
        session.execute(text("select set_config('enable_seqscan', 'off', true), "
                             "set_config('plan_cache_mode', 'force_custom_plan', true)"))  # fmt: skip
        wanted = _resolved(session, actor, wanted)
        found, common = _found(session, actor, wanted, key, wanted_rows)
        rows, more = found[:limit], len(found) > limit
        counted = _facets(session, actor, wanted, common) if facets else None
        ids = [row.id for row in rows]
        shown = {row.id: row for row in session.execute(SHOWN, {"ids": ids})}
        tagged = tags.of_versions(session, ids)
        measured: dict[Any, dict[str, float]] = {}
        if names := wanted.named_metrics():
            for one in session.execute(MEASURED, {"ids": ids, "names": names}):
                measured.setdefault(one.version_id, {})[one.name] = one.value
    items = [_hit(shown[row.id], row.deleted, tagged.get(row.id, {}), measured.get(row.id, {})) for row in rows]
    return VersionPage(items, cursor_after((mark, *_key_of(rows[-1], wanted.order))) if more else None, counted)


def _key(cursor: str, mark: str, shape: tuple[type, ...]) -> list[Any]:
    said, *key = key_in(cursor, str, *shape)
    if said != mark:
        raise Invalid("bad-cursor", "That cursor is of another search.", "Begin again without a cursor.")
    if shape == (str, str):
        try:
            float(key[0]), UUID(key[1])
        except ValueError:
            raise Invalid(
                "bad-cursor", "That cursor is not one of this list.", "Begin again without a cursor."
            ) from None
    return key


def _key_of(row: Any, order: str) -> tuple[str | int, ...]:
    if order == "created":
        return (row.seq,)
    return (row.line, row.number, row.seq) if order == "name" else (repr(row.value), str(row.version_id))


def _resolved(session: Session, actor: Actor, wanted: Search) -> Search:
    """A base, a data set, an account, a digest and moments as what the index knows; what is named must be there."""
    more: list[str] = []
    known: dict[str, Any] = {}
    if (base := wanted.base) is not None:
        bare = base.team is not None and str(base) == base.line
        more.append(f"base:{base.line}" if bare
                    else f"base:{versions.by_ref(session, base, teams=actor.teams())[0].id}")  # fmt: skip
    if (data := wanted.dataset) is not None:
        if data.team is not None and str(data) == data.line:
            more.append(f"dataset:{data.line}")
        else:
            row, _ = datasets.by_ref(session, str(data), teams=actor.teams())
            more.append(f"dataset:{row.id}")
    if wanted.by is not None:
        # Whoever is not known here has added nothing either: no answer tells whether such a person exists.
        account = accounts.find(session, wanted.by)
        more.append(f"by:{account.id if account else None}")
    if (digest := wanted.digest) is not None:
        # g follows every hex digit.
        asked = {"low": f"sha256:{digest}", "high": f"sha256:{digest}g", "bare": digest, "end": digest + "g",
                 "most": MOST_HOLDERS + 1}  # fmt: skip
        ids = list(session.scalars(HOLDERS, asked))
        if len(ids) > MOST_HOLDERS:
            raise Invalid("bad-filter", f"More than {MOST_HOLDERS:,} versions hold something whose digest begins so.",
                          "Give more digits, or the digest of a manifest or a tensor root.")  # fmt: skip
        known["ids"] = tuple(ids)
    if wanted.since is not None or wanted.until is not None:
        first, last = session.execute(BETWEEN, {"since": wanted.since, "until": wanted.until}).one()
        known["born"] = (first if wanted.since else None, last if wanted.until else None)
    return wanted.narrowed(*more, **known)


def statement(actor: Actor, wanted: Search, key: list[Any] | None, rows: int, step: str) -> tuple[str, dict[str, Any]]:
    """The SQL of one step (walk, few, some, eras, whole) and its parameters; apart, so that a test can explain it."""
    order, after, _ = ORDERS[wanted.order]
    source, columns, params = "version_search s", COLUMNS, {"rows": rows, **_bounds(wanted)}
    start = [f"s.seq {relation} :{name}" for name, relation in (("first", ">="), ("last", "<=")) if name in params]
    if "owned" in params:
        start.append("s.line > :owned and s.line < :beyond")
    if key is not None:
        start.append(after)
        params |= {f"k{number}": part for number, part in enumerate(key)}
    if wanted.sort_metric is not None:
        source, columns = f"version_metric o join {source} on s.id = o.version_id", f"{COLUMNS}, o.value, o.version_id"
        start.append("o.name = :sorted")
    begins, met = " and ".join(start) or "true", _met(actor, wanted, step, params)
    where = " and ".join(met) or "true"
    if step == "walk":
        params["walk"] = max(WALK, 2 * rows) if met else rows
        inner = f"select {columns}, s.words, s.created_at, s.terms from {source} where {begins} order by {order} limit :walk"
        return (f"select {columns.replace('o.', 's.')} from ({inner}) s where {where} "
                f"order by {order.replace('o.', 's.')} limit :rows", params)  # fmt: skip
    if step == "eras":
        params |= {"from": key[0] if key is not None else params.get("last"), "to": params.get("first", 0)}
        eras = "select generate_series(coalesce(cast(:from as bigint), (select max(seq) from version_search)) " \
               f">> {ERA}, cast(:to as bigint) >> {ERA}, -1) as era"  # fmt: skip
        if asked := [term for term in params["terms"] if not term.startswith(UNPLACED)]:
            params |= {"asked": asked, "each": len(asked)}
            eras = "select era from search_era where term = any(:asked) and era between cast(:to as bigint) " \
                   f">> {ERA} and coalesce(cast(:from as bigint), {2**62}) >> {ERA} " \
                   "group by era having count(distinct term) = :each order by era desc"  # fmt: skip
        # A nested loop from the newest era on, which ends as soon as the page is full.
        return (f"select found.* from ({eras}) e cross join lateral (select {columns} "
                f"from {source} where {begins} and {where} order by {order} limit :rows) found limit :rows", params)  # fmt: skip
    # Materialised, or the planner would walk the whole order in hope of an early end.
    few = "" if step == "whole" else f" limit {FEW + 1}"
    hits = f"with s as materialized (select {columns} from {source} where {begins} and {where}{few})"
    if step == "some":
        return f"{hits} select s.id from s", params
    return f"{hits} select s.*, count(*) over () as n from s order by {order.replace('o.', 's.')} limit :rows", params


def _bounds(wanted: Search) -> dict[str, Any]:
    """Where in its order a search can begin and must end: moments by births, a team by the names it owns."""
    bounds: dict[str, Any] = {name: value for name, value in zip(("first", "last"), wanted.born, strict=True)
                              if value is not None}  # fmt: skip
    team = next((term[5:] for term in wanted.terms if term.startswith("team:")), None)
    if wanted.order == "name" and team is not None:
        bounds |= {"owned": f"{team}/", "beyond": f"{team}0"}  # 0 follows the slash
    return bounds


def _met(actor: Actor, wanted: Search, step: str, params: dict[str, Any]) -> list[str]:
    """The conditions every row must meet, their values put into `params`."""
    met = [] if wanted.deleted else ["not s.deleted"]
    if (teams := actor.teams()) is not None:
        met.append("s.terms && cast(:teams as text[])" if len(teams) != 1 else "s.terms @> cast(:teams as text[])")
        params["teams"] = [f"team:{team}" for team in sorted(teams)]
    for number, word in enumerate(wanted.words):
        met.append(f"s.words like :w{number}")
        params[f"w{number}"] = f"%{word}%" if len(word) > 2 else f"% {word}%"
    params["terms"] = [*wanted.terms, *(wanted.grams() if step != "walk" else ())]
    if step == "eras":
        met.append("s.terms @> (cast(:terms as text[]) || array['era:' || e.era])")
    elif params["terms"]:
        met.append("s.terms @> cast(:terms as text[])")
    for moment, relation in (("since", ">="), ("until", "<")):
        if (said := getattr(wanted, moment)) is not None:
            met.append(f"s.created_at {relation} cast(:{moment} as timestamptz)")
            params[moment] = said
    for number, bound in enumerate(wanted.metrics):
        where = f"m.name = :m{number} and m.value {bound.relation} :v{number}"  # one of five relations, by the rule
        met.append(f"s.id in (select m.version_id from version_metric m where {where})" if step == "few"
                   else f"exists (select 1 from version_metric m where m.version_id = s.id and {where})")  # fmt: skip
        params |= {f"m{number}": bound.name, f"v{number}": bound.value}
    if wanted.ids is not None:
        met.append("s.id = any(:ids)")
        params["ids"] = list(wanted.ids)
    if wanted.sort_metric is not None:
        params["sorted"] = wanted.sort_metric
    return met


def _found(session: Session, actor: Actor, wanted: Search, key: list[Any] | None, rows: int) -> tuple[list[Any], bool]:
    """The first rows after a key, by the first step that is sure of them; and whether that was the walk."""

    def ask(step: str) -> list[Any]:
        sql, params = statement(actor, wanted, key, rows, step)
        return list(session.execute(text(sql), params))

    if wanted.ids is None:
        found = ask("walk")
        if len(found) >= rows or wanted.everything(actor):
            return found, True
    few = ask("few")
    if not few or few[0].n <= FEW:
        return few, False
    return ask("eras" if wanted.order == "created" else "whole"), False


def _facets(session: Session, actor: Actor, wanted: Search, common: bool) -> FacetsView:
    """Values and counts among the first versions found; past the cap every count is a lower bound and says so.

    Of tags the keys are counted; of a key asked for, its values too.
    """
    keys = [term[4:] for term in wanted.terms if term.startswith("tag:") and term.count(":") == 1]
    for step in ("walk", "some") if common else ("some",):
        sql, params = statement(actor, wanted, None, CAP + 1, step)
        rows = list(session.execute(text(COUNTED.format(found=sql)), params | {"keys": keys, "most": MOST_VALUES}))
        total = rows[0].n
        if total > CAP or wanted.everything(actor):
            break
    values: dict[str, list[FacetView]] = {facet: [] for facet in FACETS}
    for row in rows[1:]:
        values[SHOWN_AS.get(row.facet, row.facet)].append(FacetView(row.value, row.n, total > CAP))
    return FacetsView(min(total, CAP), total > CAP, values)


def _hit(row: Any, deleted: bool, tagged: dict[str, str], measured: dict[str, float]) -> VersionHit:
    def text_or_none(value: Any) -> str | None:
        return value if isinstance(value, str) else None

    return VersionHit(
        ref=row.ref, line=row.line, kind=row.kind, team=row.team, number=row.number, state=row.state,
        digest=row.manifest_digest, base=row.base, domain=row.domain, licence=text_or_none(row.licence),
        method=text_or_none(row.method), variant=text_or_none(row.variant), created_at=row.created_at, deleted=deleted,
        tags=tagged, metrics=measured,
    )  # fmt: skip
