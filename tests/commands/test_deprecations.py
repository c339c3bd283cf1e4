"""Deprecating a version: nothing new starts with it, what serves stays, and it is for good."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import pytest
from sqlalchemy import text

from registry.blobs.store import Blobs
from registry.commands import deprecations, recalls, rollouts, versions
from registry.commands import training_runs as training
from registry.db.store import Store
from registry.errors import Conflict, Forbidden, Invalid, NotFound, Refused
from registry.queries import search as searching
from registry.queries import versions as seen
from registry.rules import searches
from registry.rules.actors import SYSTEM
from tests.build import (
    ADAPTER_META,
    RECIPE,
    World,
    a_person,
    a_world,
    adapter_files,
    approved,
    register,
    submit,
    train,
)
from tests.commands.test_races import lost, together, won


@pytest.fixture
def world(store: Store, blobs: Blobs, team: str) -> World:
    return a_world(store, blobs, team)


def trained(world: World, seed: int = 0) -> str:
    train(world, seed=seed)
    return world.versions[-1]


def deprecate(world: World, ref: str, reason: str = "Use the next one.") -> str:
    return deprecations.deprecate(world.store, world.engineer.actor, ref, reason).reason


def start(world: World, ref: str, channel: str | None = None) -> None:
    rollouts.start(
        world.store, world.engineer.actor, rollouts.Canary(ref, "production", channel, 500, "")
    )


def promote(world: World, name: str) -> str | None:
    return rollouts.promote(
        world.store, world.engineer.actor, rollouts.Place(name, "production", None), ""
    ).stable


def back(world: World) -> str | None:
    name = f"{world.team}/adapter"
    return rollouts.roll_back(
        world.store, world.engineer.actor, rollouts.Place(name, "production", None), "a complaint"
    ).stable


def kind(call: object, *arguments: object) -> str:
    assert callable(call)
    with pytest.raises((Refused, NotFound, Invalid, Forbidden, Conflict)) as refusal:
        call(*arguments)
    return str(refusal.value.kind)


def test_it_is_said_with_its_reason_and_the_log_keeps_a_commitment(world: World) -> None:
    ref = trained(world)
    view = deprecations.deprecate(world.store, world.engineer.actor, ref, " Use v2: ask Ada. ")
    assert (view.ref, view.by, view.reason) == (ref, world.engineer.actor.name, "Use v2: ask Ada.")
    version = seen.version(world.store, world.compliance.actor, ref)
    assert (version.state, version.deprecation_reason) == ("deprecated", "Use v2: ask Ada.")
    with world.store.read(SYSTEM) as session:
        [entry] = session.scalars(
            text(
                "select entry from event where action = 'version:deprecate' and subject = :ref "
                "and outcome = 'done'"
            ),
            {"ref": ref},
        ).all()
    said = json.loads(entry)
    assert b"Ada" not in entry
    assert {row["table"] for row in said["rows"]} == {"deprecation", "version"}
    assert said["facts"]["reason"].startswith("sha256:")


def test_it_is_found_by_its_state(world: World) -> None:
    ref = trained(world)
    deprecate(world, ref)
    asked = searches.parse(searches.Filters(team=world.team, state="deprecated"))
    found = searching.search(world.store, world.engineer.actor, asked)
    assert [hit.ref for hit in found.items] == [ref]


def test_no_new_canary_starts_and_no_rolled_back_version_comes_back(world: World) -> None:
    name, ref = f"{world.team}/adapter", approved(world)
    start(world, ref)
    promote(world, name)
    back(world)
    deprecate(world, ref)
    assert kind(start, world, ref) == "deprecated"
    assert kind(start, world, ref, "beside") == "deprecated"
    assert kind(promote, world, name) == "deprecated"
    assert kind(promote, world, ref) == "deprecated"


def test_what_serves_stays_is_promoted_and_is_returned_to(world: World) -> None:
    """A canary under way may end either way: it is one decision, taken before."""
    name, first = f"{world.team}/adapter", approved(world)
    start(world, first)
    deprecate(world, first)
    assert promote(world, name) == first
    second = approved(world, seed=50)
    start(world, second)
    assert promote(world, name) == second
    assert back(world) == first


def test_it_may_still_be_built_on_and_reviewed(world: World) -> None:
    """An approval that is renewed keeps it as a rollback target."""
    deprecate(world, world.base.ref)
    deprecate(world, f"dataset:{world.dataset.ref}")
    ref = trained(world, seed=60)
    deprecate(world, ref)
    assert submit(world, ref, "staging") > 0


def test_refusals(world: World, store: Store, blobs: Blobs) -> None:
    ref = trained(world)
    assert kind(deprecate, world, ref, "  ") == "reason-missing"
    assert kind(deprecate, world, f"{world.team}/adapter@v9") == "dataset-unknown"
    for person in (world.compliance, a_person(store, "admin"), a_person(store, "auditor")):
        assert kind(deprecations.deprecate, store, person.actor, ref, "no") == "role-missing"
    stranger = a_person(store, "engineer", team="elsewhere")
    unseen = kind(deprecations.deprecate, store, stranger.actor, ref, "no")
    assert unseen == "dataset-unknown"
    stale = replace(world.engineer.actor, signed_in=None)
    with pytest.raises(Exception, match="fresh sign-in"):
        deprecations.deprecate(store, stale, ref, "no")
    deprecate(world, ref)
    assert kind(deprecate, world, ref) == "already-deprecated"
    recalls.recall(store, world.engineer.actor, ref, "unfit for use")
    assert kind(deprecate, world, ref) == "recalled"
    assert seen.version(store, world.engineer.actor, ref).deprecation_reason
    draft = versions.Draft("adapter", f"{world.team}/d", adapter_files(blobs, 9), {}, None)
    draft = replace(draft, base=world.base.ref)
    drafted = register(store, blobs, world.engineer.actor, draft).ref
    assert kind(deprecate, world, drafted) == "is-draft"


def test_a_canary_that_starts_and_a_deprecation_take_turns(world: World) -> None:
    """Whoever is second sees the first: no rollout begins once the deprecation is committed."""
    store, engineer, ref = world.store, world.engineer.actor, approved(world)
    outcomes = together(
        *(
            lambda name=f"c{number}": rollouts.start(
                store, engineer, rollouts.Canary(ref, "production", name, 500, "")
            )
            for number in range(4)
        ),
        lambda: deprecations.deprecate(store, engineer, ref, "Use the next one."),
    )
    assert lost(outcomes) <= {"deprecated"}
    with store.read(SYSTEM) as session:
        begun = session.scalars(
            text(
                "select c.name from rollout r join channel c on c.id = r.channel_id "
                "join node n on n.id = r.version_id where n.ref = :ref"
            ),
            {"ref": ref},
        ).all()
    assert len(begun) == len(won(outcomes)) - 1
    assert kind(start, world, ref, "late") == "deprecated"


def test_one_of_two_deprecations_is_the_first(world: World) -> None:
    ref = trained(world)
    outcomes = together(*[lambda: deprecate(world, ref)] * 4)
    assert (len(won(outcomes)), lost(outcomes)) == (1, {"already-deprecated"})


def test_a_recall_beside_a_deprecation_always_stands(world: World) -> None:
    for attempt in range(4):
        ref = trained(world, seed=100 * attempt)
        outcomes = together(
            lambda ref=ref: deprecate(world, ref),
            lambda ref=ref: recalls.recall(world.store, world.engineer.actor, ref, "unfit for use"),
        )
        assert lost(outcomes) <= {"recalled"}
        assert seen.version(world.store, world.engineer.actor, ref).state == "recalled"


def test_no_door_names_a_line_like_a_version_of_another(world: World, blobs: Blobs) -> None:
    """Clients that know no revisions pull `claims.v3` for version 3 of `claims`."""
    line, engineer = f"{world.team}/adapter.v3", world.engineer.actor
    draft = versions.Draft("adapter", line, adapter_files(blobs, 5), ADAPTER_META, world.base.ref)
    assert kind(register, world.store, blobs, engineer, draft) == "bad-line-name"
    request = training.TrainingRequest(line, world.base.ref, world.dataset.ref, RECIPE, "legal", {})
    queue = partial(kind, training.queue, world.store, blobs, engineer)
    assert queue(request) == "bad-line-name"
    assert queue(replace(request, adapter=world.base.ref.partition("@")[0])) == "line-kind"
    new = replace(request, adapter=f"{world.team}/new", domain=None)
    assert queue(new) == "domain-missing"
