"""REST refuses tokens, queries and methods by name."""

from __future__ import annotations

import secrets
from datetime import timedelta

import pytest

from registry.commands import tokens
from registry.db.accounts import Token
from registry.rules.actions import Action
from registry.rules.actors import SYSTEM
from registry.rules.tokens import fingerprint
from tests.api.conftest import Door
from tests.api.test_errors import events, rows
from tests.build import Person, World


@pytest.mark.parametrize(
    ("query", "kind"),
    [
        ("/lines?limit=0", "bad-limit"),
        ("/lines?limit=-1", "bad-limit"),
        ("/lines?limit=201", "bad-limit"),
        (f"/lines?limit={10**30}", "bad-limit"),
        ("/lines?limit=ten", "invalid-request"),
        ("/lines?cursor=garbage", "bad-cursor"),
        ("/lines?cursor=WzFd", "bad-cursor"),
        ("/lines?kind=car", "bad-kind"),
        ("/lines?q=%00", "bad-text"),
        ("/reviews?limit=0", "bad-limit"),
        ("/reviews?cursor=%00", "bad-cursor"),
        ("/reviews?state=happy", None),
        ("/audit/events?limit=0", "bad-limit"),
        ("/audit/events?cursor=x", "bad-cursor"),
        ("/reviews/one", "invalid-request"),
        ("/training-runs/one", "invalid-request"),
        ("/as-of?at=yesterday&environment=dev", "invalid-request"),
        ("/as-of?at=2026-01-01T00:00:00&environment=dev", "bad-time"),
        ("/as-of?environment=dev", "invalid-request"),
        ("/routing?environment=mars", "bad-environment"),
        ("/routing", "invalid-request"),
        ("/blobs/xyz", "bad-digest"),
        ("/channels?environment=%00", "bad-environment"),
        ("/versions/nothing", "bad-reference"),
        ("/versions/a/b@c@d", "bad-reference"),
        ("/datasets/x", "bad-reference"),
        ("/lineage/%00", "bad-reference"),
        ("/history?name=a/b&environment=dev&channel=%00", "bad-text"),
        ("/history?name=x&environment=dev", "bad-reference"),
    ],
)
def test_the_query_is_wrong(door: Door, world: World, query: str, kind: str | None) -> None:
    status, found = door.refused(world.engineer, "GET", query)
    assert (status, kind in (None, found)) == (422, True), found


def test_tokens_that_are_none(door: Door, world: World) -> None:
    good = door.token(world.engineer)
    dead = tokens.create(
        door.store,
        SYSTEM,
        tokens.TokenRequest(world.engineer.actor.name, ["engineer"], world.team, 1),
    )
    tokens.revoke(door.store, SYSTEM, dead.id)
    other = good[:-1] + ("A" if good[-1] != "A" else "B")
    for header, kind in {
        "": "token-missing",
        "Bearer": "token-missing",
        f"Basic {good}": "token-missing",
        "Bearer x": "token-malformed",
        f"Bearer {good}x": "token-malformed",
        "Bearer cs_000000000000_" + "A" * 43: "token-unknown",
        f"Bearer {other}": "token-unknown",
        f"Bearer {dead.token}": "token-unknown",
    }.items():
        answer = door.ask(None, "GET", "/me", headers={"Authorization": header} if header else {})
        assert (answer.status_code, answer.json()["kind"]) == (401, kind), header
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert good not in answer.text
    assert (
        door.ask(None, "GET", "/me", headers={"Authorization": f"bearer {good}"}).status_code == 200
    )


def aged(door: Door, person: Person, days: int, hours: float) -> str:
    """A token minted so many hours ago for so many days."""
    token_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    (grant,) = person.actor.grants
    with door.store.write(SYSTEM, Action.TOKEN_CREATE) as tx:
        born = tx.now - timedelta(hours=hours)
        tx.add(
            Token(
                id=token_id,
                account_id=person.id,
                secret_hash=fingerprint(secret),
                created_at=born,
                scopes=[{"role": grant.role.value, "team": grant.team}],
                expires_at=born + timedelta(days=days),
            )
        )
        tx.audit(f"token:{token_id}")
    return f"cs_{token_id}_{secret}"


def test_a_token_expires(door: Door, world: World) -> None:
    old = aged(door, world.engineer, days=1, hours=25)
    answer = door.ask(None, "GET", "/me", headers={"Authorization": f"Bearer {old}"})
    assert (answer.status_code, answer.json()["kind"]) == (401, "token-expired")


def test_promoting_asks_for_a_fresh_sign_in(door: Door, world: World) -> None:
    old = aged(door, world.engineer, days=30, hours=13)
    headers = {"Authorization": f"Bearer {old}"}
    body = {"name": f"{world.team}/adapter", "environment": "production"}
    answer = door.ask(None, "POST", "/promotions", body, headers=headers)
    assert (answer.status_code, answer.json()["kind"]) == (401, "fresh-sign-in")
    assert door.ask(None, "GET", "/me", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PATCH", "/me"),
        ("DELETE", "/accounts"),
        ("POST", "/me"),
        ("PUT", "/reviews"),
        ("GET", "/canaries"),
        ("TRACE", "/lines"),
    ],
)
def test_a_method_that_is_not_there(door: Door, world: World, method: str, path: str) -> None:
    assert door.refused(world.engineer, method, path) == (405, "bad-method")


def test_a_refused_bundle_lists_every_defect_and_stores_nothing(door: Door, world: World) -> None:
    files = [
        {"path": path, **door.upload(world.engineer, data)}
        for path, data in (
            ("adapter_model.safetensors", b"no tensors"),
            ("adapter_config.json", b"{"),
            ("run.py", b"import os"),
        )
    ]
    before, told = rows(door), events(door, "version:register")
    body = {"name": f"{world.team}/bad", "base": world.base.ref, "files": files, "meta": {}}
    answer = door.ask(world.engineer, "POST", "/adapters", body)
    problem = answer.json()
    assert (answer.status_code, problem["kind"], problem["family"]) == (
        422,
        "bundle-rejected",
        "rejected",
    )
    assert len(problem["defects"]) >= 3
    assert all(set(one) == {"file", "where", "rule", "detail", "fix"} for one in problem["defects"])
    assert (rows(door), events(door, "version:register")) == (before, told + 1)
