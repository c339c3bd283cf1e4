"""Addresses, tokens, patience, refusals and answers."""

from __future__ import annotations

import time
from typing import Any

import pytest

import registry.errors
from registry.client import Countersign, transport
from registry.errors import (
    FAMILIES,
    BundleRejected,
    Defect,
    Fault,
    Invalid,
    NotFound,
    RegistryError,
    Unauthenticated,
    Unavailable,
)
from tests.client.wire import Answer, Seen, Wire, problem
from tests.ports import free_port

ME = {
    "id": "00000000-0000-4000-8000-000000000001",
    "name": "ada",
    "kind": "person",
    "keys": [],
    "grants": [{"role": "engineer", "team": None}],
    "created_at": "2026-01-02T03:04:05Z",
}


@pytest.mark.parametrize("url", ["", "127.0.0.1:8080", "ftp://host", "http://"])
def test_an_address_must_be_one(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COUNTERSIGN_URL", raising=False)
    with pytest.raises(Invalid, match="COUNTERSIGN_URL") as caught:
        Countersign(url, "token")
    assert caught.value.kind == "no-url"


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak", "schlüssel"])
def test_a_token_must_be_one(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COUNTERSIGN_TOKEN", raising=False)
    with pytest.raises(Unauthenticated) as caught:
        Countersign("http://127.0.0.1:1", token)
    assert caught.value.fix


def test_the_environment_names_the_registry(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COUNTERSIGN_URL", wire.url + "/")
    monkeypatch.setenv("COUNTERSIGN_TOKEN", "from-the-environment")
    wire.script = lambda _: Answer(200, ME)
    with Countersign() as client:
        assert client.me().name == "ada"
    assert wire.asked() == ["GET /api/v1/me"]
    assert wire.seen[0].headers["Authorization"] == "Bearer from-the-environment"


def test_a_proxy_for_the_internet_is_not_asked_for_loopback(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    wire.script = lambda _: Answer(200, ME)
    with Countersign(wire.url, "token") as client:
        assert client.me().name == "ada"


def test_unknown_keys_of_a_newer_registry_are_ignored(wire: Wire, registry: Countersign) -> None:
    wire.script = lambda _: Answer(200, {**ME, "shoe_size": 43})
    assert registry.me().created_at.year == 2026


def test_another_answer_than_expected_is_a_fault(wire: Wire, registry: Countersign) -> None:
    wire.script = lambda _: Answer(200, {"name": "ada"})
    with pytest.raises(Fault) as caught:
        registry.me()
    assert caught.value.kind == "unexpected-answer"


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"unavailable"}))
def test_each_family_comes_back_as_its_class(
    wire: Wire, registry: Countersign, family: str
) -> None:
    wire.script = lambda _: problem(418, family)
    with pytest.raises(RegistryError) as caught:
        registry.me()
    assert type(caught.value) is FAMILIES[family]
    assert (caught.value.kind, caught.value.detail, caught.value.fix) == (
        "some-kind",
        "Because of this.",
        "Do that.",
    )
    assert caught.value.facts == {"n": 1, "request_id": "r-1"}


def test_every_class_of_errors_has_a_way_back() -> None:
    """A family added to errors.py and forgotten in FAMILIES would come back as a Fault."""
    classes = [
        cls
        for cls in vars(registry.errors).values()
        if isinstance(cls, type) and issubclass(cls, RegistryError)
    ]
    assert {cls.family for cls in classes} == {*FAMILIES, BundleRejected.family}


def test_a_rejected_bundle_brings_all_its_defects(wire: Wire, registry: Countersign) -> None:
    defects = [
        {"file": f"f{n}", "where": "w", "rule": "r", "detail": "d", "fix": "m"} for n in range(3)
    ]
    wire.script = lambda _: problem(422, "rejected", "bundle-rejected", defects=defects)
    with pytest.raises(BundleRejected) as caught:
        registry.me()
    assert caught.value.defects == [Defect(f"f{n}", "w", "r", "d", "m") for n in range(3)]


@pytest.mark.parametrize(
    "answer",
    [
        Answer(404, b"<html>nginx</html>", {"Content-Type": "text/html"}),
        Answer(404, b"no json", {"Content-Type": "application/problem+json"}),
        Answer(404, {"title": "another program's problem"}),
    ],
)
def test_something_else_than_a_registry_is_named_so(
    wire: Wire, registry: Countersign, answer: Answer
) -> None:
    wire.script = lambda _: answer
    with pytest.raises(Fault) as caught:
        registry.me()
    assert caught.value.kind == "not-a-registry"


def test_a_safe_request_waits_for_a_restarting_registry(wire: Wire) -> None:
    answers = [problem(503, "unavailable"), problem(503, "unavailable"), Answer(200, ME)]
    wire.script = lambda _: answers.pop(0)
    heard: list[RegistryError] = []
    with Countersign(wire.url, "token", on_wait=heard.append) as client:
        assert client.me().name == "ada"
    assert len(wire.seen) == 3
    assert [error.family for error in heard] == ["unavailable", "unavailable"]


def test_retry_after_is_obeyed(wire: Wire, registry: Countersign) -> None:
    answers = [Answer(503, problem(503, "unavailable").body, {"Retry-After": "1"}), Answer(200, ME)]
    wire.script = lambda _: answers.pop(0)
    started = time.monotonic()
    registry.me()
    assert time.monotonic() - started >= 1


def test_a_longer_pause_than_our_patience_is_not_waited_for(
    wire: Wire, registry: Countersign
) -> None:
    wire.script = lambda _: Answer(503, problem(503, "unavailable").body, {"Retry-After": "3600"})
    with pytest.raises(Unavailable):
        registry.me()
    assert len(wire.seen) == 1


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "PATIENCE", 0.5)
    with (
        Countersign(f"http://127.0.0.1:{free_port()}", "token") as client,
        pytest.raises(Unavailable) as caught,
    ):
        client.me()
    assert caught.value.kind == "unreachable"
    assert caught.value.facts == {"sent": False}


