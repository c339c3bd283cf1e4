"""Answer people with a page where a program gets problem+json: for 404, 405 and every refusal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, cast

from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from registry.errors import Invalid, NotFound, RegistryError
from registry.web.pages import page_of, refusal
from registry.web.visits import visit

Handler = Callable[[Request, Any], Awaitable[Response]]
NEVER_PAGES = ("/api/", "/static/")
"""Beginnings of addresses that only programs ask for."""


def wants_page(request: Request) -> bool:
    """Whether a person's browser asks: it accepts HTML, and this is no address of a program."""
    return "text/html" in request.headers.get("accept", "") and not request.url.path.startswith(
        NEVER_PAGES
    )


def install(app: FastAPI) -> None:
    """Put a page in front of the handlers that answer programs."""
    json_of_status = cast(Handler, app.exception_handlers[HTTPException])
    json_of_error = cast(Handler, app.exception_handlers[RegistryError])

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        if not wants_page(request) or error.status_code not in (404, 405):
            return await json_of_status(request, error)
        if error.status_code == 405 and request.method in ("GET", "HEAD"):
            # Somebody pressed Enter in the address bar, on the address of a form.
            return RedirectResponse(page_of(request), status_code=303)
        if error.status_code == 405:
            unfit = Invalid("bad-method", "This page takes no form.", "Go back and try again.")
            return await run_in_threadpool(_page, request, unfit, 405)
        nothing = NotFound(
            "no-such-page",
            f"There is no page at {request.url.path[:200]}.",
            "Check the address, or find what you look for with the box above.",
        )
        return await run_in_threadpool(_page, request, nothing, 404)

    @app.exception_handler(RegistryError)
    async def known(request: Request, error: RegistryError) -> Response:
        if not wants_page(request):
            return await json_of_error(request, error)
        return await run_in_threadpool(_page, request, error, None)


def _page(request: Request, error: RegistryError, status: int | None) -> Response:
    """The page of a refusal, inside the frame of the person who is signed in."""
    with suppress(RegistryError):
        visit(request)
    return refusal(request, error, status)
