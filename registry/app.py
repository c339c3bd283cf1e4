"""Composition root: settings -> store, blobs, log, doors, error tables."""

from __future__ import annotations

import secrets
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from importlib import resources
from pathlib import Path
from typing import Any
from uuid import uuid4

from fastapi import FastAPI, Request, Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Gauge,
    Histogram,
    generate_latest,
)
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from registry import web
from registry.api import hub, openapi, problems, rest
from registry.api.bytes import Body
from registry.api.hub.door import PULLS
from registry.blobs.store import Blobs
from registry.blobs.uploads import Uploads
from registry.callers import actor_of
from registry.commands import accounts, policies, retention, tokens
from registry.db import migrate as migrations
from registry.db.store import Store, open_engine
from registry.errors import Conflict, RegistryError, TooLarge, Unauthenticated, Unavailable
from registry.postgres.home import write_private
from registry.proof import notes
from registry.proof.keys import SigningKey
from registry.queries import metrics
from registry.queries import retention as kept
from registry.rules.actors import SYSTEM
from registry.rules.retention import BUILT_IN
from registry.sequencer import Sequencer, Witness
from registry.settings import Settings

VERSION = "0.1.0"
ADMIN_DAYS = 365
UNFINISHED_FILES = 2  # of the largest size allowed: what one account may leave half-sent
MODEST = 64 << 10
ROOM = {"modest": 8 << 20, "large": 16 << 20}
"""Bytes of the bodies that are held at once: those that say they have at most MODEST, and the
larger ones.
"""
STREAMED = {"PUT": "/api/v1/blobs/", "PATCH": "/api/v1/uploads/"}


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a fresh start made: the bootstrap administrator's token."""

    admin_token: str | None


def private(settings: Settings) -> Path:
    """Where keys, tokens and blobs lie."""
    place = settings.home / "private"
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    return place


def open_store(settings: Settings, role: str = "countersign_app") -> Store:
    """The store on the settings' database, acting as one database role."""
    url = settings.sequencer_database_url if role == "countersign_sequencer" else None
    url = url or settings.database_url
    if url is None:
        raise Unavailable(
            "database-missing",
            "No database is configured.",
        )
    return Store(open_engine(url, role))


def open_blobs(settings: Settings) -> Blobs:
    """The blob store: private/blobs under the home unless another URL is set."""
    return Blobs(settings.blob_url)


def log_key(settings: Settings) -> tuple[SigningKey, str]:
    """The log's signing key and origin, made at the first start; the public half is pinned beside
    it.
    """
    private(settings)
    path = settings.log_key_file
    name = path.with_suffix(".origin")
    if not path.exists():
        name.write_text(f"countersign.local/{secrets.token_hex(6)}\n")
        SigningKey.generate().save(path)
    key, origin = SigningKey.load(path), name.read_text().strip()
    line = notes.verifier_key(origin, key.public) + "\n"
    for pinned in (private(settings) / "log.pub", settings.home / "log.pub"):
        # Pinned at the first up: a key that changes later must not replace what auditors hold.
        if not pinned.exists():
            pinned.write_text(line)
    return key, origin


def open_sequencer(settings: Settings) -> Sequencer:
    """The log's single writer, with its witness file outside the database."""
    key, origin = log_key(settings)
    return Sequencer(
        open_store(settings, "countersign_sequencer"),
        key,
        origin,
        Witness(private(settings) / "tree-heads.log"),
    )


def migrate(settings: Settings) -> str:
    """Bring the database to the code's schema; the revision afterwards."""
    url = settings.migrate_database_url or settings.database_url
    if url is None:
        raise Unavailable(
            "database-missing", "No database is configured.", "Set COUNTERSIGN_DATABASE_URL."
        )
    return migrations.upgrade(url)


def prepare(settings: Settings) -> Prepared:
    """Migrate, make the log key, install the built-in policies, and see that there is an
    administrator's token.
    """
    migrate(settings)
    log_key(settings)
    store = open_store(settings)
    try:
        for name in ("dev", "staging", "production"):
            policy = (
                resources.files("registry")
                .joinpath(f"policies/{name}.yaml")
                .read_text(encoding="utf-8")
            )
            with suppress(Conflict):  # another start was faster
                policies.publish(store, SYSTEM, policy, only_first=True)
        standing = {one.name for one in kept.classes(store, SYSTEM)}
        for terms in (one for one in BUILT_IN if one.name not in standing):
            with suppress(Conflict):  # another start was faster
                retention.define(store, SYSTEM, terms, "built in")
        token = _kept_token(store, private(settings) / "admin.token", "admin", "admin", ADMIN_DAYS)
    finally:
        store.engine.dispose()
    return Prepared(token)


def service_token(settings: Settings, account: str, role: str) -> str:
    """A token for a child process, kept under private/tokens and minted again a day before it
    expires.
    """
    folder = private(settings) / "tokens"
    folder.mkdir(mode=0o700, exist_ok=True)
    store = open_store(settings)
    try:
        return _kept_token(store, folder / f"{account}.token", account, role, 30)
    finally:
        store.engine.dispose()


