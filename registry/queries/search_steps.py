# ruff: noqa: S608 - only constants of this file and the rules become SQL; values are parameters
"""The SQL of one step of a search: candidates from an index, hits among them, where it ended.

The innermost query has only the conditions that an index answers; every other condition is a column
of it. The planner therefore has no choice to make, and the rows that a step reads follow from its
bounds and not from statistics.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from registry.rules.actors import Actor
from registry.rules.searches import Search

ERA_BITS = 12
"""An era has 2 ** ERA_BITS births. The view search_row makes the terms of eras."""


@dataclass(frozen=True, slots=True)
class Reach:
    """How many rows a search examines for one page."""

    walk: int = 1000
    """Rows of the first walk."""
    sortable: int = 2000
    """The most hits that are sorted whole."""
    later: int = 5000
    """Rows of a later step."""
    eras: int = 256
    """Eras of the term index; 256 are a million births."""
    counted: int = 1000
    """Hits that facets are counted over."""
    digest_matches: int = 5000
    """The most versions that may have a digest with the given beginning."""


REACH = Reach()


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a search.

    `source` is walk, eras or ids. It gives at most `candidates` rows after `key`, until `enough` of
    them are hits, from at most `eras` eras. The step returns the first `rows` hits in order, or
    with None the counts of their facets.
    """

    source: str
    key: list[Any] | None
    candidates: int
    enough: int
    rows: int | None
    eras: int = REACH.eras


TERMS_WITHOUT_ERAS = ("g:", "line:", "name:")
"""Prefixes of terms for which the eras are not recorded."""
COLUMNS = "s.id, s.seq, s.line, s.number, s.deleted, s.words, s.created_at"
# A scalar subquery, because of a join the planner might read the whole metric.
VALUE = "(select m.value from version_metric m where m.version_id = s.id and m.name = :{name})"

# By sort: the order, what follows the key of a cursor, the key, and the types of the key.
ORDERS: dict[str, tuple[str, str, str, tuple[type, ...]]] = {
    "created": ("s.seq desc", "s.seq < :k0", "s.seq", (int,)),
    "name": (
        "s.line, s.number, s.seq",
        "(s.line, s.number, s.seq) > (:k0, :k1, :k2)",
        "s.line, s.number, s.seq",
        (str, int, int),
    ),
    "highest": (
        "o.value desc, o.version_id desc",
        "(o.value, o.version_id) < (cast(:k0 as float8), cast(:k1 as uuid))",
        "cast(o.value as text), o.version_id",
        (str, str),
    ),
    "lowest": (
        "o.value, o.version_id",
        "(o.value, o.version_id) > (cast(:k0 as float8), cast(:k1 as uuid))",
        "cast(o.value as text), o.version_id",
        (str, str),
    ),
}
# The hits among the candidates; and where the step ended, if candidates or eras ran out before
# there were enough hits.
HITS = """
    with e as materialized ({eras}),
    c as materialized ({candidates}),
    s as materialized (select * from c where met limit :enough),
    m as (select count(*) as n from s),
    t as (select coalesce(
        (select json_build_array({key}) from c s
            where (select n from m) < :enough offset :most - 1 limit 1),
        (select json_build_array(min(era) << 12) from e
            where (select n from m) < :enough having count(*) = :eras)
    ) as last)
    """
PAGE = """
    select m.n, t.last, h.* from m cross join t left join lateral (
        select s.*, json_build_array({key}) as key from s order by {order} limit :rows
    ) h on true
    """
FACETS = """
    , counted as (
        select f, split_part(f, ':', 1) as facet, count(*) as n,
            row_number() over (partition by split_part(f, ':', 1) order by count(*) desc, f)
                as place
        from (select facets from s limit :enough - 1) first, unnest(first.facets) f
        where f not like 'tag:%:%' or split_part(f, ':', 2) = any(:keys) group by f
    )
    select '' as facet, cast(t.last as text) as value, m.n, 0 as place from m cross join t
    union all
    select facet, substr(f, strpos(f, ':') + 1), n, place from counted where place <= :most_values
    order by facet, place
    """


