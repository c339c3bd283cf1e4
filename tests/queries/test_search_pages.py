"""Search over 5,000 seeded versions: every page, count and order is that of the plain rows, and
what a step touches is bounded.
"""

from __future__ import annotations

import operator
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import event, text

from registry.blobs.store import Blobs
from registry.db.store import Store, open_engine
from registry.errors import Invalid
from registry.queries import search as queries
from registry.queries import search_steps as steps
from registry.queries.search import SearchPageRequest
from registry.queries.search_steps import REACH, Reach
from registry.rules import searches
from registry.rules.actors import SYSTEM, Actor, Grant, Role
from tests.benches.catalogue import MIXED, SORTS, mixed, pairs, seed
from tests.benches.rows import explained, rows_of
from tests.build import a_world, train


@pytest.fixture(scope="module")
def seeded(databases: Any) -> Iterator[Store]:
    """Five thousand versions: a third of them old and of one team, so that every step of a search
    is taken.
    """
    url = databases.migrated("searched")
    seed(url, 5_000)
    opened = Store(open_engine(url, "countersign_app"))
    yield opened
    opened.engine.dispose()
    databases.drop("searched")


@pytest.fixture(scope="module")
def rows(seeded: Store) -> list[Any]:
    """All of them, read plainly: what any search must agree with."""
    with seeded.read(SYSTEM) as session:
        return list(
            session.execute(
                text(
                    "select n.ref, s.*, a.value as accuracy from version_search s join node n on "
                    "n.id = s.id "
                    "left join version_metric a on a.version_id = s.id and a.name = 'accuracy'"
                )
            )
        )


FILTERS: list[dict[str, Any]] = [
    {},
    {"q": "claims"},
    {"q": "edcl"},
    {"q": "me"},
    {"q": "claims t1"},
    {"name": "claims-llama-7"},
    {"kind": "adapter"},
    {"kind": "base"},
    {"team": "t19"},
    {"team": "archive"},
    {"team": "archive", "licence": "mit"},
    {"tag": ["topic:5"]},
    {"tag": ["none"]},
    {"tag": ["topic"]},
    {"licence": "mit"},
    {"domain": "health"},
    {"metric": ["accuracy>=0"]},
    {"metric": ["accuracy>=0.999"]},
    {"metric": ["accuracy>2"]},
    {"metric": ["accuracy<0.5"], "team": "archive"},
    {"state": "recalled"},
    {"state": "registered"},
    {"digest": "000000"},
    {"tag": ["topic:5"], "state": "recalled"},
    {"method": "prefix"},
    {"variant": "dora", "q": "llama"},
    {"since": "2020-01-01", "state": "registered"},
    {"team": "archive", "sort": "name"},
    {"state": "recalled", "sort": "name"},
    {"kind": "base", "sort": "name"},
    {"sort": "metric:accuracy"},
    {"sort": "metric:accuracy:lowest", "team": "archive"},
    {"sort": "metric:absent"},
]


def meets(row: Any, wanted: searches.Search) -> bool:
    """The filters told once more, over one row's plain values."""
    compare = {
        ">=": operator.ge,
        "<=": operator.le,
        ">": operator.gt,
        "<": operator.lt,
        "=": operator.eq,
    }
    return (
        set(wanted.terms) <= set(row.terms)
        and all(
            word in row.words if len(word) > 2 else f" {word}" in row.words for word in wanted.words
        )
        and all(
            row.accuracy is not None and compare[one.relation](row.accuracy, one.value)
            for one in wanted.metrics
        )
        and (wanted.since is None or row.created_at >= wanted.since)
        and (
            wanted.sort_metric is None
            or (wanted.sort_metric == "accuracy" and row.accuracy is not None)
        )
    )


def sorted_as(rows: list[Any], order: str) -> list[Any]:
    keys: dict[str, Any] = {
        "created": lambda row: -row.seq,
        "name": lambda row: (row.line, row.number),
        "highest": lambda row: (-row.accuracy, -row.id.int),
        "lowest": lambda row: (row.accuracy, row.id.int),
    }
    return sorted(rows, key=keys[order])


@pytest.mark.parametrize("filters", [one for one in FILTERS if "digest" not in one], ids=str)
def test_pages_and_counts_are_those_of_the_plain_rows(
    seeded: Store, rows: list[Any], filters: dict[str, Any]
) -> None:
    wanted = searches.parse(searches.Filters(**filters))
    expected = [
        row.ref for row in sorted_as([row for row in rows if meets(row, wanted)], wanted.order)
    ]
    page = queries.search(seeded, SYSTEM, wanted, SearchPageRequest(limit=100), facets=True)
    assert page.facets is not None
    assert page.facets.total == min(len(expected), 1000)
    assert page.facets.at_least == (len(expected) > 1000)
    if not page.facets.at_least:
        counted = Counter(term for row in rows if row.ref in set(expected) for term in row.facets)
        for facet, values in page.facets.values.items():
            assert all(
                counted[f"{'base-ref' if facet == 'base' else facet}:{one.value}"] == one.count
                for one in values
            )
        assert sum(one.count for one in page.facets.values["state"]) == len(expected)
    found, pages = [one.ref for one in page.items], 1
    while page.next is not None and pages < 6:
        page = queries.search(seeded, SYSTEM, wanted, SearchPageRequest(page.next, 100))
        found, pages = found + [one.ref for one in page.items], pages + 1
    assert found == expected[: len(found)]
    assert len(found) == min(len(expected), 600)
    assert page.next is not None or len(found) == len(expected)


