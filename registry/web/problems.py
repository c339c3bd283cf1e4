"""The pages that a problem's `type` links to: what each kind means and what to do.

People get a page, programs get JSON.
"""

from __future__ import annotations

from dataclasses import asdict
from itertools import groupby

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from registry.api.problems import STATUSES
from registry.errors import NotFound, Problem, catalogue
from registry.web.pages import Page, html

router = APIRouter(route_class=Page, include_in_schema=False)


@router.get("/problems")
def problems(request: Request) -> Response:
    """Every kind of problem, by subject. Nobody needs to sign in to read it."""
    return _show(request, "Problems", list(catalogue().values()))


@router.get("/problems/{kind}")
def problem(request: Request, kind: str) -> Response:
    """One kind of problem."""
    if (entry := catalogue().get(kind)) is None:
        raise NotFound("no-such-page", f"There is no kind of problem '{kind[:80]}'.")
    if "text/html" in request.headers.get("accept", ""):
        return _show(request, entry.title, [entry])
    described = {"type": f"/problems/{kind}", "status": STATUSES[entry.family], **asdict(entry)}
    return JSONResponse(described)


def _show(request: Request, title: str, entries: list[Problem]) -> Response:
    subjects = [
        (name, list(group)) for name, group in groupby(entries, lambda entry: entry.subject)
    ]
    context = {"here": None, "log_size": None, "done": "", "title": title, "subjects": subjects}
    return html(request, "problems.html", 200, context | {"statuses": STATUSES})
