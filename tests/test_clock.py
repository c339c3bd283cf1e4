"""Time's door: what a command deferred is done when its time comes, by the worker's own loop on
real PostgreSQL.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import text

from registry import clock
from registry.blobs.store import Blobs
from registry.commands import training_runs as training
from registry.commands import work
from registry.db.store import Store
from registry.rules.actors import SYSTEM
from tests.build import ADAPTER_META, RECIPE, a_world
from tests.gateway.served import until


@contextmanager
def working(url: str, store: Store, blobs: Blobs) -> Iterator[None]:
    """The worker in a thread, as `clock.run` starts it."""
    stop = threading.Event()
    thread = threading.Thread(target=clock._work, args=(url, store, blobs, stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(60)
    assert not thread.is_alive()


def test_a_lease_that_runs_out_goes_back_by_itself(
    fresh_store: Store, fresh_database: str, blobs: Blobs
) -> None:
    world = a_world(fresh_store, blobs, "timed")
    run = training.queue(
        fresh_store,
        world.blobs,
        world.engineer.actor,
        training.TrainingRequest(
            "timed/adapter", world.base.ref, world.dataset.ref, RECIPE, "legal", ADAPTER_META
        ),
    )

    def ask(statement: str) -> object:
        with fresh_store.read(SYSTEM) as session:
            return session.execute(text(statement), {"run": run}).scalar_one()

    assert work.lease(fresh_store, world.trainer.actor, work.Worker("w"), 1) == (run, 1)
    assert (
        ask(
            "select count(*) from procrastinate.procrastinate_jobs where task_name = 'requeue_lost'"
        )
        == 1
    )
    with working(fresh_database, fresh_store, blobs):
        until(
            lambda: ask("select state from training_run where id = :run") == "queued",
            "somebody took the lease back",
        )
        reclaimed = (
            "select count(*) from event where action = 'work:reclaim' and subject = "
            "'training-run:' || :run"
        )
        assert ask(reclaimed.replace(":run", "cast(:run as text)")) == 1
        # A job that succeeded leaves no row: the log, not the queue, tells what was done.
        left = (
            "select count(*) from procrastinate.procrastinate_jobs where status in ('doing', "
            "'failed')"
        )
        until(lambda: ask(left) == 0, "the job is done with")
