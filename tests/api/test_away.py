"""The database goes away in mid-request: 503 that says when to come back, nothing half-written, and
all is well after.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from registry.db.store import Store
from registry.settings import load
from tests.api.conftest import Door
from tests.api.test_errors import rows
from tests.build import ADAPTER_META, RECIPE, Person, World, a_person
from tests.db.around import held


def cut(door: Door, *requests: Callable[[], httpx.Response]) -> list[httpx.Response]:
    """Start the requests, wait until each hangs in the database, and end its session there."""
    answers: list[httpx.Response | None] = [None] * len(requests)

    def run(number: int) -> None:
        answers[number] = requests[number]()

    with held(door.store) as database:
        threads = [threading.Thread(target=run, args=(number,)) for number in range(len(requests))]
        for thread in threads:
            thread.start()
        database.until_waiting(len(requests))
        database.cut()
        for thread in threads:
            thread.join(120)
    return [answer for answer in answers if answer is not None]


def test_a_command_cut_off_is_503_and_leaves_nothing(
    door: Door, world: World, admin: Person
) -> None:
    door.token(admin)
    team, name = world.team, f"c{secrets.token_hex(3)}"
    upload = door.upload(world.engineer, f'{{"prompt": "{name}", "completion": "x"}}\n'.encode())
    before = rows(door)
    asked: list[tuple[Person, str, Any]] = [
        (
            world.engineer,
            "/canaries",
            {
                "ref": world.versions[-1],
                "environment": "production",
                "share_bp": 100,
                "channel": name,
            },
        ),
        (world.engineer, "/recalls", {"ref": world.versions[0], "reason": "unfit for use"}),
        (
            world.engineer,
            "/training-runs",
            {
                "adapter": f"{team}/{name}",
                "base": world.base.ref,
                "dataset": world.dataset.ref,
                "recipe": RECIPE,
                "domain": "x",
                "meta": ADAPTER_META,
            },
        ),
        (admin, "/accounts", {"name": name, "roles": ["auditor"]}),
        (world.engineer, "/datasets", {"name": f"{team}/{name}", "file": upload, "meta": {}}),
        (
            world.engineer,
            "/use-cases",
            {
                "name": f"{team}/{name}",
                "purpose": "p",
                "owner": "o",
                "risk_tier": "high",
                "suite": world.suite,
            },
        ),
    ]
    answers = cut(
        door, *(lambda one=one: door.ask(one[0], "POST", one[1], one[2]) for one in asked)
    )
    assert [answer.status_code for answer in answers] == [503] * len(asked), [
        answer.text for answer in answers
    ]
    for answer in answers:
        problem = answer.json()
        assert (problem["kind"], problem["family"]) == ("database-away", "unavailable")
        assert int(answer.headers["retry-after"]) >= 1
        assert "terminating" not in answer.text
    assert rows(door) == before
    # The same requests again, as the answer says: each is done once.
    for person, path, body in asked[2:]:
        assert door.ask(person, "POST", path, body).status_code == 201
    assert door.client.get("/readyz").status_code == 200


def test_a_query_cut_off_is_503(door: Door, world: World) -> None:
    answers = cut(door, lambda: door.ask(world.engineer, "GET", "/audit/events"))
    assert [(answer.status_code, answer.json()["kind"]) for answer in answers] == [
        (503, "database-away")
    ]
    assert door.ask(world.engineer, "GET", "/audit/events").status_code == 200


def test_a_database_that_never_was_is_503(tmp_path: Any) -> None:
    from fastapi.testclient import TestClient

    from registry.app import create_app

    app = create_app(
        load(home=tmp_path, database_url="postgresql+psycopg://nobody@127.0.0.1:1/none")
    )
    token = "cs_000000000000_" + "A" * 43
    with TestClient(app) as client:
        assert client.get("/healthz").status_code == 200
        for path in ("/readyz", "/metrics", "/api/v1/me"):
            answer = client.get(path, headers={"Authorization": f"Bearer {token}"})
            assert (answer.status_code, answer.json()["kind"]) == (503, "database-away"), path
            assert int(answer.headers["retry-after"]) >= 1
    app.state.store.engine.dispose()


def test_when_every_connection_is_in_use_it_says_so(
    door: Door, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    store: Store = door.store
    monkeypatch.setattr(store.engine.pool, "_timeout", 0.2)
    taken = []
    try:
        while True:
            taken.append(store.engine.connect())
    except Exception:
        answer = door.client.get(
            "/api/v1/me", headers={"Authorization": f"Bearer {door.tokens[world.engineer.id]}"}
        )
    finally:
        for connection in taken:
            connection.close()
    assert (answer.status_code, answer.json()["kind"]) == (503, "database-busy")
    assert door.ask(world.engineer, "GET", "/me").status_code == 200


def test_many_polls_for_work_do_not_starve_each_other(door: Door, world: World) -> None:
    """Each asks twice of the database, but never holds one connection while it waits for the
    other.
    """
    from concurrent.futures import ThreadPoolExecutor

    machine = a_person(door.store, "trainer", team=f"t{secrets.token_hex(4)}")
    door.token(machine)
    with ThreadPoolExecutor(32) as pool:
        done = list(
            pool.map(
                lambda _: door.ask(machine, "POST", "/work/lease", {"worker": "w"}).status_code,
                range(96),
            )
        )
    assert done == [204] * 96
