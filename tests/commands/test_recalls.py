"""Recalls: what falls, where its channels go, what becomes of approvals, and what a reference means
when it is for good.
"""

from __future__ import annotations

import pytest
from sqlalchemy import text

from registry.blobs.store import Blobs
from registry.commands import policies, recalls, rollouts
from registry.db.store import Store
from registry.errors import Invalid, NotFound, Refused
from registry.queries import rollouts as asked
from registry.queries import versions as seen
from registry.rules.actors import SYSTEM
from tests.build import (
    World,
    a_base,
    a_dataset,
    a_person,
    a_world,
    approved,
    evaluate,
    submit,
    train,
    vote,
)


@pytest.fixture
def world(store: Store, blobs: Blobs, team: str) -> World:
    return a_world(store, blobs, team)


def reviews(world: World, ref: str) -> list[str]:
    with world.store.read(SYSTEM) as session:
        statement = text(
            "select r.state from review r join node n on n.id = r.version_id where n.ref = :ref "
            "order by r.number"
        )
        return list(session.scalars(statement, {"ref": ref}))


def test_approvals_of_what_fell_are_void(world: World) -> None:
    ref = approved(world)
    recalls.recall(world.store, world.engineer.actor, world.base.ref, "the licence was withdrawn")
    assert reviews(world, ref) == ["voided"]
    assert seen.version(world.store, world.engineer.actor, ref).state == "recalled"


def test_an_open_review_of_what_fell_takes_no_vote(world: World) -> None:
    train(world)
    ref = world.versions[-1]
    evaluate(world, world.base.ref, 5)
    evaluate(world, ref, 50)
    submit(world, ref)
    recalls.recall(world.store, world.engineer.actor, ref, "unfit for use")
    for verdict in ("approve", "reject"):
        with pytest.raises(Refused) as refusal:
            vote(world, world.compliance, verdict)
        assert refusal.value.kind == "recalled"
    assert reviews(world, ref) == ["voided"]


