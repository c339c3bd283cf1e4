"""Every way to say no at this door: its status, its kind, a sentence that says what to do, and
nothing half-written.
"""

from __future__ import annotations

import hashlib
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text

from registry.rules.actors import SYSTEM
from tests.api.conftest import Door
from tests.build import Person, World, a_person

UNKNOWN = str(uuid4())


def rows(door: Door) -> dict[str, int]:
    """How many rows every table but the log's own holds."""
    with door.store.read(SYSTEM) as session:
        names = session.scalars(
            text(
                "select table_name from information_schema.tables where table_schema = 'public' "
                "and table_name not in "
                "('event', 'event_pending', 'leaf', 'tree_head', 'token_use')"
            )
        ).all()
        return {
            name: session.execute(text(f"select count(*) from {name}")).scalar_one()
            for name in names
        }


def events(door: Door, action: str) -> int:
    with door.store.read(SYSTEM) as session:
        return int(
            session.execute(
                text("select count(*) from event where action = :action"), {"action": action}
            ).scalar_one()
        )


NOT_THERE = {
    "a version": ("GET", "/versions/{team}/nothing", None, "version-unknown"),
    "a version by digest": ("GET", "/versions/sha256:00000000", None, "version-unknown"),
    "a version by number": ("GET", "/versions/{team}/adapter@v99", None, "version-unknown"),
    "a version by channel": ("GET", "/versions/{team}/adapter@vip", None, "version-unknown"),
    "versions of a line": ("GET", "/lines/{team}/nothing/versions", None, "line-unknown"),
    "a data set": ("GET", "/datasets/{team}/nothing", None, "dataset-unknown"),
    "something to verify": ("GET", "/verify/{team}/nothing", None, None),
    "lineage": ("GET", "/lineage/{team}/nothing", None, None),
    "a training run": ("GET", f"/training-runs/{UNKNOWN}", None, "training-run-unknown"),
    "an eval run": ("GET", f"/eval-runs/{UNKNOWN}", None, "eval-run-unknown"),
    "a review": ("GET", "/reviews/999999999", None, "review-unknown"),
    "a decision": ("GET", "/reviews/999999999/decision", None, "review-unknown"),
    "a blob": ("GET", "/blobs/" + "0" * 64, None, "blob-unknown"),
    "a channel's history": (
        "GET",
        "/history?name={team}/adapter&environment=dev",
        None,
        "channel-unknown",
    ),
    "a route": ("GET", "/nothing", None, "route-unknown"),
    "work to beat": ("POST", f"/work/{UNKNOWN}/fail", {"attempt": 1, "error": "x"}, "work-unknown"),
    "a subject": (
        "POST",
        "/reviews",
        {"ref": "{team}/nothing", "environment": "dev", "use_case": "{team}/case", "note": "x"},
        "version-unknown",
    ),
    "a use case": (
        "POST",
        "/reviews",
        {"ref": "{team}/adapter", "environment": "dev", "use_case": "{team}/none", "note": "x"},
        "use-case-unknown",
    ),
    "a suite": (
        "POST",
        "/eval-runs",
        {"subject": "{team}/adapter", "suite": "{team}/none"},
        "suite-unknown",
    ),
    "a suite's data": (
        "POST",
        "/eval-suites",
        {"name": "{team}/s", "dataset": "{team}/none", "split": "test"},
        "dataset-unknown",
    ),
    "a base": (
        "POST",
        "/training-runs",
        {
            "adapter": "{team}/adapter",
            "base": "{team}/none",
            "dataset": "{team}/rows",
            "recipe": {"steps": 1, "batch_size": 1, "learning_rate": 0.1},
        },
        "version-unknown",
    ),
    "what to canary": (
        "POST",
        "/canaries",
        {"ref": "{team}/none", "environment": "dev", "share_bp": 1},
        "version-unknown",
    ),
    "what to promote": (
        "POST",
        "/promotions",
        {"name": "{team}/none", "environment": "dev"},
        "line-unknown",
    ),
    "a channel to promote": (
        "POST",
        "/promotions",
        {"name": "{team}/adapter", "environment": "dev"},
        "channel-unknown",
    ),
    "a channel to roll back": (
        "POST",
        "/rollbacks",
        {"name": "{team}/adapter", "environment": "dev", "reason": "x"},
        "channel-unknown",
    ),
    "what to recall": (
        "POST",
        "/recalls",
        {"ref": "{team}/none", "reason": "unfit for use"},
        "dataset-unknown",
    ),
}


