"""Search: every filter finds what it should and nothing else, pages are stable, other teams stay unseen, no table is read whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import event, text

from registry.blobs import Blobs
from registry.commands import tags
from registry.db.store import Store
from registry.errors import Forbidden, Invalid, NotFound, RegistryError
from registry.queries import search as queries
from registry.queries.folds import rebuild
from registry.rules import searches
from registry.rules.actors import SYSTEM, Actor
from tests.benches.search import seed
from tests.build import World, a_person, a_world, evaluate, train
from tests.db.around import as_app, cause


@pytest.fixture(scope="module")
def world(store: Store, blobs: Blobs) -> World:
    made = a_world(store, blobs, f"t{uuid4().hex[:8]}")
    train(made)
    evaluate(made, made.versions[0], 50)
    tags.put(store, made.engineer.actor, made.versions[0], "topic", "Claims 100%")
    return made


def refs(store: Store, actor: Actor, **filters: Any) -> set[str]:
    return {one.ref for one in queries.search(store, actor, searches.parse(**filters)).items}


def test_every_filter_finds_what_it_should(store: Store, world: World) -> None:
    actor, (first, second) = world.engineer.actor, world.versions
    digest = queries.search(store, actor, searches.parse(q="adapter")).items[0].digest
    both = {first, second}
    for filters, wanted in (
        ({}, {*both, world.base.ref}), ({"q": "adap"}, both), ({"q": "dapter"}, set()), ({"name": "adapter"}, both),
        ({"name": f"{world.team}/tiny"}, {world.base.ref}), ({"kind": "base"}, {world.base.ref}),
        ({"tag": ["topic"]}, {first}), ({"tag": ["topic:Claims 100%"]}, {first}), ({"tag": ["topic:Claims %"]}, set()),
        ({"base": f"{world.team}/tiny"}, both), ({"base": world.base.ref}, both), ({"dataset": world.dataset.ref}, both),
        ({"dataset": f"{world.team}/rows"}, both), ({"licence": "Apache-2.0"}, {world.base.ref}),
        ({"metric": ["exact_match>=0.5"]}, {first}), ({"metric": ["exact_match>0.99"]}, set()),
        ({"state": "registered"}, {*both, world.base.ref}), ({"state": "recalled"}, set()),
        ({"digest": digest[7:15]}, {second}), ({"q": "adapter", "tag": ["topic"], "kind": "adapter"}, {first}),
        ({"sort": "name", "domain": "legal"}, both),
    ):  # fmt: skip
        assert refs(store, actor, **filters) == wanted, filters


def test_other_teams_are_neither_shown_nor_counted(store: Store, world: World) -> None:
    stranger = a_person(store, "engineer", team=f"x{uuid4().hex[:8]}").actor
    page = queries.search(store, stranger, searches.parse(), facets=True)
    assert page.items == []
    assert page.facets is not None
    assert page.facets.total == 0
    with pytest.raises(NotFound):
        queries.search(store, stranger, searches.parse(base=world.base.ref))
    with pytest.raises(NotFound):
        queries.search(store, stranger, searches.parse(dataset=world.dataset.ref))


@pytest.mark.parametrize("sort", ["created", "name"])
def test_pages_follow_each_other_and_a_cursor_is_bound_to_its_search(store: Store, world: World, sort: str) -> None:
    actor, wanted = world.engineer.actor, searches.parse(sort=sort)
    walked, cursor = [], None
    while True:
        page = queries.search(store, actor, wanted, cursor, limit=1)
        walked += [one.ref for one in page.items]
        cursor = page.next
        if cursor is None:
            break
        with pytest.raises(Invalid) as refusal:
            queries.search(store, actor, replace(wanted, deleted=True), cursor)
        assert refusal.value.kind == "bad-cursor"
    assert walked == [one.ref for one in queries.search(store, actor, wanted).items]
    assert len(walked) == 3


@pytest.mark.parametrize("filters", [
    {"kind": "x"}, {"state": "live"}, {"sort": "x"}, {"q": "%%"}, {"q": "a\0"}, {"tag": ["A"]}, {"tag": ["a:"]},
    {"metric": ["x"]}, {"metric": ["x>=1e999"]}, {"digest": "abc"}, {"digest": "%%%%%%"}, {"base": "x"}, {"dataset": "%"},
    {"team": "%"}, {"tag": ["a"] * 21},
])  # fmt: skip
def test_a_wrong_filter_is_named(filters: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as refusal:
        searches.parse(**filters)
    assert refusal.value.mend


def test_a_tag_changes_goes_and_is_the_log_s_to_tell(fresh_store: Store, blobs: Blobs) -> None:
    world = a_world(fresh_store, blobs, "own")
    actor, ref = world.engineer.actor, world.base.ref
    assert tags.put(fresh_store, actor, ref, "topic", "a").tags == {"topic": "a"}
    assert tags.put(fresh_store, actor, ref, "topic", "b").tags == {"topic": "b"}
    assert refs(fresh_store, actor, tag=["topic:a"]) == set()
    assert tags.put(fresh_store, actor, ref, "topic", None).tags == {}
    assert refs(fresh_store, actor, tag=["topic"]) == set()
    for wrong, kind in ((("topic", None), "tag-unknown"), (("approved", "yes"), "reserved-tag"), (("UP", "x"), "bad-tag"),
                        (("a", ""), "bad-tag"), (("a", "x" * 257), "bad-tag"), (("a", "x\n"), "bad-tag")):  # fmt: skip
        with pytest.raises(RegistryError) as refusal:
            tags.put(fresh_store, actor, ref, *wrong)
        assert refusal.value.kind == kind
    with pytest.raises(Forbidden):
        tags.put(fresh_store, world.trainer.actor, ref, "topic", "c")
    with fresh_store.read(SYSTEM) as session:
        assert rebuild(session).problems == []


@pytest.mark.parametrize(("key", "value", "why"), [("approved", "x", "ck_version_tag_reserved"),
                                                   ("UP", "x", "ck_version_tag_key"), ("a", "", "ck_version_tag_value")])  # fmt: skip
def test_postgresql_refuses_what_the_rule_refuses(store: Store, world: World, key: str, value: str, why: str) -> None:
    with as_app(store) as connection, pytest.raises(psycopg.Error) as refusal:
        connection.execute("insert into version_tag select gen_random_uuid(), id, %s, %s, null, now() from node "
                           "where ref = %s", (key, value, world.base.ref))  # fmt: skip
    assert cause(refusal.value) == why


def test_no_search_row_is_written_by_hand(store: Store, world: World) -> None:
    for statement in ("update version_search set team = 'x'", "delete from version_metric"):
        with as_app(store) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def seeded(databases: Any) -> Iterator[Store]:
    from registry.db import migrate
    from registry.db.store import open_engine

    url = databases.create("searched")
    migrate.upgrade(url)
    seed(url, 20_000)
    opened = Store(open_engine(url, "countersign_app"))
    yield opened
    opened.engine.dispose()
    databases.drop("searched")


FILTERS: list[dict[str, Any]] = [
    {}, {"q": "line"}, {"q": "line 7"}, {"name": "line-7"}, {"kind": "adapter"}, {"kind": "base"}, {"team": "t1"},
    {"tag": ["topic:5"]}, {"tag": ["none"]}, {"licence": "mit"}, {"metric": ["accuracy>=0"]}, {"metric": ["accuracy>=0.999"]},
    {"metric": ["accuracy>2"]}, {"state": "recalled"}, {"state": "registered"}, {"digest": "00000a"},
    {"tag": ["topic:5"], "state": "recalled"}, {"sort": "name"}, {"base": "t0/base"},
]  # fmt: skip


@pytest.mark.parametrize("filters", FILTERS, ids=str)
def test_no_search_reads_the_table_of_versions_whole(seeded: Store, filters: dict[str, Any]) -> None:
    wanted = searches.parse(**filters)
    with seeded.read(SYSTEM) as session:
        session.execute(text("select set_config('enable_seqscan', 'off', true)"))
        wanted = queries._resolved(session, SYSTEM, wanted)
        for walk in (True, False):
            sql, params = queries.statement(SYSTEM, wanted, None, 51, walk=walk)
            if not walk and sql.count("version_search s where not s.deleted)"):
                continue
            plan = "\n".join(row[0] for row in session.execute(text(f"explain {sql}"), params))
            if walk or wanted.terms or wanted.metrics or wanted.digest:
                assert "Seq Scan" not in plan, plan
    asked: list[str] = []
    event.listen(seeded.engine, "before_cursor_execute", lambda *said: asked.append(said[2]))
    queries.search(seeded, SYSTEM, searches.parse(**filters), limit=50)
    assert len(asked) <= 8
