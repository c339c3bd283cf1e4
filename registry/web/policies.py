"""The policies in force and the earlier ones, as their publishers wrote them."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response

from registry.queries import policies
from registry.web.pages import Page, render
from registry.web.visits import Here

router = APIRouter(route_class=Page, include_in_schema=False)


@router.get("/policies")
def list_page(here: Here) -> Response:
    """Every policy version, by environment, newest first."""
    return render(here, "policies.html", policies=policies.policies(here.store, here.actor))