def statement(actor: Actor, filters: Search, step: Step) -> tuple[str, dict[str, Any]]:
    """The SQL of one step and its parameters; separate, so that a test can explain it."""
    order, after, placed, _ = ORDERS[filters.order]
    params: dict[str, Any] = {
        "most": step.candidates,
        "enough": step.enough,
        "rows": step.rows,
        "eras": step.eras,
        "sorted": filters.sort_metric,
    }
    params |= {f"k{number}": part for number, part in enumerate(step.key or ())}
    source, is_page = step.source, step.rows is not None
    begins, met = [after] if step.key is not None else [], _met(filters, params)
    born = [
        f"s.seq {relation} :{name}"
        for name, relation in (("first", ">="), ("last", "<="))
        if name in params
    ]
    terms, placed_in = _termed(actor, filters, source, params), "select 0 as era where false"
    columns, sorting = COLUMNS if is_page else f"{COLUMNS}, s.facets", ""
    if filters.order == "created":
        begins += born
    else:
        met = born + met
    if filters.sort_metric is not None:
        sorting = ", s.value, s.version_id"
    if source == "walk":
        met, table = terms + met, "version_search s"
        if sorting:
            table = f"version_metric o join {table} on s.id = o.version_id"
            on_value = [condition for condition in met if condition.startswith("o.value ")]
            begins += ["o.name = :sorted", *on_value]
        walked = f"select {columns}, s.terms{sorting.replace('s.', 'o.')} from {table}"
        owners = _owners(actor, filters)
        if filters.order == "name" and owners is not None:
            # The names of a team are adjacent, so the walk reads one range for each team; 0 follows
            # the slash.
            params["owners"] = [f"{team}/" for team in owners]
            begins += ["s.line > w.own", "s.line < rtrim(w.own, '/') || '0'"]
            one_range = f"{walked} where {' and '.join(begins)} order by {order} limit :most"
            inner = (
                "select f.* from unnest(cast(:owners as text[])) w(own) "
                f"cross join lateral ({one_range}) f limit :most"
            )
        else:
            inner = f"{walked} where {' and '.join(begins) or 'true'} order by {order} limit :most"
    else:
        if sorting:
            columns += f", {VALUE.format(name='sorted')} as value, s.id as version_id"
            met.append("s.value is not null")
        if source == "ids":
            met = terms + begins + met
            inner = f"select {columns}, s.terms from version_search s where s.id = any(:ids)"
        else:
            placed_in, newest = _eras(params), ""
            if filters.order == "created":
                # Only the term index can find the rows of an era; no other index covers a sum.
                terms += [begin.replace("s.seq ", "s.seq + 0 ") for begin in begins]
                newest = "order by s.seq desc" if is_page else ""
            else:
                met += begins
            inner = (
                f"select f.* from e cross join lateral (select {columns} from version_search s "
                f"where {' and '.join(terms)} {newest}) f limit :most"
            )
    columns = f"s.id, s.seq, s.line, s.number, s.deleted{sorting}{'' if is_page else ', s.facets'}"
    is_hit = " and ".join(met).replace("o.", "s.") or "true"
    key = placed.replace("o.", "s.")
    candidates = f"select {columns}, {is_hit} as met from ({inner}) s"
    hits = HITS.format(eras=placed_in, key=key, candidates=candidates)
    if not is_page:
        return hits + FACETS, params
    return hits + PAGE.format(key=key, order=order.replace("o.", "s.")), params


def _owners(actor: Actor, filters: Search) -> list[str] | None:
    """The teams whose versions can be hits, in the order of their names with the slash.

    None means every team.
    """
    named, seen = [term[5:] for term in filters.terms if term.startswith("team:")], actor.teams()
    owners = named or (None if seen is None else list(seen))
    return None if owners is None else sorted(owners, key=lambda team: f"{team}/")


def _termed(actor: Actor, filters: Search, source: str, params: dict[str, Any]) -> list[str]:
    """The conditions that the term index answers: terms, the era, and the actor's teams."""
    params["terms"] = [*filters.terms, *(filters.grams() if source != "walk" else ())]
    met = ["s.terms @> cast(:terms as text[])"] if params["terms"] else []
    if source == "eras":
        # One condition for each term: between conditions the index skips ahead, within one it
        # reads the whole list of the rarest term. Each depends on the era, or the planner might
        # look for the terms in all eras at once.
        params |= {f"t{number}": [term] for number, term in enumerate(params["terms"])}
        met = ["s.terms @> array['era:' || e.era]"]
        met += [
            f"s.terms @> case when e.era >= 0 then cast(:t{number} as text[]) end"
            for number in range(len(params["terms"]))
        ]
    if (teams := actor.teams()) is not None:
        relation = "@>" if len(teams) == 1 else "&&"
        met.append(f"s.terms {relation} cast(:teams as text[])")
        params["teams"] = [f"team:{team}" for team in sorted(teams)]
    return met


def _eras(params: dict[str, Any]) -> str:
    """The newest eras in which every term and one of the actor's teams occur.

    They begin with the era of the birth in the key, if there is one.
    """
    params |= {
        "from": params.get("k0") if isinstance(params.get("k0"), int) else params.get("last"),
        "to": params.get("first", 0),
    }
    terms = [term for term in params["terms"] if not term.startswith(TERMS_WITHOUT_ERAS)]
    if not terms and "teams" not in params:
        return f"""
            select generate_series(
                coalesce(cast(:from as bigint), (select max(seq) from version_search))
                    >> {ERA_BITS},
                cast(:to as bigint) >> {ERA_BITS}, -1
            ) as era limit :eras
            """
    params |= {"asked": terms, "each": len(terms), "any": params.get("teams", [])}
    of_teams = "and bool_or(term = any(:any))" if "teams" in params else ""
    return f"""
        select era from search_era
        where term = any(cast(:asked as text[]) || cast(:any as text[]))
            and era between cast(:to as bigint) >> {ERA_BITS}
                and coalesce(cast(:from as bigint), {2**62}) >> {ERA_BITS}
        group by era
        having count(distinct term) filter (where term = any(:asked)) = :each {of_teams}
        order by era desc limit :eras
        """


def _met(filters: Search, params: dict[str, Any]) -> list[str]:
    """The conditions on each candidate, the most expensive last; their values go to `params`."""
    params |= {
        name: seq
        for name, seq in zip(("first", "last"), filters.born, strict=True)
        if seq is not None
    }
    met = [] if filters.deleted else ["not s.deleted"]
    for number, word in enumerate(filters.words):
        met.append(f"s.words like :w{number}")
        params[f"w{number}"] = f"%{word}%" if len(word) > 2 else f"% {word}%"
    for moment, relation in (("since", ">="), ("until", "<")):
        if (value := getattr(filters, moment)) is not None:
            met.append(f"s.created_at {relation} cast(:{moment} as timestamptz)")
            params[moment] = value
    if filters.ids is not None:
        params["ids"] = list(filters.ids)
    for number, bound in enumerate(filters.metrics):
        # The rule of searches allows five relations. The value that sorts is a column already.
        value = "o.value" if bound.name == filters.sort_metric else VALUE.format(name=f"m{number}")
        met.append(f"{value} {bound.relation} :v{number}")
        params |= {f"m{number}": bound.name, f"v{number}": bound.value}
    return met