def test_postgresql_refuses_a_recall_without_a_reason_and_one_that_leaves_a_review_open(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(world)
    ref = world.versions[-1]
    submit(world, ref)
    monkeypatch.setattr(recalls, "check_reason", lambda reason, act: reason)
    with pytest.raises(Invalid) as short:
        recalls.recall(world.store, world.engineer.actor, ref, "bad")
    assert short.value.kind == "reason-missing"
    monkeypatch.setattr(recalls.reviews, "void", lambda *_: None)
    with pytest.raises(Refused) as standing:
        recalls.recall(world.store, world.engineer.actor, ref, "unfit for use")
    assert standing.value.kind == "not-servable"
    assert reviews(world, ref) == ["open"]


def test_a_channel_goes_to_the_version_before(world: World) -> None:
    engineer, name = world.engineer.actor, f"{world.team}/adapter"
    first, second = approved(world), approved(world, seed=50)
    for ref in (first, second):
        rollouts.start(world.store, engineer, rollouts.Canary(ref, "production", None, 500, ""))
        rollouts.promote(world.store, engineer, rollouts.Place(name, "production", None), "")
    [moved] = recalls.recall(world.store, engineer, second, "unfit for use").channels
    assert (moved.stable, moved.candidate) == (first, None)
    [moved] = recalls.recall(world.store, engineer, first, "unfit as well").channels
    assert moved.stable == world.base.ref
    [moved] = recalls.recall(
        world.store, engineer, world.base.ref, "the licence was withdrawn"
    ).channels
    assert moved.stable is None
    with pytest.raises(Refused) as refusal:
        rollouts.roll_back(
            world.store, engineer, rollouts.Place(name, "production", None), "is there nothing?"
        )
    assert refusal.value.kind in ("no-rollback-target", "nothing-to-roll-back")


def test_a_running_canary_ends_and_its_stable_stays(world: World) -> None:
    engineer, name = world.engineer.actor, f"{world.team}/adapter"
    ref = approved(world)
    rollouts.start(world.store, engineer, rollouts.Canary(ref, "production", None, 500, ""))
    [moved] = recalls.recall(world.store, engineer, ref, "unfit for use").channels
    assert (moved.stable, moved.candidate, moved.weight_bp) == (world.base.ref, None, 0)
    with pytest.raises(Refused):
        rollouts.promote(world.store, engineer, rollouts.Place(name, "production", None), "")
    assert asked.history(world.store, engineer, name, "production", None)[-1].kind == "recall"


def test_where_the_base_may_not_serve_the_channel_answers_nothing(
    fresh_store: Store, blobs: Blobs
) -> None:
    world = a_world(fresh_store, blobs, "strict")
    engineer = world.engineer.actor
    ref = approved(world)
    rollouts.start(fresh_store, engineer, rollouts.Canary(ref, "production", None, 500, ""))
    rollouts.promote(
        fresh_store, engineer, rollouts.Place("strict/adapter", "production", None), ""
    )
    with fresh_store.read(SYSTEM) as session:
        words = session.execute(
            text("select text from policy_version where environment = 'production'")
        ).scalar_one()
    policies.publish(
        fresh_store, SYSTEM, words.replace("fallback_to_base: true", "fallback_to_base: false")
    )
    with pytest.raises(Refused) as refusal:
        rollouts.roll_back(
            fresh_store,
            engineer,
            rollouts.Place("strict/adapter", "production", None),
            "a complaint",
        )
    assert refusal.value.kind == "no-rollback-target"
    [moved] = recalls.recall(fresh_store, engineer, ref, "unfit for use").channels
    assert moved.stable is None
    [entry] = asked.routing(fresh_store, engineer, "production").entries
    assert (entry.killed, entry.stable, entry.fallback_to_base) == (True, None, False)


def test_a_recall_names_one_thing(world: World, blobs: Blobs) -> None:
    """A data set and an adapter may bear one name; a recall is for good, so it asks again."""
    train(world, "shared")
    a_dataset(
        world.store,
        blobs,
        world.data_owner,
        world.team,
        "shared",
        b'{"prompt": "a", "completion": "b"}\n',
    )
    name = f"{world.team}/shared@v1"
    with pytest.raises(Invalid) as refusal:
        recalls.recall(world.store, world.engineer.actor, name, "unfit for use")
    assert refusal.value.kind == "ambiguous-reference"
    assert recalls.recall(
        world.store, world.engineer.actor, f"dataset:{name}", "consent withdrawn"
    ).recalled == [f"dataset:{name}"]
    adapter = seen.version(world.store, world.engineer.actor, name)
    assert adapter.state == "registered"
    recalled = recalls.recall(
        world.store, world.engineer.actor, adapter.manifest_digest, "unfit for use"
    )
    assert recalled.recalled == [name]


def test_what_one_may_not_see_is_not_there(world: World) -> None:
    train(world)
    stranger = a_person(world.store, "engineer", team="elsewhere")
    for ref in (world.versions[0], world.dataset.ref):
        with pytest.raises(NotFound):
            recalls.recall(world.store, stranger.actor, ref, "unfit for use")


def test_twice_is_refused_and_a_reason_is_asked_for(world: World) -> None:
    with pytest.raises(Invalid):
        recalls.recall(world.store, world.engineer.actor, world.base.ref, "  ")
    with pytest.raises(Invalid, match="10 to 4000 characters"):
        recalls.recall(world.store, world.engineer.actor, world.base.ref, "  bad  ")
    recalls.recall(world.store, world.engineer.actor, world.base.ref, "unfit for use")
    with pytest.raises(Refused) as refusal:
        recalls.recall(world.store, world.engineer.actor, world.base.ref, "unfit for use")
    assert refusal.value.kind == "already-recalled"


def test_recalled_bytes_are_not_found_again_as_if_nothing_were(
    store: Store, blobs: Blobs, team: str
) -> None:
    world = a_world(store, blobs, team)
    recalls.recall(store, world.engineer.actor, world.base.ref, "wrong licence")
    with pytest.raises(Refused) as refusal:
        a_base(store, blobs, world.engineer, team)
    assert (refusal.value.kind, refusal.value.facts["subject"]) == ("recalled", world.base.ref)
