"""The log of everything that was done or refused, and what served at a given moment."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import APIRouter
from fastapi.responses import Response

from registry.errors import Invalid
from registry.queries import audit, rollouts, versions
from registry.queries.pages import PageRequest
from registry.rules.actions import Action
from registry.rules.actors import Role
from registry.rules.refs import ENVIRONMENTS
from registry.web import words
from registry.web.pages import Page, render
from registry.web.visits import Here

router = APIRouter(route_class=Page, include_in_schema=False)


@router.get("/audit")
def log(here: Here, action: str = "", subject: str = "", cursor: str = "") -> Response:
    """One page of the log, newest first, under its newest signed tree head."""
    page = audit.events(
        here.store,
        here.actor,
        PageRequest(cursor or None),
        action=action or None,
        subject=subject.strip() or None,
    )
    return render(
        here,
        "audit.html",
        page=page,
        head=audit.tree_head(here.store, here.actor),
        actions=sorted(each.value for each in Action),
        action=action,
        subject=subject,
        cursor=cursor,
        sees_all=here.actor.holds(Role.AUDITOR) or here.actor.holds(Role.ADMIN),
    )


@router.get("/audit/as-of")
def as_of(here: Here, at: str = "", environment: str = "production") -> Response:
    """What every channel was ordered to serve at one moment, by default now."""
    chosen = environment if environment in ENVIRONMENTS else "production"
    error, status, moment, rows = None, 200, datetime.now(UTC), []
    try:
        moment = words.moment(at) if at.strip() else moment
        rows = rollouts.as_of(here.store, here.actor, moment, chosen)
    except Invalid as why:
        error, status = why, 422
    fallen = versions.fallen(
        here.store, here.actor, [ref for each in rows for ref in (each.version, each.candidate)]
    )
    return render(
        here,
        "as_of.html",
        status,
        rows=rows,
        fallen=fallen,
        at=at,
        moment=moment,
        error=error,
        environment=chosen,
        environments=ENVIRONMENTS,
    )