@pytest.mark.parametrize("chosen", range(6))
def test_whoever_asks_sees_and_counts_the_own_teams_alone(
    seeded: Store, rows: list[Any], chosen: int
) -> None:
    dice = random.Random(chosen)
    teams = dice.sample(sorted({row.team for row in rows}), dice.randint(1, 4)) + ["nobody"] * (
        chosen % 2
    )
    actor = Actor(uuid4(), "chance", frozenset(Grant(Role.ENGINEER, team) for team in teams))
    for filters in dice.sample(FILTERS, 8):
        wanted = searches.parse(searches.Filters(**filters))
        if wanted.digest is not None:
            continue
        mine = [
            row.ref
            for row in sorted_as(
                [row for row in rows if row.team in teams and meets(row, wanted)], wanted.order
            )
        ]
        page = queries.search(seeded, actor, wanted, facets=True)
        assert [one.ref for one in page.items] == mine[:50], filters
        assert page.facets is not None
        assert page.facets.total == min(len(mine), 1000)
        assert {one.value for one in page.facets.values["team"]} <= set(teams)


SHORT = Reach(walk=30, sortable=40, later=90, eras=1, counted=25)


@pytest.fixture(scope="module")
def first_base(rows: list[Any]) -> str:
    return str(min((row for row in rows if "kind:base" in row.terms), key=lambda row: row.seq).line)


@pytest.mark.parametrize("chosen", range(12))
def test_mixed_filters_page_by_page_are_those_of_the_plain_rows(
    seeded: Store, rows: list[Any], first_base: str, chosen: int
) -> None:
    """Any filters in any order by anybody, to the last page: as far as ever, and with a reach that
    leaves pages short.
    """
    dice = random.Random(chosen)
    teams = (
        dice.sample(sorted({row.team for row in rows}), 5)
        if chosen % 3
        else sorted({row.team for row in rows})
    )
    actor = (
        Actor(uuid4(), "chance", frozenset(Grant(Role.ENGINEER, team) for team in teams))
        if chosen % 3
        else SYSTEM
    )
    for reach in (REACH, SHORT):
        filters = mixed(
            *dice.sample(MIXED, dice.choice((1, 2, 2, 3))), {"sort": dice.choice(SORTS)}
        )
        filters |= {"base": first_base} if "base" in filters else {}
        wanted = searches.parse(searches.Filters(**filters))
        with seeded.read(actor) as session:
            plainly = queries._resolved(
                session, replace(wanted, metrics=(), sort_metric=None), reach
            )
        plainly = replace(plainly, metrics=wanted.metrics, sort_metric=wanted.sort_metric)
        met = [row for row in rows if row.team in teams and meets(row, plainly)]
        expected = [row.ref for row in sorted_as(met, wanted.order)]
        found: list[str] = []
        cursor = None
        limit = dice.choice((7, 50, 200))
        for _ in range(60):
            request = SearchPageRequest(cursor, limit, reach)
            page = queries.search(seeded, actor, wanted, request, facets=cursor is None)
            if page.facets is not None:
                assert page.facets.at_least or page.facets.total == len(expected), filters
                assert page.facets.total <= len(expected), filters
                counted = Counter(term for row in met for term in row.facets)
                for facet, values in page.facets.values.items():
                    for one in values:
                        whole = counted[f"{'base-ref' if facet == 'base' else facet}:{one.value}"]
                        assert (one.count <= whole) if one.at_least else (one.count == whole), (
                            filters
                        )
            found, cursor = found + [one.ref for one in page.items], page.next
            assert len(page.items) <= limit
            if cursor is None:
                break
        assert found == expected[: len(found)], filters
        assert cursor is not None or len(found) == len(expected), filters


def test_what_a_step_touches_is_bounded_however_many_there_are(
    seeded: Store, rows: list[Any], first_base: str
) -> None:
    """For every filter, every two and every order: not more rows than the step may look at, of five
    thousand.

    Each candidate is one row, and one more of its metric for a bound or for the order. In the order
    of birth an era is sorted whole, so there the bound is what the term index holds of the eras
    from which hits came.
    """
    tables = ("version_search", "version_metric")
    most, page, dice = 100, 21, random.Random(3)
    with seeded.read(SYSTEM) as session:
        session.execute(text("select set_config('enable_seqscan', 'off', true)"))
        for number, filters in enumerate(pairs()):
            filters = filters | {"base": first_base} if "base" in filters else filters
            wanted = searches.parse(searches.Filters(**filters, sort=SORTS[number % 4]))
            wanted = queries._resolved(session, wanted, Reach(sortable=0))
            each = most * (1 + len(wanted.metrics) + (wanted.sort_metric is not None)) + 2 * page
            for source, rows_asked in (("walk", page), ("eras", None)):
                asked = steps.statement(
                    SYSTEM, wanted, steps.Step(source, None, most, page, rows_asked)
                )
                asked[1].update(keys=[], most_values=20)
                assert rows_of(explained(session, *asked), tables) <= each, (
                    source,
                    filters,
                    wanted.order,
                )
            if wanted.order == "created" and dice.random() < 0.5:
                sql, params = steps.statement(
                    SYSTEM, wanted, steps.Step("eras", None, most, page, page)
                )
                hits = [row.seq for row in session.execute(text(sql), params) if row.id is not None]
                if len(hits) == page:
                    terms = {*wanted.terms, *wanted.grams()}
                    held = sum(
                        terms <= set(row.terms) and row.seq >> 12 >= min(hits) >> 12 for row in rows
                    )
                    assert rows_of(explained(session, sql, params), tables) <= held + each, filters


