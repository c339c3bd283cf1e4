"""What is kept and why: holds that stand, retention classes, and what teams use."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Form
from fastapi.responses import Response

from registry.commands import holds
from registry.errors import NotFound, RegistryError
from registry.queries import retention as queries
from registry.rules.actions import Action
from registry.rules.rollouts import check_reason
from registry.web.pages import STATUS, Page, needs, render, sent
from registry.web.visits import Here, Posted, Visit

router = APIRouter(route_class=Page, include_in_schema=False)


def _page(here: Visit, cursor: str = "", everything: bool = False, status: int = 200, **typed: Any) -> Response:
    shown: dict[str, Any] = {
        "holds": queries.holds(here.store, here.actor, None, not everything, cursor or None), "cursor": cursor,
        "everything": everything, "classes": queries.classes(here.store, here.actor),
        "quotas": queries.quotas(here.store, here.actor), "bars_hold": needs(here, Action.HOLD_PLACE, None),
        "error": None, "over": "", "case": "", "reason": "",
    }  # fmt: skip
    return render(here, "retention.html", status, **(shown | typed))


@router.get("/retention")
def retention(here: Here, cursor: str = "", all: str = "", over: str = "") -> Response:
    """Holds, classes and quotas on one page; `over` fills the form that places a hold."""
    return _page(here, cursor, bool(all), over=over)


@router.post("/retention/holds")
def place(
    here: Posted, over: Annotated[str, Form()] = "", case: Annotated[str, Form()] = "",
    reason: Annotated[str, Form()] = "",
) -> Response:  # fmt: skip
    """Place a legal hold."""
    try:
        holds.place(here.store, here.actor, over.strip(), case, check_reason(reason.replace("\r\n", "\n")))
    except NotFound as error:
        return _page(here, status=404, error=error, over=over, case=case, reason=reason)
    except RegistryError as error:
        return _page(here, status=STATUS[error.family], error=error, over=over, case=case, reason=reason)
    return sent("/retention", "held")
