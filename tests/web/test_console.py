"""The main job in a real browser: sign in, enrol a key, decide, deliver, look it up in the log."""

from __future__ import annotations

import shlex
from collections.abc import Callable

from playwright.sync_api import Page, expect

from registry.commands import profiles
from registry.queries import audit, reviews
from registry.queries import rollouts as routes
from registry.rules.actors import SYSTEM
from tests.build import (
    World,
    a_person,
    a_world,
    approved,
    put,
    sent,
    vote,
)
from tests.web.conftest import Console, Watched, form_token

Open = Callable[..., Watched]


def act(page: Page, form: str, reason: str) -> None:
    page.fill(f"#{form}-reason", reason)
    page.click(f"#{form} button")


def enrol(page: Page) -> str:
    """Enrol this browser's key; its id."""
    page.goto("/settings")
    page.fill("#label", "test browser")
    page.get_by_role("button", name="Enrol a key in this browser").click()
    expect(page.locator(".done")).to_contain_text("enrolled")
    expect(page.locator("[data-signing]")).to_contain_text("already holds")
    return page.locator("[data-signing]").inner_text().rstrip(".").rpartition(" ")[2]


def test_a_decision_is_signed_in_the_browser_and_completes_the_quorum(
    console: Console, world: World, open_page: Open
) -> None:
    vote(world, world.risk)
    watched = open_page()
    page = watched.page
    page.goto(f"/reviews/{world.review}")
    expect(page).to_have_url(f"{console.url}/login?next=%2Freviews%2F{world.review}")
    watched.sign_in(console.token(world.compliance))
    expect(page).to_have_url(f"{console.url}/reviews/{world.review}")
    expect(page.locator("[data-signing]")).to_contain_text("holds no enrolled key")

    key = enrol(page)
    page.goto("/reviews")
    page.get_by_role("link", name=f"Review {world.review}").click()
    expect(page.locator("[data-signing]")).to_contain_text(key)
    page.click("text=Sign decision")
    expect(page.locator("#wrong-verdict")).to_have_text("Choose an outcome.")
    page.check("input[value=approve]")
    page.fill("#reason", "  Gates pass; “samples” read.\nNothing personal in them.  ")
    page.click("text=Sign decision")

    expect(page.locator(".done")).to_contain_text("signed")
    expect(page.locator("h1 ~ p, .acts").last).to_contain_text("Approved")
    found = reviews.review(console.store, SYSTEM, world.review)
    assert found.state == "approved"
    ours = found.votes[-1]
    assert (ours.key, ours.verdict) == (key, "approve")
    assert ours.reason == "Gates pass; “samples” read.\nNothing personal in them."
    console.sequence()
    assert audit.check(console.store, SYSTEM, console.app.state.log_key).problems == []


def test_the_browsers_private_key_can_neither_be_read_nor_serve_another(
    console: Console, world: World, open_page: Open
) -> None:
    watched = open_page()
    page = watched.page
    page.goto("/login")
    watched.sign_in(console.token(world.compliance))
    enrol(page)
    told = page.evaluate(
        """async () => {
            const open = await new Promise((done) => {
                const asked = indexedDB.open("countersign", 1);
                asked.onsuccess = () => done(asked.result);
            });
            const keys = await new Promise((done) => {
                const asked = open.transaction("keys").objectStore("keys").getAll();
                asked.onsuccess = () => done(asked.result);
            });
            open.close();
            const tries = ["pkcs8", "jwk", "raw"].map((format) =>
                crypto.subtle.exportKey(format, keys[0].privateKey)
                    .then(() => "read", (error) => error.name));
            return [keys.length, ...await Promise.all(tries)];
        }"""
    )
    assert told == [1, "InvalidAccessError", "InvalidAccessError", "InvalidAccessError"]

    page.click("header .out button")
    expect(page).to_have_url(f"{console.url}/login")
    watched.sign_in(console.token(world.risk))
    page.goto(f"/reviews/{world.review}")
    expect(page.locator("[data-signing]")).to_contain_text("holds no enrolled key")


