"""What was deleted, wherever it is named: said to be gone, in full, behind no dead link."""

from __future__ import annotations

import re
import secrets
from datetime import timedelta

import pytest

from registry.commands import blobs as collecting
from registry.commands import deletions, profiles, recalls, retention, rollouts, tags, versions
from registry.rules.actors import SYSTEM
from tests.build import (
    ADAPTER_META,
    Person,
    World,
    a_base,
    a_person,
    a_world,
    adapter_files,
    approved,
    put,
    register,
    sent,
)
from tests.web.conftest import Console

LINK = re.compile(r'<a [^>]*href="(/[^"#]*)"')


@pytest.fixture(scope="module")
def gone(console: Console) -> tuple[World, Person, str]:
    """A team that let go: of a version that served (with profiles, tags, evals and a review), of
    one that was recalled, of a draft, and of a base. The bytes are collected.
    """
    store, blobs, team = console.store, console.blobs, f"t{secrets.token_hex(4)}"
    retention.assign(
        store, a_person(store, "admin").actor, team, "short", "a team that tries things out"
    )
    world = a_world(store, blobs, team)
    engineer = world.engineer.actor

    def add(name: str, seed: int, base: str, **meta: str) -> str:
        draft = versions.Draft("adapter", f"{team}/{name}", adapter_files(blobs, seed), meta, base)
        return register(store, blobs, engineer, draft).ref

    served = approved(world)
    prompts = [
        put(blobs, "prompt", text.encode()).sha256
        for text in (f"One word, {team}.", f"Two words, {team}.")
    ]
    sent(store, engineer, *prompts)
    for prompt in prompts:
        parts = {
            "engine": "vllm",
            "build": "0.33.0",
            "system_prompt": f"sha256:{prompt}",
            "decoding": {},
        }
        profiles.define(store, blobs, engineer, profiles.ProfileRequest(served, parts))
    tags.put(store, engineer, served, "topic", "claims")
    rollouts.start(
        store, engineer, rollouts.Canary(served, "production", None, 500, "first traffic")
    )
    rollouts.roll_back(
        store, engineer, rollouts.Place(f"{team}/adapter", "production", None), "enough of it"
    )
    deletions.delete(store, engineer, served, "It is not wanted any more.")
    fallen = add("fallen", 31, world.base.ref, domain="legal", **ADAPTER_META)
    recalls.recall(store, engineer, fallen, "It told a name.")
    deletions.delete(store, engineer, fallen, "And its bytes go too.")
    base = a_base(store, blobs, world.engineer, team, "old", seed=5)
    deletions.delete(
        store,
        engineer,
        add("once", 32, base.ref, domain="legal", **ADAPTER_META),
        "It was tried once.",
    )
    deletions.delete(store, engineer, base.ref, "Nothing stands on it.")
    deletions.discard(store, engineer, add("unborn", 33, world.base.ref), "A mistake.")
    collecting.collect(store, blobs, SYSTEM, timedelta(0))
    return world, world.engineer, served


def test_no_page_of_what_is_gone_is_broken_or_leads_nowhere(
    console: Console, gone: tuple[World, Person, str]
) -> None:
    world, person, served = gone
    team = world.team
    with console.signed_in(person) as client:
        waiting = [
            f"/adapters/{team}/adapter/v/{served.rpartition('v')[2]}",
            f"/reviews/{world.review}",
            "/adapters",
            f"/adapters/{team}/fallen/v/1",
            f"/adapters/{team}/unborn",
            f"/bases/{team}/old/v/1",
            f"/adapters/{team}/once/v/1",
            f"/deployments/production/{team}/adapter/production",
            "/deployments",
            "/audit/as-of",
            f"/search?team={team}&state=deleted",
            "/reviews?state=all",
        ]
        seen: set[str] = set()
        while waiting:
            path = waiting.pop()
            if path in seen or (team not in path and path.startswith(("/adapters/", "/bases/"))):
                continue
            seen.add(path)
            page = client.get(path, follow_redirects=True)
            assert page.status_code == 200, (path, page.text[-800:])
            found = {link.replace("&amp;", "&") for link in LINK.findall(page.text)}
            waiting += [
                link
                for link in found
                if not link.startswith(("/search", "/audit", "/static", "/reviews?"))
            ]
        assert sum(path.startswith("/profiles/") for path in seen) >= 4
        assert f"/reviews/{world.review}" in seen


def test_each_page_that_names_it_says_that_it_is_gone(
    console: Console, gone: tuple[World, Person, str]
) -> None:
    world, person, served = gone
    team = world.team
    told = f"<strong>Deleted</strong> by {person.actor.name}"
    with console.signed_in(person) as client:
        page = client.get(f"/adapters/{team}/adapter/v/{served.rpartition('v')[2]}").text
        assert told in page
        assert "It is not wanted any more." in page
        profile = re.search(r'href="(/profiles/[0-9a-f-]+)"', page)
        assert profile is not None
        for path in (profile[1], f"/reviews/{world.review}"):
            assert told in client.get(path).text, path
        history = client.get(f"/deployments/production/{team}/adapter/production").text
        assert re.search(
            r'data-label="Canary">v\d+ at 5% <span class="chip[^>]*>.*?Deleted</span>',
            history,
            re.DOTALL,
        )
        lineage = client.get(f"/adapters/{team}/once/v/1").text
        assert re.search(
            rf'{team}/old@v1</a>\s*<small>base</small>\s*<span class="chip[^>]*>.*?Deleted</span>',
            lineage,
            re.DOTALL,
        )
        assert "Deleted</span>" in client.get("/reviews?state=all").text
        # Both are said of what was recalled first; neither page offers what nobody can do.
        page = client.get(f"/adapters/{team}/fallen/v/1").text
        assert told in page
        assert "<strong>Recalled.</strong> It told a name." in page
        for path in (f"/adapters/{team}/fallen/v/1", f"/bases/{team}/old/v/1"):
            page = client.get(path).text
            assert [
                one
                for one in (
                    "Check it yourself",
                    "Set tag",
                    "countersign submit",
                    "countersign eval run",
                )
                if one in page
            ] == []
