"""Bytes through a door, in pieces: taken from a slow sender, given to a slow reader, never held
whole.

Event loop and disk work at the same time: while a thread hashes and writes one batch the next is
received, and while one piece is sent the next is read. No thread waits for the network, so slow
ones hold nothing but their connection.
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
BATCH = 1 << 20
"""Bytes handed to the disk at once; a sender has at most two batches in memory."""
SENDERS = 8
"""So many senders get whole batches; of twice as many each gets half a one, and so on, so that a
crowd fits in memory.
"""
PIECE = 256 << 10
"""Bytes read at once for a reader, who has at most two pieces in memory."""
FEW, SMALLER = 32, 64 << 10
"""So many readers get whole pieces; those that come to them get smaller ones, so that a crowd fits
in memory too.
"""
AT_ONCE = 64
"""Bodies taken at the same time; more senders wait for their turn."""
WAIT = 30.0
LEAST = 64 << 10
"""A sender of fewer than LEAST bytes in WAIT seconds makes room for others."""


class Tally:
    """Bytes in memory now, and the most there were at once: what the bounds above are about.

    Only the event loop counts, so no lock is needed.
    """

    def __init__(self) -> None:
        self.now = self.most = 0

    def add(self, size: int) -> None:
        self.now += size
        self.most = max(self.most, self.now)


RECEIVED = Tally()
"""Bytes of all senders that came and are not written yet."""
GIVEN = Tally()
"""Bytes that were read for all readers and are not sent yet."""

_limit: RunVar[CapacityLimiter] = RunVar("bodies")
_threads: RunVar[CapacityLimiter] = RunVar("disk threads")


def _of_this_loop(kept: RunVar[CapacityLimiter], most: int) -> CapacityLimiter:
    """A limiter belongs to the event loop it was made in."""
    try:
        return kept.get()
    except LookupError:
        kept.set(CapacityLimiter(most))
        return kept.get()


def turn() -> CapacityLimiter:
    """A context in which a body may be taken; what waits for it has not been read at all."""
    return _of_this_loop(_limit, AT_ONCE)


async def in_thread(work: Callable[..., T], *given: Any) -> T:
    """Blocking work, in threads that answer nothing else: senders never wait for those who ask, nor
    the reverse.
    """
    return await anyio.to_thread.run_sync(work, *given, limiter=_of_this_loop(_threads, AT_ONCE))


class Body:
    """A request's body, taken once."""

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

    def _left(self) -> bool:
        return self._more

    async def take(self, write: Callable[[bytes], None]) -> None:
        """Hand it on to `write`, in order and in batches, in a thread.

        Whatever came is handed on, also before Unavailable (`upload-broken`, `body-too-slow`) says
        the rest did not.
        """
        writing: asyncio.Task[None] | None = None
        why: Unavailable | None = None
        Body.senders += 1
        try:
            while self._more and why is None:
                pieces: list[bytes] = []
                size, batch = 0, BATCH // max(1, Body.senders // SENDERS)
                try:
                    async with asyncio.timeout(WAIT):
                        while self._left() and size < batch:
                            pieces.append(await self._piece())
                            size += len(pieces[-1])
                            self._hold(len(pieces[-1]))
                except TimeoutError:
                    if size < LEAST:
                        why = Unavailable(
                            "body-too-slow",
                            f"Fewer than {LEAST} bytes came in {WAIT:.0f} seconds.",
                            "Send it again, over a better line.",
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
            self._more = False  # nothing to wait for any longer
            raise why

    async def _write(self, write: Callable[[bytes], None], pieces: list[bytes], size: int) -> None:
        await in_thread(_joined, write, pieces)
        self._hold(-size)

    async def whole(self) -> bytes:
        """All of it at once, for a body whose length is known to be modest; Unavailable as in
        `take`.
        """
        pieces: list[bytes] = []
        try:
            async with asyncio.timeout(WAIT):
                while self._left():
                    pieces.append(await self._piece())
        except TimeoutError:
            raise Unavailable(
                "body-too-slow",
                f"The body did not come in {WAIT:.0f} seconds.",
                "Send it again, over a better line.",
            ) from None
        return b"".join(pieces)

    async def drain(self, most: int = 16 << 20, seconds: float = 5.0) -> None:
        """Let a refused sender finish a body that is nearly through, so that he hears the
        answer.
        """
        with suppress(TimeoutError, Unavailable):
            async with asyncio.timeout(seconds):
                while self._more and most > 0:
                    most -= len(await self._piece())


def _joined(write: Callable[[bytes], None], pieces: list[bytes]) -> None:
    write(b"".join(pieces))


class Pieces(Response):
    """Bytes from a blocking source, the next piece read while this one is sent; ends early when
    nobody listens.
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
        gone = asyncio.create_task(_until_gone(receive))
        ahead = self._next()
        try:
            while (piece := await ahead) is not None and not gone.done():
                ahead = self._next()
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                self._hold(-len(piece))
            await send({"type": "http.response.body", "body": b""})
        finally:
            gone.cancel()
            await asyncio.wait([ahead])
            if close := getattr(self._pieces, "close", None):
                await anyio.to_thread.run_sync(close)

    def _next(self) -> asyncio.Task[bytes | None]:
        return asyncio.create_task(self._read())

    async def _read(self) -> bytes | None:
        piece: bytes | None = await anyio.to_thread.run_sync(next, self._pieces, None)
        self._hold(len(piece or b""))
        return piece


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def span(request: Request, size: int) -> tuple[int, int] | None:
    """First byte and the one after the last of the range a GET asks for; None unless it asks for
    one alone.

    Several ranges at once are not understood, and what is not understood gets the whole (RFC 9110,
    14.2).
    """
    asked = RANGE.fullmatch(request.headers.get("range", "")) if request.method == "GET" else None
    if asked is None:
        return None
    start, last, tail = asked.groups()
    begin = int(start) if start else max(0, size - int(tail))
    return begin, min(int(last) + 1, size) if last else size


def answer(
    request: Request, blobs: Blobs, digest: str, size: int, headers: Mapping[str, str] | None = None
) -> Response:
    """Give out published bytes as RFC 9110 asks: one range, If-Range, If-None-Match, HEAD; NotFound
    (`blob-unknown`).

    A HEAD always gets all its headers, never a 304: what stands beside the bytes (the commit a
    channel names) may have changed though they have not, and Rust's hf-hub keeps to the old commit
    on a 304.
    """
    etag = f'"{digest}"'
    said = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "private, no-cache",
        "Vary": "Authorization",
        **(headers or {}),
    }
    if request.method == "HEAD":
        return Response(None, 200, said | {"Content-Length": str(size)}, "application/octet-stream")
    known = [
        one.strip().removeprefix("W/")
        for one in request.headers.get("if-none-match", "").split(",")
    ]
    if etag in known or known == ["*"]:
        return Response(None, 304, said)
    start, end, status = 0, size, 200
    asked = span(request, size)
    if asked and request.headers.get("if-range", etag) == etag:
        (start, end), status = asked, 206
        if start >= end:
            return Response(None, 416, said | {"Content-Range": f"bytes */{size}"})
        said["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    said["Content-Length"] = str(end - start)
    return Pieces(
        blobs.stream(digest, start, end, PIECE if Pieces.readers < FEW else SMALLER), status, said
    )
