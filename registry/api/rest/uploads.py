"""Resumable uploads, after the draft of the IETF's HTTP working group, at a predictable address.

`HEAD` states how many bytes have arrived, `PATCH` sends the rest from there, and the bytes are
published once their digest is right (record 0021). The address is the digest, within the caller's
own account, so that the sender need not remember anything.
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
from registry.api.door import Caller, RestRoute, TheBlobs, TheStore
from registry.api.rest.blobs import BYTES, StoredView, check_uploader, declared, digest_of
from registry.api.rest.forms import Digest
from registry.blobs.uploads import Uploads
from registry.commands import blobs as commands
from registry.errors import Invalid, RegistryError
from registry.rules.actors import Actor

router = APIRouter(route_class=RestRoute, tags=["blobs"])
OFFSET = re.compile(r"[0-9]{1,15}")
HEADERS = [
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
        "description": "?0 if more of the file follows; ?1 (the default) if this is the rest.",
        "schema": {"enum": ["?0", "?1"]},
    },
]


def _uploads(request: Request) -> Uploads:
    uploads: Uploads = request.app.state.uploads
    return uploads


TheUploads = Annotated[Uploads, Depends(_uploads)]


def _account(caller: Actor) -> str:
    check_uploader(caller)
    return str(caller.account)


def _headers(offset: int, *, complete: bool = False) -> dict[str, str]:
    return {
        "Upload-Offset": str(offset),
        "Upload-Complete": "?1" if complete else "?0",
        "Cache-Control": "no-store",
    }


@router.head("/uploads/{digest}", status_code=204, response_class=Response)
def offset(uploads: TheUploads, caller: Caller, digest: Digest) -> Response:
    """The number of bytes that have arrived, in Upload-Offset; 404 means none: begin at 0."""
    return Response(None, 204, _headers(uploads.offset(_account(caller), digest_of(digest))))


@router.patch(
    "/uploads/{digest}",
    status_code=201,
    response_model=StoredView,
    responses={204: {"description": "The piece is stored; send the next."}},
    openapi_extra={
        "requestBody": BYTES["requestBody"] | {"required": False},
        "parameters": HEADERS,
    },
)
async def append(
    request: Request,
    store: TheStore,
    blobs: TheBlobs,
    uploads: TheUploads,
    caller: Caller,
    digest: Digest,
) -> Response:
    """Send the rest of a file, from Upload-Offset on; the whole file is then published (201).

    The bytes that arrived before an interruption are kept. With `Upload-Complete: ?0` the body is
    only a piece, and more follows (204).
    """
    expected, account = digest_of(digest), _account(caller)
    start, last = _position(request)
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
    """Discard an unfinished upload."""
    uploads.discard(_account(caller), digest_of(digest))
    return Response(None, 204)


def _position(request: Request) -> tuple[int, bool]:
    """The offset at which the body begins, and whether it is the last piece."""
    offset = request.headers.get("upload-offset", "")
    if not OFFSET.fullmatch(offset):
        raise Invalid(
            "bad-offset",
            f"Upload-Offset must be the number of bytes before this body, not '{offset[:40]}'.",
        )
    if request.headers.get("content-range") is not None:
        raise Invalid(
            "bad-offset",
            "Content-Range has no meaning for an upload.",
            "State where the body begins in Upload-Offset.",
        )
    complete = request.headers.get("upload-complete", "?1")
    if complete not in ("?0", "?1"):
        raise Invalid(
            "bad-offset",
            "Upload-Complete is ?1 (the rest of the file) or ?0 (a piece of it), not "
            f"'{complete[:40]}'.",
            "Leave it out to send the rest.",
        )
    return int(offset), complete == "?1"
