"""Legal holds, retention classes and quotas, and the forms that change them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Form
from fastapi.responses import Response

from registry.api.problems import STATUSES
from registry.commands import holds
from registry.commands import retention as commands
from registry.errors import RegistryError
from registry.queries import retention as queries
from registry.queries.pages import PageRequest
from registry.rules.actions import Action
from registry.rules.rollouts import check_reason
from registry.web.pages import Page, needs, render, sent
from registry.web.visits import Here, Posted, Visit

router = APIRouter(route_class=Page, include_in_schema=False)

OWN_HOLD = "You placed this hold, so another reviewer must lift it."
EMPTY: dict[str, Any] = {
    "over": "",
    "case": "",
    "lift": 0,
    "name": "",
    "retention": "",
    "reason": "",
}
"""The fields of the page's forms. A refused form keeps what was typed."""


def _page(
    here: Visit, cursor: str = "", everything: bool = False, status: int = 200, **typed: Any
) -> Response:
    page = queries.holds(
        here.store, here.actor, PageRequest(cursor or None), standing=not everything
    )
    fields = EMPTY | {"failed": "", "error": None} | typed
    lifted = next((hold for hold in page.items if hold.number == fields["lift"]), None)
    own = lifted is not None and lifted.placed_by == here.actor.name
    shown = {
        "holds": page,
        "cursor": cursor,
        "everything": everything,
        "lifted": lifted,
        "classes": queries.classes(here.store, here.actor),
        "quotas": queries.quotas(here.store, here.actor),
        "bars": {
            "hold": needs(here, Action.HOLD_PLACE, None),
            "lift": needs(here, Action.HOLD_LIFT, None) or (OWN_HOLD if own else ""),
            "class": needs(here, Action.RETENTION_ASSIGN, None),
        },
    }
    return render(here, "retention.html", status, **(shown | fields))


def _act(
    here: Visit, form: str, done: str, reason: str, act: Callable[[str], object], **typed: Any
) -> Response:
    """Run one command with its required reason.

    A refusal is shown beside the form it came from, which keeps what was typed.
    """
    try:
        act(check_reason(reason.replace("\r\n", "\n")))
    except RegistryError as error:
        return _page(
            here, status=STATUSES[error.family], failed=form, error=error, reason=reason, **typed
        )
    return sent("/retention", done)


@router.get("/retention")
def retention(
    here: Here, cursor: str = "", all: str = "", over: str = "", lift: int = 0, name: str = ""
) -> Response:
    """Holds, classes and quotas; `over`, `lift` and `name` each open a form and fill it."""
    return _page(here, cursor, bool(all), over=over, lift=lift, name=name)


@router.post("/retention/holds")
def place(
    here: Posted,
    over: Annotated[str, Form()] = "",
    case: Annotated[str, Form()] = "",
    reason: Annotated[str, Form()] = "",
) -> Response:
    """Place a legal hold."""
    return _act(
        here,
        "hold",
        "held",
        reason,
        lambda why: holds.place(here.store, here.actor, over.strip(), case, why),
        over=over,
        case=case,
    )


@router.post("/retention/holds/{number}/lift")
def lift(here: Posted, number: int, reason: Annotated[str, Form()] = "") -> Response:
    """Lift a hold that another person placed."""
    return _act(
        here,
        "lift",
        "lifted",
        reason,
        lambda why: holds.lift(here.store, here.actor, number, why),
        lift=number,
    )


@router.post("/retention/settings")
def assign(
    here: Posted,
    name: Annotated[str, Form()] = "",
    retention: Annotated[str, Form()] = "",
    reason: Annotated[str, Form()] = "",
) -> Response:
    """Assign a retention class to a team, a line or a data set."""
    return _act(
        here,
        "class",
        "classed",
        reason,
        lambda why: commands.assign(here.store, here.actor, name.strip(), retention, why),
        name=name,
        retention=retention,
    )
