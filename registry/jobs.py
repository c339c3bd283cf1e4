"""Background jobs on procrastinate: its app, and its tasks by name. Each task runs one command."""

from __future__ import annotations

from procrastinate import App, PsycopgConnector

from registry.blobs.store import Blobs
from registry.commands import blobs as collecting
from registry.commands import deletions, reviews, work
from registry.db.store import Store
from registry.rules.actors import SYSTEM

QUEUE = "default"


def build(url: str, store: Store, blobs: Blobs) -> App:
    """The app of a worker. A job only starts a command, which reads its work from governed rows."""
    connector = PsycopgConnector(
        conninfo=url.replace("postgresql+psycopg://", "postgresql://"),
        max_size=4,
        kwargs={
            "options": "-c role=countersign_app -c search_path=procrastinate,public "
            "-c TimeZone=UTC",
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

    # The periodic runs are a safety net: usually the job that was deferred with the lease has done
    # the work before.
    app.periodic(cron="* * * * *", periodic_id="requeue_lost")(requeue_lost)
    app.periodic(cron="* * * * *", periodic_id="expire_approvals")(expire_approvals)
    app.periodic(cron="7 * * * *", periodic_id="expire_drafts")(expire_drafts)
    # Once a night, because it lists the whole store.
    app.periodic(cron="17 3 * * *", periodic_id="collect_blobs")(collect_blobs)
    return app
