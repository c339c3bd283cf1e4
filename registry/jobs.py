"""Background work on procrastinate: its app, and its tasks by name, each calling one command."""

from __future__ import annotations

from procrastinate import App, PsycopgConnector

from registry.commands import reviews, work
from registry.db.store import Store

QUEUE = "default"


def build(url: str, store: Store) -> App:
    """The app of a worker: jobs only wake, what is to be done is read from the governed rows."""
    connector = PsycopgConnector(conninfo=url.replace("postgresql+psycopg://", "postgresql://"), max_size=4, kwargs={
        "options": "-c role=countersign_app -c search_path=procrastinate,public -c TimeZone=UTC",
        "application_name": "countersign_clock",
    })  # fmt: skip
    app = App(connector=connector)

    @app.task(name="requeue_lost", queue=QUEUE)
    def requeue_lost(timestamp: int | None = None) -> int:
        return work.requeue_lost(store)

    @app.task(name="expire_approvals", queue=QUEUE)
    def expire_approvals(timestamp: int | None = None) -> int:
        return reviews.expire(store)

    # The periodic runs are the safety net: a job deferred with its lease usually woke somebody long before.
    app.periodic(cron="* * * * *", periodic_id="requeue_lost")(requeue_lost)
    app.periodic(cron="* * * * *", periodic_id="expire_approvals")(expire_approvals)
    return app
