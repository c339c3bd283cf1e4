"""The reason of a log entry is that of its own act, whatever other rows the act touched."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import select

from registry.blobs.store import Blobs
from registry.commands import (
    deletions,
    deprecations,
    holds,
    quotas,
    recalls,
    retention,
    reviews,
    rollouts,
    use_cases,
)
from registry.db.audit import Event
from registry.db.store import Store
from registry.queries import audit
from registry.queries.pages import PageRequest
from registry.rules.actors import SYSTEM, Actor
from registry.rules.quotas import Limits
from registry.rules.retention import Terms
from tests.build import (
    World,
    a_person,
    a_world,
    approved,
    evaluate,
    submit,
    train,
    vote,
)
from tests.commands.test_channels import lapse

VOTED = "I have read the evidence."
NOT_IN_ROWS = {"review:withdraw"}
"""Acts whose reason is in the facts alone."""


@pytest.fixture
def world(store: Store, blobs: Blobs, team: str) -> World:
    return a_world(store, blobs, team)


def reasons(world: World, subject: str, actor: Actor = SYSTEM) -> list[tuple[str, str | None]]:
    """Action and reason of every entry on a subject, oldest first."""
    page = audit.events(world.store, actor, PageRequest(limit=200), subject=subject)
    return [(event.action, event.reason) for event in reversed(page.items)]


def test_each_act_on_a_channel_has_its_own_reason(world: World) -> None:
    store, actor, line = world.store, world.engineer.actor, f"{world.team}/adapter"
    place = rollouts.Place(line, "production", None)
    first = approved(world)
    rollouts.start(store, actor, rollouts.Canary(first, "production", None, 500, "first traffic"))
    rollouts.promote(store, actor, place, "it went well")
    second = approved(world, seed=10)
    rollouts.start(store, actor, rollouts.Canary(second, "production", None, 900, "a better one"))
    rollouts.roll_back(store, actor, place, "a complaint")
    rollouts.start(store, actor, rollouts.Canary(second, "production", None, 900, "not our fault"))
    rollouts.promote(store, actor, place, "it went well again")
    recalls.recall(store, actor, second, "its licence was withdrawn")
    assert reasons(world, f"channel:{line}/production/production") == [
        ("rollout:start", "first traffic"),
        ("rollout:promote", "it went well"),
        ("rollout:start", "a better one"),
        ("channel:roll-back", "a complaint"),
        ("rollout:start", "not our fault"),
        ("rollout:promote", "it went well again"),
    ]
    assert reasons(world, second)[-1] == ("version:recall", "its licence was withdrawn")


def test_what_ends_a_review_by_itself_does_not_repeat_the_note_of_its_submitter(
    world: World,
) -> None:
    ref = approved(world)
    expired = f"review:{world.review}"
    lapse(world.store, ref)
    assert reviews.expire(world.store) == 1
    submit(world, ref)
    voided = f"review:{world.review}"
    vote(world, world.compliance)
    run = evaluate(world, ref, 3)
    opened = [("review:submit", "please"), ("review:vote", VOTED)]
    assert reasons(world, expired) == [*opened, ("review:vote", VOTED), ("review:expire", None)]
    assert reasons(world, voided) == opened
    finished = audit.events(world.store, SYSTEM, subject=f"eval-run:{run}").items[0]
    assert (finished.action, finished.facts["voided"]) == ("eval:finish", [world.review])
    assert finished.reason is None


def test_every_act_states_its_own_reason(world: World) -> None:
    """A commitment that appears in the rows of an entry for the first time is in its facts too."""
    store, team, engineer = world.store, world.team, world.engineer.actor
    admin = a_person(store, "admin").actor
    line, place = f"{team}/adapter", rollouts.Place(f"{team}/adapter", "production", None)
    retention.define(store, admin, Terms(f"{team}-days", 0), "nothing is kept")
    retention.assign(store, admin, line, f"{team}-days", "a line that tries things out")
    quotas.put(store, admin, team, Limits(max_versions=99), "a small team")
    ref = approved(world)
    rollouts.start(store, engineer, rollouts.Canary(ref, "production", None, 500, "begin"))
    rollouts.promote(store, engineer, place, "it went well")
    rollouts.roll_back(store, engineer, place, "a complaint")
    hold = holds.place(store, world.compliance.actor, ref, "Matter 1", "a court order")
    held_over = ("hold:place", "a court order")
    assert reasons(world, f"hold:{hold.number}", world.risk.actor) == [held_over]
    assert reasons(world, f"hold:{hold.number}", engineer) == [("hold:place", None)]
    holds.lift(store, world.risk.actor, hold.number, "the matter is settled")
    lifted = ("hold:lift", "the matter is settled")
    assert reasons(world, f"hold:{hold.number}") == [held_over, lifted]
    train(world, seed=20)
    withdrawn, last = submit(world, world.versions[-1]), submit(world, world.versions[-2])
    reviews.withdraw(store, engineer, withdrawn, "the wrong data")
    vote(world, world.compliance, "reject", last)
    change = use_cases.UseCaseUpdate(world.use_case, "another owner now", owner="another")
    use_cases.update(store, engineer, change)
    deprecations.deprecate(store, engineer, world.versions[-1], "there is a newer one")
    deletions.delete(store, engineer, world.versions[-1], "nobody wants it")
    recalls.recall(store, engineer, ref, "unfit for any use")

    seen, stated = set[str](), dict[str, str | None]()
    with store.read(SYSTEM) as session:
        of_the_world = (Event.team == team) | Event.subject.endswith(f"{team}-days")
        for text in session.scalars(select(Event.entry).where(of_the_world).order_by(Event.place)):
            entry = json.loads(text)
            images = [image["row"] or {} for image in entry["rows"]]
            named = {
                value
                for image in images
                for column, value in image.items()
                if value and column.endswith(("reason_commitment", "note_commitment"))
            }
            reason = entry["facts"].get("reason")
            expected = {reason} if reason and entry["action"] not in NOT_IN_ROWS else set[str]()
            assert named - seen == expected, entry["action"]
            seen |= named
            stated[entry["action"]] = reason
    assert {action for action, reason in stated.items() if reason} == {
        *("channel:roll-back", "hold:lift", "hold:place", "quota:set", "retention:assign"),
        *("retention:define", "review:submit", "review:vote", "review:withdraw"),
        *("rollout:promote", "rollout:start", "use-case:update", "version:delete"),
        *("version:deprecate", "version:recall"),
    }