def _kept_token(store: Store, path: Path, account: str, role: str, days: int) -> str:
    """The token in the file while it is good for another day, else a new one: a lost file is no
    lost registry.
    """
    if path.exists():
        kept = path.read_text().strip()
        try:
            actor_of(store, kept, "up", "")
            if time.time() - path.stat().st_mtime < timedelta(days=days - 1).total_seconds():
                return kept
        except Unauthenticated:
            pass
    accounts.create(store, SYSTEM, account, [role], None)
    minted = tokens.create(store, SYSTEM, account, [role], None, days).token
    assert minted is not None
    write_private(path, minted + "\n")
    return minted


def doctor(settings: Settings) -> dict[str, Any]:
    """Rebuild the governed tables from the events and compare; check the log; look for missing
    bytes.
    """
    from registry.queries import doctor as examine

    store, blobs = open_store(settings), open_blobs(settings)
    key, origin = log_key(settings)
    try:
        return examine.report(store, blobs, notes.verifier_key(origin, key.public))
    finally:
        store.engine.dispose()


def create_app(settings: Settings) -> FastAPI:
    """The HTTP application: REST, the console, health and metrics."""
    app = FastAPI(
        title="Countersign",
        version=VERSION,
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        description="Registry and governance service for LLM adapters.",
    )
    key, origin = log_key(settings)
    app.state.settings = settings
    app.state.store = open_store(settings)
    app.state.blobs = open_blobs(settings)
    app.state.uploads = Uploads(app.state.blobs, UNFINISHED_FILES * settings.max_blob_bytes)
    app.state.log_key = notes.verifier_key(origin, key.public)
    app.include_router(rest.router())
    app.include_router(hub.router())
    problems.install(app)
    openapi.install(app)
    _bound(app, settings)
    _operations(app)
    # Last, so that its headers stand on every answer, refusals of the limits included.
    web.install(app)
    return app


def _bound(app: FastAPI, settings: Settings) -> None:
    """A request id for everything, one log line, and a limit on every body that is not a streamed
    blob.
    """
    seconds = Histogram(
        "countersign_http_seconds", "Time of one request.", ["method", "status"], registry=None
    )
    app.state.seconds = seconds

    app.add_middleware(_Around, settings=settings, seconds=seconds)


class _Around:
    """Plain ASGI: the framework's own kind of middleware hands every piece of every body through
    two more tasks.
    """

    def __init__(self, app: ASGIApp, settings: Settings, seconds: Histogram) -> None:
        self._app, self._settings, self._seconds = app, settings, seconds
        self._room = dict(ROOM)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        given = request.headers.get("x-request-id", "")
        request.state.request_id = given if given.isalnum() and len(given) <= 64 else uuid4().hex
        started, status = time.perf_counter(), 0

        async def told(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = request.state.request_id
            await send(message)

        try:
            length = self._bound(request)
            if length:
                await self._whole(request, length, told)
            else:
                await self._app(scope, receive, told)
        except Exception as error:
            if status:
                raise  # half an answer is out: all that is left is to cut the line
            answer = problems.answer if isinstance(error, RegistryError) else problems.unexpected
            await answer(request, error)(scope, receive, told)  # type: ignore[arg-type]  # each takes its kind of error
        finally:
            self._seconds.labels(request.method, str(status)).observe(time.perf_counter() - started)

    async def _whole(self, request: Request, length: int, send: Send) -> None:
        """Take a body before anything else is done for it, so that the bodies of all requests
        together are bounded.
        """
        part = "modest" if length <= MODEST else "large"
        if self._room[part] < length:
            raise Unavailable(
                "bodies-busy",
                "Too many large requests are being sent at the same time.",
                retry_after=2,
                sent=False,
            )
        self._room[part] -= length
        try:
            body = [
                {"type": "http.request", "body": await Body(request).whole(), "more_body": False}
            ]

            async def receive() -> Message:
                return body.pop() if body else await request.receive()

            await self._app(request.scope, receive, send)
        finally:
            self._room[part] += length

    def _bound(self, request: Request) -> int:
        """The length of a body that is taken whole; TooLarge for more than is taken. A streamed one
        has none here.
        """
        most, length = self._settings.max_json_bytes, request.headers.get("content-length", "")
        streamed = STREAMED.get(request.method)
        if streamed and request.url.path.startswith(streamed):
            return 0
        if length.isdecimal() and int(length) > most:
            raise TooLarge(
                "body-too-large",
                f"A body may have at most {most} bytes.",
                "Upload files as blobs; send less here.",
            )
        if "chunked" in request.headers.get("transfer-encoding", "").lower():
            raise TooLarge("length-missing", "A body here must say its length.")
        return int(length) if length.isdecimal() else 0


def _operations(app: FastAPI) -> None:
    @app.get("/healthz", include_in_schema=False)
    def healthz() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok", "version": VERSION}

    @app.get("/readyz", include_in_schema=False)
    def readyz(request: Request) -> dict[str, str]:
        """The database answers too; 503 with Retry-After when it does not."""
        request.app.state.store.ping()
        return {"status": "ready"}

    @app.get("/metrics", include_in_schema=False)
    def numbers(request: Request) -> Response:
        """Prometheus text: what the registry holds and how it answers."""
        collected = CollectorRegistry()
        for name, value in asdict(metrics.numbers(request.app.state.store)).items():
            Gauge(
                f"countersign_{name}",
                f"{name.replace('_', ' ').capitalize()} now.",
                registry=collected,
            ).set(value)
        collected.register(request.app.state.seconds)
        collected.register(PULLS)
        return Response(generate_latest(collected), media_type=CONTENT_TYPE_LATEST)
