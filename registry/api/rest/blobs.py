"""Blobs by digest: check whether one is needed, stream it in whole, stream it out in ranges.

No blob is ever in memory whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from fastapi import APIRouter, Request, Response

from registry.api import bytes as pieces
from registry.api.door import Caller, RestRoute, TheBlobs, TheStore
from registry.api.rest.forms import Digest
from registry.blobs.drafts import HEX
from registry.blobs.store import Blobs
from registry.commands import blobs as commands
from registry.errors import Forbidden, Invalid, NotFound, RegistryError, TooLarge
from registry.queries import pulls
from registry.rules.actors import UPLOADERS, Actor

router = APIRouter(route_class=RestRoute, tags=["blobs"])
OCTETS = "application/octet-stream"
BYTES = {
    "requestBody": {
        "required": True,
        "content": {OCTETS: {"schema": {"type": "string", "format": "binary"}}},
    }
}


@dataclass(frozen=True, slots=True)
class StoredView:
    """A blob that is published."""

    sha256: str
    size: int


def digest_of(text: str) -> str:
    """The hex digits of a digest, which callers may write with or without `sha256:`.

    Raises Invalid (`bad-digest`).
    """
    digits = text.removeprefix("sha256:")
    if not HEX.fullmatch(digits):
        raise Invalid("bad-digest", f"'{text[:80]}' is not a SHA-256 digest.")
    return digits


def check_uploader(caller: Actor) -> None:
    """Raise Forbidden (`role-missing`) unless the caller's roles register versions."""
    if not any(caller.holds(role) for role in UPLOADERS):
        raise Forbidden(
            "role-missing",
            f"{caller.name} may not upload: uploading needs the role engineer or trainer.",
        )


def declared(request: Request, before: int, limit: int) -> None:
    """Raise TooLarge if the body is longer, by its stated length, than a file may be.

    `before` is the number of bytes that have arrived already, `limit` the largest file in bytes.
    """
    length = request.headers.get("content-length", "")
    if length.isdecimal() and before + int(length) > limit:
        raise TooLarge(
            "body-too-large", f"A file may have at most {limit} bytes.", "Split it into shards."
        )


@router.head("/blobs/{digest}", response_class=Response)
def has(store: TheStore, blobs: TheBlobs, caller: Caller, digest: Digest) -> Response:
    """Whether the caller may already use these bytes, so that they need not be sent.

    The answer is also 404 for bytes that are stored but belong to others: whoever has sent the
    bytes themselves may use them.
    """
    sha256 = digest_of(digest)
    if not commands.usable(store, blobs, caller, sha256):
        return Response(status_code=404)
    return Response(headers={"Content-Length": str(blobs.size(sha256)), "ETag": f'"{sha256}"'})


@router.put("/blobs/{digest}", status_code=201, openapi_extra=BYTES)
async def put(
    request: Request, store: TheStore, blobs: TheBlobs, caller: Caller, digest: Digest
) -> StoredView:
    """Upload a blob in one request.

    The bytes are hashed as they arrive and become visible only when the digest agrees. An
    interrupted upload leaves nothing.
    """
    expected = digest_of(digest)
    check_uploader(caller)
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
        206: {"content": {OCTETS: {}}, "description": "The requested range."},
        304: {"description": "Unchanged since that ETag."},
        416: {"description": "The range begins after the end; Content-Range states the length."},
    },
)
def get(
    request: Request, store: TheStore, blobs: TheBlobs, caller: Caller, digest: Digest
) -> Response:
    """Download a blob that belongs to something the caller may pull; `Range: bytes=N-` resumes."""
    sha256 = digest_of(digest)
    check_reader(caller)
    pulls.check_bytes(store, caller, sha256)
    return pieces.answer(request, blobs, sha256, _size(blobs, sha256))


def _size(blobs: Blobs, digest: Digest) -> int:
    if not blobs.has(digest):
        raise NotFound("blob-unknown", f"There is no blob sha256:{digest}.", "Check the digest.")
    return blobs.size(digest)


def check_reader(caller: Actor) -> None:
    """Raise Forbidden (`role-missing`) for a caller without any role."""
    if not caller.grants:
        raise Forbidden(
            "role-missing", f"{caller.name} has no role.", "Ask an administrator for a role."
        )