def filled(value: Any, team: str) -> Any:
    match value:
        case str():
            return value.replace("{team}", team)
        case dict():
            return {key: filled(one, team) for key, one in value.items()}
    return value


@pytest.mark.parametrize("what", NOT_THERE)
def test_what_is_not_there(door: Door, world: World, what: str) -> None:
    method, path, body, kind = NOT_THERE[what]
    person = world.trainer if "/work/" in path else world.engineer
    before = rows(door)
    status, found = door.refused(person, method, filled(path, world.team), filled(body, world.team))
    assert (status, kind in (None, found)) == (404, True), found
    assert rows(door) == before


def test_another_teams_things_answer_as_if_they_were_not_there(door: Door, world: World) -> None:
    stranger = a_person(door.store, "engineer", team="elsewhere")
    machine = a_person(door.store, "trainer", team="elsewhere")
    door.tokens.pop(stranger.id, None)
    ref, team = world.versions[-1], world.team
    with door.store.read(SYSTEM) as session:
        run = session.execute(
            text(
                "select training_run_id from version v join node n on n.id = v.id where n.ref = "
                ":ref"
            ),
            {"ref": ref},
        ).scalar_one()
    asked = [
        ("GET", f"/versions/{ref}", None),
        ("GET", f"/lines/{team}/adapter/versions", None),
        ("GET", f"/datasets/{team}/rows", None),
        ("GET", f"/verify/{ref}", None),
        ("GET", f"/lineage/{ref}", None),
        ("GET", f"/training-runs/{run}", None),
        ("GET", f"/reviews/{world.review}", None),
        ("GET", f"/gates?ref={ref}&environment=dev&use_case={team}/case", None),
        ("POST", f"/training-runs/{run}/cancel", None),
        (
            "POST",
            "/reviews",
            {"ref": ref, "environment": "dev", "use_case": f"{team}/case", "note": "x"},
        ),
        ("POST", "/eval-runs", {"subject": ref, "suite": f"{team}/suite"}),
        ("POST", "/canaries", {"ref": ref, "environment": "production", "share_bp": 100}),
        ("POST", "/promotions", {"name": f"{team}/adapter", "environment": "production"}),
        (
            "POST",
            "/rollbacks",
            {"name": f"{team}/adapter", "environment": "production", "reason": "x"},
        ),
        ("POST", "/recalls", {"ref": ref, "reason": "unfit for use"}),
        (
            "POST",
            "/use-cases",
            {
                "name": "elsewhere/case",
                "purpose": "p",
                "owner": "o",
                "risk_tier": "high",
                "suite": f"{team}/suite",
            },
        ),
        (
            "POST",
            "/eval-suites",
            {"name": "elsewhere/s", "dataset": f"{team}/rows", "split": "test"},
        ),
    ]
    for method, path, body in asked:
        status, kind = door.refused(stranger, method, path, body)
        assert status == 404, (path, kind)
    assert (
        door.refused(machine, "POST", f"/work/{run}/fail", {"attempt": 1, "error": "x"})[0] == 404
    )
    report = {"attempt": 1, "report": {}, "key": "x", "signature": "x"}
    assert door.refused(machine, "POST", f"/work/{run}/finish", report)[0] == 404
    for path in (
        "/datasets",
        "/training-runs",
        "/eval-runs",
        "/use-cases",
        "/eval-suites",
        "/channels",
    ):
        assert door.done(stranger, "GET", path) == []
    assert door.done(stranger, "GET", "/lines")["items"] == []


