"""Use cases over REST."""

from __future__ import annotations

from fastapi import APIRouter

from registry.api.door import Caller, RestRoute, TheStore
from registry.api.rest.schemas import NewUseCase
from registry.commands import use_cases as commands
from registry.queries import use_cases as queries
from registry.views.use_cases import UseCaseView

router = APIRouter(route_class=RestRoute, tags=["use cases"])


@router.post("/use-cases", status_code=201)
def add(store: TheStore, caller: Caller, body: NewUseCase) -> UseCaseView:
    """Add a use case: why something serves, who owns it, and which suite measures it."""
    name = commands.register(
        store,
        caller,
        commands.UseCaseRequest(
            body.name,
            purpose=body.purpose,
            owner=body.owner,
            risk_tier=body.risk_tier,
            suite=body.suite,
            details=body.details,
        ),
    )
    return next(each for each in queries.use_cases(store, caller) if each.name == name)


@router.get("/use-cases")
def use_cases(store: TheStore, caller: Caller) -> list[UseCaseView]:
    """Every use case that the caller may see."""
    return queries.use_cases(store, caller)
