"""Refusals as RFC 9457 problem documents: the gateway's one table from families to statuses."""

from __future__ import annotations

import json
from dataclasses import asdict

from starlette.responses import JSONResponse, Response

from registry.errors import NotFound, RegistryError, catalogue

STATUSES = {
    "invalid": 400,
    "too-large": 413,
    "unauthenticated": 401,
    "forbidden": 403,
    "not-found": 404,
    "conflict": 409,
    "refused": 422,
    "rejected": 422,
    "unverified": 422,
    "unavailable": 503,
    "fault": 500,
}


def status_of(error: RegistryError) -> int:
    """The HTTP status of a refusal."""
    return STATUSES[error.family]


def problem(
    error: RegistryError, request_id: str, headers: dict[str, str] | None = None
) -> Response:
    """A refusal as a response; Retry-After says when to ask again for what is unavailable."""
    status = status_of(error)
    headers = {"X-Request-Id": request_id, **(headers or {})}
    if error.family == "unavailable":
        headers["Retry-After"] = str(int(error.facts.get("retry_after", 5)))
    document = error.document() | {"status": status, "request_id": request_id}
    return Response(json.dumps(document, default=str), status, headers, "application/problem+json")


def description(kind: str) -> Response:
    """What a kind of problem means: the page that a problem document's `type` names.

    Raises NotFound `no-such-page`.
    """
    if (entry := catalogue().get(kind)) is None:
        raise NotFound("no-such-page", f"There is no kind of problem '{kind[:80]}'.")
    described = {"type": f"/problems/{kind}", "status": STATUSES[entry.family], **asdict(entry)}
    return JSONResponse(described)
