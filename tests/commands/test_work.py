"""Work that is leased: lost leases go back, silent workers are found, and the log tells only what
happened.
"""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest
from sqlalchemy import text

from registry.artifacts.bundles import judge
from registry.blobs.store import Blobs
from registry.commands import deletions, evals, recalls, versions, work
from registry.commands import training_runs as training
from registry.db.store import Store
from registry.errors import Conflict, Forbidden, Refused
from registry.rules.actors import SYSTEM
from tests.build import ADAPTER_META, RECIPE, World, a_person, a_world, adapter_files, register


@pytest.fixture
def world(store: Store, blobs: Blobs, team: str) -> World:
    return a_world(store, blobs, team)


def queued(world: World) -> UUID:
    return training.queue(
        world.store,
        world.blobs,
        world.engineer.actor,
        training.TrainingRequest(
            f"{world.team}/adapter",
            world.base.ref,
            world.dataset.ref,
            RECIPE,
            "legal",
            ADAPTER_META,
        ),
    )


def state(world: World, run: UUID) -> tuple[str, int]:
    with world.store.read(SYSTEM) as session:
        row = session.execute(
            text("select state, attempt from training_run where id = :run"), {"run": run}
        ).one()
        return row.state, row.attempt


def told(world: World, run: UUID) -> list[str]:
    """What the log tells of a training run, oldest first."""
    with world.store.read(SYSTEM) as session:
        statement = text("select action from event where subject = :subject order by place")
        return list(session.scalars(statement, {"subject": f"training-run:{run}"}))


def outputs(world: World, run: UUID, attempt: int) -> versions.Draft:
    return versions.Draft(
        "adapter",
        f"{world.team}/adapter",
        adapter_files(world.blobs, 2),
        ADAPTER_META,
        world.base.ref,
        "legal",
        run,
        attempt,
        2,
    )


def test_a_silent_worker_loses_its_lease_once(world: World) -> None:
    run = queued(world)
    assert work.lease(world.store, world.trainer.actor, work.Worker("w"), -1) == (run, 1)
    work.requeue_lost(world.store)
    assert state(world, run) == ("queued", 1)
    work.requeue_lost(world.store)
    assert told(world, run) == ["training:queue", "work:lease", "work:reclaim"]
    with pytest.raises(Conflict) as refusal:
        work.beat(world.store, world.trainer.actor, run, work.Heartbeat(1, {}, 60))
    assert refusal.value.kind == "lease-lost"


def test_a_worker_that_spoke_again_keeps_it_and_nothing_is_logged(world: World) -> None:
    run = queued(world)
    work.lease(world.store, world.trainer.actor, work.Worker("w"), -1)
    assert (
        work.beat(world.store, world.trainer.actor, run, work.Heartbeat(1, {"step": 1}, 60))
        is False
    )
    work.requeue_lost(world.store)
    assert state(world, run) == ("running", 1)
    assert work._requeue_lost(world.store, run) is False
    assert told(world, run) == ["training:queue", "work:lease"]


def test_five_lost_workers_end_it(world: World) -> None:
    run = queued(world)
    for attempt in range(1, 6):
        assert work.lease(world.store, world.trainer.actor, work.Worker("w"), -1) == (run, attempt)
        work.requeue_lost(world.store)
    assert state(world, run) == ("failed", 5)
    assert work.lease(world.store, world.trainer.actor, work.Worker("w"), 60) is None


def test_whoever_lost_the_lease_registers_nothing(world: World) -> None:
    run = queued(world)
    work.lease(world.store, world.trainer.actor, work.Worker("w"), -1)
    work.requeue_lost(world.store)
    with pytest.raises(Conflict) as refusal:
        register(world.store, world.blobs, world.trainer.actor, outputs(world, run, 1))
    assert refusal.value.kind == "lease-lost"
    other = a_person(world.store, "trainer", team=world.team)
    assert work.lease(world.store, other.actor, work.Worker("w"), 60) == (run, 2)
    for actor, attempt in ((world.trainer.actor, 2), (other.actor, 1)):
        with pytest.raises(Conflict):
            register(world.store, world.blobs, actor, outputs(world, run, attempt))
    assert (
        register(world.store, world.blobs, other.actor, outputs(world, run, 2)).status
        == "registered"
    )


def test_data_recalled_while_it_trains_ends_in_no_version(world: World) -> None:
    run = queued(world)
    work.lease(world.store, world.trainer.actor, work.Worker("w"), 60)
    recalls.recall(world.store, world.data_owner.actor, world.dataset.ref, "consent withdrawn")
    with pytest.raises(Refused) as refusal:
        register(world.store, world.blobs, world.trainer.actor, outputs(world, run, 1))
    assert refusal.value.kind == "unfit-parent"


def test_work_called_off_is_heard_at_the_next_beat(world: World) -> None:
    run = queued(world)
    work.lease(world.store, world.trainer.actor, work.Worker("w"), 60)
    training.cancel(world.store, world.engineer.actor, run)
    training.cancel(world.store, world.engineer.actor, run)
    assert work.beat(world.store, world.trainer.actor, run, work.Heartbeat(1, {}, 60)) is True
    with pytest.raises(Conflict):
        work.requeue(world.store, world.trainer.actor, run, 1, "too late")
    assert state(world, run)[0] == "cancelled"