def test_an_adapter_is_delivered_and_taken_back(
    console: Console, team: str, open_page: Open
) -> None:
    world = a_world(console.store, console.blobs, team)
    ref = approved(world)
    watched = open_page()
    page = watched.page
    page.goto("/login")
    watched.sign_in(console.token(world.engineer))
    page.goto(f"/adapters?q={team}")
    page.get_by_role("link", name="adapter", exact=True).click()
    page.get_by_role("link", name="v2", exact=True).click()
    expect(page.locator("h1")).to_have_text("adapter v2")
    for heading in (
        "Identity",
        "Eval runs",
        "Training run",
        "Lineage",
        "Files",
        "Ordered to serve",
        "Reviews",
    ):
        expect(page.get_by_role("heading", name=heading, exact=True)).to_be_visible()
    page.get_by_role("link", name="Start a canary in production").click()

    expect(page.get_by_role("button", name="Promote canary")).to_be_disabled()
    expect(page.locator("#promote .barred")).to_have_text(
        "Nothing was ever started on channel 'production' in production."
    )
    expect(page.locator("#canary-ref")).to_have_value(ref)
    page.click("#canary button")
    expect(page.locator("#trouble")).to_contain_text("needs a reason")
    page.fill("#canary-share", "2.5")
    act(page, "canary", "First look at real traffic.")
    expect(page.locator(".legend")).to_contain_text("v2 canary, 2.5%")
    expect(page.locator(".legend")).to_contain_text("base tiny@v1 stable, 97.5%")
    act(page, "promote", "Clean for an hour.")
    expect(page.locator(".legend")).to_contain_text("v2 stable, 100%")
    expect(page.get_by_role("button", name="Roll back to base tiny@v1")).to_be_enabled()
    act(page, "rollback", "Complaint 5512.")
    expect(page.locator(".legend")).to_contain_text("base tiny@v1 stable, 100%")
    expect(page.locator("#rollback .barred")).to_have_text(
        f"{team}/adapter in production serves its base model already."
    )
    expect(page.locator("#promote-ref")).to_have_value(ref)
    act(page, "promote", "The complaint was about another adapter.")
    expect(page.locator(".legend")).to_contain_text("v2 stable, 100%")

    kinds = [
        one.kind for one in routes.history(console.store, SYSTEM, f"{team}/adapter", "production")
    ]
    assert kinds == ["canary", "promote", "rollback", "promote"]
    expect(page.locator("tr.current")).to_contain_text("The complaint was about another adapter.")
    expect(page.locator("text=Complaint 5512.")).to_be_visible()

    page.goto("/audit?action=channel%3Aroll-back")
    expect(page.locator("tbody tr").first).to_contain_text(world.engineer.actor.name)
    page.goto("/audit/as-of")
    expect(page.get_by_role("row", name=f"{team}/adapter")).to_contain_text(world.risk.actor.name)


def test_a_recall_asks_for_the_name_and_the_reason(
    console: Console, team: str, open_page: Open
) -> None:
    world = a_world(console.store, console.blobs, team)
    ref = approved(world)
    watched = open_page()
    page = watched.page
    page.goto("/login")
    watched.sign_in(console.token(world.engineer))
    page.goto(f"/adapters/{team}/adapter/v/2")
    page.click("summary:has-text('Recall')")
    page.fill("#recall-reason", "It repeated a customer's name.")
    page.click("button:has-text('Recall')")
    expect(page.locator("#trouble")).to_contain_text(f"Type {ref}")
    expect(page.locator("#recall-reason")).to_have_value("It repeated a customer's name.")
    page.fill("#recall-confirm", ref)
    page.click("button:has-text('Recall')")
    expect(page.locator(".trouble")).to_contain_text("It repeated a customer's name.")


def test_who_made_it_sees_the_form_disabled_and_why(
    console: Console, world: World, open_page: Open
) -> None:
    watched = open_page()
    watched.page.goto(f"/reviews/{world.review}")
    watched.sign_in(console.token(world.engineer))
    expect(watched.page.get_by_role("button", name="Sign decision")).to_be_disabled()
    expect(watched.page.locator(".barred")).to_have_text(
        "You submitted this version, so you cannot decide on it."
    )


