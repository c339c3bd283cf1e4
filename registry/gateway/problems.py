"""Refusals as RFC 9457 problem documents: the gateway's one table from families to statuses."""

from __future__ import annotations

import json
from http import HTTPStatus

from starlette.responses import Response

from registry.errors import RegistryError

STATUSES = {
    "invalid": 400,
    "unauthenticated": 401,
    "forbidden": 403,
    "not-found": 404,
    "conflict": 409,
    "too-large": 413,
    "refused": 422,
    "unverified": 422,
    "unavailable": 503,
}


def status_of(error: RegistryError) -> int:
    """The HTTP status of a refusal; what is not in the table is our own fault."""
    return STATUSES.get(error.family, 500)


def problem(
    error: RegistryError, request_id: str, headers: dict[str, str] | None = None
) -> Response:
    """A refusal as an answer; what is unavailable says when to try again."""
    status = status_of(error)
    headers = {"X-Request-Id": request_id, **(headers or {})}
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = str(int(error.facts.get("retry_after", 5)))
    document = {
        "type": f"/problems/{error.kind}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": error.detail,
        "fix": error.fix,
        "family": error.family,
        "kind": error.kind,
        "request_id": request_id,
        "facts": error.facts,
    }
    return Response(json.dumps(document, default=str), status, headers, "application/problem+json")
