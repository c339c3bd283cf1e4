"""Request and response bodies in pieces, so that no large body is ever in memory whole.

The event loop and the disk work at the same time: while a thread hashes and writes one batch, the
next is received; while one piece is sent, the next is read. No thread waits for the network, so a
slow client occupies only its connection.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, TypeVar

import anyio.to_thread
from anyio import CapacityLimiter
from anyio.lowlevel import RunVar
from fastapi import Request, Response
from starlette.types import Receive, Scope, Send

from registry.blobs.store import Blobs
from registry.errors import Unavailable

T = TypeVar("T")
RANGE = re.compile(r"(?i:bytes)=(?:([0-9]{1,40})-([0-9]{0,40})|-([0-9]{1,40}))")
BATCH_BYTES = 1 << 20
"""Bytes written to the disk at once. A sender has at most two batches in memory."""
FULL_BATCH_SENDERS = 8
"""Senders that get whole batches. With twice as many, each gets half a batch, and so on, so that
the batches of many senders fit in memory.
"""
PIECE_BYTES = 256 << 10
"""Bytes read at once for a reader. A reader has at most two pieces in memory."""
FULL_PIECE_READERS = 32
"""Readers that get whole pieces. Readers that come after them get small ones, so that the pieces
of many readers fit in memory.
"""
SMALL_PIECE_BYTES = 64 << 10
"""Bytes read at once for a reader when FULL_PIECE_READERS are being served already."""
MAX_BODIES = 64
"""Bodies received at the same time. Further senders wait for their turn."""
WAIT_SECONDS = 30.0
"""Seconds in which a sender must send MIN_BYTES."""
MIN_BYTES = 64 << 10
"""Bytes that a sender must send in WAIT_SECONDS. A slower one makes room for others."""


class Tally:
    """Bytes in memory now, and their peak: the quantities that the bounds above limit.

    Only the event loop counts, so no lock is needed.
    """

    def __init__(self) -> None:
        self.now = self.peak = 0

    def add(self, size: int) -> None:
        self.now += size
        self.peak = max(self.peak, self.now)


RECEIVED = Tally()
"""Bytes received from all senders and not yet written."""
GIVEN = Tally()
"""Bytes read for all readers and not yet sent."""

_limit: RunVar[CapacityLimiter] = RunVar("bodies")
_threads: RunVar[CapacityLimiter] = RunVar("disk threads")


def _of_this_loop(variable: RunVar[CapacityLimiter]) -> CapacityLimiter:
    """The limiter of the running event loop; a limiter works only in the loop it was made in."""
    try:
        return variable.get()
    except LookupError:
        variable.set(CapacityLimiter(MAX_BODIES))
        return variable.get()


def turn() -> CapacityLimiter:
    """A context in which a body may be received. A body that waits for it has not been read."""
    return _of_this_loop(_limit)


async def in_thread(work: Callable[..., T], *args: Any) -> T:
    """Run blocking work in threads that do nothing else.

    Uploads and the other requests use separate threads, so neither waits for the other.
    """
    return await anyio.to_thread.run_sync(work, *args, limiter=_of_this_loop(_threads))


class Body:
    """A request's body, received once."""

    senders = 0

    def __init__(self, request: Request) -> None:
        self._receive, self._more = request.receive, True
        self._held = 0

    def _hold(self, size: int) -> None:
        self._held += size
        RECEIVED.add(size)

    async def _piece(self) -> bytes:
        message = await self._receive()
        if message["type"] != "http.request":
            self._more = False
            raise Unavailable(
                "upload-broken", "The upload broke off.", "Send it again; nothing of it is visible."
            )
        self._more = message.get("more_body", False)
        piece: bytes = message.get("body", b"")
        return piece

    def _incomplete(self) -> bool:
        return self._more

    async def take(self, write: Callable[[bytes], None]) -> None:
        """Pass the body to `write`, in order and in batches, in a thread.

        Whatever arrived is written, even when the rest did not arrive and Unavailable
        (`upload-broken`, `body-too-slow`) is raised.
        """
        writing: asyncio.Task[None] | None = None
        why: Unavailable | None = None
        Body.senders += 1
        try:
            while self._more and why is None:
                pieces: list[bytes] = []
                size, batch = 0, BATCH_BYTES // max(1, Body.senders // FULL_BATCH_SENDERS)
                try:
                    async with asyncio.timeout(WAIT_SECONDS):
                        while self._incomplete() and size < batch:
                            pieces.append(await self._piece())
                            size += len(pieces[-1])
                            self._hold(len(pieces[-1]))
                except TimeoutError:
                    if size < MIN_BYTES:
                        why = Unavailable(
                            "body-too-slow",
                            f"Fewer than {MIN_BYTES} bytes arrived in {WAIT_SECONDS:.0f} seconds.",
                        )
                except Unavailable as error:
                    why = error
                if writing is not None:
                    await writing
                if size:
                    writing = asyncio.create_task(self._write(write, pieces, size))
            if writing is not None:
                await writing
        except BaseException:
            if writing is not None:
                await asyncio.wait([writing])
            raise
        finally:
            Body.senders -= 1
            self._hold(-self._held)
        if why is not None:
            self._more = False  # drain() must not wait for more of it
            raise why

    async def _write(self, write: Callable[[bytes], None], pieces: list[bytes], size: int) -> None:
        await in_thread(_joined, write, pieces)
        self._hold(-size)

    async def whole(self) -> bytes:
        """The whole body at once, for a body that is known to be small.

        Raises Unavailable as `take` does.
        """
        pieces: list[bytes] = []
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                while self._incomplete():
                    pieces.append(await self._piece())
        except TimeoutError:
            raise Unavailable(
                "body-too-slow", f"The body did not arrive in {WAIT_SECONDS:.0f} seconds."
            ) from None
        return b"".join(pieces)

    async def drain(self, max_bytes: int = 16 << 20, seconds: float = 5.0) -> None:
        """Read the rest of a refused body if it is short: many clients read no answer before they
        have sent everything.
        """
        with suppress(TimeoutError, Unavailable):
            async with asyncio.timeout(seconds):
                while self._more and max_bytes > 0:
                    max_bytes -= len(await self._piece())