def test_without_scripts_the_form_makes_the_command_that_signs(
    console: Console, world: World, open_page: Open
) -> None:
    watched = open_page(scripts=False)
    page = watched.page
    page.goto(f"/reviews/{world.review}")
    watched.sign_in(console.token(world.compliance))
    page.check("input[value=request_changes]")
    page.fill("#reason", "It's wrong about 'public domain'.")
    page.click("text=Sign decision")
    expect(page.locator(".signing.wrong")).to_contain_text("not signed yet")
    expect(page.locator("#reason")).to_have_value("It's wrong about 'public domain'.")
    said = shlex.quote("It's wrong about 'public domain'.")
    command = f"countersign review request-changes {world.review} --reason {said}"
    expect(page.locator(".signing .command")).to_have_text(command)
    assert reviews.review(console.store, SYSTEM, world.review).votes == []


def test_tags_are_set_and_taken_off_on_the_page(
    console: Console, team: str, open_page: Open
) -> None:
    world = a_world(console.store, console.blobs, team)
    watched = open_page()
    page = watched.page
    page.goto(f"/bases/{team}/tiny/v/1")
    watched.sign_in(console.token(world.engineer))
    page.goto(f"/bases/{team}/tiny/v/1")
    page.fill("#tag-key", "approved")
    page.fill("#tag-value", "yes")
    page.click("text=Set tag")
    expect(page.locator("#trouble")).to_contain_text("would look like a decision")
    expect(page.locator("#tag-value")).to_have_value("yes")
    page.fill("#tag-key", "topic")
    page.click("text=Set tag")
    expect(page.locator(".done")).to_have_text("The tag is set.")
    expect(page.locator(".tags")).to_contain_text(f"by {world.engineer.actor.name}")
    page.click(".tags a")
    expect(page.locator(".chips li").first).to_contain_text("topic:yes")
    page.get_by_role("link", name=f"{team}/tiny@v1").click()
    page.get_by_role("button", name="Remove tag topic").click()
    expect(page.locator(".tags")).to_have_count(0)
    with console.signed_in(a_person(console.store, "auditor")) as client:
        shown = client.get(f"/bases/{team}/tiny/v/1").text
        assert "It has no tags." in shown
        assert "Set tag" not in shown
        sent = client.post(f"/bases/{team}/tiny/v/1/tags", data={"key": "a", "value": "b"})
        assert sent.status_code == 403
        token = form_token(client, "/settings")
        sent = client.post(
            f"/bases/{team}/tiny/v/1/tags", data={"key": "a", "value": "b", "form_token": token}
        )
        assert sent.status_code == 403
        assert "It has no tags." in client.get(f"/bases/{team}/tiny/v/1").text


def test_a_profile_is_shown_whole_and_held_beside_another(
    console: Console, world: World, open_page: Open
) -> None:
    engineer, ref = world.engineer.actor, world.versions[-1]
    prompts = [
        put(console.blobs, "prompt", text)
        for text in (b"One word.\nNever guess.", b"Two words.\nNever guess.")
    ]
    sent(console.store, engineer, *(prompt.sha256 for prompt in prompts))
    for prompt, build in zip(prompts, ("0.33.0", "0.32.0"), strict=True):
        parts = {
            "engine": "vllm",
            "build": build,
            "system_prompt": f"sha256:{prompt.sha256}",
            "decoding": {"temperature": 0},
        }
        profiles.define(console.store, console.blobs, engineer, profiles.ProfileRequest(ref, parts))
    watched = open_page()
    page = watched.page
    page.goto(f"/adapters/{world.team}/adapter/v/2")
    watched.sign_in(console.token(world.risk))
    page.goto(f"/adapters/{world.team}/adapter/v/2")
    engines = page.locator("section[aria-labelledby=engines]")
    expect(engines.locator("tbody tr").nth(0)).to_contain_text("--max-lora-rank 8")
    expect(engines.locator("tbody tr").nth(1)).to_contain_text("needs q_proj and v_proj together")
    page.locator("section[aria-labelledby=profiles] a").last.click()
    expect(page.locator("h1")).to_have_text("vLLM 0.32.0")
    expect(page.locator("pre.prompt")).to_have_text("Two words.\nNever guess.")
    page.get_by_role("link", name="vLLM 0.33.0").click()
    expect(page.locator("section[aria-labelledby=differs] tbody tr")).to_have_count(2)
    expect(page.locator(".diff .taken")).to_have_text("-One word.")
    expect(page.locator(".diff .added")).to_have_text("+Two words.")
    with console.signed_in(a_person(console.store, "engineer", team="elsewhere-still")) as client:
        assert client.get(page.url.partition("?")[0]).status_code == 404
