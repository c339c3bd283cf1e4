"""What another team may see of a team: nothing, over every route that answers GET.

Each route is asked about real things of the first team. Whoever may see them gets an answer that
differs from what the stranger gets; the stranger gets exactly what is answered about things that do
not exist. A route that nobody thought of here fails the first test.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import unified_diff
from typing import Any
from urllib.parse import unquote
from uuid import uuid4

import httpx
import pytest

from registry.artifacts.weights.tensors import File
from registry.commands import holds, profiles, quotas, retention, rollouts, tags, versions
from registry.queries import evals as eval_runs
from registry.queries import training_runs
from registry.queries import versions as asked
from registry.rules.quotas import Limits
from registry.rules.retention import Terms
from tests.api.conftest import Door
from tests.build import Person, World, a_person, approved, put, register, sent
from tests.build import a_world as build_world

A = "/api/v1"
QUESTIONS: dict[str, list[str]] = {
    f"{A}/accounts": [f"{A}/accounts"],
    f"{A}/as-of": [f"{A}/as-of?environment=production&at={{now}}"],
    f"{A}/audit/events": [f"{A}/audit/events?limit=200", f"{A}/audit/events?subject={{version}}"],
    f"{A}/audit/export": [f"{A}/audit/export"],
    f"{A}/blobs/{{digest}}": [f"{A}/blobs/{{{name}}}" for name in ("file", "rows", "items")],
    f"{A}/channels": [f"{A}/channels", f"{A}/channels?environment=production"],
    f"{A}/chat-templates/{{ref:path}}": [f"{A}/chat-templates/{{version}}"],
    f"{A}/collections": [f"{A}/collections"],
    f"{A}/datasets": [f"{A}/datasets"],
    f"{A}/datasets/{{ref:path}}": [f"{A}/datasets/{{team}}/rows@v1", f"{A}/datasets/{{rows_root}}"],
    f"{A}/engines/{{ref:path}}": [f"{A}/engines/{{version}}"],
    f"{A}/eval-runs": [f"{A}/eval-runs", f"{A}/eval-runs?subject={{version}}"],
    f"{A}/eval-runs/{{run}}": [f"{A}/eval-runs/{{eval_run}}"],
    f"{A}/eval-suites": [f"{A}/eval-suites"],
    f"{A}/gates": [
        f"{A}/gates?ref={{version}}&environment=production&use_case={{team}}/case",
    ],
    f"{A}/history": [f"{A}/history?name={{team}}/adapter&environment=production"],
    f"{A}/holds": [f"{A}/holds", f"{A}/holds?over={{version}}"],
    f"{A}/keeping/{{ref:path}}": [f"{A}/keeping/{{version}}", f"{A}/keeping/dataset:{{team}}/rows"],
    f"{A}/keys": [f"{A}/keys"],
    f"{A}/lineage/{{ref:path}}": [
        f"{A}/lineage/{{version}}",
        f"{A}/lineage/dataset:{{team}}/rows@v1",
        f"{A}/lineage/{{team}}/rows@v1",
        f"{A}/lineage/suite:{{team}}/suite@v1",
        f"{A}/lineage/{{team}}/suite@v1",
        f"{A}/lineage/eval-run:{{eval_run}}",
    ],
    f"{A}/lines": [f"{A}/lines", f"{A}/lines?team={{team}}", f"{A}/lines?q={{team}}"],
    f"{A}/lines/{{ref:path}}/versions": [f"{A}/lines/{{team}}/adapter/versions"],
    f"{A}/profiles": [f"{A}/profiles?version={{version}}"],
    f"{A}/profiles/{{name}}": [f"{A}/profiles/{{profile}}", f"{A}/profiles/{{profile_digest}}"],
    f"{A}/profiles/{{name}}/compared-with/{{other}}": [
        f"{A}/profiles/{{profile}}/compared-with/{{profile_digest}}"
    ],
    f"{A}/profiles/{{name}}/system-prompt": [f"{A}/profiles/{{profile}}/system-prompt"],
    f"{A}/quotas": [f"{A}/quotas"],
    f"{A}/quotas/{{team}}": [f"{A}/quotas/{{team}}"],
    f"{A}/retention/due": [f"{A}/retention/due"],
    f"{A}/reviews": [f"{A}/reviews", f"{A}/reviews?state=approved"],
    f"{A}/reviews/{{number}}": [f"{A}/reviews/{{review}}"],
    f"{A}/reviews/{{number}}/decision": [f"{A}/reviews/{{review}}/decision"],
    f"{A}/routing": [f"{A}/routing?environment=production"],
    f"{A}/tokens": [f"{A}/tokens"],
    f"{A}/training-runs": [f"{A}/training-runs", f"{A}/training-runs?adapter={{team}}/adapter"],
    f"{A}/training-runs/{{run}}": [f"{A}/training-runs/{{training_run}}"],
    f"{A}/use-cases": [f"{A}/use-cases"],
    f"{A}/verify/{{ref:path}}": [f"{A}/verify/{{version}}", f"{A}/verify/{{team}}/rows@v1"],
    f"{A}/versions": [
        f"{A}/versions?facets=true",
        f"{A}/versions?team={{team}}",
        f"{A}/versions?base={{team}}/tiny@v1",
        f"{A}/versions?base={{team}}/tiny",
        f"{A}/versions?dataset={{team}}/rows@v1",
        f"{A}/versions?digest={{manifest}}",
        f"{A}/versions?by={{engineer}}",
        f"{A}/versions?tag=topic:{{team}}",
        f"{A}/versions?metric=exact_match>=0.1",
    ],
    f"{A}/use-cases/{{ref:path}}/versions": [f"{A}/use-cases/{{team}}/case/versions"],
    f"{A}/versions/{{ref:ref}}": [
        f"{A}/versions/{{version}}",
        f"{A}/versions/{{team}}/adapter",
        f"{A}/versions/{{team}}/adapter@production",
        f"{A}/versions/{{manifest}}",
    ],
    "/api/models": ["/api/models?full=true&limit=100", "/api/models?author={team}"],
    "/api/models/{rest:path}": [
        "/api/models/{team}/adapter",
        "/api/models/{team}/adapter/revision/v2",
        "/api/models/{team}/adapter.v2",
        "/api/models/{team}/adapter/refs",
        "/api/models/{team}/adapter/tree/v2",
        "/api/models/{team}/adapter/commits/v2",
    ],
    "/api/resolve-cache/models/{rest:path}": [
        "/api/resolve-cache/models/{team}/adapter/{commit}/adapter_config.json"
    ],
    "/{ns}/{name}/raw/{rest:path}": ["/{team}/adapter/raw/v2/adapter_config.json"],
    "/{ns}/{name}/resolve/{rest:path}": [
        "/{team}/adapter/resolve/v2/adapter_config.json",
        "/{team}/tiny/resolve/main/config.json",
    ],
    "/": ["/"],
    "/adapters": ["/adapters"],
    "/adapters/{team}/{name}": ["/adapters/{team}/adapter"],
    "/adapters/{team}/{name}/v/{number}": ["/adapters/{team}/adapter/v/2"],
    "/audit": ["/audit"],
    "/audit/as-of": ["/audit/as-of?environment=production&at={now}"],
    "/bases": ["/bases"],
    "/bases/{team}/{name}": ["/bases/{team}/tiny"],
    "/bases/{team}/{name}/v/{number}": ["/bases/{team}/tiny/v/1"],
    "/checkpoints": ["/checkpoints"],
    "/checkpoints/{team}/{name}": ["/checkpoints/{team}/full"],
    "/checkpoints/{team}/{name}/v/{number}": ["/checkpoints/{team}/full/v/1"],
    "/datasets": ["/datasets", "/datasets?q={team}"],
    "/datasets/{team}/{name}": ["/datasets/{team}/rows"],
    "/datasets/{team}/{name}/v/{number}": ["/datasets/{team}/rows/v/1"],
    "/deployments": ["/deployments", "/deployments?environment=production"],
    "/deployments/{environment}/{team}/{name}/{channel}": [
        "/deployments/production/{team}/adapter/production"
    ],
    "/find": [
        "/find?q={version}",
        "/find?q={manifest}",
        "/find?q={training_run}",
        "/find?q={team}/rows",
        "/find?q={team}/suite",
        "/find?q={team}/case",
    ],
    "/profiles/{name}": ["/profiles/{profile}"],
    "/retention": ["/retention"],
    "/reviews": ["/reviews", "/reviews?state=decided"],
    "/reviews/{number}": ["/reviews/{review}"],
    "/runs": ["/runs", "/runs?state=succeeded"],
    "/runs/eval/{run_id}": ["/runs/eval/{eval_run}"],
    "/runs/training/{run_id}": ["/runs/training/{training_run}"],
    "/runs/training/{run_id}/progress": ["/runs/training/{training_run}/progress"],
    "/search": ["/search", "/search?state=registered"],
    "/settings": ["/settings"],
    "/suites": ["/suites", "/suites?q={team}"],
    "/suites/{team}/{name}": ["/suites/{team}/suite"],
    "/suites/{team}/{name}/v/{number}": ["/suites/{team}/suite/v/1"],
    "/use-cases/{team}/{name}": ["/use-cases/{team}/case"],
}
"""What is asked on each route; `{words}` are things of the first team."""

OPEN = {
    f"{A}/audit/check",
    f"{A}/audit/tree-head",
    f"{A}/log/proof",
    f"{A}/me",
    f"{A}/openapi.json",
    f"{A}/policies",
    f"{A}/retention/classes",
    "/api/agent-harnesses",
    "/api/whoami-v2",
    "/api/{rest:path}",
    "/healthz",
    "/login",
    "/metrics",
    "/policies",
    "/problems",
    "/problems/{kind}",
    "/readyz",
    "/static/{name}",
    "/{kind}/{ns}/{name}/resolve/{rest:path}",
    "/{ns}/{name}/git-{verb}",
    "/{ns}/{name}/info/{rest:path}",
}
"""Routes that answer nothing of any team: the asker, the rules for all, and plain refusals."""

VARYING = re.compile(
    r'"(request_id|issued_at)":\s*"[^"]*"|form_token" value="[^"]*"|nonce-\S+|'
    r"Made [-0-9]+ [:0-9]+ UTC|\b[0-9a-f]{32}\b"
)


def paths(routes: Sequence[Any], prefix: str = "") -> Iterator[str]:
    """The whole path of every route that answers GET."""
    for route in routes:
        if hasattr(route, "original_router"):
            inner = prefix + route.include_context.prefix
            yield from paths(route.original_router.routes, inner)
        elif "GET" in (getattr(route, "methods", None) or ()):
            yield prefix + route.path


@dataclass(frozen=True)
class Stage:
    """The first team's things by name, things of the same kinds that do not exist, and people."""

    world: World
    things: dict[str, str]
    nothing: dict[str, str]
    insiders: list[Person]

    def marks(self) -> set[str]:
        """What gives the first team away in an answer."""
        given = ("team", "engineer", "eval_run", "training_run", "profile", "commit", "rows_root")
        return {self.things[name] for name in given}


