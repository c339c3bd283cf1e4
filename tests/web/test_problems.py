"""Where a problem document's `type` leads: a page for people, JSON for programs."""

from __future__ import annotations

import httpx

from registry.api.problems import STATUSES
from registry.errors import catalogue
from registry.gateway.problems import description
from tests.web.conftest import Console


def test_every_kind_is_explained_to_programs(console: Console) -> None:
    for kind, entry in catalogue().items():
        answer = httpx.get(f"{console.url}/problems/{kind}")
        assert answer.status_code == 200
        explained = answer.json()
        assert (explained["type"], explained["status"]) == (
            f"/problems/{kind}",
            STATUSES[entry.family],
        )
        assert (explained["title"], explained["meaning"], explained["fix"]) == (
            entry.title,
            entry.meaning,
            entry.fix,
        )


def test_a_browser_gets_a_page(console: Console) -> None:
    page = httpx.get(console.url + "/problems/token-expired", headers={"Accept": "text/html"})
    assert page.headers["content-type"].startswith("text/html")
    assert "The token has expired" in page.text
    everything = httpx.get(console.url + "/problems", headers={"Accept": "text/html"}).text
    assert all(f'id="{kind}"' in everything for kind in catalogue())
    missing = httpx.get(console.url + "/problems/never-heard-of", headers={"Accept": "text/html"})
    assert missing.status_code == 404


def test_the_gateway_explains_them_too() -> None:
    assert b"The channel is switched off" in description("channel-killed").body
