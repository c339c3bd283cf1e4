"""Bytes by digest: streamed up whole, asked for first; streamed down, in ranges; never held whole
in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from fastapi import APIRouter, Request, Response

from registry.api import bytes as pieces
from registry.api.door import Caller, TheBlobs, TheStore
from registry.api.rest.forms import Digest
from registry.blobs.drafts import HEX
from registry.blobs.store import Blobs
from registry.commands import blobs as commands
from registry.errors import Forbidden, Invalid, NotFound, RegistryError, TooLarge
from registry.queries import pulls
from registry.rules.actors import UPLOADERS, Actor

router = APIRouter(tags=["blobs"])
OCTETS = "application/octet-stream"
BYTES = {
    "requestBody": {
        "required": True,
        "content": {OCTETS: {"schema": {"type": "string", "format": "binary"}}},
    }
}


@dataclass(frozen=True, slots=True)
class StoredView:
    """Bytes that are published."""

    sha256: str
    size: int


def digest_of(text: str) -> str:
    """A digest as callers write it, with or without `sha256:`; Invalid (`bad-digest`)."""
    found = text.removeprefix("sha256:")
    if not HEX.fullmatch(found):
        raise Invalid("bad-digest", f"'{text[:80]}' is no SHA-256.")
    return found


def may_upload(caller: Actor) -> None:
    """Forbidden (`role-missing`) for whoever makes no versions."""
    if not any(caller.holds(role) for role in UPLOADERS):
        raise Forbidden(
            "role-missing",
            f"{caller.name} may not upload: it needs the role engineer or trainer.",
            "Ask an administrator for a token with that role.",
        )


def declared(request: Request, before: int, limit: int) -> None:
    """TooLarge for a body that says itself that it, after the bytes `before` it, is more than one
    file may have.
    """
    length = request.headers.get("content-length", "")
    if length.isdecimal() and before + int(length) > limit:
        raise TooLarge(
            "body-too-large", f"One file may have at most {limit} bytes.", "Split it into shards."
        )


@router.head("/blobs/{digest}", response_class=Response)
def has(store: TheStore, blobs: TheBlobs, caller: Caller, digest: Digest) -> Response:
    """Need these bytes not be sent? 404 also where they are here, but belong to others: who sends
    them may name them.
    """
    found = digest_of(digest)
    if not commands.usable(store, blobs, caller, found):
        return Response(status_code=404)
    return Response(headers={"Content-Length": str(blobs.size(found)), "ETag": f'"{found}"'})


@router.put("/blobs/{digest}", status_code=201, openapi_extra=BYTES)
async def put(
    request: Request, store: TheStore, blobs: TheBlobs, caller: Caller, digest: Digest
) -> StoredView:
    """Stream bytes in; they are hashed on the way and visible only when the digest agrees. A cut
    leaves nothing.
    """
    expected = digest_of(digest)
    may_upload(caller)
    limit: int = request.app.state.settings.max_blob_bytes
    declared(request, 0, limit)
    await pieces.in_thread(commands.sending, store, blobs, caller, expected)
    body = pieces.Body(request)
    async with pieces.turn():
        incoming = await pieces.in_thread(blobs.incoming, expected, limit)
        try:
            await body.take(incoming.write)
            stored = await pieces.in_thread(incoming.finish, partial(commands.sent, store, caller))
        except RegistryError:
            await body.drain()
            raise
        finally:
            await pieces.in_thread(incoming.__exit__)
    return StoredView(stored.sha256, stored.size)


@router.get(
    "/blobs/{digest}",
    response_class=Response,
    responses={
        200: {"content": {OCTETS: {}}},
        206: {"content": {OCTETS: {}}, "description": "The range asked for."},
        304: {"description": "Unchanged since the ETag given."},
        416: {"description": "The range begins after the end; Content-Range says where that is."},
    },
)
def get(
    request: Request, store: TheStore, blobs: TheBlobs, caller: Caller, digest: Digest
) -> Response:
    """Stream bytes out, to who may pull what they belong to; `Range: bytes=N-` resumes."""
    found = digest_of(digest)
    may_read(caller)
    pulls.check_bytes(store, caller, found)
    return pieces.answer(request, blobs, found, _size(blobs, found))


def _size(blobs: Blobs, digest: Digest) -> int:
    if not blobs.has(digest):
        raise NotFound("blob-unknown", f"There are no bytes sha256:{digest}.", "Check the digest.")
    return blobs.size(digest)


def may_read(caller: Actor) -> None:
    """Forbidden (`role-missing`) for whoever holds no role at all."""
    if not caller.grants:
        raise Forbidden(
            "role-missing", f"{caller.name} holds no role.", "Ask an administrator for a role."
        )
