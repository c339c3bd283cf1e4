"""What compares eval runs reads them in one statement, however many versions it compares."""

from __future__ import annotations

import re

import pytest

from registry.blobs.store import Blobs
from registry.commands import rollouts
from registry.db.store import Store
from registry.queries import gates, standings
from registry.queries import reviews as asked
from registry.rules.actors import SYSTEM
from tests.build import World, a_world, approved, evaluate, submit, train
from tests.queries.conftest import Statements


@pytest.fixture
def world(store: Store, blobs: Blobs, team: str) -> World:
    return a_world(store, blobs, team)


def of_runs(sent: list[str]) -> list[str]:
    """The statements that read outcomes of eval runs."""
    return [
        each for each in sent if re.search(r"eval_run\.outcomes.*\sFROM eval_run\s", each, re.S)
    ]


def test_the_end_of_a_run_costs_the_same_however_many_reviews_rest_on_it(
    world: World, statements: Statements
) -> None:
    ref = approved(world)
    numbers = {world.review, submit(world, ref, "staging")}
    with statements() as for_two:
        evaluate(world, world.base.ref, 5)
    for seed in (10, 20):
        train(world, seed=seed)
        for ref in world.versions[-2:]:
            evaluate(world, ref, 50)
            numbers |= {submit(world, ref), submit(world, ref, "staging")}
    with statements() as for_many:
        evaluate(world, world.base.ref, 5)
    assert len(numbers) == 10
    assert len(for_many) == len(for_two)
    with statements() as for_void:
        evaluate(world, world.base.ref, 60)
    states = {number: asked.review(world.store, SYSTEM, number).state for number in numbers}
    assert set(states.values()) == {"voided"}
    assert len(of_runs(for_void)) == len(of_runs(for_two))


def test_a_gate_reads_the_runs_of_a_version_and_its_base_together(
    world: World, statements: Statements
) -> None:
    ref = approved(world)
    proposal = gates.Proposal(ref, "production", world.use_case)
    with statements() as sent:
        verdict = gates.check(world.store, world.blobs, world.engineer.actor, proposal)
    assert verdict.outcome == "pass"
    assert len(of_runs(sent)) == 1


def test_a_review_is_compared_with_every_channel_in_one_read(
    world: World, statements: Statements
) -> None:
    actor, first = world.engineer.actor, approved(world)
    for channel in ("production", "batch", "night"):
        canary = rollouts.Canary(first, "production", channel, 500, "begin")
        rollouts.start(world.store, actor, canary)
    place = rollouts.Place(first.partition("@")[0], "production", "night")
    rollouts.promote(world.store, actor, place, "it is good")
    train(world, seed=10)
    evaluate(world, world.versions[-1], 40)
    number = submit(world, world.versions[-1])
    with statements() as sent:
        views = standings.standings(world.store, SYSTEM, number)
    assert len(of_runs(sent)) == 1
    compared = [(view.channel, view.serves, view.kind, view.serving) for view in views]
    base = (world.base.ref, "base", 5 / 60)
    assert compared == [
        ("production", *base),
        ("batch", *base),
        ("night", first, "version", 50 / 60),
    ]
    assert {view.subject for view in views} == {40 / 60}
