"""Serve one request: choose the arm, ask the engine, fall back at most once, answer, record."""

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
from registry.gateway.engine import Engine
from registry.gateway.meters import Meters
from registry.gateway.plan import Plan, choose, side_of
from registry.gateway.problems import problem, status_of
from registry.gateway.records import Record, Records, now
from registry.gateway.requests import ChannelRequest, read_request
from registry.gateway.routing import Routes, name
from registry.rules.rollouts import Arm
from registry.views.rollouts import ArmView, RoutingEntry

log = logging.getLogger("registry.gateway")

MAX_IN_FLIGHT = 256
"""Requests that are served at the same time; a further one is refused."""
MAX_ANSWER_BYTES = 8 << 20
CALLER_LEFT = 499
"""The recorded status of a stream whose caller hung up."""
ENGINE_BROKE_OFF = 502
"""The recorded status of a stream that the engine ended early."""


@dataclass(slots=True)
class Trace:
    """What is known of a request so far. It becomes exactly one record."""

    entry: RoutingEntry
    arm: Arm
    unit: str | None
    started: float
    version: ArmView | None = None
    fallback: bool = False

    def headers(self, request_id: str) -> dict[str, str]:
        """The headers that name the route and the version of the answer."""
        headers = {"X-Request-Id": request_id, "X-Countersign-Arm": self.arm}
        headers["X-Countersign-Generation"] = str(self.entry.generation)
        if self.version is not None:
            headers |= {
                "X-Countersign-Version": self.version.ref,
                "X-Countersign-Digest": self.version.digest,
            }
        if self.fallback:
            headers["X-Countersign-Fallback"] = "true"
        return headers


class Completions:
    """The endpoint for applications: a request in OpenAI's shape, answered by one version."""

    def __init__(
        self, routes: Routes, arms: Arms, engine: Engine, records: Records, meters: Meters
    ) -> None:
        self._routes, self._arms, self._engine = routes, arms, engine
        self._records, self._meters = records, meters
        self._in_flight = 0

    async def answer(self, request: Request) -> Response:
        """Serve one POST. Every failure is answered with a problem document."""
        started, request_id, trace = time.perf_counter(), uuid4().hex, None
        resources = AsyncExitStack()
        try:
            self._enter(resources)
            inbound = await read_request(request)
            entry = self._routes.find(inbound.model)
            trace = Trace(
                entry, side_of(entry, inbound.unit), self._records.unit(inbound.unit), started
            )
            response = await self._serve(request.url.path, inbound, trace, resources, request_id)
        except Exception as raised:
            await resources.aclose()
            error = raised if isinstance(raised, RegistryError) else _fault(raised, request_id)
            if trace is None:
                self._meters.refused(error.kind)
                return problem(error, request_id)
            trace.version = None
            self._keep(trace, status_of(error))
            return problem(error, request_id, trace.headers(request_id))
        except BaseException:
            await resources.aclose()
            raise
        if not isinstance(response, Events):
            await resources.aclose()
            self._keep(trace, response.status_code)
        return response

    def _enter(self, resources: AsyncExitStack) -> None:
        if self._in_flight >= MAX_IN_FLIGHT:
            raise Unavailable(
                "gateway-busy",
                f"The gateway already serves {MAX_IN_FLIGHT} requests, its limit.",
                retry_after=1,
            )
        self._in_flight += 1
        resources.callback(self._leave)

    def _leave(self) -> None:
        self._in_flight -= 1

    async def _serve(
        self,
        path: str,
        inbound: ChannelRequest,
        trace: Trace,
        resources: AsyncExitStack,
        request_id: str,
    ) -> Response:
        plan = choose(trace.entry, trace.arm, self._arms.is_loaded)
        for attempt, version in enumerate(plan.versions[:2]):
            trace.version, trace.fallback = version, plan.fallback or attempt > 0
            try:
                return await self._ask(path, inbound, trace, resources, request_id)
            except Unavailable as error:
                if not _may_fall_back(plan, attempt, trace.entry, error):
                    raise
                log.warning(
                    "%s: %s; falling back to %s",
                    version.ref,
                    error.detail,
                    plan.versions[attempt + 1].ref,
                )
        raise AssertionError("a plan names at least one version")

    async def _ask(
        self,
        path: str,
        inbound: ChannelRequest,
        trace: Trace,
        resources: AsyncExitStack,
        request_id: str,
    ) -> Response:
        """Ask the engine once.

        An error of the engine is raised as Unavailable; an error of the caller passes through.
        """
        version = trace.version
        assert version is not None
        async with AsyncExitStack() as sending:
            answer = await sending.enter_async_context(
                self._engine.send(path, inbound.as_version(path, version))
            )
            if answer.status_code == httpx.codes.NOT_FOUND:
                self._arms.forget(version)
                raise _failed(version, answer.status_code, lost=True)
            if answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
                raise _failed(version, answer.status_code)
            kind = answer.headers.get("Content-Type", "application/json")
            headers = trace.headers(request_id)
            if kind.startswith("text/event-stream"):
                resources.push_async_exit(sending.pop_all())
                return Events(answer, headers, resources, partial(self._keep, trace))
            body = await _read_answer(answer, version)
            if answer.is_success:
                body = _with_reference(body, version)
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
    """Server-sent events, passed on as they arrive.

    The record is written after the last event, or when one side hangs up.
    """

    def __init__(
        self,
        answer: httpx.Response,
        headers: dict[str, str],
        resources: AsyncExitStack,
        keep: Callable[[int], None],
    ) -> None:
        super().__init__(
            self._events(answer), answer.status_code, headers, answer.headers["Content-Type"]
        )
        self._resources, self._keep, self._outcome = resources, keep, CALLER_LEFT

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, and release the engine's connection however that ends."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._keep(self._outcome)
            await self._resources.aclose()

    async def _events(self, answer: httpx.Response) -> AsyncIterator[bytes]:
        try:
            async for chunk in answer.aiter_raw():
                yield chunk
            self._outcome = answer.status_code
        except httpx.RequestError as error:
            # The status line was sent long ago, so the last event reports the failure, as engines
            # do themselves.
            self._outcome = ENGINE_BROKE_OFF
            log.warning("the engine broke off in mid-stream: %s", type(error).__name__)
            yield (
                b'\n\ndata: {"error": {"message": "The engine stopped in mid-answer. Ask again.", '
                b'"type": "engine-failed"}}\n\n'
            )


