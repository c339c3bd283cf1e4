"""The real application under uvicorn on a database of its own, and people who come with tokens."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from registry.app import create_app, open_sequencer
from registry.blobs.store import Blobs
from registry.commands import tokens
from registry.db.store import Store
from registry.rules.actors import SYSTEM
from registry.settings import Settings, load
from tests.build import (
    Person,
    World,
    a_person,
    a_world,
    approved,
    install_classes,
    install_policies,
)
from tests.database import Databases
from tests.gateway.served import Served


@dataclass
class Door:
    """The running registry; `ask` is one request by somebody, or by nobody."""

    app: FastAPI
    url: str
    settings: Settings
    client: httpx.Client
    tokens: dict[Any, str] = field(default_factory=dict)
    asked: set[tuple[str, str]] = field(default_factory=set)

    @property
    def store(self) -> Store:
        store: Store = self.app.state.store
        return store

    @property
    def blobs(self) -> Blobs:
        blobs: Blobs = self.app.state.blobs
        return blobs

    def token(self, person: Person) -> str:
        """A bearer token with all that a person may do; one is enough."""
        if person.id not in self.tokens:
            (team,) = {grant.team for grant in person.actor.grants}
            roles = [grant.role.value for grant in person.actor.grants]
            self.tokens[person.id] = str(
                tokens.create(
                    self.store, SYSTEM, tokens.TokenRequest(person.actor.name, roles, team, 1)
                ).token
            )
        return self.tokens[person.id]

    def ask(
        self, person: Person | None, method: str, path: str, body: Any = None, **more: Any
    ) -> httpx.Response:
        """One request under /api/v1; every answer that is no success must be a named problem."""
        headers = {**more.pop("headers", {})}
        if person is not None:
            headers["Authorization"] = f"Bearer {self.token(person)}"
        if body is not None:
            more["json"] = body
        answer = self.client.request(method, f"/api/v1{path}", headers=headers, **more)
        self.asked.add((method, path))
        if answer.status_code >= 400 and method != "HEAD":
            assert answer.headers["content-type"] == "application/problem+json", answer.text
            problem = answer.json()
            assert (problem["status"], problem["type"]) == (
                answer.status_code,
                f"/problems/{problem['kind']}",
            )
            assert problem["request_id"] == answer.headers["x-request-id"]
            assert problem["detail"]
            assert problem["fix"]
        return answer

    def done(self, person: Person, method: str, path: str, body: Any = None, **more: Any) -> Any:
        """The answer of a request that must succeed."""
        answer = self.ask(person, method, path, body, **more)
        assert answer.status_code < 300, answer.text
        return (
            answer.json() if answer.content and "json" in answer.headers["content-type"] else None
        )

    def refused(
        self, person: Person | None, method: str, path: str, body: Any = None, **more: Any
    ) -> tuple[int, str]:
        """Status and kind of a request that must not succeed."""
        answer = self.ask(person, method, path, body, **more)
        assert answer.status_code >= 400, answer.text
        return answer.status_code, answer.json()["kind"]

    def upload(self, person: Person, data: bytes) -> dict[str, Any]:
        """Publish bytes: what a file of a bundle says of them."""
        digest = hashlib.sha256(data).hexdigest()
        self.done(person, "PUT", f"/blobs/{digest}", content=data)
        return {"sha256": digest, "size": len(data)}

    def sequence(self) -> None:
        """Number and sign what happened so far, as the clock does all the time."""
        sequencer = open_sequencer(self.settings)
        while sequencer.step():
            pass
        sequencer.store.engine.dispose()


@contextmanager
def opened(url: str, home: Path, **given: Any) -> Iterator[Door]:
    """Serve a migrated database, with small limits unless others are given."""
    settings = load(
        **{
            "home": home,
            "database_url": url,
            "max_json_bytes": 64 << 10,
            "max_blob_bytes": 1 << 20,
            **given,
        }
    )
    app = create_app(settings)
    served = Served(app)
    try:
        with httpx.Client(base_url=served.url, timeout=60) as client:
            yield Door(app, served.url, settings, client)
    finally:
        served.stop()
        app.state.store.engine.dispose()


@pytest.fixture(scope="package")
def door(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """The registry for all tests of this room, with the built-in policies in force."""
    name = f"api_{secrets.token_hex(4)}"
    url = databases.migrated(name)
    with opened(url, tmp_path_factory.mktemp("api")) as one:
        install_policies(one.store)
        install_classes(one.store)
        yield one
    databases.drop(name)


@pytest.fixture(scope="module")
def world(door: Door) -> World:
    """A team with a version approved for production; each file its own, since queues are a
    team's.
    """
    made = a_world(door.store, door.blobs, f"t{secrets.token_hex(4)}")
    approved(made)
    for person in (made.engineer, made.data_owner, made.trainer, made.compliance, made.risk):
        door.token(person)
    return made


@pytest.fixture(scope="package")
def admin(door: Door) -> Person:
    return a_person(door.store, "admin", name="root-admin")


@pytest.fixture(scope="package")
def auditor(door: Door) -> Person:
    person = a_person(door.store, "auditor")
    door.token(person)
    return person
