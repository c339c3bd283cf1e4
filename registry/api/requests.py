"""Middleware for every request: an id, a metric, and a limit on its body.

It is plain ASGI, because the framework's own kind of middleware passes every piece of every body
through two more tasks.
"""

from __future__ import annotations

import time
from uuid import uuid4

from fastapi import Request
from prometheus_client import Histogram
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from registry.api import problems
from registry.api.bytes import Body
from registry.errors import RegistryError, TooLarge, Unavailable

SMALL_BODY = 64 << 10
"""Largest body that counts as small, in bytes."""
MEMORY = {"small": 8 << 20, "large": 16 << 20}
"""Bytes that all small and all large bodies may take at once. There are two pools so that a few
large bodies cannot keep the many small ones out.
"""
STREAMED = {"PUT": "/api/v1/blobs/", "PATCH": "/api/v1/uploads/"}
"""Method -> path prefix of the bodies that are streamed."""


class Requests:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, max_body: int, seconds: Histogram) -> None:
        """`max_body` is the largest body that is read into memory, in bytes."""
        self._app, self._max_body, self._seconds = app, max_body, seconds
        self._free = dict(MEMORY)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        sent = request.headers.get("x-request-id", "")
        request.state.request_id = sent if sent.isalnum() and len(sent) <= 64 else uuid4().hex
        started, status = time.perf_counter(), 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = request.state.request_id
            await send(message)

        try:
            length = self._length(request)
            if length:
                await self._with_whole_body(request, length, send_with_id)
            else:
                await self._app(scope, receive, send_with_id)
        except Exception as error:
            if status:
                raise  # part of an answer is sent already: only the connection can be closed
            answer = problems.answer if isinstance(error, RegistryError) else problems.unexpected
            # Each takes its kind of error.
            await answer(request, error)(scope, receive, send_with_id)  # type: ignore[arg-type]
        finally:
            self._seconds.labels(request.method, str(status)).observe(time.perf_counter() - started)

    def _length(self, request: Request) -> int:
        """The length of a body to read into memory, in bytes; 0 for no body and a streamed one.

        Raises TooLarge for a body that is larger than allowed or does not state its length.
        """
        length = request.headers.get("content-length", "")
        streamed = STREAMED.get(request.method)
        if streamed and request.url.path.startswith(streamed):
            return 0
        if length.isdecimal() and int(length) > self._max_body:
            raise TooLarge(
                "body-too-large",
                f"A body may have at most {self._max_body} bytes.",
                "Send less, or upload files as blobs (PUT /api/v1/blobs/<sha256>).",
            )
        if "chunked" in request.headers.get("transfer-encoding", "").lower():
            raise TooLarge("length-missing", "A body at this address must state its length.")
        return int(length) if length.isdecimal() else 0

    async def _with_whole_body(self, request: Request, length: int, send: Send) -> None:
        """Read the body before anything else is done for the request.

        This bounds the bodies of all requests together, and a slow sender occupies only its own
        bytes: no thread, no database connection.
        """
        pool = "small" if length <= SMALL_BODY else "large"
        if self._free[pool] < length:
            raise Unavailable(
                "bodies-busy",
                "Too many large requests are being sent at the same time.",
                retry_after=2,
                sent=False,
            )
        self._free[pool] -= length
        try:
            whole = await Body(request).whole()
            messages: list[Message] = [{"type": "http.request", "body": whole, "more_body": False}]
            del whole

            async def receive() -> Message:
                return messages.pop() if messages else await request.receive()

            await self._app(request.scope, receive, send)
        finally:
            self._free[pool] += length
