"""One request: choose the arm, ask the engine, fall back at most once, answer, and keep a record of
it.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from uuid import uuid4

import httpx
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from registry.errors import Fault, RegistryError, Unavailable
from registry.gateway.arms import Arms
from registry.gateway.asked import Asked, read
from registry.gateway.engine import Engine
from registry.gateway.meters import Meters
from registry.gateway.plan import Plan, choose, side_of
from registry.gateway.problems import problem, status_of
from registry.gateway.records import Record, Records, now
from registry.gateway.routing import Routes, name
from registry.rules.rollouts import Arm
from registry.views.rollouts import ArmView, RoutingEntry

log = logging.getLogger("registry.gateway")

MAX_IN_FLIGHT = 256
MAX_ANSWER = 8 << 20
GONE, BROKEN = 499, 502


@dataclass(slots=True)
class Trace:
    """What is known of a request so far, to become its record exactly once."""

    entry: RoutingEntry
    arm: Arm
    unit: str | None
    started: float
    version: ArmView | None = None
    fallback: bool = False

    def headers(self, request_id: str) -> dict[str, str]:
        """Which route and version this answer is of."""
        known = {"X-Request-Id": request_id, "X-Countersign-Arm": self.arm}
        known["X-Countersign-Generation"] = str(self.entry.generation)
        if self.version is not None:
            known |= {
                "X-Countersign-Version": self.version.ref,
                "X-Countersign-Digest": self.version.digest,
            }
        if self.fallback:
            known["X-Countersign-Fallback"] = "true"
        return known


class Completions:
    """The door of applications: OpenAI's shape in, the immutable version's answer out."""

    def __init__(
        self, routes: Routes, arms: Arms, engine: Engine, records: Records, meters: Meters
    ) -> None:
        self._routes, self._arms, self._engine = routes, arms, engine
        self._records, self._meters = records, meters
        self._in_flight = 0

    async def answer(self, request: Request) -> Response:
        """Serve one POST; every failure is a problem document."""
        started, request_id, trace = time.perf_counter(), uuid4().hex, None
        held = AsyncExitStack()
        try:
            self._enter(held)
            asked = await read(request)
            entry = self._routes.find(asked.model)
            trace = Trace(
                entry, side_of(entry, asked.unit), self._records.unit(asked.unit), started
            )
            response = await self._serve(request.url.path, asked, trace, held, request_id)
        except Exception as raised:
            await held.aclose()
            error = raised if isinstance(raised, RegistryError) else _fault(raised, request_id)
            if trace is None:
                self._meters.refused(error.kind)
                return problem(error, request_id)
            trace.version = None
            self._keep(trace, status_of(error))
            return problem(error, request_id, trace.headers(request_id))
        except BaseException:
            await held.aclose()
            raise
        if not isinstance(response, Events):
            await held.aclose()
            self._keep(trace, response.status_code)
        return response

    def _enter(self, held: AsyncExitStack) -> None:
        if self._in_flight >= MAX_IN_FLIGHT:
            raise Unavailable(
                "gateway-busy",
                f"{MAX_IN_FLIGHT} requests are in hand already.",
                retry_after=1,
            )
        self._in_flight += 1
        held.callback(self._leave)

    def _leave(self) -> None:
        self._in_flight -= 1

    async def _serve(
        self, path: str, asked: Asked, trace: Trace, held: AsyncExitStack, request_id: str
    ) -> Response:
        plan = choose(trace.entry, trace.arm, self._arms.held)
        for turn, version in enumerate(plan.versions[:2]):
            trace.version, trace.fallback = version, plan.fallback or turn > 0
            try:
                return await self._ask(path, asked, trace, held, request_id)
            except Unavailable as error:
                if not _may_fall_back(plan, turn, trace.entry, error):
                    raise
                log.warning(
                    "%s: %s; falling back to %s",
                    version.ref,
                    error.detail,
                    plan.versions[turn + 1].ref,
                )
        raise AssertionError("a plan names at least one version")

    async def _ask(
        self, path: str, asked: Asked, trace: Trace, held: AsyncExitStack, request_id: str
    ) -> Response:
        """Ask the engine once; what the engine itself got wrong is Unavailable, what the caller did
        passes through.
        """
        version = trace.version
        assert version is not None
        async with AsyncExitStack() as sending:
            answer = await sending.enter_async_context(
                self._engine.send(path, asked.as_version(version.ref))
            )
            if answer.status_code == httpx.codes.NOT_FOUND:
                self._arms.lost(version)
                raise _failed(version, answer.status_code, lost=True)
            if answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
                raise _failed(version, answer.status_code)
            kind = answer.headers.get("Content-Type", "application/json")
            headers = trace.headers(request_id)
            if kind.startswith("text/event-stream"):
                held.push_async_exit(sending.pop_all())
                return Events(answer, headers, held, partial(self._keep, trace))
            body = await _whole(answer, version)
            if answer.is_success:
                body = _named(body, version)
            return Response(body, answer.status_code, headers, kind)
        raise AssertionError("the engine's connection swallows no error")

    def _keep(self, trace: Trace, status: int) -> None:
        version = trace.version
        latency = round((time.perf_counter() - trace.started) * 1000, 3)
        ref, digest = (version.ref, version.digest) if version is not None else (None, None)
        record = Record(
            now(),
            name(trace.entry),
            trace.entry.generation,
            trace.arm,
            ref,
            digest,
            status,
            latency,
            trace.fallback,
            trace.unit,
        )
        self._records.append(record)
        self._meters.served(record)


class Events(StreamingResponse):
    """Server-sent events passed on as they come; kept as a record when the last one has gone, or
    somebody hung up.
    """

    def __init__(
        self,
        answer: httpx.Response,
        headers: dict[str, str],
        held: AsyncExitStack,
        keep: Callable[[int], None],
    ) -> None:
        super().__init__(
            self._events(answer), answer.status_code, headers, answer.headers["Content-Type"]
        )
        self._held, self._keep, self._outcome = held, keep, GONE

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, and let go of the engine's connection however that ends."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._keep(self._outcome)
            await self._held.aclose()

    async def _events(self, answer: httpx.Response) -> AsyncIterator[bytes]:
        try:
            async for chunk in answer.aiter_raw():
                yield chunk
            self._outcome = answer.status_code
        except httpx.RequestError as error:
            # The status line went out long ago, so the last event tells it, as engines do
            # themselves.
            self._outcome = BROKEN
            log.warning("the engine broke off in mid-stream: %s", type(error).__name__)
            yield (
                b'\n\ndata: {"error": {"message": "The engine broke off. Ask again.", "type": '
                b'"engine-failed"}}\n\n'
            )


def _may_fall_back(plan: Plan, turn: int, entry: RoutingEntry, error: Unavailable) -> bool:
    """Once, from the candidate, or from a version that a restarted engine has lost; a busy engine
    is busy for both.
    """
    if turn > 0 or len(plan.versions) < 2 or error.kind == "engine-busy":
        return False
    return plan.versions[0] is entry.candidate or bool(error.facts.get("lost"))


async def _whole(answer: httpx.Response, version: ArmView) -> bytes:
    body = bytearray()
    async for chunk in answer.aiter_raw():
        body += chunk
        if len(body) > MAX_ANSWER:
            raise _failed(version, answer.status_code)
    return bytes(body)


def _named(body: bytes, version: ArmView) -> bytes:
    """The answer under the resolved reference, whatever name the engine gave it."""
    try:
        document = json.loads(body)
    except ValueError as error:
        raise _failed(version, 200) from error
    if not isinstance(document, dict):
        raise _failed(version, 200)
    return json.dumps({**document, "model": version.ref}).encode()


def _failed(version: ArmView, status: int, *, lost: bool = False) -> Unavailable:
    why = "has lost it" if lost else f"answered {status} or what is no answer"
    return Unavailable(
        "engine-failed",
        f"The engine failed as {version.ref}: it {why}.",
        "Try again in a moment.",
        ref=version.ref,
        engine_status=status,
        lost=lost,
        retry_after=2,
    )


def _fault(error: Exception, request_id: str) -> RegistryError:
    # The type alone: a message may quote what was asked.
    log.error("request %s failed: %s", request_id, type(error).__name__)
    return Fault(
        "gateway-fault",
        "The gateway failed at this request.",
        f"Report the request id {request_id}.",
    )