STATES = {
    "nothing approved": (
        "/canaries",
        {"ref": "{team}/adapter@v1", "environment": "production", "share_bp": 100},
        "not-approved",
    ),
    "approved elsewhere": (
        "/canaries",
        {"ref": "{team}/adapter@v2", "environment": "dev", "share_bp": 100},
        "not-approved",
    ),
    "a base as canary": (
        "/canaries",
        {"ref": "{team}/tiny", "environment": "dev", "share_bp": 100},
        "unfit-subject",
    ),
    "a base for review": (
        "/reviews",
        {"ref": "{team}/tiny", "environment": "dev", "use_case": "{team}/case", "note": "x"},
        "unfit-subject",
    ),
    "a second live review": (
        "/reviews",
        {
            "ref": "{team}/adapter@v2",
            "environment": "production",
            "use_case": "{team}/case",
            "note": "x",
        },
        "review-live",
    ),
    "an adapter as base": (
        "/training-runs",
        {
            "adapter": "{team}/adapter",
            "base": "{team}/adapter",
            "dataset": "{team}/rows",
            "recipe": {"steps": 1, "batch_size": 1, "learning_rate": 0.1},
        },
        "unfit-base",
    ),
    "a base's name for an adapter": (
        "/training-runs",
        {
            "adapter": "{team}/tiny",
            "base": "{team}/tiny",
            "dataset": "{team}/rows",
            "recipe": {"steps": 1, "batch_size": 1, "learning_rate": 0.1},
        },
        "line-kind",
    ),
    "a use case twice": (
        "/use-cases",
        {
            "name": "{team}/case",
            "purpose": "p",
            "owner": "o",
            "risk_tier": "high",
            "suite": "{team}/suite",
        },
        "use-case-exists",
    ),
}


@pytest.mark.parametrize("what", STATES)
def test_the_state_is_another(door: Door, world: World, what: str) -> None:
    path, body, kind = STATES[what]
    before = rows(door)
    assert door.refused(world.engineer, "POST", path, filled(body, world.team)) == (409, kind)
    assert rows(door) == before


