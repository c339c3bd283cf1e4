"""One delivered world for all tests of queries: what they ask changes nothing, so it is built
once.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import event

from registry.blobs.store import Blobs
from registry.commands import rollouts
from registry.db.store import Store, open_engine
from registry.queries import folds, log_checks, packs
from registry.rules.actors import Actor, Grant, Role
from tests.build import World, a_world, approved, install_policies
from tests.database import Databases
from tests.queries.logs import Log

Statements = Callable[[], AbstractContextManager[list[str]]]


@pytest.fixture(scope="package")
def served(store: Store, blobs: Blobs) -> World:
    """A team whose adapter's second version was approved, given 5 % and then promoted in
    production.
    """
    world = a_world(store, blobs, f"t{secrets.token_hex(4)}")
    ref = approved(world)
    rollouts.start(
        store, world.engineer.actor, rollouts.Canary(ref, "production", None, 500, "first traffic")
    )
    rollouts.promote(
        store,
        world.engineer.actor,
        rollouts.Place(f"{world.team}/adapter", "production", None),
        "it went well",
    )
    return world


@pytest.fixture
def stranger() -> Actor:
    """An engineer of another team, as a token makes one."""
    return Actor(uuid4(), "stranger", frozenset({Grant(Role.ENGINEER, "elsewhere")}))


@pytest.fixture
def statements(store: Store) -> Statements:
    """Counts the statements sent while a block runs."""

    @contextmanager
    def counting() -> Iterator[list[str]]:
        sent: list[str] = []

        def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
            sent.append(statement)

        event.listen(store.engine, "before_cursor_execute", note)
        try:
            yield sent
        finally:
            event.remove(store.engine, "before_cursor_execute", note)

    return counting


@pytest.fixture
def log(fresh_store: Store, fresh_database: str, tmp_path: Path) -> Iterator[Log]:
    """An empty log but for the built-in policies."""
    opened = Log(fresh_store, fresh_database, tmp_path)
    yield opened
    opened.engine.dispose()


@pytest.fixture(scope="module")
def full(
    databases: Databases, blobs: Blobs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Log]:
    """A log with an approved version in it, signed; whoever changes it puts it back."""
    url = databases.migrated("full_log")
    store = Store(open_engine(url, "countersign_app"))
    install_policies(store)
    opened = Log(store, url, tmp_path_factory.mktemp("log"))
    approved(a_world(store, blobs, "full"))
    opened.sequencer.step()
    yield opened
    opened.engine.dispose()
    store.engine.dispose()
    databases.drop("full_log")


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages so small that every walk turns one."""
    monkeypatch.setattr(log_checks, "CHUNK_ROWS", 2)
    monkeypatch.setattr(packs, "CHUNK_ROWS", 2)
    monkeypatch.setattr(folds, "STREAM", {"stream_results": True, "yield_per": 2})
