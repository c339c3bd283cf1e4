"""Who may pull what, through the real door: every kind of caller before a version of every
standing.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import httpx
import psycopg
import pytest

from registry.commands import deprecations, recalls, rollouts, tokens, versions
from registry.rules.actors import SYSTEM
from tests.api.conftest import Door
from tests.build import World, a_person, a_world, adapter_files, approved, register, train
from tests.db.around import plain_url
from tests.hub.conftest import get

# Who pulls it: . nobody of the team; d its maker and reviewers; p people and trainers; s a gateway
# of staging too; o a gateway of production too; a gateway bound to no environment pulls what any of
# those may.
STANDINGS = {
    "v1": "p",  # registered, never approved
    "v2": "po",  # stable in production
    "v4": "ps",  # approved for staging
    "v6": "p",  # approved for production; the approval has run out
    "v8": "p",  # approved for production; the approval was voided
    "v9": "p",  # deprecated, never approved
    "v10": ".",  # recalled, though it was approved
    "draft": "d",
}


@dataclass
class Stage:
    """A line with a version of every standing, and the revision that names each."""

    world: World
    names: dict[str, str]

    @property
    def line(self) -> str:
        return f"{self.world.team}/adapter"


@pytest.fixture(scope="module")
def stage(door: Door) -> Stage:
    world = a_world(door.store, door.blobs, f"t{secrets.token_hex(4)}")
    engineer, line = world.engineer.actor, f"{world.team}/adapter"
    live = approved(world)
    rollouts.start(
        door.store, engineer, rollouts.Canary(live, "production", None, 500, "first traffic")
    )
    rollouts.promote(door.store, engineer, rollouts.Place(line, "production", None), "it went well")
    approved(world, "staging", seed=10)
    approved(world, seed=20)
    lapsed = world.review
    approved(world, seed=30)
    voided = world.review
    train(world, seed=40)
    recalls.recall(door.store, engineer, world.versions[9], "poisoned for use")
    draft = versions.Draft("adapter", line, adapter_files(door.blobs, 99), {}, world.base.ref)
    drafted = register(door.store, door.blobs, engineer, draft)
    assert drafted.status == "draft"
    deprecations.deprecate(door.store, engineer, f"{line}@v9", "Use v8.")
    with psycopg.connect(plain_url(door.store)) as connection:  # what only time would do
        connection.execute("alter table review disable trigger user")
        connection.execute(
            "update review set opened_at = opened_at - interval '400 days', decided_at = "
            "decided_at - "
            "interval '400 days', expires_at = now() - interval '1 second' where number = %s",
            [lapsed],
        )
        connection.execute("update review set state = 'voided' where number = %s", [voided])
        connection.execute("alter table review enable trigger user")
    return Stage(
        world, {name: name for name in STANDINGS} | {"draft": drafted.ref.partition("@")[2]}
    )


def token(door: Door, role: str, team: str | None, environment: str | None = None) -> str:
    person = a_person(door.store, role, team=team, signs=False)
    return str(
        tokens.create(
            door.store, SYSTEM, tokens.TokenRequest(person.actor.name, [role], team, 1, environment)
        ).token
    )


def answers(door: Door, secret: str, line: str, revision: str, every: bool) -> set[tuple[int, str]]:
    """What one, or every, way to ask for this revision says: statuses and codes."""
    file = f"/{line}/resolve/{revision}/adapter_config.json"
    asked = [get(door, secret, file, method="HEAD")]
    if every:
        asked += [
            get(door, secret, file),
            get(
                door,
                secret,
                f"/api/models/{line}/paths-info/{revision}",
                method="POST",
                json={"paths": ["adapter_config.json"]},
            ),
        ]
        asked += [
            get(door, secret, f"/api/models/{line}/{verb}/{revision}")
            for verb in ("revision", "tree", "commits")
        ]
    return {(one.status_code, one.headers.get("x-error-code", "")) for one in asked}


PULLED, HIDDEN, STRANGE = {(200, "")}, {(404, "RevisionNotFound")}, {(404, "RepoNotFound")}
CALLERS = {
    "maker": "dp",
    "admin": "p",
    "engineer": "p",
    "reviewer": "dp",
    "auditor": "p",
    "trainer": "p",
    "gateway": "so",
    "gateway of staging": "s",
    "gateway of production": "o",
    "gateway of dev": "",
    "stranger": None,
    "gateway of strangers": None,
}


@pytest.mark.parametrize("caller", CALLERS)
def test_who_pulls_what(door: Door, stage: Stage, caller: str) -> None:
    team, may = stage.world.team, CALLERS[caller]
    role, _, within = caller.partition(" of ")
    if caller == "maker":
        secret = door.token(stage.world.engineer)
    elif may is None:
        secret = token(door, "gateway" if within else "engineer", f"t{secrets.token_hex(4)}")
    elif role in ("admin", "auditor"):
        secret = token(door, role, None)
    else:
        secret = token(door, role, "risk" if role == "reviewer" else team, within or None)
    every = caller in ("gateway", "stranger")  # all of them go through one query; these two show it
    found = {
        name: answers(door, secret, stage.line, revision, every)
        for name, revision in stage.names.items()
    }
    if may is None:
        assert found == dict.fromkeys(STANDINGS, STRANGE)
        assert get(door, secret, f"/api/models?author={team}").json() == []
        return
    pulled = {name for name, marks in STANDINGS.items() if set(marks) & set(may)}
    assert found == {name: PULLED if name in pulled else HIDDEN for name in STANDINGS}
    # What he may pull is what he is shown: no tag names anything else, and the list only lines with
    # something for him.
    tags = {
        one["name"] for one in get(door, secret, f"/api/models/{stage.line}/refs").json()["tags"]
    }
    assert tags & set(STANDINGS) == pulled - {"draft"}
    listed = [
        one["id"] for one in get(door, secret, f"/api/models?author={team}&filter=adapter").json()
    ]
    assert listed == ([stage.line] if may else [])


def test_main_of_a_bound_gateway_is_its_environments(door: Door, stage: Stage) -> None:
    team, line = stage.world.team, stage.line
    rollouts.start(
        door.store,
        stage.world.engineer.actor,
        rollouts.Canary(f"{line}@v4", "staging", None, 500, "first traffic"),
    )
    rollouts.promote(
        door.store,
        stage.world.engineer.actor,
        rollouts.Place(line, "staging", None),
        "it went well",
    )

    def main(environment: str | None) -> httpx.Response:
        return get(
            door, token(door, "gateway", team, environment), f"/api/models/{line}/revision/main"
        )

    def commit(revision: str) -> str:
        return str(
            get(
                door, door.token(stage.world.engineer), f"/api/models/{line}/revision/{revision}"
            ).json()["sha"]
        )

    assert main("staging").json()["sha"] == commit("v4")
    with psycopg.connect(
        plain_url(door.store)
    ) as connection:  # its approval runs out: that moves no channel
        connection.execute("alter table review disable trigger user")
        changed = connection.execute(
            "update review set opened_at = opened_at - interval '400 days', decided_at = "
            "decided_at - interval '400 days', "
            "expires_at = now() - interval '1 second' where version_id = (select id from node "
            "where ref = %s)",
            [f"{line}@v4"],
        )
        assert changed.rowcount == 1
        connection.execute("alter table review enable trigger user")
    assert main("staging").json()["sha"] == commit("v4")
    assert main(None).json()["sha"] == main("production").json()["sha"] == commit("v2")
    said = get(
        door, token(door, "gateway", team, "dev"), f"/api/models/{line}/revision/v2"
    ).headers["x-error-message"]
    assert "not approved for dev" in said


def test_a_base_is_pulled_where_something_stands_on_it(door: Door, stage: Stage) -> None:
    place = f"/{stage.world.team}/tiny/resolve/v1/config.json"
    statuses = [
        get(door, token(door, "gateway", stage.world.team, one), place).status_code
        for one in ("production", "staging", "dev", None)
    ]
    assert statuses == [200, 200, 404, 200]


def test_a_bound_token_says_so_and_only_gateways_have_one(door: Door, stage: Stage) -> None:
    admin = a_person(door.store, "admin", signs=False)
    team = stage.world.team
    gateway = a_person(door.store, "gateway", team=team, signs=False)
    body = {
        "account": gateway.actor.name,
        "roles": ["gateway"],
        "team": team,
        "days": 1,
        "environment": "staging",
    }
    minted = door.done(admin, "POST", "/tokens", body)
    assert minted["grants"] == [{"role": "gateway", "team": team, "environment": "staging"}]
    assert [
        one["grants"] for one in door.done(gateway, "GET", "/tokens") if one["id"] == minted["id"]
    ] == [minted["grants"]]
    refused = {**body, "account": stage.world.engineer.actor.name, "roles": ["engineer"]}
    assert door.refused(admin, "POST", "/tokens", refused) == (422, "environment-not-for-role")
    assert door.refused(admin, "POST", "/tokens", {**body, "environment": "mars"}) == (
        422,
        "bad-environment",
    )
