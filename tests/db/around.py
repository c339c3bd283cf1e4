"""Going around the rules: raw SQL as the app role, with an audit event written by hand, so that
only a guard can speak.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from registry.db.store import Store

Params = Mapping[str, Any]
App = psycopg.Connection[tuple[Any, ...]]


def plain_url(store: Store) -> str:
    """The store's database as libpq reads it."""
    return store.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)


@contextmanager
def as_app(store: Store) -> Iterator[App]:
    """A transaction of the app role that is never committed."""
    with psycopg.connect(
        plain_url(store), options="-c role=countersign_app -c TimeZone=UTC"
    ) as connection:
        yield connection
        connection.rollback()


@contextmanager
def as_owner(store: Store) -> Iterator[App]:
    """A transaction of the tables' owner that is never committed."""
    with psycopg.connect(plain_url(store), options="-c TimeZone=UTC") as connection:
        yield connection
        connection.rollback()


def audit(connection: App, *rows: tuple[str, Any]) -> None:
    """Write an event that names these rows, as `Store.write` does, so that the demand for one is
    met.
    """
    event = uuid4()
    connection.execute(
        "insert into event (id, at, action, subject, outcome, entry) values (%s, now(), "
        "'version:register', 'x', 'done', %s)",
        (event, json.dumps({}).encode()),
    )
    for table, key in rows:
        connection.execute(
            "insert into event_row (table_name, row_key, event_id) values (%s, %s, %s) on "
            "conflict do nothing",
            (table, str(key), event),
        )


def settle(connection: App) -> None:
    """Let the deferred guards speak, as COMMIT would."""
    connection.execute("set constraints all immediate")


def cause(refusal: psycopg.Error) -> str:
    """What said no: the constraint's name where there is one, else the SQLSTATE; CS states bear no
    constraint of ours.
    """
    named = refusal.diag.constraint_name
    return named if named and not str(refusal.sqlstate).startswith("CS") else str(refusal.sqlstate)


def refused(
    store: Store, statement: str, params: Params, *rows: tuple[str, Any], as_who: Any = as_app
) -> tuple[str, str]:
    """Run a statement beside an event that names the rows; what refused it, and its words. Fails
    when nothing did.
    """
    with as_who(store) as connection:
        with pytest.raises(psycopg.Error) as refusal:
            audit(connection, *rows)
            connection.execute(statement, params)
            settle(connection)
        return cause(refusal.value), str(refusal.value.diag.message_primary)


def until_waiting(connection: App, count: int) -> None:
    """Return when so many sessions of this database wait for a lock."""
    deadline = time.monotonic() + 120  # ends a hang; it measures no machine
    while True:
        # Without this one transaction sees one moment only.
        connection.execute("select pg_stat_clear_snapshot()")
        waiting = connection.execute(
            "select count(*) from pg_stat_activity where datname = current_database() and "
            "wait_event_type = 'Lock'"
        ).fetchone()
        if waiting is not None and waiting[0] >= count:
            return
        assert time.monotonic() < deadline, f"only {waiting} of {count} came to a lock"
        time.sleep(0.02)


class Held:
    """While nobody can write an event, every command waits with its rows written and its locks
    taken, before COMMIT.
    """

    def __init__(self, connection: App) -> None:
        self.connection = connection
        connection.execute("lock table event in access exclusive mode")

    def until_waiting(self, count: int) -> None:
        """Return when so many sessions of this database wait for a lock."""
        until_waiting(self.connection, count)

    def cut(self) -> None:
        """End every session of the app, as a database that crashes does."""
        self.connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = "
            "current_database() "
            "and application_name = 'countersign_app'"
        )

    def release(self) -> None:
        """Let them all go on."""
        self.connection.rollback()


@contextmanager
def held(store: Store) -> Iterator[Held]:
    """Stop every command of a database just before its COMMIT, until released or at the end."""
    with as_owner(store) as connection:
        yield Held(connection)
