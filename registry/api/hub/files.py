"""Bytes of a revision: `/{ns}/{name}/resolve/{rev}/{path}`, whole, in ranges, or by a presigned
address.
"""

from __future__ import annotations

from urllib.parse import quote

from fastapi import APIRouter, Request, Response

from registry.api import bytes as pieces
from registry.api.door import TheBlobs, TheStore
from registry.api.hub import shapes
from registry.api.hub.door import Caller, HubRoute, first, segments, unknown
from registry.db.store import Store
from registry.queries import pulls
from registry.rules.actors import Actor
from registry.views.pulls import Pulled
from registry.views.versions import FileView

router = APIRouter(route_class=HubRoute)
SECONDS = 300


@router.api_route("/{ns}/{name}/resolve/{rest:path}", methods=["GET", "HEAD"])
@router.api_route("/api/resolve-cache/models/{rest:path}", methods=["GET", "HEAD"])
def resolve(request: Request, store: TheStore, blobs: TheBlobs, caller: Caller) -> Response:
    """One file of one revision."""
    parts = segments(request)
    if parts[:2] == ["api", "resolve-cache"]:
        parts = [*parts[3:5], "resolve", *parts[5:]]
    found, file = _named(store, caller, parts)
    headers = _headers(found, file)
    # Who asks about a file, by HEAD or for its first byte alone, is answered here. An address
    # signed for GET refuses HEAD, clients that got it so go on from it when it is long over, and
    # hf-hub (Rust) up to 0.5 takes our token along to it.
    asking = request.method == "HEAD" or pieces.span(request, file.size) == (0, 1)
    if not asking and (place := blobs.presign(file.sha256, SECONDS)):
        etag = f'"{file.sha256}"'
        headers |= {
            "Location": place,
            "ETag": etag,
            "X-Linked-Etag": etag,
            "X-Linked-Size": str(file.size),
        }
        return Response(None, 302, headers)
    return pieces.answer(request, blobs, file.sha256, file.size, headers)


@router.api_route("/{ns}/{name}/raw/{rest:path}", methods=["GET", "HEAD"])
def raw(request: Request, store: TheStore, blobs: TheBlobs, caller: Caller) -> Response:
    """One file as git would keep it: small text as it is, a pointer in place of what is large."""
    found, file = _named(store, caller, segments(request))
    if not shapes.is_large(file):
        return pieces.answer(request, blobs, file.sha256, file.size, _headers(found, file))
    return Response(shapes.pointer(file), 200, _headers(found, file), "text/plain; charset=utf-8")


def _named(store: Store, caller: Actor, parts: list[str]) -> tuple[Pulled, FileView]:
    if len(parts) < 5 or parts[2] not in (
        "resolve",
        "raw",
    ):  # a slash that was quoted is no separator
        raise unknown("file without a revision and a path")

    def look(revision: str, inner: list[str]) -> tuple[Pulled, FileView]:
        found, path = pulls.revision(store, caller, parts[0], parts[1], revision), "/".join(inner)
        for file in found.files:
            if file.path == path:
                return found, file
        raise unknown(f"file '{path}' in {found.ref}", found.commit)

    return first(parts[3:], look)


def _headers(found: Pulled, file: FileView) -> dict[str, str]:
    name = quote(file.path.rpartition("/")[2], safe="")
    return {
        "X-Repo-Commit": found.commit,
        "Content-Disposition": f"attachment; filename*=UTF-8''{name}",
    }