@pytest.mark.parametrize("answer", [problem(503, "unavailable"), Answer(200, {}, cut=0)])
def test_a_change_is_never_sent_twice(wire: Wire, registry: Countersign, answer: Answer) -> None:
    """A 503 or a cut may come after the COMMIT: only the caller can know whether to ask again."""
    wire.script = lambda _: answer
    with pytest.raises(Unavailable):
        registry.recall("acme/claims@v1", "unfit for use")
    assert len(wire.seen) == 1


def test_ready_says_no_instead_of_raising(wire: Wire, registry: Countersign) -> None:
    wire.script = lambda seen: Answer(200 if seen.path == "/readyz" else 404)
    assert registry.ready()
    wire.script = lambda _: Answer(503)
    assert not registry.ready()
    with Countersign(f"http://127.0.0.1:{free_port()}", "token") as nobody:
        assert not nobody.ready()


def test_all_pages_are_read(wire: Wire, registry: Countersign) -> None:
    def script(seen: Seen) -> Answer:
        entry: dict[str, Any] = {
            "id": ME["id"],
            "seq": 1,
            "leaf": None,
            "at": ME["created_at"],
            "actor": "ada",
            "via": "rest",
            "team": None,
            "action": "account:create",
            "subject": "s",
            "outcome": "done",
            "facts": {},
        }
        last = "cursor=2" in seen.path
        return Answer(200, {"items": [entry, entry], "next": None if last else "2"})

    wire.script = script
    assert len(registry.events(action="account:create")) == 4
    assert wire.asked() == [
        "GET /api/v1/audit/events?action=account%3Acreate",
        "GET /api/v1/audit/events?cursor=2&action=account%3Acreate",
    ]
    assert len(registry.events(limit=1)) == 1


@pytest.mark.parametrize(
    "ref", ["../../tokens", "acme", "acme/claims@v1/../..", "acme/claims?x=1", ""]
)
def test_what_is_no_reference_never_reaches_a_path(
    wire: Wire, registry: Countersign, ref: str
) -> None:
    with pytest.raises(Invalid):
        registry.version(ref)
    assert not wire.seen


def test_a_missing_thing_is_not_found(wire: Wire, registry: Countersign) -> None:
    wire.script = lambda _: problem(404, "not-found")
    with pytest.raises(NotFound):
        registry.version("acme/claims@v9")
    assert wire.asked() == ["GET /api/v1/versions/acme/claims@v9"]


def test_routing_is_none_while_unchanged(wire: Wire, registry: Countersign) -> None:
    wire.script = lambda _: Answer(304)
    assert registry.routing("production", etag="abc") is None
    assert wire.seen[0].headers["If-None-Match"] == '"abc"'
