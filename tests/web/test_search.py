"""Search on the console: every filter is a link, without scripts, and other teams' versions are not
there.
"""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import expect

from registry.commands import tags
from tests.build import World, a_person
from tests.web.conftest import Console, Watched

Open = Callable[..., Watched]


def test_a_search_is_narrowed_and_widened_by_its_links(
    console: Console, world: World, open_page: Open
) -> None:
    tags.put(console.store, world.engineer.actor, world.versions[0], "topic", "claims")
    watched = open_page(scripts=False)
    page = watched.page
    page.goto("/search")
    watched.sign_in(console.token(world.engineer))
    page.goto("/search")
    expect(page.locator(".count")).to_contain_text("3 versions")
    page.locator(".facets").get_by_role("link", name="adapter", exact=True).click()
    expect(page.locator(".count")).to_contain_text("2 versions")
    page.locator(".facets").get_by_role("link", name="topic", exact=True).click()
    expect(page.locator(".chips li")).to_have_count(3)
    page.locator(".facets").get_by_role("link", name="topic:claims", exact=True).click()
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_role("link", name="Remove filter Kind adapter").focus()
    page.keyboard.press("Enter")
    expect(page.locator(".chips li")).to_have_count(3)
    page.fill(".seek input[name=q]", "dapte")
    page.keyboard.press("Enter")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.goto("/search?q=absent&kind=adapter")
    page.get_by_role("link", name="Without name absent").click()
    expect(page.locator(".count")).to_contain_text("2 versions")
    page.goto("/search?digest=xyz&kind=adapter")
    expect(page.locator("#trouble")).to_contain_text("is not the beginning of a digest")
    expect(page.locator("#f-digest")).to_have_value("xyz")
    page.goto("/search?license=mit")
    expect(page.locator("#trouble")).to_contain_text("There is no filter 'license'")
    with console.signed_in(a_person(console.store, "engineer", team="elsewhere-still")) as client:
        seen = client.get("/search").text
        assert world.team not in seen
        assert "There is no version here yet" in seen
