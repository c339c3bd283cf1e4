"""Drafts: what lacks required facts waits without a number, gains what it lacked, and is born into
lineage only then.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text

from registry.artifacts.weights.tensors import File
from registry.blobs.store import Blobs
from registry.commands import recalls, training_runs, versions
from registry.db.store import Store
from registry.db.training_runs import by_id
from registry.errors import Invalid, NotFound, Refused
from registry.queries import folds, search
from registry.queries import versions as asked
from registry.rules import searches
from registry.rules.actors import SYSTEM
from tests.build import (
    ADAPTER_META,
    DATA_META,
    RECIPE,
    World,
    a_base,
    a_dataset,
    a_person,
    a_world,
    adapter_files,
    put,
    register,
    register_rows,
)

WHOLE = {**ADAPTER_META, "domain": "legal"}


@pytest.fixture
def world(store: Store, blobs: Blobs, team: str) -> World:
    return a_world(store, blobs, team)


def add(
    world: World,
    files: Sequence[File],
    meta: dict[str, Any],
    base: str | None = None,
    name: str = "draft",
) -> Any:
    draft = versions.Draft("adapter", f"{world.team}/{name}", list(files), meta, base)
    return register(world.store, world.blobs, world.engineer.actor, draft)


def parents(world: World, ref: str) -> list[tuple[str, str, str]]:
    """(relation, parent's reference, grade) of everything a version stands on."""
    with world.store.read(SYSTEM) as session:
        found = session.execute(
            text(
                "select e.relation, p.ref, e.grade from lineage_edge e join node c on c.id = "
                "e.child_id join node p "
                "on p.id = e.parent_id where c.ref = :ref order by e.relation, p.ref"
            ),
            {"ref": ref},
        )
        return [(row.relation, row.ref, row.grade) for row in found]


def test_a_draft_names_all_it_lacks(world: World) -> None:
    added = add(world, adapter_files(world.blobs), {})
    assert (added.status, added.ref.startswith(f"{world.team}/draft@draft-")) == ("draft", True)
    assert {one.field for one in added.findings} >= {"base", "domain", "purpose"}
    assert asked.version(world.store, world.engineer.actor, added.ref).number is None
    with pytest.raises(NotFound):
        asked.version(world.store, world.engineer.actor, f"{world.team}/draft@v1")


def test_the_same_base_given_twice_is_one_parent(world: World) -> None:
    files = adapter_files(world.blobs)
    first = add(world, files, {}, world.base.ref)
    second = add(world, files, {"domain": "legal"}, world.base.ref)
    third = add(world, files, WHOLE, world.base.ref)
    assert (first.status, second.status, third.status) == ("draft", "draft", "registered")
    assert first.ref == second.ref
    assert third.ref == f"{world.team}/draft@v1"
    assert parents(world, third.ref) == [("adapts", world.base.ref, "verified")]
    assert add(world, files, WHOLE, world.base.ref).status == "found"


def test_a_draft_older_than_its_parents_is_registered(world: World) -> None:
    """The adapter came first; base and data set were registered only when it asked for them."""
    files = adapter_files(world.blobs)
    add(world, files, {})
    base = a_base(world.store, world.blobs, world.engineer, world.team, "late", seed=5)
    data = a_dataset(world.store, world.blobs, world.data_owner, world.team, "late-rows")
    added = add(world, files, {**WHOLE, "datasets": [data.ref]}, base.ref)
    assert added.status == "registered"
    assert parents(world, added.ref) == [
        ("adapts", base.ref, "verified"),
        ("tuned_on", f"dataset:{data.ref}", "claimed"),
    ]


def test_data_claimed_later_counts(world: World) -> None:
    """Its owner may then not vote, and the gate looks for contamination in it."""
    files = adapter_files(world.blobs)
    add(world, files, {}, world.base.ref)
    added = add(world, files, {**WHOLE, "datasets": [world.dataset.ref]}, world.base.ref)
    assert ("tuned_on", f"dataset:{world.dataset.ref}", "claimed") in parents(world, added.ref)


def test_a_draft_falls_with_its_base(world: World) -> None:
    files = adapter_files(world.blobs)
    drafted = add(world, files, {}, world.base.ref)
    recalled = recalls.recall(
        world.store, world.engineer.actor, world.base.ref, "the licence was withdrawn"
    )
    assert drafted.ref in recalled.recalled
    with pytest.raises(Refused) as refusal:
        add(world, files, WHOLE, world.base.ref)
    assert refusal.value.kind == "unfit-base"


def test_nothing_is_registered_on_unfit_parents(world: World) -> None:
    late = a_base(world.store, world.blobs, world.engineer, world.team, "late", seed=5)
    gone = a_dataset(
        world.store,
        world.blobs,
        world.data_owner,
        world.team,
        "gone",
        b'{"prompt": "a", "completion": "b"}\n',
    )
    recalls.recall(world.store, world.engineer.actor, gone.ref, "consent withdrawn")
    files = adapter_files(world.blobs)
    with pytest.raises(Refused) as refusal:
        add(world, files, {**WHOLE, "datasets": [gone.ref]}, late.ref)
    assert refusal.value.kind == "unfit-parent"
    lacking = put(world.blobs, "rows.jsonl", b'{"prompt": "c", "completion": "d"}\n')
    drafted = register_rows(
        world.store,
        world.blobs,
        world.data_owner.actor,
        f"{world.team}/lacking",
        lacking.sha256,
        lacking.size,
        {},
    )
    assert drafted.status == "draft"
    with pytest.raises(Refused) as refusal:
        add(world, files, {**WHOLE, "datasets": [drafted.ref]}, late.ref)
    assert refusal.value.kind == "unfit-parent"
    complete = register_rows(
        world.store,
        world.blobs,
        world.data_owner.actor,
        f"{world.team}/lacking",
        lacking.sha256,
        lacking.size,
        DATA_META,
    )
    assert complete.status == "registered"
    assert add(world, files, {**WHOLE, "datasets": [complete.ref]}, late.ref).status == "registered"


def test_an_adapter_is_no_base(world: World) -> None:
    adapter = add(world, adapter_files(world.blobs), WHOLE, world.base.ref)
    with pytest.raises(Refused) as refusal:
        add(world, adapter_files(world.blobs, 9), WHOLE, adapter.ref, "on-top")
    assert refusal.value.kind == "unfit-base"


def test_a_refusal_before_the_transaction_is_recorded_too(world: World) -> None:
    adapter = add(world, adapter_files(world.blobs), WHOLE, world.base.ref)
    with pytest.raises(Refused):
        add(world, adapter_files(world.blobs, 9), WHOLE, adapter.ref, "on-top")
    with world.store.read(SYSTEM) as session:
        newest = session.execute(
            text(
                "select outcome, subject from event where team = :team order by place desc limit 1"
            ),
            {"team": world.team},
        ).one()
    assert tuple(newest) == ("refused", f"{world.team}/on-top")


def test_another_teams_draft_stays_unseen(world: World) -> None:
    drafted = add(world, adapter_files(world.blobs), {}, world.base.ref)
    stranger = a_person(world.store, "engineer", team="elsewhere")
    with pytest.raises(NotFound):
        asked.version(world.store, stranger.actor, drafted.ref)


def test_no_line_is_made_that_would_stand_before_a_version_of_another(world: World) -> None:
    with pytest.raises(Invalid, match="one version of another"):
        add(world, adapter_files(world.blobs), WHOLE, world.base.ref, name="draft.v1")


def test_a_line_s_domain_is_said_once(world: World) -> None:
    """In the metadata or beside it: its line is found by it, and the versions after need not say
    it.
    """
    base, silent = (
        world.base.ref,
        {key: value for key, value in ADAPTER_META.items() if key != "domain"},
    )
    first = add(world, adapter_files(world.blobs, 1), {**silent, "domain": "claims"}, base, "once")
    assert first.status == "registered"
    (line,) = [
        one
        for one in asked.lines(world.store, world.engineer.actor, asked.LineFilter(q="once")).items
        if one.team == world.team
    ]
    assert line.domain == "claims"
    assert add(world, adapter_files(world.blobs, 2), silent, base, "once").status == "registered"
    assert (
        asked.version(world.store, world.engineer.actor, f"{world.team}/once@v2").meta["domain"]
        == "claims"
    )


def domain_of(world: World, name: str = "draft") -> str | None:
    with world.store.read(SYSTEM) as session:
        found: str | None = session.execute(
            text("select domain from line where team = :team and name = :name"),
            {"team": world.team, "name": name},
        ).scalar_one()
        return found


def in_domain(world: World, domain: str, **asked: Any) -> list[str]:
    page = search.search(
        world.store,
        world.engineer.actor,
        searches.parse(searches.Filters(domain=domain, team=world.team, **asked)),
    )
    return [one.ref for one in page.items]


def test_a_line_that_began_without_a_domain_gets_it_once(world: World) -> None:
    files = adapter_files(world.blobs)
    draft = add(world, files, ADAPTER_META, world.base.ref)
    assert (draft.status, domain_of(world)) == ("draft", None)
    other = add(
        world, adapter_files(world.blobs, 9), {**ADAPTER_META, "domain": "  "}, world.base.ref
    )
    assert (other.status, domain_of(world)) == ("draft", None)
    done = add(world, files, {**ADAPTER_META, "domain": " legal "}, world.base.ref)
    assert (done.status, domain_of(world)) == ("registered", "legal")
    # Every version of the line is found by it now, and the draft beside it needs it no more.
    assert sorted(in_domain(world, "legal")) == sorted([done.ref, other.ref])
    late = add(world, adapter_files(world.blobs, 9), ADAPTER_META, world.base.ref)
    assert late.status == "registered"
    # Said once: what comes later with another changes nothing of the line.
    add(world, adapter_files(world.blobs, 10), {**ADAPTER_META, "domain": "retail"}, world.base.ref)
    assert domain_of(world) == "legal"
    with world.store.read(SYSTEM) as session:
        assert folds.rebuild(session).problems == []


def test_training_asks_for_the_domain_a_line_lacks(world: World) -> None:
    add(world, adapter_files(world.blobs), ADAPTER_META, world.base.ref)
    request = training_runs.TrainingRequest(
        f"{world.team}/draft", world.base.ref, world.dataset.ref, RECIPE, None, ADAPTER_META
    )
    engineer = world.engineer.actor
    with pytest.raises(Invalid) as told:
        training_runs.queue(world.store, world.blobs, engineer, request)
    assert (told.value.kind, domain_of(world)) == ("domain-missing", None)
    run = training_runs.queue(world.store, world.blobs, engineer, replace(request, domain="legal"))
    assert domain_of(world) == "legal"
    with world.store.read(SYSTEM) as session:
        assert by_id(session, run).meta["domain"] == "legal"
    training_runs.queue(world.store, world.blobs, engineer, request)


def test_two_who_say_different_domains_at_once_agree_on_the_first(world: World) -> None:
    files = [adapter_files(world.blobs, seed) for seed in (1, 2)]
    add(world, adapter_files(world.blobs), ADAPTER_META, world.base.ref)
    with ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(add, world, bundle, {**ADAPTER_META, "domain": domain}, world.base.ref)
            for bundle, domain in zip(files, ("legal", "retail"), strict=True)
        ]
        assert [job.result().status for job in jobs] == ["registered", "registered"]
    settled = domain_of(world)
    assert settled in ("legal", "retail")
    with world.store.read(SYSTEM) as session:
        assert folds.rebuild(session).problems == []
