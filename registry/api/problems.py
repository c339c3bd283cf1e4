"""Errors as RFC 9457 problem+json, with one table of families and statuses for every route."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match

from registry import log
from registry.errors import Fault, Invalid, NotFound, RegistryError, TooLarge

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
"""Family -> HTTP status, for REST and the console. The Hub's protocol differs in one."""
METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
MEDIA_TYPE = "application/problem+json"


def answer(request: Request, error: RegistryError, status: int | None = None) -> JSONResponse:
    """The HTTP answer of an error, with its family's status unless HTTP has a more exact one."""
    status = status or STATUSES[error.family]
    headers = {}
    if error.family == "unavailable" or "retry_after" in error.facts:
        headers["Retry-After"] = str(error.facts.get("retry_after", 2))
    if error.kind == "upload-offset":
        headers["Upload-Offset"] = str(error.facts["offset"])
    if error.family == "unauthenticated":
        headers["WWW-Authenticate"] = 'Bearer realm="countersign"'
    request_id = getattr(request.state, "request_id", "")
    document = error.document() | {
        "status": status,
        "instance": request.url.path[:1000],
        "request_id": request_id,
    }
    return JSONResponse(document, status, headers, MEDIA_TYPE)


def unexpected(request: Request, error: Exception) -> JSONResponse:
    """The answer to an unforeseen exception.

    The log gets the traceback. The caller gets only the request id, since the text of an exception
    may belong to somebody else.
    """
    log.LOGGER.error("unexpected error", exc_info=error)
    return answer(request, Fault("fault"))


def _allowed(request: Request) -> list[str]:
    """Every method that a route takes at this path; Starlette's own answer lists those of one."""
    return [
        method
        for method in METHODS
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in request.app.routes
        )
    ]


def install(app: FastAPI) -> None:
    """Translate every error in one place, so that no unprepared text leaves."""

    @app.exception_handler(RegistryError)
    async def known(request: Request, error: RegistryError) -> JSONResponse:
        if isinstance(error, Fault):
            log.LOGGER.error("fault", exc_info=error)
        return answer(request, error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        wrong = "; ".join(
            f"{'.'.join(str(part) for part in field['loc'] if part != 'body') or 'body'}: "
            f"{field['msg']}"
            for field in error.errors()[:10]
        )
        return answer(request, Invalid("invalid-request", f"The request is wrong: {wrong}"))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        match error.status_code:
            case 404:
                nothing = f"There is nothing at {request.url.path[:200]}."
                return answer(request, NotFound("route-unknown", nothing))
            case 400:
                # FastAPI reports whatever stopped the reading of a body in this form.
                cause = error.__cause__
                return answer(
                    request, cause if isinstance(cause, RegistryError) else Invalid("bad-body")
                )
            case 413:
                return answer(request, TooLarge("body-too-large"))
        refused = Invalid("bad-method", f"{request.method} is not possible here.")
        response = answer(request, refused, error.status_code)
        if error.status_code == 405:
            response.headers["Allow"] = ", ".join(_allowed(request))
        return response

    @app.exception_handler(Exception)
    async def unknown(request: Request, error: Exception) -> JSONResponse:
        return unexpected(request, error)
