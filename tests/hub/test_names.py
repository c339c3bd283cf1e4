"""Names that clients cannot ask for are refused before there is anything to pull."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from huggingface_hub import constants

from registry.errors import Invalid
from registry.gateway import app as gateway
from registry.rules.refs import RESERVED_TEAMS
from tests.api.conftest import Door
from tests.build import BASE_META, MODULE, World, a_base, a_person, a_world, safetensors
from tests.db.around import as_owner
from tests.hub.conftest import get

HOSTILE = ("a--b", "a..b", "x.git", "claims.v3")
LONG = "n" * 64


def paths(routes: Any) -> Iterator[str]:
    for route in routes:
        yield getattr(route, "path", "")
        yield from paths(getattr(route, "routes", None) or ())
        if inner := getattr(route, "original_router", None):
            prefix = getattr(getattr(route, "include_context", None), "prefix", "") or ""
            yield from (f"{prefix}{path}" for path in paths(inner.routes))


def test_every_first_segment_that_is_ours_or_a_clients_own_is_reserved(door: Door) -> None:
    """A new page or route cannot be forgotten."""
    # Only the routes are read, so no gateway runs behind them.
    routes_only: Any = SimpleNamespace(completions=SimpleNamespace(answer=None))
    served = gateway.create_app(routes_only)
    first = {
        path.split("/")[1]
        for path in (*paths(door.app.routes), *paths(served.routes))
        if path.startswith("/") and not path.startswith("/{") and path != "/"
    }
    assert {"api", "adapters", "healthz", "metrics", "v1", "static"} <= first
    assert first <= RESERVED_TEAMS, sorted(first - RESERVED_TEAMS)
    prefixes = {
        *constants.HF_URI_TYPE_PREFIXES,
        *(prefix.strip("/") for prefix in constants.REPO_TYPES_URL_PREFIXES.values()),
    }
    assert prefixes <= RESERVED_TEAMS


@pytest.fixture(scope="module")
def world(door: Door) -> World:
    return a_world(door.store, door.blobs, f"t{secrets.token_hex(4)}")


def body(door: Door, world: World, name: str) -> dict[str, Any]:
    config = b'{"model_type":"llama","architectures":["LlamaForCausalLM"],"hidden_size":8}'
    files = {
        "model.safetensors": safetensors({f"{MODULE}.weight": (8, 8), "model.norm.weight": (8,)}),
        "config.json": config,
        "tokenizer.json": b'{"version":"1.0","model":{}}',
    }
    listed = [{"path": path, **door.upload(world.engineer, data)} for path, data in files.items()]
    return {"name": name, "files": listed, "meta": {**BASE_META, "purpose": "to be pulled"}}


@pytest.mark.parametrize("name", HOSTILE)
def test_it_is_refused_at_the_first_add_of_any_kind(door: Door, world: World, name: str) -> None:
    for noun in ("bases", "checkpoints"):
        refused = door.refused(
            world.engineer, "POST", f"/{noun}", body(door, world, f"{world.team}/{name}")
        )
        assert refused == (422, "bad-line-name"), refused


@pytest.mark.parametrize(
    ("team", "name"),
    [("acme", name) for name in HOSTILE] + [(team, "x") for team in sorted(RESERVED_TEAMS)],
)
def test_the_database_refuses_it_too(door: Door, team: str, name: str) -> None:
    with as_owner(door.store) as connection, pytest.raises(psycopg.errors.CheckViolation):
        connection.execute(
            "insert into line (id, kind, team, name, created_at) "
            "values (gen_random_uuid(), 'base', %s, %s, clock_timestamp())",
            (team, name),
        )


def test_a_team_that_could_not_be_pulled_from_has_no_line(door: Door) -> None:
    """Its people may exist: auditors are often of a team called audit."""
    for team in ("api", "audit", "datasets", "metrics"):
        engineer = a_person(door.store, "engineer", team=team, signs=False)
        with pytest.raises(Invalid, match="cannot have a line"):
            a_base(door.store, door.blobs, engineer, team)


def test_the_longest_name_has_one_version_repositories(door: Door, world: World) -> None:
    door.done(world.engineer, "POST", "/bases", body(door, world, f"{world.team}/{LONG}"))
    token = door.token(world.engineer)
    info = get(door, token, f"/api/models/{world.team}/{LONG}.v1")
    assert (info.status_code, info.json()["id"]) == (200, f"{world.team}/{LONG}.v1")
    assert get(door, token, f"/{world.team}/{LONG}.v1/resolve/main/config.json").is_success
    assert get(door, token, f"/api/models/{world.team}/{LONG}x.v1").status_code == 404
