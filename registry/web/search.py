"""Search: one plain form over every filter, counts as links, a page at a time."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter
from fastapi.responses import Response

from registry.queries import search as queries
from registry.rules import searches
from registry.web.pages import Page, render
from registry.web.versions import version_path
from registry.web.visits import Here

router = APIRouter(route_class=Page, include_in_schema=False)
FACET_FILTERS = ("kind", "state", "team", "licence", "base", "domain", "tag")


@router.get("/search")
def search(
    here: Here, q: str = "", kind: str = "", team: str = "", tag: str = "", base: str = "", dataset: str = "",
    licence: str = "", domain: str = "", metric: str = "", state: str = "", digest: str = "", sort: str = "created",
    cursor: str = "",
) -> Response:  # fmt: skip
    """The versions that meet every filter, newest first, and what they have in common."""
    asked: dict[str, str] = {
        "q": q, "kind": kind, "state": state, "tag": tag, "team": team, "base": base, "dataset": dataset,
        "licence": licence, "domain": domain, "metric": metric, "digest": digest, "sort": sort,
    }  # fmt: skip
    several: dict[str, Any] = {"tag": [tag] if tag else [], "metric": [metric] if metric else []}
    page = queries.search(here.store, here.actor, searches.parse(**{**asked, **several}), cursor or None, 50, True)

    def narrowed(facet: str, value: str) -> str:
        return "/search?" + urlencode({name: said for name, said in {**asked, facet: value}.items() if said})

    return render(here, "search.html", page=page, asked=asked, cursor=cursor, narrowed=narrowed, facets=FACET_FILTERS,
                  kinds=searches.KINDS, states=searches.STATES, sorts=searches.SORTS, path_of=version_path)  # fmt: skip
