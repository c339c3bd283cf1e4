"""What the view of a channel offers is what the commands do: every act is rehearsed at every step
of a random walk, on the real PostgreSQL, and taken back.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import psycopg
import pytest
from sqlalchemy import text

from registry.blobs.store import Blobs
from registry.commands import policies, recalls, rollouts
from registry.db.store import Store
from registry.errors import NotFound, RegistryError
from registry.queries import rollouts as asked
from registry.rules.actors import SYSTEM
from registry.views.rollouts import ActsView, RouteView
from tests.build import World, a_world, approved
from tests.db.around import plain_url

Command = Callable[[Store], RouteView]


def offered(world: World, channel: str) -> ActsView:
    """What the view says is possible."""
    args = (world.store, world.engineer.actor, "production", f"{world.team}/adapter", channel)
    try:
        return asked.channel(*args).acts
    except NotFound:
        return asked.first_acts(*args)


def commands(world: World, channel: str) -> Iterator[tuple[str, str | None, Command]]:
    """Every act on the channel, with every version it could be given."""
    engineer, line = world.engineer.actor, f"{world.team}/adapter"
    for ref in world.versions:
        yield (
            "canary",
            ref,
            lambda store, ref=ref: rollouts.start(
                store, engineer, rollouts.Canary(ref, "production", channel, 500, "")
            ),
        )
    for ref in (None, *world.versions):
        yield (
            "promote",
            ref,
            lambda store, ref=ref: rollouts.promote(
                store, engineer, rollouts.Place(ref or line, "production", channel), ""
            ),
        )
    yield (
        "rollback",
        None,
        lambda store: rollouts.roll_back(
            store, engineer, rollouts.Place(line, "production", channel), "a test"
        ),
    )


def rehearse(store: Store, command: Command) -> RouteView | RegistryError:
    """What a command would answer: it runs whole, PostgreSQL's guards too, and is rolled back."""
    with store.engine.connect() as connection:
        connection.begin()
        connection.begin_nested()
        try:
            return command(Store(connection))  # type: ignore[arg-type]  # joins its transaction
        except RegistryError as refusal:
            return refusal
        finally:
            connection.rollback()


def agree(world: World, channel: str) -> list[tuple[str, Command]]:
    """Hold the view against every command; return the commands that are accepted, by act."""
    acts = offered(world, channel)
    accepted: list[tuple[str, Command]] = []
    for name, ref, command in commands(world, channel):
        act = getattr(acts, name)
        outcome = rehearse(world.store, command)
        offer = act.default if ref is None else ref if ref in act.versions else None
        if isinstance(outcome, RouteView):
            assert offer is not None, (name, ref, outcome)
            assert offer == (outcome.candidate if name == "canary" else outcome.stable)
            accepted.append((name, command))
            continue
        assert offer is None, (name, ref, outcome)
        if ref is None:
            refusal = act.refusal
            assert (refusal.kind, refusal.detail, refusal.fix) == (
                outcome.kind,
                outcome.detail,
                outcome.fix,
            )
        # Where a rule was silent, PostgreSQL would have spoken, in words that help less.
        assert outcome.kind not in ("illegal-transition", "try-again", "stale-generation")
        assert outcome.kind != "not-servable" or "fallback_to_base" in outcome.fix
    return accepted


def lapse(store: Store, ref: str) -> None:
    """Let an approval run out, as only time would."""
    with psycopg.connect(plain_url(store)) as connection:
        connection.execute("alter table review disable trigger user")
        connection.execute(
            "update review set opened_at = opened_at - interval '400 days', decided_at = "
            "decided_at - interval '400 days', expires_at = now() - interval '1 second' "
            "where version_id = (select id from node where ref = %s)",
            [ref],
        )
        connection.execute("alter table review enable trigger user")


