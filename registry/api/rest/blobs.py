"""Bytes by digest: the one streamed room of the REST door; nothing is ever held whole in memory."""

from __future__ import annotations

import queue
import re
from collections.abc import AsyncIterator, Iterator
from functools import partial

import anyio
import anyio.from_thread
import anyio.to_thread
from anyio.lowlevel import RunVar
from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from starlette.concurrency import iterate_in_threadpool

from registry.api.rest.door import Caller, TheBlobs, TheStore
from registry.blobs import Blobs, Stored
from registry.commands import blobs as commands
from registry.errors import Forbidden, Invalid, NotFound, TooLarge, Unavailable
from registry.rules.actors import Actor, Role

router = APIRouter(tags=["blobs"])
DIGEST = re.compile(r"[0-9a-f]{64}")
RANGE = re.compile(r"bytes=(\d+)-(\d*)")
UPLOADERS = frozenset({Role.ENGINEER, Role.TRAINER})


def _digest(digest: str) -> str:
    found = digest.removeprefix("sha256:")
    if not DIGEST.fullmatch(found):
        raise Invalid("bad-digest", f"'{digest[:80]}' is no SHA-256.", "Give 64 lower-case hex digits.")
    return found


@router.head("/blobs/{digest}")
def has(store: TheStore, blobs: TheBlobs, caller: Caller, digest: str) -> Response:
    """Are these bytes here already? Ask before every upload."""
    found = _digest(digest)
    commands.mention(store, blobs, found)
    if not blobs.has(found):
        return Response(status_code=404)
    return Response(headers={"Content-Length": str(blobs.size(found)), "ETag": f'"{found}"'})


@router.put("/blobs/{digest}", status_code=201)
async def put(request: Request, store: TheStore, blobs: TheBlobs, caller: Caller, digest: str) -> dict[str, str | int]:
    """Stream bytes in; they are hashed on the way and visible only when the digest agrees."""
    expected = _digest(digest)
    if not any(caller.holds(role) for role in UPLOADERS):
        raise Forbidden("role-missing", f"{caller.name} may not upload: it needs the role engineer or trainer.",
                        "Ask an administrator for a token with that role.")  # fmt: skip
    limit: int = request.app.state.settings.max_blob_bytes
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise TooLarge("body-too-large", f"One file may have at most {limit} bytes.", "Split it into shards.")
    await run_in_threadpool(commands.mention, store, blobs, expected)
    stored = await _pump(request.stream(), blobs, expected, limit)
    return {"sha256": stored.sha256, "size": stored.size}


# Threads of their own: an upload keeps one until its last byte, and were they those that answer every other request,
# forty slow senders would wait for each other for ever, and everybody else for them.
UPLOADS = 64
_limit: RunVar[anyio.CapacityLimiter] = RunVar("uploads")


def _uploads() -> anyio.CapacityLimiter:
    """The limit of this event loop: a limiter belongs to the loop it was made in."""
    try:
        return _limit.get()
    except LookupError:
        _limit.set(anyio.CapacityLimiter(UPLOADS))
        return _limit.get()


async def _pump(body: AsyncIterator[bytes], blobs: Blobs, expected: str, limit: int) -> Stored:
    """Hand an async body to the synchronous blob store through a short queue, so that a fast sender waits for the disk."""
    pipe: queue.Queue[bytes | Exception | None] = queue.Queue(maxsize=8)

    ended = False

    def chunks() -> Iterator[bytes]:
        nonlocal ended
        while (piece := pipe.get()) is not None:
            if isinstance(piece, Exception):
                raise Unavailable("upload-broken", "The upload broke off.", "Send it again; nothing was stored.")
            yield piece
        ended = True

    result: list[Stored | Exception] = []
    begun = anyio.Event()

    def store() -> None:
        anyio.from_thread.run_sync(begun.set)
        try:
            result.append(blobs.put(chunks(), expect=expected, limit=limit))
        except Exception as error:
            result.append(error)
            while not ended and pipe.get() is not None:  # let the sender finish, so that it hears the answer
                pass

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(anyio.to_thread.run_sync, store, limiter=_uploads()))
        try:
            # Only what is being stored is read: a sender in the queue holds nothing but his connection.
            await begun.wait()
            async for piece in body:
                if piece:
                    await run_in_threadpool(pipe.put, piece)
        except Exception as error:
            await run_in_threadpool(pipe.put, error)
        finally:
            # Also when this task is cancelled: the other thread would wait for its next piece for good.
            with anyio.CancelScope(shield=True):
                await run_in_threadpool(pipe.put, None)
    outcome = result[0]
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


@router.get("/blobs/{digest}")
def get(request: Request, blobs: TheBlobs, caller: Caller, digest: str) -> Response:
    """Stream bytes out; `Range: bytes=N-` resumes."""
    found = _digest(digest)
    may_read(caller)
    if not blobs.has(found):
        raise NotFound("blob-missing", f"There are no bytes sha256:{found}.", "Check the digest.")
    size = blobs.size(found)
    start, end, status = 0, size, 200
    if asked := RANGE.fullmatch(request.headers.get("range", "")):
        start, end, status = int(asked[1]), min(int(asked[2]) + 1, size) if asked[2] else size, 206
        if start >= end:
            return Response(status_code=416, headers={"Content-Range": f"bytes */{size}"})
    headers = {"Content-Length": str(end - start), "ETag": f'"{found}"', "Accept-Ranges": "bytes",
               "X-Content-Type-Options": "nosniff"}  # fmt: skip
    if status == 206:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    body = iterate_in_threadpool(blobs.stream(found, start, end))
    return StreamingResponse(body, status, headers, "application/octet-stream")


def may_read(caller: Actor) -> None:
    """Everybody with a role may read bytes whose digest he knows; digests are learnt from rows he may see."""
    if not caller.grants:
        raise Forbidden("role-missing", f"{caller.name} holds no role.", "Ask an administrator for a role.")
