"""The gauges move with what they count."""

from __future__ import annotations

from dataclasses import asdict

from registry.blobs.store import Blobs
from registry.commands import evals, rollouts, training_runs, work
from registry.db.store import Store
from registry.queries.metrics import numbers
from tests.build import ADAPTER_META, RECIPE, a_world, approved


def test_every_gauge_counts_what_it_says(fresh_store: Store, blobs: Blobs) -> None:
    store = fresh_store
    start = numbers(store)
    assert (start.events, start.signed) == (start.pending, 0)
    world = a_world(store, blobs, "gauges")
    ref = approved(world)
    quiet = numbers(store)
    assert quiet.events > start.events
    assert not {
        name for name, value in asdict(quiet).items() if value and name not in ("events", "pending")
    }
    rollouts.start(
        store, world.engineer.actor, rollouts.Canary(ref, "production", None, 500, "first traffic")
    )
    training_runs.queue(
        store,
        world.blobs,
        world.engineer.actor,
        training_runs.TrainingRequest(
            "gauges/other", world.base.ref, world.dataset.ref, RECIPE, "legal", ADAPTER_META
        ),
    )
    evals.queue(store, world.blobs, world.engineer.actor, world.versions[0], world.suite)
    queued = numbers(store)
    assert (queued.active_rollouts, queued.training_queued, queued.eval_queued) == (1, 1, 1)
    assert work.lease(store, world.trainer.actor, work.Worker("test worker"), 60) is not None
    running = numbers(store)
    assert (
        running.training_queued + running.eval_queued,
        running.training_running + running.eval_running,
    ) == (1, 1)