def let_the_base_serve(store: Store, allowed: bool) -> None:
    """Publish the policy of production with or without the base as a fall-back."""
    with store.read(SYSTEM) as session:
        words: str = session.execute(
            text("select text from policy_version where environment = 'production' and number = 1")
        ).scalar_one()
    policies.publish(
        store,
        SYSTEM,
        words.replace("fallback_to_base: true", f"fallback_to_base: {str(allowed).lower()}"),
    )


def walk(world: World, channel: str, steps: int, chance: random.Random) -> set[str]:
    """Take accepted acts at random, holding the view against all commands at each step; return
    the acts taken.
    """
    taken = set()
    for _ in range(steps):
        accepted = agree(world, channel)
        if not accepted:
            break
        act, command = chance.choice(accepted)
        command(world.store)
        taken.add(act)
    return taken


def test_what_is_offered_is_what_is_accepted(fresh_store: Store, blobs: Blobs) -> None:
    world = a_world(fresh_store, blobs, "walked")
    engineer, chance = world.engineer.actor, random.Random(7)
    refs = [approved(world, seed=seed) for seed in (0, 50, 90)]
    world.versions = [world.versions[0], *refs]
    assert walk(world, "free", 12, chance) == {"canary", "promote", "rollback"}
    walk(world, "kept", 4, chance)
    let_the_base_serve(fresh_store, False)
    assert not agree(world, "new")
    walk(world, "kept", 4, chance)
    let_the_base_serve(fresh_store, True)
    rollouts.start(
        fresh_store, engineer, rollouts.Canary(refs[1], "production", "lapsing", 500, "")
    )
    lapse(fresh_store, refs[1])
    for channel in ("lapsing", "kept", "free", "new"):
        walk(world, channel, 2, chance)
    recalls.recall(fresh_store, engineer, refs[2], "unfit for use")
    for channel in ("lapsing", "kept", "free", "new"):
        walk(world, channel, 2, chance)
    recalls.recall(fresh_store, engineer, world.base.ref, "its licence was withdrawn")
    for channel in ("lapsing", "kept", "free", "never"):
        assert not agree(world, channel)


def test_two_promotions_offer_no_older_version_by_default(
    store: Store, blobs: Blobs, team: str
) -> None:
    world = a_world(store, blobs, team)
    engineer, line = world.engineer.actor, f"{team}/adapter"
    first, second = approved(world), approved(world, seed=50)
    for ref in (first, second):
        rollouts.start(store, engineer, rollouts.Canary(ref, "production", None, 500, ""))
        rollouts.promote(store, engineer, rollouts.Place(line, "production", None), "")
    promote = offered(world, "production").promote
    assert (promote.default, promote.versions) == (None, [first])
    assert promote.refusal is not None
    assert promote.refusal.kind == "canary-first"
    agree(world, "production")
    rollouts.roll_back(store, engineer, rollouts.Place(line, "production", None), "a complaint")
    promote = offered(world, "production").promote
    assert (promote.default, promote.versions) == (second, [second])
    agree(world, "production")


def test_a_killed_channel_is_taken_back_once_the_base_may_serve(
    fresh_store: Store, blobs: Blobs
) -> None:
    world = a_world(fresh_store, blobs, "killed")
    engineer, line = world.engineer.actor, f"{world.team}/adapter"
    ref = approved(world)
    rollouts.start(fresh_store, engineer, rollouts.Canary(ref, "production", None, 500, ""))
    rollouts.promote(fresh_store, engineer, rollouts.Place(line, "production", None), "")
    let_the_base_serve(fresh_store, False)
    [moved] = recalls.recall(fresh_store, engineer, ref, "unfit for use").channels
    assert moved.stable is None
    assert offered(world, "production").rollback.default is None
    with pytest.raises(RegistryError) as refusal:
        rollouts.roll_back(
            fresh_store, engineer, rollouts.Place(line, "production", None), "a test"
        )
    assert refusal.value.kind == "no-rollback-target"
    let_the_base_serve(fresh_store, True)
    assert offered(world, "production").rollback.default == world.base.ref
    agree(world, "production")