@pytest.fixture(scope="module")
def stage(door: Door, admin: Person, auditor: Person) -> Stage:
    """Everything a team can have."""
    store, blobs = door.store, door.blobs
    team = f"t{secrets.token_hex(8)}"
    retention.define(
        store,
        admin.actor,
        Terms("nothing-kept", 0, "registration", "due"),
        "nothing is kept for any time",
    )
    retention.assign(store, admin.actor, team, "nothing-kept", "a team that tries things out")
    world = build_world(store, blobs, team)
    ref = approved(world)
    engineer = world.engineer.actor
    rollouts.start(store, engineer, rollouts.Canary(ref, "production", None, 500, "first traffic"))
    rollouts.promote(
        store, engineer, rollouts.Place(f"{team}/adapter", "production", None), "it went well"
    )
    tags.put(store, engineer, ref, "topic", team)
    holds.place(store, world.compliance.actor, world.versions[0], "Matter A", "asked for")
    quotas.put(store, admin.actor, team, Limits(1 << 40, 99), "half the disk")
    prompt = put(blobs, "prompt", f"You answer for {team}.".encode())
    sent(store, engineer, prompt.sha256)
    parts = {"engine": "vllm", "build": "0.32.0", "system_prompt": f"sha256:{prompt.sha256}"}
    profile = profiles.define(store, blobs, engineer, profiles.ProfileRequest(ref, parts))
    base = asked.version(store, engineer, world.base.ref)
    files = [File(file.path, file.sha256, file.size) for file in base.files]
    meta = {"licence": "apache-2.0", "purpose": "to be tested"}
    full = versions.Draft("checkpoint", f"{team}/full", files, meta)
    assert register(store, blobs, engineer, full).status == "registered"
    door.sequence()
    seen = asked.version(store, engineer, ref)
    (suite,) = eval_runs.suites(store, engineer)
    data = door.done(world.engineer, "GET", f"/datasets/{world.dataset.ref}")
    manifest = seen.manifest_digest.removeprefix("sha256:")
    things = {
        "team": team,
        "version": ref,
        "engineer": engineer.name,
        "manifest": seen.manifest_digest,
        "commit": manifest[:40],
        "file": seen.files[0].sha256,
        "rows": data["sha256"],
        "rows_root": data["record_root"],
        "items": suite.items_sha256,
        "eval_run": str(eval_runs.eval_runs(store, engineer)[0].id),
        "training_run": str(training_runs.training_runs(store, engineer)[0].id),
        "review": str(world.review),
        "profile": str(profile.id),
        "profile_digest": profile.digest,
    }
    other = f"t{secrets.token_hex(8)}"
    nothing = {
        name: re.sub("[0-9a-f]{40,}", lambda found: secrets.token_hex(32)[: len(found[0])], value)
        for name, value in things.items()
    } | {
        "team": other,
        "version": ref.replace(team, other),
        "engineer": "engineer-000000",
        "eval_run": str(uuid4()),
        "training_run": str(uuid4()),
        "review": str(world.review + 100_000),
        "profile": str(uuid4()),
    }
    insiders = [world.engineer, world.compliance, auditor, admin]
    return Stage(world, things, nothing, insiders)


