"""One delivered world for all tests of queries: what they ask changes nothing, so it is built
once.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from uuid import uuid4

import pytest
from sqlalchemy import event

from registry.blobs.store import Blobs
from registry.commands import rollouts
from registry.db.store import Store
from registry.rules.actors import Actor, Grant, Role
from tests.build import World, a_world, approved

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
