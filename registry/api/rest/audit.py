"""The audit log over REST."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Annotated, BinaryIO, cast

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from registry.api.door import Caller, RestRoute, TheStore
from registry.api.rest.forms import Cursor, Limit, Plain
from registry.errors import NotFound
from registry.queries import audit as queries
from registry.queries.pages import PageRequest
from registry.views.audit import EventPage, LogCheckView, LogProofView, TreeHeadView

router = APIRouter(route_class=RestRoute, tags=["audit"])

Number = Annotated[int | None, Query(ge=0, lt=1 << 63)]


@router.get("/audit/events")
def events(
    store: TheStore,
    caller: Caller,
    cursor: Cursor | None = None,
    action: Plain | None = None,
    subject: Plain | None = None,
    limit: Limit = 50,
) -> EventPage:
    """The log, newest first."""
    return queries.events(store, caller, PageRequest(cursor, limit), action=action, subject=subject)


@router.get("/audit/tree-head", responses={404: {}})
def tree_head(store: TheStore, caller: Caller) -> TreeHeadView:
    """The newest signed tree head."""
    head = queries.tree_head(store, caller)
    if head is None:
        raise NotFound("tree-head-missing", "The log has no signed tree head yet.")
    return head


@router.get("/log/proof")
def proof(
    store: TheStore,
    caller: Caller,
    seq: Number = None,
    old_size: Number = None,
    size: Number = None,
) -> LogProofView:
    """Prove that an entry is in the signed log (`seq`), or that the log only grew (`old_size`).

    `size` names the signed tree head to prove against; the default is the newest.
    """
    return queries.prove(store, caller, seq, old_size, size)


@router.get("/audit/check")
def check(store: TheStore, caller: Caller, request: Request) -> LogCheckView:
    """Recompute the whole log from the database, and compare it with its signed tree heads."""
    return queries.check(store, caller, request.app.state.log_key)


@router.get(
    "/audit/export",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/zip": {}}}, 409: {}, 422: {}},
)
def export(store: TheStore, caller: Caller, request: Request) -> StreamingResponse:
    """The whole log as one pack, which countersign-verify checks offline."""
    # Closed when the answer has been sent.
    pack = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115
    try:
        queries.export(store, caller, request.app.state.log_key, pack)
    except BaseException:
        pack.close()
        raise
    size = pack.tell()
    pack.seek(0)

    def stream() -> Iterator[bytes]:
        with pack:
            while piece := pack.read(1 << 20):
                yield piece

    headers = {
        "Content-Length": str(size),
        "Content-Disposition": 'attachment; filename="countersign-pack.zip"',
    }
    return StreamingResponse(stream(), headers=headers, media_type="application/zip")
