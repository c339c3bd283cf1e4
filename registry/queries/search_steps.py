# ruff: noqa: S608 - only constants of this file and of the rules are put into SQL; every value is a
# parameter
"""The SQL of one step of a search: candidates from an index, hits among them, and where the step
ended.

What an index shall find stands in the innermost query and all else is a column of it, so that no
planner has a choice to make: the rows a step touches follow from its bounds and not from
statistics.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from registry.rules.actors import Actor
from registry.rules.searches import Search

ERA = 12  # bits; the view search_row makes the terms


@dataclass(frozen=True, slots=True)
class Reach:
    """How far one page looks: rows of the first walk, hits sorted whole, rows of a later step,
    eras, holders of a digest.
    """

    walk: int = 1000
    few: int = 2000
    far: int = 5000
    eras: int = 256  # that is a million births
    counted: int = 1000
    holders: int = 5000


REACH = Reach()
UNPLACED = ("g:", "line:", "name:")  # terms whose eras are not kept
COLUMNS = "s.id, s.seq, s.line, s.number, s.deleted, s.words, s.created_at"
# A scalar, or the planner might make a join of it and read the whole metric.
VALUE = "(select m.value from version_metric m where m.version_id = s.id and m.name = :{name})"

# By sort: the order, what comes after a cursor's key, the key, and the key's types.
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
# The hits among the candidates; and where the step ended, when candidates or eras ran out before
# there were enough.
FOUND = (
    "with e as materialized ({eras}), c as materialized ({candidates}), "
    "s as materialized (select * from c where met limit :enough), m as (select count(*) as n from "
    "s), "
    "t as (select coalesce((select json_build_array({key}) from c s where (select n from m) < "
    ":enough "
    "offset :most - 1 limit 1), (select json_build_array(min(era) << 12) from e where (select n "
    "from m) < :enough "
    "having count(*) = :eras)) as last) "
)
PAGE = (
    "select m.n, t.last, h.* from m cross join t left join lateral "
    "(select s.*, json_build_array({key}) as key from s order by {order} limit :rows) h on true"
)
COUNTED = (
    ", counted as (select f, split_part(f, ':', 1) as facet, count(*) as n, "
    "row_number() over (partition by split_part(f, ':', 1) order by count(*) desc, f) as place "
    "from (select facets from s limit :enough - 1) first, unnest(first.facets) f "
    "where f not like 'tag:%:%' or split_part(f, ':', 2) = any(:keys) group by f) "
    "select '' as facet, cast(t.last as text) as value, m.n, 0 as place from m cross join t union "
    "all "
    "select facet, substr(f, strpos(f, ':') + 1), n, place from counted where place <= "
    ":most_values order by facet, place"
)


def statement(
    actor: Actor,
    wanted: Search,
    key: list[Any] | None,
    source: str,
    most: int,
    enough: int,
    rows: int | None,
    eras: int,
) -> tuple[str, dict[str, Any]]:
    """The SQL of one step and its parameters; apart, so that a test can explain it.

    `source` (walk, at most `eras` eras, or ids) gives `most` candidates at most, until `enough` of
    them are hits. Of these come the first `rows` in order, or for None the counts of their facets.
    """
    order, after, placed, _ = ORDERS[wanted.order]
    params: dict[str, Any] = {
        "most": most,
        "enough": enough,
        "rows": rows,
        "eras": eras,
        "sorted": wanted.sort_metric,
    }
    params |= {f"k{number}": part for number, part in enumerate(key or ())}
    begins, met = [after] if key is not None else [], _met(wanted, params)
    born = [
        f"s.seq {relation} :{name}"
        for name, relation in (("first", ">="), ("last", "<="))
        if name in params
    ]
    terms, placed_in = _termed(actor, wanted, source, params), "select 0 as era where false"
    columns, sorting = COLUMNS if rows is not None else f"{COLUMNS}, s.facets", ""
    if wanted.order == "created":
        begins += born
    else:
        met = born + met
    if wanted.sort_metric is not None:
        sorting = ", s.value, s.version_id"
    if source == "walk":
        met, table = terms + met, "version_search s"
        if sorting:
            table = f"version_metric o join {table} on s.id = o.version_id"
            begins += ["o.name = :sorted", *(one for one in met if one.startswith("o.value "))]
        walked = f"select {columns}, s.terms{sorting.replace('s.', 'o.')} from {table}"
        owners = _owners(actor, wanted)
        if wanted.order == "name" and owners is not None:
            # A team's names lie together: one stretch after the other, and nothing between them; 0
            # follows the slash.
            params["owners"] = [f"{team}/" for team in owners]
            begins += ["s.line > w.own", "s.line < rtrim(w.own, '/') || '0'"]
            inner = (
                "select f.* from unnest(cast(:owners as text[])) w(own) cross join lateral "
                f"({walked} "
                f"where {' and '.join(begins)} order by {order} limit :most) f limit :most"
            )
        else:
            inner = f"{walked} where {' and '.join(begins) or 'true'} order by {order} limit :most"
    else:
        if sorting:
            columns += f", {VALUE.format(name='sorted')} as value, s.id as version_id"
            met.append("s.value is not null")
        if source == "ids":
            met, inner = (
                terms + begins + met,
                f"select {columns}, s.terms from version_search s where s.id = any(:ids)",
            )
        else:
            placed_in, newest = _eras(params), ""
            if wanted.order == "created":
                # Only the term index finds rows of an era: of a sum no other can.
                terms += [begin.replace("s.seq ", "s.seq + 0 ") for begin in begins]
                newest = "" if rows is None else "order by s.seq desc"
            else:
                met += begins
            inner = (
                f"select f.* from e cross join lateral (select {columns} from version_search s "
                f"where {' and '.join(terms)} {newest}) f limit :most"
            )
    facets, passed = (
        "" if rows is not None else ", s.facets",
        " and ".join(met).replace("o.", "s.") or "true",
    )
    found = FOUND.format(
        eras=placed_in,
        key=placed.replace("o.", "s."),
        candidates=f"select s.id, s.seq, s.line, s.number, s.deleted{sorting}{facets}, {passed} "
        f"as met from ({inner}) s",
    )
    if rows is None:
        return found + COUNTED, params
    return found + PAGE.format(
        key=placed.replace("o.", "s."), order=order.replace("o.", "s.")
    ), params


def _owners(actor: Actor, wanted: Search) -> list[str] | None:
    """The only teams whose versions can be hits, in the order of their names with the slash; None
    for any.
    """
    asked, seen = [term[5:] for term in wanted.terms if term.startswith("team:")], actor.teams()
    owners = asked or (None if seen is None else list(seen))
    return None if owners is None else sorted(owners, key=lambda team: f"{team}/")


def _termed(actor: Actor, wanted: Search, source: str, params: dict[str, Any]) -> list[str]:
    """The conditions that the term index can answer: the terms, in eras with that of the era, and
    the actor's teams.
    """
    params["terms"] = [*wanted.terms, *(wanted.grams() if source != "walk" else ())]
    met = ["s.terms @> cast(:terms as text[])"] if params["terms"] else []
    if source == "eras":
        # A condition for each term, for between conditions the index leaps where within one it
        # reads the rarest term whole; and each of the era, or the planner might ask for the terms
        # of all eras at once.
        params |= {f"t{number}": [term] for number, term in enumerate(params["terms"])}
        met = ["s.terms @> array['era:' || e.era]"]
        met += [
            f"s.terms @> case when e.era >= 0 then cast(:t{at} as text[]) end"
            for at in range(len(params["terms"]))
        ]
    if (teams := actor.teams()) is not None:
        met.append(
            "s.terms && cast(:teams as text[])"
            if len(teams) != 1
            else "s.terms @> cast(:teams as text[])"
        )
        params["teams"] = [f"team:{team}" for team in sorted(teams)]
    return met


def _eras(params: dict[str, Any]) -> str:
    """The newest eras in which every term occurs and one of the actor's teams, from that of a
    birth's key on.
    """
    params |= {
        "from": params.get("k0") if isinstance(params.get("k0"), int) else params.get("last"),
        "to": params.get("first", 0),
    }
    asked = [term for term in params["terms"] if not term.startswith(UNPLACED)]
    if not asked and "teams" not in params:
        return (
            "select generate_series(coalesce(cast(:from as bigint), (select max(seq) from "
            "version_search)) "
            f">> {ERA}, cast(:to as bigint) >> {ERA}, -1) as era limit :eras"
        )
    params |= {"asked": asked, "each": len(asked), "any": params.get("teams", [])}
    teamed = "and bool_or(term = any(:any))" if "teams" in params else ""
    return (
        "select era from search_era where term = any(cast(:asked as text[]) || cast(:any as "
        "text[])) "
        f"and era between cast(:to as bigint) >> {ERA} and coalesce(cast(:from as bigint), "
        f"{2**62}) >> {ERA} "
        "group by era having count(distinct term) filter (where term = any(:asked)) = :each "
        f"{teamed} "
        "order by era desc limit :eras"
    )


def _met(wanted: Search, params: dict[str, Any]) -> list[str]:
    """The conditions that are asked of each candidate, the dearest last; the values are put into
    `params`.
    """
    params |= {
        name: seq
        for name, seq in zip(("first", "last"), wanted.born, strict=True)
        if seq is not None
    }
    met = [] if wanted.deleted else ["not s.deleted"]
    for number, word in enumerate(wanted.words):
        met.append(f"s.words like :w{number}")
        params[f"w{number}"] = f"%{word}%" if len(word) > 2 else f"% {word}%"
    for moment, relation in (("since", ">="), ("until", "<")):
        if (said := getattr(wanted, moment)) is not None:
            met.append(f"s.created_at {relation} cast(:{moment} as timestamptz)")
            params[moment] = said
    if wanted.ids is not None:
        params["ids"] = list(wanted.ids)
    for number, bound in enumerate(wanted.metrics):
        # One of five relations, by the rule; the value in the order asked for is at hand.
        value = "o.value" if bound.name == wanted.sort_metric else VALUE.format(name=f"m{number}")
        met.append(f"{value} {bound.relation} :v{number}")
        params |= {f"m{number}": bound.name, f"v{number}": bound.value}
    return met
