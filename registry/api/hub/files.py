"""Bytes of a revision: `/{ns}/{name}/resolve/{rev}/{path}`, whole, in ranges, or by a presigned address."""

from __future__ import annotations

import re
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import iterate_in_threadpool

from registry.api.hub.door import HubRoute, segments, unknown
from registry.api.rest.door import Caller, TheBlobs, TheStore
from registry.blobs import Blobs
from registry.queries import pulls
from registry.views.versions import FileView

router = APIRouter(route_class=HubRoute)
RANGE = re.compile(r"bytes=(?:([0-9]{1,18})-([0-9]{0,18})|-([0-9]{1,18}))")
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
    headers = {"X-Repo-Commit": commit, "ETag": f'"{file.sha256}"', "Accept-Ranges": "bytes",
               "X-Content-Type-Options": "nosniff", "Cache-Control": "private, no-cache",
               "Content-Disposition": f"attachment; filename*=UTF-8''{name}"}  # fmt: skip
    if place := blobs.presign(file.sha256, SECONDS):
        headers |= {"Location": place, "X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(file.size)}
        return Response(None, 302, headers)
    start, end, status = 0, file.size, 200
    given = request.headers
    if headers["ETag"] in given.get("if-none-match", "") and "range" not in given:
        return Response(None, 304, headers)
    # A HEAD has no ranges; nor has a file that is no longer the one a resuming client began with.
    ranged = request.method == "GET" and given.get("if-range", headers["ETag"]) == headers["ETag"]
    if ranged and (asked := RANGE.fullmatch(given.get("range", ""))):
        first, last, tail = asked[1], asked[2], asked[3]
        start = int(first) if first else max(0, file.size - int(tail))
        end = min(int(last) + 1, file.size) if last else file.size
        status = 206
        if start >= end:
            return Response(None, 416, headers | {"Content-Range": f"bytes */{file.size}"})
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{file.size}"
    headers["Content-Length"] = str(end - start)
    kind = "application/octet-stream"
    if request.method == "HEAD":
        return Response(None, status, headers, kind)
    return StreamingResponse(iterate_in_threadpool(blobs.stream(file.sha256, start, end)), status, headers, kind)
