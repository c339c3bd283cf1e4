"""Bytes of a revision: `/{ns}/{name}/resolve/{rev}/{path}`, whole, in ranges, or by a presigned address."""

from __future__ import annotations

from urllib.parse import quote

from fastapi import APIRouter, Request, Response

from registry.api import bytes as pieces
from registry.api.hub.door import HubRoute, segments, unknown
from registry.api.rest.door import Caller, TheBlobs, TheStore
from registry.blobs import Blobs
from registry.queries import pulls
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
    if len(parts) < 5 or parts[2] != "resolve":
        raise unknown("file without a revision and a path")
    found = pulls.revision(store, caller, parts[0], parts[1], parts[3])
    path = "/".join(parts[4:])
    for file in found.files:
        if file.path == path:
            return _bytes(request, blobs, file, found.commit)
    raise unknown(f"file '{path}' in {found.ref}", found.commit)


def _bytes(request: Request, blobs: Blobs, file: FileView, commit: str) -> Response:
    name = quote(file.path.rpartition("/")[2], safe="")
    headers = {"X-Repo-Commit": commit, "ETag": f'"{file.sha256}"', "Cache-Control": "private, no-cache",
               "Content-Disposition": f"attachment; filename*=UTF-8''{name}"}  # fmt: skip
    if place := blobs.presign(file.sha256, SECONDS):
        headers |= {"Location": place, "X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(file.size)}
        return Response(None, 302, headers)
    return pieces.answer(request, blobs, file.sha256, file.size, headers)