def test_every_route_is_thought_of(door: Door) -> None:
    served = set(paths(door.app.routes))
    assert served == QUESTIONS.keys() | OPEN
    assert not QUESTIONS.keys() & OPEN


Clients = tuple[httpx.Client, httpx.Client]


@contextmanager
def clients(door: Door, people: list[Person]) -> Iterator[list[Clients]]:
    """By person: a client with a token, and one with a session of the console."""
    with ExitStack() as stack:
        pairs = []
        for person in people:
            token = {"Authorization": f"Bearer {door.token(person)}"}
            machine, browser = (
                stack.enter_context(httpx.Client(base_url=door.url, timeout=60, headers=headers))
                for headers in (token, {})
            )
            signed_in = browser.post("/login", data={"token": door.token(person)})
            assert signed_in.status_code == 303
            pairs.append((machine, browser))
        yield pairs


def chosen(path: str, pair: Clients) -> httpx.Client:
    """Machines ask the dialects, browsers the console."""
    return pair[0] if path.startswith("/api/") or "{ns}" in path else pair[1]


def now() -> str:
    """The present moment, as an address holds it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def told(answer: httpx.Response, things: dict[str, str]) -> tuple[str, ...]:
    """Status, where it leads and each line, without what each answer has anew and what was asked
    for.
    """
    number = things["review"]
    words = [f"review {number}", f"reviews/{number}", *things.values()]
    words.remove(number)
    where, text = unquote(answer.headers.get("location", "")), VARYING.sub("", answer.text)
    for word in sorted(words, key=len, reverse=True):
        where, text = where.replace(word, "?"), text.replace(word, "?")
    return str(answer.status_code), where, *text.splitlines()


@pytest.mark.parametrize("role", ["engineer", "trainer", "gateway"])
def test_a_stranger_gets_what_is_answered_about_nothing(
    door: Door, stage: Stage, role: str
) -> None:
    stranger = a_person(door.store, role, team=f"x{secrets.token_hex(8)}", signs=False)
    with clients(door, [stranger]) as (pair,):
        for path, questions in QUESTIONS.items():
            for question in questions:
                answer = chosen(path, pair).get(question.format(now=now(), **stage.things))
                if "{" in question:
                    same = chosen(path, pair).get(question.format(now=now(), **stage.nothing))
                    lines = [*told(answer, stage.things)], [*told(same, stage.nothing)]
                    assert not list(unified_diff(*lines, n=0)), question
                assert answer.status_code < 500, question
                if answer.status_code < 300:
                    asked_for = {mark for mark in stage.marks() if mark in str(answer.request.url)}
                    leaked = {mark for mark in stage.marks() - asked_for if mark in answer.text}
                    assert not leaked, question


def test_whoever_may_see_it_sees_it(door: Door, stage: Stage) -> None:
    """Else the test above would prove nothing: each question has an answer that strangers miss."""
    stranger = a_person(door.store, "engineer", team=f"x{secrets.token_hex(8)}", signs=False)
    with clients(door, [stranger]) as (lost,), clients(door, stage.insiders) as insiders:
        for path, questions in QUESTIONS.items():
            for question in questions:
                url = question.format(now=now(), **stage.things)
                missed = told(chosen(path, lost).get(url), stage.things)
                answers = (chosen(path, pair).get(url) for pair in insiders)
                assert any(
                    answer.status_code < 400 and told(answer, stage.things) != missed
                    for answer in answers
                ), question
