"""Deprecating a version on its page: what it does is said first, and who may not is told why."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import expect

from tests.build import World, approved
from tests.web.conftest import Console, Watched
from tests.web.test_retention import button, post

Open = Callable[..., Watched]


def test_a_version_is_deprecated_on_its_page(
    console: Console, world: World, open_page: Open
) -> None:
    ref = approved(world, seed=300)
    path = f"/adapters/{ref.replace('@v', '/v/')}"
    watched = open_page()
    page = watched.page
    page.goto(path)
    watched.sign_in(console.token(world.engineer))
    page.goto(path)
    expect(page.get_by_role("link", name="Start a canary in production")).to_have_count(1)
    label = f"Deprecate {ref.partition('@')[2]}"
    page.click(f"summary:has-text('{label}')")
    expect(page.locator("details[open]")).to_contain_text("no new rollout of it starts")
    page.fill("#deprecate-confirm", ref)
    page.click(f"button:has-text('{label}')")
    expect(page.locator("#trouble")).to_contain_text("needs a reason")
    page.fill("#deprecate-reason", "Its successor reads tables too.")
    page.click(f"button:has-text('{label}')")
    expect(page.locator(".done")).to_contain_text("No new rollout of it starts")
    expect(page.locator(".trouble")).to_contain_text("Its successor reads tables too.")
    expect(page.get_by_role("button", name=label)).to_have_count(0)
    expect(page.get_by_role("link", name="Start a canary in production")).to_have_count(0)


def test_who_may_not_is_told_why_and_refused_all_the_same(console: Console, world: World) -> None:
    ref = approved(world, seed=310)
    path = f"/adapters/{ref.replace('@v', '/v/')}"
    with console.signed_in(world.compliance) as client:
        page = client.get(path).text
        assert "disabled" in button(page, "Deprecate v")
        assert "Needs the role engineer." in page
        answer = post(client, path, f"{path}/deprecate", reason="old", confirm=ref)
        assert (answer.status_code, "needs the role engineer" in answer.text) == (403, True)
