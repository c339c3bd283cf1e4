"""What the door promises: its OpenAPI document, a named 401 on every route, health, readiness,
metrics.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from registry.api import rest
from tests.api.conftest import Door
from tests.build import ADAPTER_META, RECIPE, World
from tests.database import Databases


def routes(door: Door) -> list[tuple[str, str]]:
    documented = door.client.get("/api/v1/openapi.json").json()["paths"]
    return [
        (method.upper(), path.removeprefix("/api/v1"))
        for path, methods in documented.items()
        for method in methods
    ]


def _walked(found: Sequence[Any]) -> Iterator[Any]:
    for route in found:
        yield from (
            _walked(route.original_router.routes) if hasattr(route, "original_router") else (route,)
        )


def test_the_document_is_served_and_names_every_route(door: Door) -> None:
    document = door.client.get("/api/v1/openapi.json")
    assert document.headers["content-type"] == "application/json"
    assert document.json()["openapi"].startswith("3.")
    # What FastAPI includes it keeps as routers within routers; the document must tell of every
    # route of every noun.
    served = {
        (method, route.path_format.removeprefix("/api/v1"))
        for route in _walked(rest.router().routes)
        for method in route.methods - {"HEAD"}
        if route.include_in_schema
    }
    assert served == {one for one in routes(door) if one[0] != "HEAD"}
    assert len(served) > 50
    assert all(path.startswith("/api/v1/") for path in document.json()["paths"])


def test_every_route_asks_for_a_token(door: Door) -> None:
    for method, path in routes(door):
        where = re.sub(r"\{ref\}", "a/b", re.sub(r"\{(run|number)\}", str(uuid4()), path))
        answer = door.ask(None, method, re.sub(r"\{\w+\}", "0" * 64, where))
        assert answer.status_code == 401, (method, path)
        if method != "HEAD":
            assert answer.json()["kind"] == "token-missing"
        assert answer.headers["www-authenticate"].startswith("Bearer")


def test_health_needs_nobody(door: Door) -> None:
    assert door.client.get("/healthz").json()["status"] == "ok"
    assert door.client.get("/readyz").json() == {"status": "ready"}


def test_metrics_count_what_is_there(door: Door, world: World) -> None:
    def numbers() -> dict[str, float]:
        text = door.client.get("/metrics").text
        return {
            name: float(value)
            for name, value in re.findall(r"^(countersign_\w+) (\S+)$", text, re.MULTILINE)
        }

    before = numbers()
    assert before["countersign_events"] > 20
    assert {
        "countersign_pending",
        "countersign_open_reviews",
        "countersign_training_queued",
    } <= before.keys()
    door.done(
        world.engineer,
        "POST",
        "/training-runs",
        {
            "adapter": f"{world.team}/metrics",
            "base": world.base.ref,
            "dataset": world.dataset.ref,
            "domain": "legal",
            "recipe": RECIPE,
            "meta": ADAPTER_META,
        },
    )
    after = numbers()
    assert after["countersign_training_queued"] == before["countersign_training_queued"] + 1
    assert after["countersign_events"] >= before["countersign_events"] + 1
    text = door.client.get("/metrics").text
    assert 'countersign_http_seconds_count{method="GET",status="200"}' in text
    [run] = [
        one["id"]
        for one in door.done(world.engineer, "GET", f"/training-runs?adapter={world.team}/metrics")
    ]
    door.done(world.engineer, "POST", f"/training-runs/{run}/cancel")


def test_what_nobody_foresaw_is_a_named_fault(
    door: Door, world: World, databases: Databases, tmp_path: Path
) -> None:
    """A database without our tables: nothing raw leaves, and the request id leads to the log."""
    from tests.api.conftest import opened

    name = f"bare_{uuid4().hex[:8]}"
    url = databases.migrated(name)
    from sqlalchemy import create_engine, text

    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("alter table line rename to gone"))
    engine.dispose()
    with opened(url, tmp_path) as bare:
        from tests.build import a_person

        person = a_person(bare.store, "auditor")
        answer = bare.ask(person, "GET", "/lines")
        assert (answer.status_code, answer.json()["family"]) == (500, "fault")
        assert "gone" not in answer.text
        assert "select" not in answer.text.lower()
    databases.drop(name)