def _joined(write: Callable[[bytes], None], pieces: list[bytes]) -> None:
    write(b"".join(pieces))


class Pieces(Response):
    """A response from a blocking source: the next piece is read while this one is sent.

    It ends early when the client disconnects.
    """

    readers = 0

    def __init__(self, pieces: Iterator[bytes], status: int, headers: Mapping[str, str]) -> None:
        super().__init__(None, status, headers, "application/octet-stream")
        self._pieces = pieces
        self._held = 0

    def _hold(self, size: int) -> None:
        self._held += size
        GIVEN.add(size)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        Pieces.readers += 1
        try:
            await self._give(receive, send)
        finally:
            Pieces.readers -= 1
            self._hold(-self._held)

    async def _give(self, receive: Receive, send: Send) -> None:
        await send(
            {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        )
        disconnected = asyncio.create_task(_until_disconnect(receive))
        ahead = self._next()
        try:
            while (piece := await ahead) is not None and not disconnected.done():
                ahead = self._next()
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                self._hold(-len(piece))
            await send({"type": "http.response.body", "body": b""})
        finally:
            disconnected.cancel()
            await asyncio.wait([ahead])
            if close := getattr(self._pieces, "close", None):
                await anyio.to_thread.run_sync(close)

    def _next(self) -> asyncio.Task[bytes | None]:
        return asyncio.create_task(self._read())

    async def _read(self) -> bytes | None:
        piece: bytes | None = await anyio.to_thread.run_sync(next, self._pieces, None)
        self._hold(len(piece or b""))
        return piece


async def _until_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def span(request: Request, size: int) -> tuple[int, int] | None:
    """The byte range that a GET asks for, as (first, last + 1); None unless it asks for one range.

    Several ranges in one request are not supported, and such a request gets the whole body, as
    RFC 9110, 14.2 allows.
    """
    match = RANGE.fullmatch(request.headers.get("range", "")) if request.method == "GET" else None
    if match is None:
        return None
    start, last, tail = match.groups()
    begin = int(start) if start else max(0, size - int(tail))
    return begin, min(int(last) + 1, size) if last else size


def answer(
    request: Request, blobs: Blobs, digest: str, size: int, headers: Mapping[str, str] | None = None
) -> Response:
    """Answer with published bytes as RFC 9110 asks: one range, If-Range, If-None-Match, HEAD.

    A HEAD always gets all its headers, never a 304: the headers beside the bytes (the commit that
    a channel names) may have changed although the bytes have not, and Rust's hf-hub keeps the old
    commit on a 304. Raises NotFound (`blob-unknown`).
    """
    etag = f'"{digest}"'
    common = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "private, no-cache",
        "Vary": "Authorization",
        **(headers or {}),
    }
    if request.method == "HEAD":
        return Response(
            None, 200, common | {"Content-Length": str(size)}, "application/octet-stream"
        )
    known = [
        value.strip().removeprefix("W/")
        for value in request.headers.get("if-none-match", "").split(",")
    ]
    if etag in known or known == ["*"]:
        return Response(None, 304, common)
    start, end, status = 0, size, 200
    requested = span(request, size)
    if requested and request.headers.get("if-range", etag) == etag:
        (start, end), status = requested, 206
        if start >= end:
            return Response(None, 416, common | {"Content-Range": f"bytes */{size}"})
        common["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    common["Content-Length"] = str(end - start)
    piece = PIECE_BYTES if Pieces.readers < FULL_PIECE_READERS else SMALL_PIECE_BYTES
    return Pieces(blobs.stream(digest, start, end, piece), status, common)
