"""Queue background jobs on the connection of a transaction.

A job exists if and only if that transaction has committed.
"""

from __future__ import annotations

from datetime import datetime
from functools import cache
from typing import Any

from procrastinate import App, SyncPsycopgConnector
from sqlalchemy.orm import Session


@cache
def _app() -> App:
    # The app is never opened: every statement runs on the connection that it is given.
    return App(connector=SyncPsycopgConnector())


def defer(session: Session, job: str, at: datetime | None, arguments: dict[str, Any]) -> None:
    """Queue `job` (a task's name in registry/jobs.py) to run at a moment, or at once."""
    driver = session.connection().connection.driver_connection
    _app().configure_task(job, schedule_at=at, connection=driver).defer(**arguments)
