"""Whatever is sent, the answer is a named refusal: never a fault of ours, never half a row."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest

from registry.api.door import RestRoute
from registry.api.rest import NOUNS
from tests.api.conftest import Door
from tests.api.test_errors import filled, rows
from tests.build import ADAPTER_META, BASE_META, DATA_META, RECIPE, Person, World

HOSTILE: list[Any] = [
    None,
    True,
    0,
    -1,
    1.5,
    2**31,
    2**31 - 1,
    2**53,
    2**63,
    10**40,
    "",
    " ",
    "\0",
    "a\0b",
    "\ud800",
    "a\udfffb",
    "é",
    "\u202e",
    "x" * 201,
    "x" * 21_000,
    "../../etc/passwd",
    "'; drop table version; --",
    "%s%n{}",
    [],
    {},
    [[]],
    {"": ""},
    {"\0": 1},
    {"a": "\0"},
    {"a": ["\ud800"]},
    {"a": 10**40},
    {"a": 2**53},
    "sha256:" + "0" * 64,
    "team/name",
    "team/name@v1",
    str(uuid4()),
    {"a": {"b": {"c": "\0"}}},
    ["\0"],
    [True, None],
    {"__class__": 1},
    "2026-01-01",
    "v" + "9" * 300,
]
# A body for every POST route that passes its schema; one field after the other is then replaced.
BODIES: dict[str, dict[str, Any]] = {
    "/accounts": {"name": "somebody", "roles": ["auditor"], "team": "x"},
    "/tokens": {"account": "nobody", "roles": ["auditor"], "team": "x", "days": 1},
    "/keys": {"public_key": "A" * 43 + "=", "label": "x", "proof": "x"},
    "/bases": {"name": "{team}/b", "files": [], "meta": BASE_META},
    "/adapters": {
        "name": "{team}/a",
        "files": [{"path": "x", "sha256": "0" * 64, "size": 1}],
        "meta": ADAPTER_META,
        "base": "{team}/tiny",
        "domain": "legal",
        "training_run": str(uuid4()),
        "attempt": 1,
        "step": 1,
    },
    "/checkpoints": {"name": "{team}/c", "files": [], "meta": {}},
    "/datasets": {"name": "{team}/d", "file": {"sha256": "0" * 64, "size": 1}, "meta": DATA_META},
    "/use-cases": {
        "name": "{team}/case",
        "purpose": "p",
        "owner": "o",
        "risk_tier": "high",
        "suite": "{team}/suite",
        "details": {},
    },
    "/use-cases/{ref}/versions": {"reason": "The test asks for it.", "owner": "o"},
    "/eval-suites": {
        "name": "{team}/suite",
        "dataset": "{team}/none",
        "split": "test",
        "metric": "exact_match",
        "decoding": {},
    },
    "/eval-runs": {"subject": "{team}/none", "suite": "{team}/suite"},
    "/training-runs": {
        "adapter": "{team}/t",
        "base": "{team}/none",
        "dataset": "{team}/rows",
        "recipe": RECIPE,
        "domain": "legal",
        "meta": {},
    },
    "/training-runs/{run}/cancel": {},
    "/work/lease": {"worker": "w"},
    "/work/{run}/beat": {"attempt": 1, "progress": {}},
    "/work/{run}/requeue": {"attempt": 1, "reason": "x"},
    "/work/{run}/fail": {"attempt": 1, "error": "x"},
    "/work/{run}/finish": {"attempt": 1, "report": {}, "key": "x", "signature": "x"},
    "/policies": {"text": "environment: dev"},
    "/reviews": {
        "ref": "{team}/none",
        "environment": "dev",
        "use_case": "{team}/case",
        "note": "x",
    },
    "/reviews/{number}/votes": {
        "decision": {"verdict": "approve"},
        "reason": "a sentence of words",
        "salt": "00" * 16,
        "key": "x",
        "signature": "x",
    },
    "/reviews/{number}/withdraw": {"reason": "x"},
    "/canaries": {
        "ref": "{team}/none",
        "environment": "dev",
        "share_bp": 1,
        "channel": "x",
        "reason": "x",
    },
    "/promotions": {"name": "{team}/none", "environment": "dev", "channel": "x", "reason": "x"},
    "/rollbacks": {"name": "{team}/none", "environment": "dev", "channel": "x", "reason": "x"},
    "/deprecations": {"ref": "{team}/none", "reason": "x"},
    "/recalls": {"ref": "{team}/none", "reason": "unfit for use"},
    "/profiles": {
        "ref": "{team}/none",
        "profile": {"engine": "vllm", "build": "0.32.0"},
        "served_base": "{team}/none",
    },
    "/retention/classes": {
        "name": "c",
        "keep_days": 1,
        "counted_from": "service",
        "after": "due",
        "draft_days": 1,
        "reason": "x",
    },
    "/retention/settings": {"name": "{team}/none", "retention": "standard", "reason": "x"},
    "/holds": {"over": "{team}/none", "case": "Matter 1", "reason": "x"},
    "/holds/{number}/lift": {"reason": "x"},
    "/deletions": {"ref": "{team}/none", "reason": "x"},
    "/discards": {"ref": "{team}/none", "reason": "x"},
    "/collections": {"grace_hours": 8760},
    "/quotas": {"team": "none", "max_bytes": 1, "max_versions": 1, "reason": "x"},
}


def route(path: str, world: World) -> str:
    return path.replace("{run}", str(uuid4())).replace("{number}", str(world.review))


def who(path: str, world: World, admin: Person) -> Person:
    """Whoever may: the role must not be what stops the rest from being tried."""
    if path in ("/accounts", "/tokens", "/policies", "/quotas", "/collections") or path.startswith(
        "/retention"
    ):
        return admin
    if path.startswith("/holds"):
        return world.risk
    if path.startswith("/work"):
        return world.trainer
    return world.risk if path.endswith("/votes") else world.engineer


def send(door: Door, person: Person, path: str, body: Any) -> int:
    """POST a JSON body with whatever is in it: lone surrogates travel as escapes."""
    answer = door.ask(
        person, "POST", path, content=json.dumps(body), headers={"content-type": "application/json"}
    )
    assert answer.status_code < 500, (path, body, answer.text)
    return answer.status_code


def twisted(body: dict[str, Any], value: Any) -> Iterator[dict[str, Any]]:
    """The body with one field replaced, at any depth, with one added, and with one missing."""
    for key in body:
        yield {**body, key: value}
        if isinstance(body[key], dict):
            yield {**body, key: {**body[key], "more": value}}
            for inner in twisted(body[key], value):
                yield {**body, key: inner}
        if isinstance(body[key], list) and body[key]:
            yield {**body, key: [value]}
            if isinstance(body[key][0], dict):
                yield from ({**body, key: [inner]} for inner in twisted(body[key][0], value))
        yield {one: body[one] for one in body if one != key}


def test_there_is_a_body_for_every_route(door: Door) -> None:
    documented = door.client.get("/api/v1/openapi.json").json()["paths"]
    assert set(BODIES) == {
        path.removeprefix("/api/v1") for path, methods in documented.items() if "post" in methods
    }


@pytest.mark.parametrize("path", BODIES)
def test_no_body_is_a_fault(door: Door, world: World, admin: Person, path: str) -> None:
    """A seeded sample of one hostile value in one place; what cannot be stored never gets past the
    door.
    """
    pick = random.Random(path)
    person, body = who(path, world, admin), filled(BODIES[path], world.team)
    cases = [case for value in HOSTILE for case in twisted(body, value)]
    for case in pick.sample(cases, min(16, len(cases))):
        send(door, person, route(path, world), case)
    for value in pick.sample(HOSTILE, 3):
        if body:
            assert send(door, person, route(path, world), value) == 422
    hidden = [{**body, key: value} for key in body for value in ("\0", "\ud800")]
    for case in hidden:
        assert send(door, person, route(path, world), case) == 422, case


@pytest.mark.parametrize("path", ["/canaries", "/work/lease", "/policies"])
def test_no_bytes_are_a_fault(door: Door, world: World, admin: Person, path: str) -> None:
    person = who(path, world, admin)
    deep = "[" * 40_000
    bad = [
        b"",
        b"{",
        b"nonsense",
        b"\xff\xfe",
        b'{"a": "\xff"}',
        b"null",
        b"[]",
        b"1",
        b'"x"',
        b"NaN",
        b'{"a": NaN}',
        b'{"a": 1e999}',
        deep.encode(),
        (deep + "]" * 40_000)[:60_000].encode(),
        b'{"a":' * 500 + b"1" + b"}" * 500,
    ]
    for content in bad:
        answer = door.ask(
            person,
            "POST",
            route(path, world),
            content=content,
            headers={"content-type": "application/json"},
        )
        assert answer.status_code == 422, (content[:40], answer.text)
    answer = door.ask(
        person, "POST", route(path, world), content=b"a=1", headers={"content-type": "text/plain"}
    )
    assert answer.status_code < 500


@pytest.mark.parametrize(
    ("path", "field", "person"),
    [
        ("/adapters", "meta", "engineer"),
        ("/datasets", "meta", "engineer"),
        ("/use-cases", "details", "engineer"),
        ("/work/{run}/beat", "progress", "trainer"),
        ("/work/{run}/finish", "report", "trainer"),
    ],
)
def test_free_form_parts_hold_nothing_that_no_row_can(
    door: Door, world: World, path: str, field: str, person: str
) -> None:
    body = filled(BODIES[path], world.team)
    before = rows(door)
    deep: Any = 1
    for _ in range(40):
        deep = {"deeper": deep}
    for value in ({"a": "\0"}, {"a": ["\ud800"]}, {"\0": 1}, {"a": 2**53}, {"a": -(10**30)}, deep):
        answer = door.ask(
            getattr(world, person),
            "POST",
            route(path, world),
            content=json.dumps({**body, field: value}),
            headers={"content-type": "application/json"},
        )
        assert (answer.status_code, answer.json()["kind"]) == (422, "invalid-request"), answer.text
    for raw in ('{"a": NaN}', '{"a": Infinity}', '{"a": 1e999}'):
        content = json.dumps({**body, field: "HERE"}).replace('"HERE"', raw)
        answer = door.ask(
            getattr(world, person),
            "POST",
            route(path, world),
            content=content,
            headers={"content-type": "application/json"},
        )
        assert (answer.status_code, answer.json()["kind"]) == (422, "bad-json"), answer.text
    twice = json.dumps({**body, field: "HERE"}).replace('"HERE"', '{"a": {"b": 1, "b": 2}}')
    answer = door.ask(
        getattr(world, person),
        "POST",
        route(path, world),
        content=twice,
        headers={"content-type": "application/json"},
    )
    assert (answer.status_code, answer.json()["kind"]) == (422, "bad-json"), answer.text
    assert "'b' occurs more than once" in answer.json()["detail"]
    assert rows(door) == before


def test_every_rest_route_reads_its_body_strictly() -> None:
    """A router of another class would take a key twice, and the last one would win."""
    routes = [route for noun in NOUNS for route in noun.router.routes]
    assert len(routes) > 50
    assert [route for route in routes if not isinstance(route, RestRoute)] == []


def test_no_path_and_no_query_is_a_fault(door: Door, world: World, admin: Person) -> None:
    documented = door.client.get("/api/v1/openapi.json").json()["paths"]
    texts = [
        value for value in HOSTILE if isinstance(value, str) and value and len(value) < 300
    ] + [
        str(10**40),
        "-1",
        "0",
    ]
    texts = [text.encode("utf-8", "replace").decode() for text in texts]
    pick = random.Random(7)
    for path, methods in documented.items():
        if "get" not in methods or path.endswith("/audit/export") or path.endswith("/audit/check"):
            continue
        bare = path.removeprefix("/api/v1")
        names = [
            one["name"] for one in methods["get"].get("parameters", []) if one["in"] == "query"
        ]
        for text in pick.sample(texts, 3):
            where = re.sub(r"\{\w+\}", quote(text, safe=""), bare)
            asked = {name: pick.choice(texts) for name in names if pick.random() < 0.6}
            answer = door.ask(pick.choice([admin, world.engineer]), "GET", where, params=asked)
            assert answer.status_code < 500, (where, asked, answer.text)
    for text in texts:
        assert door.ask(admin, "DELETE", f"/tokens/{quote(text, safe='')}").status_code in (
            404,
            405,
            422,
        )


@pytest.mark.parametrize(
    "moment",
    [
        "0001-01-01T00:00:00Z",
        "0001-01-01T00:00:00%2B14:00",
        "9999-12-31T23:59:59-14:00",
        "9999-12-31T23:59:59Z",
        "1e10",
        "-62135596800",
        "99999999999999999999",
    ],
)
def test_no_moment_is_a_fault(door: Door, world: World, moment: str) -> None:
    assert door.ask(world.engineer, "GET", f"/as-of?at={moment}&environment=dev").status_code in (
        200,
        422,
    )


def test_headers_are_no_way_in(door: Door, world: World) -> None:
    for name, value in {
        "x-request-id": "x" * 5000,
        "range": "bytes=99999999999999999999999-",
        "if-none-match": "é".encode("latin-1"),
        "cookie": "countersign=\xff".encode("latin-1"),
        "accept": "nonsense",
        "authorization": b"Bearer \xff\xfe",
    }.items():
        answer = door.client.get(
            "/api/v1/routing?environment=dev",
            headers={"authorization": f"Bearer {door.token(world.engineer)}", name: value},
        )
        assert answer.status_code in (200, 401), (name, answer.text)
        assert re.fullmatch(r"[0-9A-Za-z]{1,64}", answer.headers["x-request-id"])


def test_a_given_request_id_is_kept_and_logged(door: Door, world: World) -> None:
    answer = door.ask(world.engineer, "GET", "/versions/a/b", headers={"X-Request-Id": "abc123"})
    assert (answer.headers["x-request-id"], answer.json()["request_id"]) == ("abc123", "abc123")
