"""Background work on procrastinate: its app, and its tasks by name, each calling one command."""

from __future__ import annotations

from procrastinate import App, PsycopgConnector

from registry.blobs.store import Blobs
from registry.commands import blobs as collecting
from registry.commands import deletions, reviews, work
from registry.db.store import Store
from registry.rules.actors import SYSTEM

QUEUE = "default"


def build(url: str, store: Store, blobs: Blobs) -> App:
    """The app of a worker: jobs only wake, what is to be done is read from the governed rows."""
    connector = PsycopgConnector(
        conninfo=url.replace("postgresql+psycopg://", "postgresql://"),
        max_size=4,
        kwargs={
            "options": "-c role=countersign_app -c search_path=procrastinate,public -c "
            "TimeZone=UTC",
            "application_name": "countersign_clock",
        },
    )
    app = App(connector=connector)

    @app.task(name="requeue_lost", queue=QUEUE)
    def requeue_lost(timestamp: int | None = None) -> int:
        return work.requeue_lost(store)

    @app.task(name="expire_approvals", queue=QUEUE)
    def expire_approvals(timestamp: int | None = None) -> int:
        return reviews.expire(store)

    @app.task(name="expire_drafts", queue=QUEUE)
    def expire_drafts(timestamp: int | None = None) -> int:
        return deletions.expire_drafts(store)

    @app.task(name="collect_blobs", queue=QUEUE)
    def collect_blobs(timestamp: int | None = None) -> int:
        return collecting.collect(store, blobs, SYSTEM).removed

    # The periodic runs are the safety net: a job deferred with its lease usually woke somebody long
    # before.
    app.periodic(cron="* * * * *", periodic_id="requeue_lost")(requeue_lost)
    app.periodic(cron="* * * * *", periodic_id="expire_approvals")(expire_approvals)
    app.periodic(cron="7 * * * *", periodic_id="expire_drafts")(expire_drafts)
    # One listing of the whole store: once a night.
    app.periodic(cron="17 3 * * *", periodic_id="collect_blobs")(collect_blobs)
    return app
