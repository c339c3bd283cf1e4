"""Lineage over REST."""

from __future__ import annotations

from fastapi import APIRouter

from registry.api.door import Caller, RestRoute, TheStore
from registry.api.rest.forms import Node
from registry.queries import lineage as queries
from registry.views.lineage import LineageView

router = APIRouter(route_class=RestRoute, tags=["lineage"])


@router.get("/lineage/{ref:path}")
def trace(store: TheStore, caller: Caller, ref: Node) -> LineageView:
    """What a node derives from, and what derives from it."""
    return queries.trace(store, caller, ref)
