"""A revision's files: `/{ns}/{name}/resolve/{rev}/{path}`, whole, in ranges, or by a presigned
URL.
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
PRESIGNED_SECONDS = 300
"""How long a presigned URL works."""


@router.api_route("/{ns}/{name}/resolve/{rest:path}", methods=["GET", "HEAD"])
@router.api_route("/api/resolve-cache/models/{rest:path}", methods=["GET", "HEAD"])
def resolve(request: Request, store: TheStore, blobs: TheBlobs, caller: Caller) -> Response:
    """One file of one revision."""
    parts = segments(request)
    if parts[:2] == ["api", "resolve-cache"]:
        parts = [*parts[3:5], "resolve", *parts[5:]]
    version, file = _named(store, caller, parts)
    headers = _headers(version, file)
    # A probe (HEAD, or a GET for the first byte alone) is answered here, without a redirect. A URL
    # presigned for GET refuses HEAD, clients that got it from a probe go on using it after it has
    # expired, and hf-hub (Rust) up to 0.5 sends our token along to it.
    probe = request.method == "HEAD" or pieces.span(request, file.size) == (0, 1)
    if not probe and (url := blobs.presign(file.sha256, PRESIGNED_SECONDS)):
        etag = f'"{file.sha256}"'
        headers |= {
            "Location": url,
            "ETag": etag,
            "X-Linked-Etag": etag,
            "X-Linked-Size": str(file.size),
        }
        return Response(None, 302, headers)
    return pieces.answer(request, blobs, file.sha256, file.size, headers)


@router.api_route("/{ns}/{name}/raw/{rest:path}", methods=["GET", "HEAD"])
def raw(request: Request, store: TheStore, blobs: TheBlobs, caller: Caller) -> Response:
    """One file as git would keep it: a small text as it is, a pointer for a large file."""
    version, file = _named(store, caller, segments(request))
    headers = _headers(version, file)
    if not shapes.is_large(file):
        return pieces.answer(request, blobs, file.sha256, file.size, headers)
    return Response(shapes.pointer(file), 200, headers, "text/plain; charset=utf-8")


def _named(store: Store, caller: Actor, parts: list[str]) -> tuple[Pulled, FileView]:
    # The router matched the unquoted path; a quoted slash is no separator.
    if len(parts) < 5 or parts[2] not in ("resolve", "raw"):
        raise unknown("file without a revision and a path")

    def look(revision: str, inner: list[str]) -> tuple[Pulled, FileView]:
        version, path = pulls.revision(store, caller, parts[0], parts[1], revision), "/".join(inner)
        for file in version.files:
            if file.path == path:
                return version, file
        raise unknown(f"file '{path}' in {version.ref}", version.commit)

    return first(parts[3:], look)


def _headers(version: Pulled, file: FileView) -> dict[str, str]:
    name = quote(file.path.rpartition("/")[2], safe="")
    return {
        "X-Repo-Commit": version.commit,
        "Content-Disposition": f"attachment; filename*=UTF-8''{name}",
    }