WRONG = {
    "an unknown field": (
        "/canaries",
        {"ref": "a/b", "environment": "dev", "share_bp": 1, "share": 5},
        "invalid-request",
    ),
    "a missing field": ("/canaries", {"environment": "dev", "share_bp": 1}, "invalid-request"),
    "a wrong type": (
        "/canaries",
        {"ref": ["a/b"], "environment": "dev", "share_bp": 1},
        "invalid-request",
    ),
    "a share as text": (
        "/canaries",
        {"ref": "a/b", "environment": "dev", "share_bp": "500"},
        "invalid-request",
    ),
    "no share": ("/canaries", {"ref": "a/b", "environment": "dev", "share_bp": 0}, "bad-share"),
    "more than all": (
        "/canaries",
        {"ref": "a/b", "environment": "dev", "share_bp": 10001},
        "bad-share",
    ),
    "a huge share": (
        "/canaries",
        {"ref": "a/b", "environment": "dev", "share_bp": 10**30},
        "invalid-request",
    ),
    "a reference": (
        "/canaries",
        {"ref": "no reference", "environment": "dev", "share_bp": 1},
        "bad-reference",
    ),
    "an environment": (
        "/canaries",
        {"ref": "{team}/adapter", "environment": "mars", "share_bp": 1},
        "bad-environment",
    ),
    "a channel like a version": (
        "/canaries",
        {"ref": "{team}/adapter", "environment": "production", "share_bp": 1, "channel": "v7"},
        "bad-channel-name",
    ),
    "a channel like a draft": (
        "/canaries",
        {"ref": "{team}/adapter", "environment": "production", "share_bp": 1, "channel": "draft-1"},
        "bad-channel-name",
    ),
    "a promotion by digest alone": (
        "/promotions",
        {"name": "sha256:00", "environment": "dev"},
        "bad-reference",
    ),
    "a rollback of a version": (
        "/rollbacks",
        {"name": "{team}/adapter@v2", "environment": "dev", "reason": "x"},
        "bad-reference",
    ),
    "a rollback without a reason": (
        "/rollbacks",
        {"name": "{team}/adapter", "environment": "dev", "reason": "  "},
        "reason-missing",
    ),
    "a recall without a reason": (
        "/recalls",
        {"ref": "{team}/adapter@v1", "reason": ""},
        "reason-missing",
    ),
    "a recipe": (
        "/training-runs",
        {
            "adapter": "{team}/adapter",
            "base": "{team}/tiny",
            "dataset": "{team}/rows",
            "recipe": {"rank": True, "unknown": 1},
        },
        "bad-recipe",
    ),
    "a metric": (
        "/eval-suites",
        {"name": "{team}/s", "dataset": "{team}/rows", "split": "test", "metric": "magic"},
        "bad-metric",
    ),
    "decoding": (
        "/eval-suites",
        {
            "name": "{team}/s",
            "dataset": "{team}/rows",
            "split": "test",
            "decoding": {"max_new_tokens": True},
        },
        "bad-decoding",
    ),
    "a risk tier": (
        "/use-cases",
        {
            "name": "{team}/c",
            "purpose": "p",
            "owner": "o",
            "risk_tier": "x",
            "suite": "{team}/suite",
        },
        "bad-risk-tier",
    ),
    "a digest": (
        "/datasets",
        {"name": "{team}/d", "file": {"sha256": "XYZ", "size": 1}},
        "invalid-request",
    ),
    "a negative size": (
        "/datasets",
        {"name": "{team}/d", "file": {"sha256": "0" * 64, "size": -1}},
        "invalid-request",
    ),
    "a key": ("/keys", {"public_key": "é", "proof": "x"}, "bad-key"),
    "a key's proof": ("/keys", {"public_key": "A" * 43 + "=", "proof": "é"}, "bad-signature"),
    "bytes that are not here": (
        "/datasets",
        {"name": "{team}/d", "file": {"sha256": "0" * 64, "size": 1}},
        "blob-missing",
    ),
    "no note": (
        "/reviews",
        {"ref": "{team}/adapter", "environment": "dev", "use_case": "{team}/case", "note": " "},
        "note-missing",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_the_request_is_wrong(door: Door, world: World, what: str) -> None:
    path, body, kind = WRONG[what]
    before = rows(door)
    assert door.refused(world.engineer, "POST", path, filled(body, world.team)) == (422, kind)
    assert rows(door) == before


def test_roles_are_named_and_refusals_recorded(door: Door, world: World, auditor: Person) -> None:
    before, told = rows(door), events(door, "rollout:start")
    body = {"ref": world.versions[-1], "environment": "production", "share_bp": 100}
    answer = door.ask(auditor, "POST", "/canaries", body)
    problem = answer.json()
    assert (answer.status_code, problem["kind"], problem["facts"]["roles"]) == (
        403,
        "role-missing",
        ["engineer"],
    )
    assert "engineer" in problem["detail"]
    assert (rows(door), events(door, "rollout:start")) == (before, told + 1)
    for method, path, body in (
        ("POST", "/accounts", {"name": "x", "roles": ["admin"]}),
        ("POST", "/tokens", {"account": "x", "roles": ["admin"]}),
        ("POST", "/policies", {"text": world_policy(door)}),
        ("POST", "/work/lease", {"worker": "w"}),
        ("POST", "/reviews/1/withdraw", {"reason": "x"}),
        ("PUT", "/blobs/" + "0" * 64, None),
    ):
        assert door.refused(auditor, method, path, body) == (403, "role-missing"), path


def world_policy(door: Door) -> str:
    """The text of dev's policy with another number of days: sound, so that only the role can stop
    it.
    """
    with door.store.read(SYSTEM) as session:
        found = session.execute(
            text(
                "select text from policy_version where environment = 'dev' order by number limit 1"
            )
        )
        return str(found.scalar_one()).replace("365", "17")


def test_a_missing_blob_is_named(door: Door, world: World) -> None:
    missing = hashlib.sha256(b"never sent").hexdigest()
    files = [{"path": "adapter_config.json", "sha256": missing, "size": 10}]
    body = {"name": f"{world.team}/bad", "base": world.base.ref, "files": files}
    answer = door.ask(world.engineer, "POST", "/adapters", body)
    assert (answer.status_code, answer.json()["kind"]) == (422, "blob-missing")
    assert missing in answer.json()["detail"]
