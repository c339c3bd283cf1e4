"""Errors as RFC 9457 problem+json: one table from families to statuses, for every route alike."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from registry import log
from registry.errors import BundleRejected, Fault, Invalid, NotFound, RegistryError, TooLarge

STATUSES = {
    "invalid": 422,
    "too-large": 413,
    "unauthenticated": 401,
    "forbidden": 403,
    "not-found": 404,
    "conflict": 409,
    "refused": 409,
    "rejected": 422,
    "unverified": 422,
    "unavailable": 503,
    "fault": 500,
}
TITLES = {
    "invalid": "The request is wrong",
    "too-large": "Too large",
    "unauthenticated": "Not signed in",
    "forbidden": "Not allowed",
    "not-found": "Not found",
    "conflict": "The state is another",
    "refused": "Refused",
    "rejected": "The bundle was refused",
    "unverified": "Verification failed",
    "unavailable": "Away for the moment",
    "fault": "Our fault",
}


def body(error: RegistryError, request_id: str, path: str, status: int) -> dict[str, Any]:
    """The problem document of an error."""
    document: dict[str, Any] = {
        "type": f"/problems/{error.kind}",
        "title": TITLES[error.family],
        "status": status,
        "detail": error.detail,
        "fix": error.fix,
        "family": error.family,
        "kind": error.kind,
        "instance": path[:1000],
        "request_id": request_id,
        "facts": error.facts,
    }
    if isinstance(error, BundleRejected):
        document["defects"] = [asdict(defect) for defect in error.defects]
    return document


def answer(request: Request, error: RegistryError, status: int | None = None) -> JSONResponse:
    """The HTTP answer of an error, with its family's status unless HTTP itself has a closer one."""
    status = status or STATUSES[error.family]
    headers = {}
    if error.family == "unavailable" or "retry_after" in error.facts:
        headers["Retry-After"] = str(error.facts.get("retry_after", 2))
    if error.kind == "upload-offset":
        headers["Upload-Offset"] = str(error.facts["offset"])
    if error.family == "unauthenticated":
        headers["WWW-Authenticate"] = 'Bearer realm="countersign"'
    request_id = getattr(request.state, "request_id", "")
    document = body(error, request_id, request.url.path, status)
    return JSONResponse(document, status, headers, "application/problem+json")


def unexpected(request: Request, error: Exception) -> JSONResponse:
    """The answer to what nobody foresaw: the log tells all of it, the caller nothing but its
    request id.
    """
    log.LOGGER.error("unexpected error", exc_info=error)
    return answer(
        request, Fault("fault", "Something went wrong on our side.", "Report the request id.")
    )


def install(app: FastAPI) -> None:
    """Translate every error once; nothing raw leaves."""

    @app.exception_handler(RegistryError)
    async def known(request: Request, error: RegistryError) -> JSONResponse:
        if isinstance(error, Fault):
            log.LOGGER.error("fault", exc_info=error)
        return answer(request, error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        wrong = "; ".join(
            f"{'.'.join(str(part) for part in one['loc'] if part != 'body') or 'body'}: "
            f"{one['msg']}"
            for one in error.errors()[:10]
        )
        return answer(
            request,
            Invalid("invalid-request", f"The request is wrong: {wrong}", "Fix these fields."),
        )

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == 404:
            return answer(
                request,
                NotFound(
                    "route-unknown",
                    f"There is nothing at {request.url.path[:200]}.",
                    "See /api/v1/openapi.json.",
                ),
            )
        if error.status_code == 400:
            return answer(
                request,
                Invalid(
                    "bad-body",
                    "The body cannot be read as JSON in UTF-8.",
                    "Send one JSON object, not nested deeper than 32 levels.",
                ),
            )
        if error.status_code == 413:
            return answer(
                request,
                TooLarge(
                    "body-too-large", "The body is too large.", "Send less, or upload a blob."
                ),
            )
        refused = Invalid(
            "bad-method", f"{request.method} is not possible here.", "See /api/v1/openapi.json."
        )
        said = answer(request, refused, error.status_code)
        said.headers.update(
            {
                name: value
                for name, value in (error.headers or {}).items()
                if name.lower() == "allow"
            }
        )
        return said

    @app.exception_handler(Exception)
    async def unknown(request: Request, error: Exception) -> JSONResponse:
        return unexpected(request, error)