def test_only_trainers_lease_and_only_their_teams_work(world: World) -> None:
    queued(world)
    with pytest.raises(Forbidden):
        work.lease(world.store, world.engineer.actor, work.Worker("w"), 60)
    elsewhere = a_person(world.store, "trainer", team="elsewhere")
    assert work.lease(world.store, elsewhere.actor, work.Worker("w"), 60) is None
    assert work.lease(world.store, world.trainer.actor, work.Worker("w"), 60) is not None


def test_a_draft_discarded_under_its_run_ends_it_and_says_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the attempt that goes on nor the next one is told to use a version that is gone."""
    run = queued(world)
    # More is required than when the training was queued.
    monkeypatch.setitem(judge.REQUIRED_META, "adapter", ("domain", "purpose", "ticket"))
    trainer = world.trainer.actor
    assert work.lease(world.store, trainer, work.Worker("w"), 60) == (run, 1)
    made = replace(outputs(world, run, 1), meta={})
    draft = register(world.store, world.blobs, trainer, made)
    assert draft.status == "draft"
    with world.store.read(SYSTEM) as session:
        asked = text("select recipe_digest from training_run where id = :run")
        digest = session.execute(asked, {"run": run}).scalar_one()
    report = {
        "run": str(run),
        "attempt": 1,
        "recipe_digest": digest,
        "outputs": [{"step": 2, "ref": draft.ref, "manifest_digest": draft.digest}],
    }

    def finish() -> str:
        with pytest.raises(Refused) as refusal:
            training.finish(
                world.store,
                trainer,
                run,
                training.SignedReport(
                    1, report, *world.trainer.key.sign_document(report, "training-report")
                ),
            )
        return refusal.value.kind

    assert finish() == "output-incomplete"
    deletions.discard(world.store, world.engineer.actor, draft.ref, "not wanted")
    with pytest.raises(Refused) as refusal:
        register(world.store, world.blobs, trainer, made)
    assert (refusal.value.kind, draft.ref in str(refusal.value)) == ("output-discarded", True)
    assert finish() == "output-discarded"


SELF = work.Worker("gpu-7", "the folder of gpu-7")


def test_a_worker_that_started_again_gets_its_own_work_back_at_once(world: World) -> None:
    run, trainer = queued(world), world.trainer.actor
    assert work.lease(world.store, trainer, SELF, 600) == (run, 1)
    younger = queued(world)
    assert work.lease(world.store, trainer, SELF, 600) == (run, 2)
    with pytest.raises(Conflict):
        work.beat(world.store, trainer, run, work.Heartbeat(1, {}, 60))
    assert work.beat(world.store, trainer, run, work.Heartbeat(2, {}, 60)) is False
    assert state(world, younger) == ("queued", 0)
    assert told(world, run).count("work:lease") == 2


def test_nobody_else_gets_live_work(world: World) -> None:
    """Neither another machine with the same token, nor another account with the same identity."""
    run, trainer = queued(world), world.trainer.actor
    other = a_person(world.store, "trainer", team=world.team)
    assert work.lease(world.store, trainer, SELF, 600) == (run, 1)
    for actor, worker in (
        (trainer, work.Worker("gpu-7", "the folder of gpu-8")),
        (trainer, work.Worker("gpu-7")),
        (other.actor, SELF),
    ):
        assert work.lease(world.store, actor, worker, 600) is None
    assert state(world, run) == ("running", 1)


def test_work_without_an_identity_is_never_taken_back(world: World) -> None:
    run, trainer = queued(world), world.trainer.actor
    assert work.lease(world.store, trainer, work.Worker("w"), 600) == (run, 1)
    assert work.lease(world.store, trainer, work.Worker("w"), 600) is None


def test_a_worker_that_dies_of_its_work_again_and_again_ends_it(world: World) -> None:
    run, trainer = queued(world), world.trainer.actor
    for attempt in range(1, work.MAX_ATTEMPTS + 1):
        assert work.lease(world.store, trainer, SELF, -1) == (run, attempt)
    assert work.lease(world.store, trainer, SELF, 600) is None
    assert work.requeue_lost(world.store) == 1
    assert state(world, run) == ("failed", work.MAX_ATTEMPTS)


def test_cancelled_work_is_not_taken_back(world: World) -> None:
    run, trainer = queued(world), world.trainer.actor
    assert work.lease(world.store, trainer, SELF, 600) == (run, 1)
    training.cancel(world.store, world.engineer.actor, run)
    assert work.lease(world.store, trainer, SELF, 600) is None


def test_an_eval_run_is_taken_back_too(world: World) -> None:
    run = evals.queue(world.store, world.blobs, world.engineer.actor, world.base.ref, world.suite)
    for attempt in (1, 2):
        assert work.lease(world.store, world.trainer.actor, SELF, 600) == (run, attempt)