def _may_fall_back(plan: Plan, attempt: int, entry: RoutingEntry, error: Unavailable) -> bool:
    """Whether the next version of the plan may answer instead.

    It may once: for the candidate, or for a version that a restarted engine has lost. An engine
    that is busy for one version is busy for the next.
    """
    if attempt > 0 or len(plan.versions) < 2 or error.kind == "engine-busy":
        return False
    return plan.versions[0] is entry.candidate or bool(error.facts.get("lost"))


async def _read_answer(answer: httpx.Response, version: ArmView) -> bytes:
    body = bytearray()
    async for chunk in answer.aiter_raw():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise _failed(version, answer.status_code)
    return bytes(body)


def _with_reference(body: bytes, version: ArmView) -> bytes:
    """The answer under the resolved reference, whatever name the engine gave it."""
    try:
        document = json.loads(body)
    except ValueError as error:
        raise _failed(version, 200) from error
    if not isinstance(document, dict):
        raise _failed(version, 200)
    return json.dumps({**document, "model": version.ref}).encode()


def _failed(version: ArmView, status: int, *, lost: bool = False) -> Unavailable:
    why = "no longer has it loaded" if lost else f"sent status {status} or an unreadable answer"
    return Unavailable(
        "engine-failed",
        f"The engine did not answer as {version.ref}: it {why}.",
        "Try again in a moment.",
        ref=version.ref,
        engine_status=status,
        lost=lost,
        retry_after=2,
    )


def _fault(error: Exception, request_id: str) -> RegistryError:
    # Only the type: the message may quote the prompt.
    log.error("request %s failed: %s", request_id, type(error).__name__)
    return Fault(
        "gateway-fault",
        "The gateway failed while it served this request.",
        f"Report the request id {request_id}.",
    )
