"""What trainers measured of an adapter's effect: kept in the signed report, shown, and judged."""

from __future__ import annotations

import pytest

from registry.blobs.store import Blobs
from registry.db.store import Store
from registry.errors import Invalid
from registry.queries import gates, versions
from registry.queries.gates import Proposal
from registry.rules.actors import SYSTEM
from tests.build import World, a_world, evaluate, train

MOVES = {"largest": 0.5, "mean": 0.01, "prompts": 8, "positions": 100}
STILL = MOVES | {"largest": 0.0, "mean": 0}


@pytest.fixture
def world(store: Store, blobs: Blobs, team: str) -> World:
    return a_world(store, blobs, team)


def outcome(world: World, ref: str) -> tuple[str, str]:
    proposal = Proposal(ref, "production", world.use_case)
    verdict = gates.check(world.store, world.blobs, SYSTEM, proposal)
    [rule] = [rule for rule in verdict.rules if rule.rule == "effect"]
    return rule.outcome, rule.detail


def test_the_smallest_measured_effect_counts(world: World) -> None:
    train(world)
    ref = world.versions[-1]
    before = versions.version(world.store, SYSTEM, ref).effect
    assert before is not None and (before.state, before.measured) == ("weights", None)
    assert outcome(world, ref)[0] == "pass"
    first = evaluate(world, ref, 50, MOVES)
    after = versions.version(world.store, SYSTEM, ref).effect
    assert after is not None and after.measured is not None
    assert (after.state, after.measured.run, after.measured.largest) == ("measured", first, 0.5)
    assert outcome(world, ref)[0] == "pass"
    # A run that measured nothing says nothing; one that measured no effect is not outweighed.
    evaluate(world, ref, 50)
    assert outcome(world, ref)[0] == "pass"
    evaluate(world, ref, 50, STILL)
    evaluate(world, ref, 50, MOVES)
    verdict, detail = outcome(world, ref)
    assert verdict == "fail" and "at most 0" in detail and "answers as its base" in detail


def test_an_effect_in_another_form_is_refused(world: World) -> None:
    train(world)
    with pytest.raises(Invalid) as refused:
        evaluate(world, world.versions[-1], 50, {"largest": "much"})
    assert refused.value.kind == "bad-report"
