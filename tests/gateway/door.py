"""A small registry door: the routing document with its ETag, and blobs, to one gateway token."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from pydantic import TypeAdapter
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from registry.documents.canonical import digest
from registry.views.rollouts import ArmView, RoutingEntry, RoutingView
from registry.views.versions import FileView

TOKEN = "gateway-token"
BASE = ArmView("acme/tiny@v1", "base", "sha256:" + "b" * 64, "sha256:" + "c" * 64, [])
ROUTING = TypeAdapter(RoutingView)


class Door:
    """What a gateway sees of a registry; the tests move its routes by hand."""

    def __init__(self, environment: str = "production") -> None:
        self.environment = environment
        self.blobs: dict[str, bytes] = {}
        self.entries: dict[str, RoutingEntry] = {}
        self.polls: list[int] = []
        self.down = self.blobs_down = False
        self.app = Starlette(
            routes=[
                Route("/api/v1/routing", self.routing),
                Route("/api/v1/blobs/{digest}", self.blob),
            ]
        )

    def version(self, ref: str, note: str = "", rank: int = 8) -> ArmView:
        """An adapter whose files this door can serve; the engine answers with its note."""
        files = {
            "adapter_config.json": json.dumps({"r": rank}).encode(),
            "note.txt": (note or ref).encode(),
            "adapter_model.safetensors": hashlib.sha256(ref.encode()).digest() * 1000,
        }
        manifest = [
            {"path": path, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
            for path, data in sorted(files.items())
        ]
        self.blobs |= {hashlib.sha256(data).hexdigest(): data for data in files.values()}
        views = [
            FileView(str(row["path"]), str(row["sha256"]), int(str(row["size"])))
            for row in manifest
        ]
        return ArmView(ref, "adapter", digest(manifest), "sha256:" + "d" * 64, views)

    def route(
        self, stable: ArmView | None, candidate: ArmView | None = None, **more: Any
    ) -> RoutingEntry:
        """Append a generation to acme/claims@production; `more` overrides fields."""
        old = self.entries.get("acme/claims")
        fresh = RoutingEntry(
            "acme/claims",
            self.environment,
            (old.generation if old else 0) + 1,
            stable,
            candidate,
            0 if candidate is None else 5000,
            "salt",
            BASE,
            True,
            False,
            old.urgent if old else 0,
        )
        fresh = replace(fresh, **more)
        self.entries["acme/claims"] = fresh
        return fresh

    def move_urgently(self, stable: ArmView | None, **more: Any) -> RoutingEntry:
        """A rollback, recall or kill."""
        return self.route(stable, None, urgent=self.entries["acme/claims"].generation + 1, **more)

    def document(self) -> RoutingView:
        entries = list(self.entries.values())
        return RoutingView(self.environment, digest(repr(entries)), datetime.now(UTC), entries)

    async def routing(self, request: Request) -> Response:
        if self.down:
            return _problem(503, "unavailable", "database-away")
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return _problem(401, "unauthenticated", "no-token")
        view = self.document()
        fresh = request.headers.get("If-None-Match") != f'"{view.etag}"'
        self.polls.append(200 if fresh else 304)
        if not fresh:
            return Response(status_code=304, headers={"ETag": f'"{view.etag}"'})
        return Response(
            ROUTING.dump_json(view),
            media_type="application/json",
            headers={"ETag": f'"{view.etag}"'},
        )

    async def blob(self, request: Request) -> Response:
        data = self.blobs.get(request.path_params["digest"])
        if self.down or self.blobs_down:
            return _problem(503, "unavailable", "database-away")
        if data is None:
            return _problem(404, "not-found", "unknown-blob")
        start = int(request.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        return Response(data[start:], 206 if start else 200, media_type="application/octet-stream")


def _problem(status: int, family: str, kind: str) -> Response:
    body = {
        "family": family,
        "kind": kind,
        "detail": "The door says no.",
        "fix": "",
        "facts": {},
        "request_id": "r",
    }
    # Longer than a client is patient, so that it gives up at once.
    headers = {"Retry-After": "60"} if status == 503 else {}
    return JSONResponse(body, status, headers, media_type="application/problem+json")
