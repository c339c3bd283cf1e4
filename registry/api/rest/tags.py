"""Tags of versions over REST."""

from __future__ import annotations

from fastapi import APIRouter

from registry.api.door import Caller, RestRoute, TheStore
from registry.api.rest.forms import Ref, Tag
from registry.api.rest.schemas import NewTag
from registry.commands import tags as commands
from registry.views.search import TagsView

router = APIRouter(route_class=RestRoute, tags=["versions"])


@router.put("/versions/{ref:ref}/tags/{key:path}")
def put_tag(store: TheStore, caller: Caller, ref: Ref, key: Tag, body: NewTag) -> TagsView:
    """Set a tag of a version. Tags decide nothing."""
    return commands.put(store, caller, ref, key, body.value)


@router.delete("/versions/{ref:ref}/tags/{key:path}")
def remove_tag(store: TheStore, caller: Caller, ref: Ref, key: Tag) -> TagsView:
    """Remove a tag from a version. The log keeps that it was there."""
    return commands.put(store, caller, ref, key, None)
