"""Chat templates over REST: a version's own, compared with its base's."""

from __future__ import annotations

from fastapi import APIRouter

from registry.api.door import Caller, RestRoute, TheBlobs, TheStore
from registry.api.rest.forms import Ref
from registry.queries import chat_templates as queries
from registry.views.chat_templates import ChatTemplateView

router = APIRouter(route_class=RestRoute, tags=["versions"])


@router.get("/chat-templates/{ref:path}")
def chat_template(store: TheStore, blobs: TheBlobs, caller: Caller, ref: Ref) -> ChatTemplateView:
    """A version's chat template, compared with its base's.

    The answer has the difference, and the golden conversations rendered with both.
    """
    return queries.chat_template(store, blobs, caller, ref)
