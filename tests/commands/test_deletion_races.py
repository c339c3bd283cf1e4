"""A deletion beside whatever would need the same version: one waits for the other, and one of the
two is refused.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from registry.blobs.store import Blobs
from registry.commands import (
    deletions,
    evals,
    holds,
    retention,
    reviews,
    rollouts,
    training_runs,
    versions,
)
from registry.db.store import Store
from registry.errors import RegistryError
from registry.rules.actors import SYSTEM
from tests.build import (
    ADAPTER_META,
    RECIPE,
    World,
    a_base,
    a_dataset,
    a_person,
    a_world,
    adapter_files,
    approved,
    dataset_bytes,
    register,
)
from tests.commands.test_races import again, in_turn, lost, together, won


def loose(store: Store, blobs: Blobs) -> World:
    """A world whose team keeps nothing for any time."""
    team = f"t{secrets.token_hex(4)}"
    retention.assign(store, a_person(store, "admin").actor, team, "short", "for a test")
    return a_world(store, blobs, team)


@pytest.fixture(scope="module")
def world(store: Store, blobs: Blobs) -> World:
    return loose(store, blobs)


SEED = iter(range(5000, 9000))


def an_adapter(world: World, **more: Any) -> str:
    name = f"a{secrets.token_hex(3)}"
    draft = versions.Draft(
        "adapter",
        f"{world.team}/{name}",
        adapter_files(world.blobs, next(SEED)),
        {**ADAPTER_META, "domain": "legal", **more.get("meta", {})},
        more.get("base", world.base.ref),
    )
    return register(world.store, world.blobs, world.engineer.actor, draft).ref


def bind(world: World, base: str) -> Any:
    return an_adapter(world, base=base)


def feed(world: World, data: str) -> Any:
    return an_adapter(world, meta={"datasets": [data]})


def hold_child(world: World, base: str) -> Any:
    return holds.place(world.store, world.compliance.actor, base, "Matter", "because")


def new_base(world: World) -> str:
    return a_base(
        world.store,
        world.blobs,
        world.engineer,
        world.team,
        f"b{secrets.token_hex(3)}",
        seed=next(SEED),
    ).ref


def new_data(world: World) -> str:
    data = dataset_bytes(train=41 + next(SEED) % 1000)
    return a_dataset(
        world.store, world.blobs, world.data_owner, world.team, f"d{secrets.token_hex(3)}", data
    ).ref


Made = Callable[[World], str]
Act = Callable[[World, str], Any]

# What needs a version: how one is made, the act, what the act hears when it comes second, what the
# deletion hears.
ACTS: dict[str, tuple[Made, Act, set[str], str]] = {
    "canary": (
        lambda world: approved(world, seed=next(SEED)),
        lambda world, ref: rollouts.start(
            world.store,
            world.engineer.actor,
            rollouts.Canary(ref, "production", f"c{secrets.token_hex(3)}", 500, ""),
        ),
        {"deleted"},
        "needed",
    ),
    "submission": (
        an_adapter,
        lambda world, ref: reviews.submit(
            world.store,
            world.blobs,
            world.engineer.actor,
            reviews.Submission(ref, "staging", world.use_case, "please"),
        ),
        {"unfit-subject", "deleted"},
        "needed",
    ),
    "eval run": (
        an_adapter,
        lambda world, ref: evals.queue(
            world.store, world.blobs, world.engineer.actor, ref, world.suite
        ),
        {"deleted"},
        "needed",
    ),
    "adapter on a base": (new_base, bind, {"unfit-base", "unfit-parent", "deleted"}, "needed"),
    "training on a base": (
        new_base,
        lambda world, ref: training_runs.queue(
            world.store,
            world.blobs,
            world.engineer.actor,
            training_runs.TrainingRequest(
                f"{world.team}/t{secrets.token_hex(3)}",
                ref,
                world.dataset.ref,
                RECIPE,
                "legal",
                ADAPTER_META,
            ),
        ),
        {"deleted"},
        "needed",
    ),
    "adapter on data": (new_data, feed, {"unfit-parent", "deleted"}, "needed"),
    "hold": (an_adapter, hold_child, set(), "held"),
}


def delete(world: World, ref: str) -> Any:
    return deletions.delete(world.store, world.engineer.actor, ref, "no longer wanted")


NEEDED = text(
    "select n.ref, d.why from tombstone t join node n on n.id = t.id cross join lateral "
    "needs(t.id) d "
    "where n.team = :team and d.why <> 'rollback'"
)


def consistent(world: World) -> None:
    """Nothing that was deleted is needed by anything."""
    with world.store.read(SYSTEM) as session:
        assert session.execute(NEEDED, {"team": world.team}).all() == []


@pytest.mark.parametrize("name", ACTS)
def test_the_deletion_comes_first(world: World, name: str) -> None:
    make, act, hears, _ = ACTS[name]
    ref = make(world)
    deleted, outcome = in_turn(world.store, lambda: delete(world, ref), lambda: act(world, ref))
    assert not isinstance(deleted, RegistryError), deleted
    if hears:
        assert isinstance(outcome, RegistryError), outcome
        assert outcome.kind in hears
    consistent(world)


@pytest.mark.parametrize("name", ACTS)
def test_the_deletion_comes_second(world: World, name: str) -> None:
    make, act, _, hears = ACTS[name]
    ref = make(world)
    other, outcome = in_turn(world.store, lambda: act(world, ref), lambda: delete(world, ref))
    assert not isinstance(other, RegistryError), other
    assert isinstance(outcome, RegistryError), outcome
    assert outcome.kind == hears
    consistent(world)


@pytest.mark.parametrize("name", ["submission", "adapter on a base", "hold"])
def test_all_at_once(world: World, name: str) -> None:
    make, act, hears, kind = ACTS[name]
    for _ in range(4):
        ref = make(world)
        calls = [lambda ref=ref: act(world, ref)] * 2 + [
            lambda ref=ref: again(lambda: delete(world, ref), "try-again")
        ] * 2
        outcomes = together(*calls)
        assert lost(outcomes) <= {
            *hears,
            kind,
            "already-deleted",
            "try-again",
            "review-live",
            "name-taken",
        }
        assert len(won(outcomes[2:])) <= 1
        consistent(world)


def test_a_hold_that_stood_first_was_seen(world: World) -> None:
    """Whatever the order: a deletion that went through came before the hold, never after it."""
    for _ in range(6):
        ref = an_adapter(world)
        placed, deleted = together(
            lambda ref=ref: hold_child(world, ref), lambda ref=ref: delete(world, ref)
        )
        assert not isinstance(placed, RegistryError)
        if isinstance(deleted, RegistryError):
            assert deleted.kind == "held"
            continue
        with world.store.read(SYSTEM) as session:
            places = dict(
                session.execute(
                    text(
                        "select action, place from event where outcome = 'done' and (subject = "
                        ":ref or subject = :hold) and "
                        "action in ('version:delete', 'hold:place')"
                    ),
                    {"ref": ref, "hold": f"hold:{placed.number}"},
                ).all()
            )
        assert places["version:delete"] < places["hold:place"]


def test_a_promotion_and_a_deletion(store: Store, blobs: Blobs) -> None:
    world = loose(store, blobs)
    ref = approved(world, seed=next(SEED))
    channel = f"c{secrets.token_hex(3)}"
    name = f"{world.team}/adapter"
    rollouts.start(
        world.store, world.engineer.actor, rollouts.Canary(ref, "production", channel, 500, "")
    )
    outcomes = together(
        lambda: rollouts.promote(
            world.store, world.engineer.actor, rollouts.Place(name, "production", channel), ""
        ),
        lambda: delete(world, ref),
        lambda: rollouts.roll_back(
            world.store,
            world.engineer.actor,
            rollouts.Place(name, "production", channel),
            "a complaint",
        ),
    )
    assert lost(outcomes[:1]) <= {"canary-first", "deleted", "not-approved", "try-again"}
    consistent(world)
