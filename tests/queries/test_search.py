"""Search: every filter finds what it should and nothing else, pages are stable, other teams stay
unseen, no table is read whole.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import text

from registry.blobs.store import Blobs
from registry.commands import tags
from registry.db.store import Store
from registry.errors import Forbidden, Invalid, NotFound, RegistryError
from registry.queries import search as queries
from registry.queries import search_steps as steps
from registry.queries.folds import rebuild
from registry.queries.search import SearchPageRequest
from registry.rules import searches
from registry.rules.actors import SYSTEM, Actor
from tests.build import World, a_base, a_person, a_world, evaluate, train
from tests.db.around import as_app, as_owner, cause, plain_url


@pytest.fixture(scope="module")
def world(store: Store, blobs: Blobs) -> World:
    made = a_world(store, blobs, f"t{uuid4().hex[:8]}")
    train(made)
    evaluate(made, made.versions[0], 50)
    tags.put(store, made.engineer.actor, made.versions[0], "topic", "Claims 100%")
    return made


def refs(store: Store, actor: Actor, **filters: Any) -> set[str]:
    return {
        one.ref
        for one in queries.search(store, actor, searches.parse(searches.Filters(**filters))).items
    }


def test_every_filter_finds_what_it_should(store: Store, world: World) -> None:
    actor, (first, second) = world.engineer.actor, world.versions
    digest = (
        queries.search(store, actor, searches.parse(searches.Filters(q="adapter"))).items[0].digest
    )
    both = {first, second}
    for filters, wanted in (
        ({}, {*both, world.base.ref}),
        ({"q": "adap"}, both),
        ({"q": "dapter"}, both),
        ({"q": "da"}, set()),
        ({"q": "ad"}, both),
        ({"name": "adapter"}, both),
        ({"name": f"{world.team}/tiny"}, {world.base.ref}),
        ({"kind": "base"}, {world.base.ref}),
        ({"tag": ["topic"]}, {first}),
        ({"tag": ["topic:Claims 100%"]}, {first}),
        ({"tag": ["topic:Claims %"]}, set()),
        ({"base": f"{world.team}/tiny"}, both),
        ({"base": world.base.ref}, both),
        ({"dataset": world.dataset.ref}, both),
        ({"dataset": f"{world.team}/rows"}, both),
        ({"licence": "Apache-2.0"}, {world.base.ref}),
        ({"metric": ["exact_match>=0.5"]}, {first}),
        ({"metric": ["exact_match>0.99"]}, set()),
        ({"state": "registered"}, {*both, world.base.ref}),
        ({"state": "recalled"}, set()),
        ({"digest": digest[7:15]}, {second}),
        ({"q": "adapter", "tag": ["topic"], "kind": "adapter"}, {first}),
        ({"sort": "name", "domain": "legal"}, both),
    ):
        assert refs(store, actor, **filters) == wanted, filters


def test_other_teams_are_neither_shown_nor_counted(store: Store, world: World) -> None:
    stranger = a_person(store, "engineer", team=f"x{uuid4().hex[:8]}").actor
    page = queries.search(store, stranger, searches.parse(searches.Filters()), facets=True)
    assert page.items == []
    assert page.facets is not None
    assert page.facets.total == 0
    with pytest.raises(NotFound):
        queries.search(store, stranger, searches.parse(searches.Filters(base=world.base.ref)))
    with pytest.raises(NotFound):
        queries.search(store, stranger, searches.parse(searches.Filters(dataset=world.dataset.ref)))


@pytest.mark.parametrize("sort", ["created", "name"])
def test_pages_follow_each_other_and_a_cursor_is_bound_to_its_search(
    store: Store, world: World, sort: str
) -> None:
    actor, wanted = world.engineer.actor, searches.parse(searches.Filters(sort=sort))
    walked, cursor = [], None
    while True:
        page = queries.search(store, actor, wanted, SearchPageRequest(cursor, 1))
        walked += [one.ref for one in page.items]
        cursor = page.next
        if cursor is None:
            break
        with pytest.raises(Invalid) as refusal:
            queries.search(store, actor, replace(wanted, deleted=True), SearchPageRequest(cursor))
        assert refusal.value.kind == "bad-cursor"
    assert walked == [one.ref for one in queries.search(store, actor, wanted).items]
    assert len(walked) == 3


@pytest.mark.parametrize(
    "filters",
    [
        {"kind": "x"},
        {"state": "live"},
        {"sort": "x"},
        {"q": "%%"},
        {"q": "a\0"},
        {"tag": ["A"]},
        {"tag": ["a:"]},
        {"metric": ["x"]},
        {"metric": ["x>=1e999"]},
        {"digest": "abc"},
        {"digest": "%%%%%%"},
        {"base": "x"},
        {"dataset": "%"},
        {"team": "%"},
        {"tag": ["a"] * 21},
        {"sort": "metric:"},
        {"sort": "metric:a b"},
        {"since": "yesterday"},
        {"until": "2026-13-01"},
        {"method": "x" * 401},
        {"by": "a\0"},
        {"metric": ["a>=1\0"]},
        {"tag": [":v"]},
    ],
)
def test_a_wrong_filter_is_named(filters: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as refusal:
        searches.parse(searches.Filters(**filters))
    assert refusal.value.fix


def test_a_tag_changes_goes_and_is_the_log_s_to_tell(fresh_store: Store, blobs: Blobs) -> None:
    world = a_world(fresh_store, blobs, "own")
    actor, ref = world.engineer.actor, world.base.ref
    assert tags.put(fresh_store, actor, ref, "topic", "a").tags == {"topic": "a"}
    assert tags.put(fresh_store, actor, ref, "topic", "b").tags == {"topic": "b"}
    assert refs(fresh_store, actor, tag=["topic:a"]) == set()
    assert tags.put(fresh_store, actor, ref, "topic", None).tags == {}
    assert refs(fresh_store, actor, tag=["topic"]) == set()
    for wrong, kind in (
        (("topic", None), "tag-unknown"),
        (("approved", "yes"), "reserved-tag"),
        (("UP", "x"), "bad-tag"),
        (("a", ""), "bad-tag"),
        (("a", "x" * 257), "bad-tag"),
        (("a", "x\n"), "bad-tag"),
    ):
        with pytest.raises(RegistryError) as refusal:
            tags.put(fresh_store, actor, ref, *wrong)
        assert refusal.value.kind == kind
    with pytest.raises(Forbidden):
        tags.put(fresh_store, world.trainer.actor, ref, "topic", "c")
    with fresh_store.read(SYSTEM) as session:
        assert rebuild(session).problems == []


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("approved", "x", "ck_version_tag_reserved"),
        ("UP", "x", "ck_version_tag_key"),
        ("a", "", "ck_version_tag_value"),
    ],
)
def test_postgresql_refuses_what_the_rule_refuses(
    store: Store, world: World, key: str, value: str, why: str
) -> None:
    with as_app(store) as connection, pytest.raises(psycopg.Error) as refusal:
        connection.execute(
            "insert into version_tag select gen_random_uuid(), id, %s, %s, null, now() from node "
            "where ref = %s",
            (key, value, world.base.ref),
        )
    assert cause(refusal.value) == why


def test_no_search_row_is_written_by_hand(store: Store, world: World) -> None:
    for statement in ("update version_search set team = 'x'", "delete from version_metric"):
        with as_app(store) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement)


def test_the_search_rows_are_the_view_s(store: Store, world: World) -> None:
    """What triggers kept one by one is what a rebuild would make of the governed rows."""
    with as_owner(store) as connection:
        for one, other in (("search_row", "version_search"), ("version_search", "search_row")):
            columns = "id, created_at, team, line, number, seq, deleted, words, facets, terms"
            statement = (
                f"select count(*) from (select {columns} from {one} except select "
                f"{columns} from {other}) d"
            )
            assert connection.execute(statement).fetchone() == (0,)


def test_two_that_write_the_same_terms_at_once_wait_for_nobody(
    fresh_store: Store, blobs: Blobs
) -> None:
    """The first births of an era come in transactions that overlap: each must write its terms, none
    may wait.
    """
    world = a_world(fresh_store, blobs, "own")
    second = a_base(fresh_store, blobs, world.engineer, "own", "second", seed=9).ref
    with (
        psycopg.connect(plain_url(fresh_store)) as one,
        psycopg.connect(plain_url(fresh_store)) as other,
    ):
        one.execute("delete from search_era")
        one.commit()
        for connection, ref in ((one, world.base.ref), (other, second)):
            connection.execute("set local statement_timeout = '5s'")
            connection.execute("select search_refresh(id) from node where ref = %s", [ref])
        other.commit()
        one.commit()
        eras = one.execute("select era from search_era where term = 'kind:base'").fetchall()
    assert len(eras) == 2
    assert len(set(eras)) == 1
    with fresh_store.read(SYSTEM) as session:
        sql, params = steps.statement(
            SYSTEM,
            searches.parse(searches.Filters(kind="base", team="own")),
            steps.Step("eras", None, 5000, 51, 51),
        )
        assert len(session.execute(text(sql), params).all()) == 2
