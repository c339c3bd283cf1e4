"""A use case: what it says now, what it said before, who changed it, and why."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response

from registry.queries import use_cases
from registry.web.pages import Page, render
from registry.web.visits import Here

router = APIRouter(route_class=Page, include_in_schema=False)


@router.get("/use-cases/{team}/{name}")
def use_case(here: Here, team: str, name: str) -> Response:
    """Every version of one use case, newest first."""
    versions = use_cases.history(here.store, here.actor, f"{team}/{name}")
    return render(here, "use_case.html", versions=versions, newest=versions[0])
