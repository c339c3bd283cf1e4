"""The console's static files: read once, compressed once, and named by their content."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import Response

FOLDER = Path(__file__).parent / "static"
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """One static file.

    `stamp` is the start of its SHA-256, so a changed file has a new address, and browsers may keep
    each one for ever.
    """

    media_type: str
    plain: bytes
    packed: bytes
    stamp: str


def _read(path: Path) -> Asset:
    plain = path.read_bytes()
    return Asset(
        TYPES[path.suffix],
        plain,
        gzip.compress(plain, mtime=0),
        hashlib.sha256(plain).hexdigest()[:12],
    )


ASSETS = {path.name: _read(path) for path in sorted(FOLDER.iterdir()) if path.suffix in TYPES}

router = APIRouter(include_in_schema=False)


def address(name: str) -> str:
    """The address of an asset, for a page to load."""
    return f"/static/{name}?v={ASSETS[name].stamp}"


@router.get("/static/{name}")
def asset(name: str, request: Request) -> Response:
    """One static file. Only known names are served, so that no path can lead out of the folder.

    Pages are not compressed, because they contain the form token beside text that others wrote
    (BREACH).
    """
    if (file := ASSETS.get(name)) is None:
        return Response(status_code=404)
    headers = {"cache-control": "public, max-age=31536000, immutable", "vary": "accept-encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(
            file.packed,
            media_type=file.media_type,
            headers=headers | {"content-encoding": "gzip"},
        )
    return Response(file.plain, media_type=file.media_type, headers=headers)
