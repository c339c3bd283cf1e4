"""The main job through the commands: what it leaves, and every refusal on the way."""

from __future__ import annotations

import pytest

from registry.blobs.store import Blobs
from registry.commands import recalls, rollouts
from registry.db.store import Store
from registry.errors import Refused
from registry.queries import rollouts as asked
from registry.queries import versions
from tests import build


def test_the_main_job(store: Store, blobs: Blobs, team: str) -> None:
    world = build.a_world(store, blobs, team)
    ref = build.approved(world)
    first = world.versions[0]
    engineer = world.engineer.actor
    name = f"{team}/adapter"
    route = rollouts.start(store, engineer, ref, "production", None, 500, "")
    assert (route.generation, route.stable, route.candidate, route.weight_bp) == (
        1,
        world.base.ref,
        ref,
        500,
    )
    route = rollouts.promote(store, engineer, name, "production", None, "")
    assert (route.generation, route.stable, route.candidate, route.weight_bp) == (2, ref, None, 0)
    route = rollouts.roll_back(store, engineer, name, "production", None, "a complaint")
    assert (route.generation, route.stable) == (3, world.base.ref)
    with pytest.raises(Refused) as refusal:
        rollouts.roll_back(store, engineer, name, "production", None, "again")
    assert refusal.value.kind == "nothing-to-roll-back"
    route = rollouts.promote(store, engineer, name, "production", None, "it was a false alarm")
    assert (route.generation, route.stable) == (4, ref)
    recalled = recalls.recall(store, engineer, first, "half-trained")
    assert (recalled.recalled, recalled.channels) == ([first], [])
    assert versions.version(store, engineer, first).state == "recalled"
    assert versions.version(store, engineer, ref).serves == ["production/production"]
    recalled = recalls.recall(store, engineer, world.dataset.ref, "consent withdrawn")
    assert recalled.recalled == sorted([f"dataset:{world.dataset.ref}", ref])
    [moved] = recalled.channels
    assert (moved.generation, moved.stable) == (5, world.base.ref)
    assert [one.generation for one in asked.history(store, engineer, name, "production", None)] == [
        1,
        2,
        3,
        4,
        5,
    ]


def test_recalled_bytes_are_not_found_again_as_if_nothing_were(
    store: Store, blobs: Blobs, team: str
) -> None:
    world = build.a_world(store, blobs, team)
    recalls.recall(store, world.engineer.actor, world.base.ref, "wrong licence")
    with pytest.raises(Refused) as refusal:
        build.a_base(store, blobs, world.engineer, team)
    assert (refusal.value.kind, refusal.value.facts["subject"]) == ("recalled", world.base.ref)
