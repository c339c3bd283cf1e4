"""Two at once: whatever the order, the invariants hold, exactly one wins, and the loser hears a
named refusal.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import text

from registry.blobs.store import Blobs
from registry.commands import recalls, rollouts, versions, work
from registry.commands import training_runs as training
from registry.db.store import Store
from registry.errors import Conflict, NotFound, Refused, RegistryError
from registry.queries import rollouts as asked
from registry.queries import versions as seen
from registry.rules.actors import SYSTEM
from tests.build import (
    ADAPTER_META,
    RECIPE,
    World,
    a_dataset,
    a_person,
    a_world,
    adapter_files,
    approved,
    dataset_bytes,
    evaluate,
    register,
    submit,
    train,
    vote,
)
from tests.db.around import held
from tests.sampling import sampled

Outcome = Any


def together(*calls: Callable[[], Any]) -> list[Outcome]:
    """Start all calls at one instant; each one's answer, or the registry's named refusal. Anything
    else is a failure.
    """
    gate = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Outcome:
        gate.wait()
        try:
            return call()
        except RegistryError as refusal:
            return refusal

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def won(outcomes: list[Outcome]) -> list[Outcome]:
    return [one for one in outcomes if not isinstance(one, RegistryError)]


def lost(outcomes: list[Outcome]) -> set[str]:
    return {one.kind for one in outcomes if isinstance(one, RegistryError)}


def again(call: Callable[[], Any], *kinds: str) -> Any:
    """What the refusal asks of its caller: run it again."""
    for _ in range(50):
        try:
            return call()
        except Conflict as refusal:
            if refusal.kind not in kinds:
                raise
    pytest.fail("fifty tries were not enough")


def count(store: Store, statement: str, **params: Any) -> int:
    with store.read(SYSTEM) as session:
        return int(session.execute(text(statement), params).scalar_one())


STILL_THERE = (
    "select (select count(*) from route_generation g join node n on n.id in (g.stable_version_id, "
    "g.candidate_version_id) "
    "where g.valid_to is null and n.ref = :ref) + (select count(*) from rollout r join node n on "
    "n.id = r.version_id "
    "where r.ended_at is null and n.ref = :ref)"
)


@pytest.mark.parametrize("rounds", sampled([2, 8], [2]))
def test_no_route_names_what_is_recalled_while_canaries_start(
    store: Store, blobs: Blobs, team: str, rounds: int
) -> None:
    world = a_world(store, blobs, team)
    engineer = world.engineer.actor
    begun = 0
    for attempt in range(rounds):
        ref = approved(world, seed=100 * attempt)

        def start(channel: str, ref: str = ref) -> Any:
            return rollouts.start(
                store, engineer, rollouts.Canary(ref, "production", channel, 500, "")
            )

        starts = [lambda name=f"c{attempt}-{number}": start(name) for number in range(5)]
        outcomes = together(
            *starts, lambda ref=ref: recalls.recall(store, engineer, ref, "unfit for use")
        )
        assert not isinstance(outcomes[-1], RegistryError), outcomes[-1]
        assert lost(outcomes) <= {"recalled", "not-servable", "not-approved", "try-again"}
        begun += len(won(outcomes[:-1]))
        assert count(store, STILL_THERE, ref=ref) == 0
        assert seen.version(store, engineer, ref).state == "recalled"
        with pytest.raises(Refused):
            start("later")
    # What began before the recall was moved off by it: each of those channels has two generations.
    moved = count(
        store,
        "select count(*) from route_generation g join channel c on c.id = g.channel_id join line l "
        "on l.id = c.line_id where l.team = :team and g.kind = 'recall'",
        team=team,
    )
    assert moved == begun


@pytest.mark.parametrize("rounds", sampled([2, 6], [2]))
def test_nothing_trained_on_recalled_data_slips_through(
    store: Store, blobs: Blobs, team: str, rounds: int
) -> None:
    world = a_world(store, blobs, team)
    engineer = world.engineer.actor
    for attempt in range(rounds):
        data = a_dataset(
            store,
            blobs,
            world.data_owner,
            team,
            f"rows{attempt}",
            dataset_bytes(train=50 + attempt),
        )
        meta = {**ADAPTER_META, "domain": "legal", "datasets": [data.ref]}
        drafts = [
            versions.Draft(
                "adapter",
                f"{team}/a{number}",
                adapter_files(blobs, 1000 + 10 * attempt + number),
                meta,
                world.base.ref,
            )
            for number in range(4)
        ]
        outcomes = together(
            *(lambda draft=draft: register(store, blobs, engineer, draft) for draft in drafts),
            lambda ref=data.ref: recalls.recall(store, engineer, ref, "consent withdrawn"),
        )
        assert not isinstance(outcomes[-1], RegistryError), outcomes[-1]
        assert lost(outcomes) <= {"unfit-parent", "try-again"}
        for added in won(outcomes[:-1]):
            assert seen.version(store, engineer, added.ref).state == "recalled"


def started(call: Callable[[], Any]) -> Future[Outcome]:
    """Begin a call in a thread of its own."""
    future: Future[Outcome] = Future()
    threading.Thread(target=lambda: future.set_result(together(call)[0])).start()
    return future


def in_turn(
    store: Store, first: Callable[[], Any], second: Callable[[], Any]
) -> tuple[Outcome, Outcome]:
    """The first has all its locks and is about to commit when the second begins and waits for it;
    both outcomes.
    """
    with held(store) as database:
        one = started(first)
        database.until_waiting(1)
        other = started(second)
        database.until_waiting(2)
        database.release()
    return one.result(120), other.result(120)


def test_a_version_registered_while_its_data_is_recalled_falls_with_it(
    store: Store, blobs: Blobs, team: str
) -> None:
    """Step by step: registered but not committed, then recalled by somebody who cannot see it
    yet.
    """
    world = a_world(store, blobs, team)
    meta = {**ADAPTER_META, "domain": "legal", "datasets": [world.dataset.ref]}
    draft = versions.Draft(
        "adapter", f"{team}/late", adapter_files(blobs, 4000), meta, world.base.ref
    )
    registered, recalled = in_turn(
        store,
        lambda: register(store, blobs, world.engineer.actor, draft),
        lambda: recalls.recall(store, world.engineer.actor, world.dataset.ref, "consent withdrawn"),
    )
    assert registered.status == "registered"
    assert registered.ref in recalled.recalled
    assert seen.version(store, world.engineer.actor, registered.ref).state == "recalled"


def test_what_was_read_before_a_lock_is_read_again_behind_it(
    store: Store, blobs: Blobs, team: str
) -> None:
    """A canary that waits for a recall hears of it by name, and not only from PostgreSQL's last
    guard.
    """
    world = a_world(store, blobs, team)
    ref = approved(world)
    recalled, canary = in_turn(
        store,
        lambda: recalls.recall(store, world.engineer.actor, ref, "unfit for use"),
        lambda: rollouts.start(
            store, world.engineer.actor, rollouts.Canary(ref, "production", None, 500, "")
        ),
    )
    assert recalled.recalled == [ref]
    assert (type(canary), canary.kind) == (Refused, "recalled")


@pytest.mark.parametrize("rounds", sampled([2, 5], [2]))
def test_an_approval_and_a_recall_at_once_leave_no_approval(
    store: Store, blobs: Blobs, team: str, rounds: int
) -> None:
    world = a_world(store, blobs, team)
    for attempt in range(rounds):
        train(world, seed=100 * attempt)
        ref = world.versions[-1]
        evaluate(world, world.base.ref, 5)
        evaluate(world, ref, 50)
        number = submit(world, ref)
        vote(world, world.compliance)
        outcomes = together(
            lambda: vote(world, world.risk),
            lambda ref=ref: recalls.recall(store, world.engineer.actor, ref, "unfit for use"),
        )
        assert not isinstance(outcomes[1], RegistryError), outcomes[1]
        assert lost(outcomes) <= {"recalled"}
        state = "select count(*) from review where number = :number and state = 'approved'"
        assert count(store, state, number=number) == 0


@pytest.fixture(scope="module")
def ready(store: Store, blobs: Blobs) -> World:
    """A version approved for production, with nothing serving yet."""
    world = a_world(store, blobs, f"t{secrets.token_hex(4)}")
    approved(world)
    return world


def test_one_of_two_canaries_starts(store: Store, ready: World) -> None:
    ref = ready.versions[-1]
    outcomes = together(
        *(
            lambda share=share: rollouts.start(
                store, ready.engineer.actor, rollouts.Canary(ref, "production", "two", share, "")
            )
            for share in (100, 200, 300, 400)
        )
    )
    assert len(won(outcomes)) == 1
    assert lost(outcomes) <= {"rollout-active", "try-again"}
    [route] = won(outcomes)
    [generation] = asked.history(
        store, ready.engineer.actor, f"{ready.team}/adapter", "production", "two"
    )
    assert (generation.generation, generation.weight_bp) == (1, route.weight_bp)


def test_one_of_many_promotions_promotes(store: Store, ready: World) -> None:
    engineer, name = ready.engineer.actor, f"{ready.team}/adapter"
    rollouts.start(
        store, engineer, rollouts.Canary(ready.versions[-1], "production", "promoted", 500, "")
    )
    outcomes = together(
        *[
            lambda: rollouts.promote(
                store, engineer, rollouts.Place(name, "production", "promoted"), ""
            )
        ]
        * 6
    )
    assert len(won(outcomes)) == 1
    assert lost(outcomes) == {"canary-first"}
    assert [one.kind for one in asked.history(store, engineer, name, "production", "promoted")] == [
        "canary",
        "promote",
    ]


def test_promoting_twice_never_puts_an_older_version_back(
    store: Store, blobs: Blobs, team: str
) -> None:
    world = a_world(store, blobs, team)
    engineer, name = world.engineer.actor, f"{team}/adapter"
    first, second = approved(world), approved(world, seed=50)
    for ref in (first, second):
        rollouts.start(store, engineer, rollouts.Canary(ref, "production", None, 500, ""))
        rollouts.promote(store, engineer, rollouts.Place(name, "production", None), "")
        with pytest.raises(Refused) as refusal:
            rollouts.promote(store, engineer, rollouts.Place(name, "production", None), "")
        assert refusal.value.kind == "canary-first"
    assert (
        rollouts.roll_back(
            store, engineer, rollouts.Place(name, "production", None), "a complaint"
        ).stable
        == first
    )
    # Only after a rollback there is something to put back; or by its name.
    assert (
        rollouts.promote(
            store, engineer, rollouts.Place(name, "production", None), "a false alarm"
        ).stable
        == second
    )
    assert (
        rollouts.promote(
            store, engineer, rollouts.Place(first, "production", None), "on purpose"
        ).stable
        == first
    )


def test_two_workers_never_lease_the_same(store: Store, blobs: Blobs, team: str) -> None:
    world = a_world(store, blobs, team)
    queued = {
        training.queue(
            store,
            world.blobs,
            world.engineer.actor,
            training.TrainingRequest(
                f"{team}/a{number}",
                world.base.ref,
                world.dataset.ref,
                RECIPE,
                "legal",
                ADAPTER_META,
            ),
        )
        for number in range(8)
    }
    workers = [a_person(store, "trainer", team=team).actor for _ in range(8)]
    outcomes = together(
        *(
            lambda actor=actor: again(
                lambda: work.lease(store, actor, work.Worker("w"), 60), "queue-empty"
            )
            for actor in workers
        )
    )
    assert lost(outcomes) == set()
    assert {run for run, _ in outcomes} == queued
    assert {attempt for _, attempt in outcomes} == {1}
    assert work.lease(store, workers[0], work.Worker("w"), 60) is None


def test_versions_of_one_line_are_numbered_without_gap_or_double(
    store: Store, blobs: Blobs, team: str
) -> None:
    world = a_world(store, blobs, team)
    meta = {**ADAPTER_META, "domain": "legal"}
    drafts = [
        versions.Draft(
            "adapter", f"{team}/line", adapter_files(blobs, 2000 + number), meta, world.base.ref
        )
        for number in range(8)
    ]

    def patiently(draft: versions.Draft) -> Any:
        return again(
            lambda: register(store, blobs, world.engineer.actor, draft), "name-taken", "try-again"
        )

    outcomes = together(*(lambda draft=draft: patiently(draft) for draft in drafts))
    assert lost(outcomes) == set()
    assert {one.ref for one in outcomes} == {f"{team}/line@v{number}" for number in range(1, 9)}


def test_the_same_bytes_at_once_are_one_version(store: Store, blobs: Blobs, team: str) -> None:
    world = a_world(store, blobs, team)
    draft = versions.Draft(
        "adapter",
        f"{team}/twin",
        adapter_files(blobs, 3000),
        {**ADAPTER_META, "domain": "legal"},
        world.base.ref,
    )
    outcomes = together(*[lambda: register(store, blobs, world.engineer.actor, draft)] * 6)
    assert lost(outcomes) == set()
    assert {one.ref for one in outcomes} == {f"{team}/twin@v1"}
    assert sorted(one.status for one in outcomes) == ["found"] * 5 + ["registered"]


def test_two_votes_that_complete_a_quorum_approve_once(
    store: Store, blobs: Blobs, team: str
) -> None:
    world = a_world(store, blobs, team)
    for attempt in range(5):
        train(world, seed=100 * attempt)
        ref = world.versions[-1]
        evaluate(world, world.base.ref, 5)
        evaluate(world, ref, 50)
        number = submit(world, ref)
        outcomes = together(lambda: vote(world, world.compliance), lambda: vote(world, world.risk))
        assert sorted(outcomes) == ["approved", "open"]
        events = (
            "select count(*) from event where subject = :subject and convert_from(entry, "
            "'UTF8')::json "
            "-> 'facts' ->> 'state' = 'approved'"
        )
        assert count(store, events, subject=f"review:{number}") == 1


def test_generations_stay_gapless_under_sixteen_hands(
    store: Store, blobs: Blobs, team: str
) -> None:
    world = a_world(store, blobs, team)
    engineer, name = world.engineer.actor, f"{team}/adapter"
    refs = [approved(world), approved(world, seed=50)]

    def hand(number: int) -> int:
        done = 0
        for step in range(6):
            try:
                match (number + step) % 3:
                    case 0:
                        rollouts.start(
                            store,
                            engineer,
                            rollouts.Canary(refs[number % 2], "production", None, 500 + number, ""),
                        )
                    case 1:
                        rollouts.promote(
                            store, engineer, rollouts.Place(name, "production", None), ""
                        )
                    case _:
                        rollouts.roll_back(
                            store, engineer, rollouts.Place(name, "production", None), "a complaint"
                        )
                done += 1
            except (Refused, Conflict, NotFound):
                continue
        return done

    outcomes = together(*(lambda number=number: hand(number) for number in range(16)))
    assert lost(outcomes) == set()
    history = asked.history(store, engineer, name, "production", None)
    assert [one.generation for one in history] == list(range(1, sum(outcomes) + 1))
    assert all(earlier.valid_to == later.valid_from for earlier, later in pairwise(history))
    assert [one.valid_to for one in history if one.valid_to is None] == [None]
    assert (
        count(
            store,
            "select count(*) from rollout r join channel c on c.id = r.channel_id join line l on "
            "l.id = "
            "c.line_id where l.team = :team and r.ended_at is null",
            team=team,
        )
        <= 1
    )
