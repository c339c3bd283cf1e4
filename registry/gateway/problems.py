"""Refusals as RFC 9457 problem documents with OpenAI's `error` beside the members of a problem.

OpenAI's clients show only what stands under `error`; other callers read the problem. This is the
gateway's one table from families to statuses and to OpenAI's types of errors.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

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

TYPES = {
    "unauthenticated": "authentication_error",
    "forbidden": "permission_error",
    "unavailable": "server_error",
    "fault": "server_error",
}
"""OpenAI's type of error by family; any other family is an `invalid_request_error`."""


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
    document["error"] = openai_error(error)
    return Response(json.dumps(document, default=str), status, headers, "application/problem+json")


def openai_error(error: RegistryError) -> dict[str, Any]:
    """A refusal as OpenAI's clients read it; the message includes the fix.

    Source: the error object of OpenAI's API reference, as openai 3.57 (Python) reads it.
    """
    return {
        "message": " ".join(part for part in (error.detail, error.fix) if part),
        "type": TYPES.get(error.family, "invalid_request_error"),
        "param": "model" if error.kind == "unknown-model" else None,
        "code": error.kind,
    }


def description(kind: str) -> Response:
    """What a kind of problem means: the page that a problem document's `type` names.

    Raises NotFound `no-such-page`.
    """
    if (entry := catalogue().get(kind)) is None:
        raise NotFound("no-such-page", f"There is no kind of problem '{kind[:80]}'.")
    described = {"type": f"/problems/{kind}", "status": STATUSES[entry.family], **asdict(entry)}
    return JSONResponse(described)
