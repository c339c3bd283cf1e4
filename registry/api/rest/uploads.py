"""Uploads that survive a cut: the resumable uploads of the IETF's HTTP working group, at an address
known beforehand.

`HEAD` tells how many bytes are here, `PATCH` sends the rest from there on, and a whole digest
publishes them (record 0021). The address is the digest, below the caller's own account, so that
nothing has to be kept by the sender.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import ExitStack
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse

from registry.api import bytes as pieces
from registry.api.door import Caller, TheBlobs, TheStore
from registry.api.rest.blobs import BYTES, StoredView, declared, digest_of, may_upload
from registry.api.rest.forms import Digest
from registry.blobs.uploads import Uploads
from registry.commands import blobs as commands
from registry.errors import Invalid, RegistryError
from registry.rules.actors import Actor

router = APIRouter(tags=["blobs"])
OFFSET = re.compile(r"[0-9]{1,15}")
PIECE = [
    {
        "name": "Upload-Offset",
        "in": "header",
        "required": True,
        "description": "The number of bytes before this body.",
        "schema": {"type": "string", "pattern": "^[0-9]{1,15}$"},
    },
    {
        "name": "Upload-Complete",
        "in": "header",
        "description": "?0 for a piece that others follow; ?1, as if left out, for the rest.",
        "schema": {"enum": ["?0", "?1"]},
    },
]


def _uploads(request: Request) -> Uploads:
    uploads: Uploads = request.app.state.uploads
    return uploads


TheUploads = Annotated[Uploads, Depends(_uploads)]


def _account(caller: Actor) -> str:
    may_upload(caller)
    return str(caller.account)


def _headers(offset: int, *, complete: bool = False) -> dict[str, str]:
    return {
        "Upload-Offset": str(offset),
        "Upload-Complete": "?1" if complete else "?0",
        "Cache-Control": "no-store",
    }


@router.head("/uploads/{digest}", status_code=204, response_class=Response)
def offset(uploads: TheUploads, caller: Caller, digest: Digest) -> Response:
    """How many bytes of this file are here (Upload-Offset)? 404: none, begin at 0."""
    return Response(None, 204, _headers(uploads.offset(_account(caller), digest_of(digest))))


@router.patch(
    "/uploads/{digest}",
    status_code=201,
    response_model=StoredView,
    responses={204: {"description": "This piece is here; send the next."}},
    openapi_extra={"requestBody": BYTES["requestBody"] | {"required": False}, "parameters": PIECE},
)
async def append(
    request: Request,
    store: TheStore,
    blobs: TheBlobs,
    uploads: TheUploads,
    caller: Caller,
    digest: Digest,
) -> Response:
    """Send the rest of a file from Upload-Offset on. What came before a cut is kept; the whole is
    published (201).

    With `Upload-Complete: ?0` this is a piece, and more will follow (204).
    """
    expected, account = digest_of(digest), _account(caller)
    start, last = _asked(request)
    limit: int = request.app.state.settings.max_blob_bytes
    declared(request, start, limit)
    await pieces.in_thread(commands.sending, store, blobs, caller, expected)
    body = pieces.Body(request)
    async with pieces.turn():
        stack = ExitStack()
        try:
            sending = await pieces.in_thread(
                stack.enter_context, uploads.sending(account, expected, start, limit)
            )
            await body.take(sending.write)
            if not last:
                await pieces.in_thread(stack.close)
                return Response(None, 204, _headers(sending.size))
            stored = await pieces.in_thread(sending.finish, partial(commands.sent, store, caller))
        except RegistryError:
            await asyncio.gather(body.drain(), pieces.in_thread(stack.close))
            raise
        finally:
            await pieces.in_thread(stack.close)
    document = {"sha256": stored.sha256, "size": stored.size}
    return JSONResponse(document, 201, _headers(stored.size, complete=True))


@router.delete("/uploads/{digest}", status_code=204)
def give_up(uploads: TheUploads, caller: Caller, digest: Digest) -> Response:
    """Throw away what is here of an unfinished upload."""
    uploads.discard(_account(caller), digest_of(digest))
    return Response(None, 204)


def _asked(request: Request) -> tuple[int, bool]:
    """Where the body begins, and whether it is the last."""
    said = request.headers.get("upload-offset", "")
    if not OFFSET.fullmatch(said):
        raise Invalid(
            "bad-offset",
            f"Upload-Offset must be the number of bytes before this body, not '{said[:40]}'.",
            "Ask HEAD for it; a new upload begins with Upload-Offset: 0.",
        )
    if request.headers.get("content-range") is not None:
        raise Invalid(
            "bad-offset",
            "Content-Range means nothing here.",
            "Say where the body begins in Upload-Offset.",
        )
    complete = request.headers.get("upload-complete", "?1")
    if complete not in ("?0", "?1"):
        raise Invalid(
            "bad-offset",
            f"Upload-Complete is ?1 (the rest of the file) or ?0 (a piece of it), not "
            f"'{complete[:40]}'.",
            "Leave it out to send the rest.",
        )
    return int(said), complete == "?1"