@pytest.mark.parametrize("team", ["t19", "t7"])
def test_by_name_nobody_walks_through_other_teams(
    seeded: Store, rows: list[Any], team: str
) -> None:
    """Names begin with the team: who sees a team or two finds them at once, wherever they lie."""
    actor = Actor(uuid4(), "chance", frozenset(Grant(Role.ENGINEER, one) for one in (team, "t11")))
    for who, teams, wanted in (
        (actor, {team, "t11"}, searches.parse(searches.Filters(sort="name"))),
        (actor, {team}, searches.parse(searches.Filters(sort="name", team=team))),
        (SYSTEM, {team}, searches.parse(searches.Filters(sort="name", team=team))),
    ):
        page = queries.search(
            seeded, who, wanted, SearchPageRequest(reach=Reach(walk=51, sortable=1, later=1))
        )
        mine = sorted_as([row for row in rows if row.team in teams], "name")
        assert [one.ref for one in page.items] == [row.ref for row in mine[:50]]
        assert page.next is not None


@pytest.mark.parametrize("filters", FILTERS, ids=str)
def test_no_search_reads_a_table_whole(seeded: Store, filters: dict[str, Any]) -> None:
    """Each step is explained as it would run among a hundred thousand: by an index, or along one
    from its end.
    """
    with seeded.read(SYSTEM) as session:
        session.execute(text("select set_config('enable_seqscan', 'off', true)"))
        wanted = queries._resolved(session, searches.parse(searches.Filters(**filters)), REACH)
        for source in ("walk", "eras") if wanted.ids is None else ("ids",):
            sql, params = steps.statement(SYSTEM, wanted, steps.Step(source, None, 5000, 51, 51))
            plan = "\n".join(row[0] for row in session.execute(text(f"explain {sql}"), params))
            assert "Seq Scan" not in plan, f"{source}\n{plan}"
    asked: list[str] = []
    note = lambda *said: asked.append(said[2])  # noqa: E731 - one expression, said where it is used
    event.listen(seeded.engine, "before_cursor_execute", note)
    queries.search(seeded, SYSTEM, searches.parse(searches.Filters(**filters)), facets=True)
    event.remove(seeded.engine, "before_cursor_execute", note)
    assert len(asked) <= 11


@pytest.mark.parametrize(
    "reach", [REACH, Reach(walk=1, sortable=1, later=1, eras=1)], ids=["usual", "short"]
)
def test_what_is_added_meanwhile_shifts_no_page(
    fresh_store: Store, blobs: Blobs, reach: Reach
) -> None:
    world = a_world(fresh_store, blobs, "own")
    train(world)
    for sort in ("created", "name"):
        wanted = searches.parse(searches.Filters(sort=sort, kind="adapter"))
        before = [
            one.ref for one in queries.search(fresh_store, world.engineer.actor, wanted).items
        ]
        assert len(before) > 1
        page = queries.search(
            fresh_store, world.engineer.actor, wanted, SearchPageRequest(limit=1, reach=reach)
        )
        found = list(page.items)
        train(world, seed=len(sort))
        while page.next is not None:
            request = SearchPageRequest(page.next, 1, reach)
            page = queries.search(fresh_store, world.engineer.actor, wanted, request)
            found += page.items
        assert [one.ref for one in found if one.ref in before] == before
        assert len({one.ref for one in found}) == len(found)


def test_bytes_held_by_too_many_are_said_so(seeded: Store) -> None:
    page = queries.search(seeded, SYSTEM, searches.parse(searches.Filters(digest="000000")))
    with seeded.read(SYSTEM) as session:
        [digest, ref] = session.execute(
            text(
                "select f.blob_id, n.ref from version_file f join node n on n.id = f.version_id "
                "limit 1"
            )
        ).one()
    assert [
        one.ref
        for one in queries.search(
            seeded, SYSTEM, searches.parse(searches.Filters(digest=digest))
        ).items
    ] == [ref]
    with pytest.raises(Invalid, match="have a digest"):
        queries.search(
            seeded,
            SYSTEM,
            searches.parse(searches.Filters(digest=digest)),
            SearchPageRequest(reach=Reach(digest_matches=0)),
        )
    assert len(page.items) < 20
