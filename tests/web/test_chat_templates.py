"""The console shows what an adapter's own chat template changes."""

from __future__ import annotations

from collections.abc import Callable

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.build import a_world
from tests.commands.test_chat_templates import allow, templated
from tests.web.conftest import Console, Watched
from tests.web.test_tour import WCAG


def test_the_difference_and_both_renderings_are_on_the_page(
    console: Console, team: str, open_page: Callable[..., Watched]
) -> None:
    world = a_world(console.store, console.blobs, team)
    allow(console.store, "dev")
    templated(world)
    watched = open_page(width=390)
    page = watched.page
    page.goto(f"/adapters/{team}/talker/v/1")
    watched.sign_in(console.token(world.engineer))
    section = page.locator("section", has=page.get_by_role("heading", name="Chat template"))
    expect(section).to_contain_text("Policies in force allow that in dev.")
    expect(section.locator(".diff .plus").last).to_contain_text("Praise acme.")
    differing = section.locator("details", has_text="Several turns")
    expect(differing.locator("summary")).to_contain_text("differs")
    differing.locator("summary").click()
    expect(differing.locator("pre").last).to_contain_text("Praise acme.")
    found = Axe().run(page, options={"runOnly": WCAG}).response["violations"]
    assert [(one["id"], [node["target"] for node in one["nodes"]]) for one in found] == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.goto(f"/bases/{team}/chatty/v/1")
    expect(page.get_by_role("heading", name="Chat template")).to_be_visible()
