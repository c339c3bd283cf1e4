"""Policies over REST."""

from __future__ import annotations

from fastapi import APIRouter

from registry.api.door import Caller, RestRoute, TheStore
from registry.api.rest.schemas import NewPolicy
from registry.commands import policies as commands
from registry.queries import policies as queries
from registry.views.policies import PolicyView

router = APIRouter(route_class=RestRoute, tags=["policies"])


@router.get("/policies")
def policies(store: TheStore, caller: Caller) -> list[PolicyView]:
    """Every policy version; `current` marks the ones in force."""
    return queries.policies(store, caller)


@router.post("/policies", status_code=201)
def publish(store: TheStore, caller: Caller, body: NewPolicy) -> PolicyView:
    """Publish a policy's YAML as the next version of its environment."""
    ref = commands.publish(store, caller, body.text)
    return next(each for each in queries.policies(store, caller) if each.ref == ref)
