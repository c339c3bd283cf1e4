"""Turning a template and what it shows into an answer, and every refusal into a page that says what
to do.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.routing import APIRoute
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.concurrency import run_in_threadpool

from registry.api.problems import STATUSES
from registry.errors import Fault, Forbidden, NotFound, RegistryError, Unauthenticated
from registry.queries import audit as log_queries
from registry.rules.actions import Action
from registry.rules.actors import PERMISSIONS, allowed
from registry.web import assets, words
from registry.web.visits import Visit, check_posted, request_id, sign_in_path

log = logging.getLogger(__name__)

# How each family of refusals is answered; the sentences come from the error itself. What just
# happened, by the word a redirect carries; a fixed list, so that a link cannot put words in our
# mouth.
DONE = {
    "signed": "Your decision is signed and in the log.",
    "canary": "The canary has started.",
    "promoted": "Promoted. The whole channel is served by it now.",
    "rolled-back": "Rolled back.",
    "deprecated": "Deprecated. No new rollout of it starts; what serves stays.",
    "recalled": "Recalled. Nothing derived from it is served any more.",
    "held": "The hold stands. Nothing it covers is deleted until another reviewer lifts it.",
    "lifted": "The hold is lifted.",
    "classed": "The class is set: it holds for what is registered from now on.",
    "deleted": "Deleted. Its tombstone stays, and its number never comes back.",
    "enrolled": "This browser's key is enrolled. You can sign decisions here.",
    "theme": "Saved.",
    "tagged": "The tag is set.",
    "untagged": "The tag is taken off; the log remembers it.",
}
THEMES = ("light", "dark")

ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
MOST = 50  # rows of a list that has no pages of its own; the page says what it leaves out
ENVIRONMENT.globals |= {
    "asset": assets.address,
    "look": words.look,
    "most": MOST,
    "engine_names": words.ENGINES,
}
FILTERS = "ago arm link measured number percent place points share short short_line size tag utc"
ENVIRONMENT.filters |= {name: getattr(words, name) for name in FILTERS.split()}


def needs(here: Visit, action: Action, team: str | None) -> str:
    """Why this person may not act: a sentence for the disabled button, or '' when the roles allow
    it.

    The command decides again; this only keeps people from writing a reason for nothing.
    """
    if allowed(here.actor, action, team):
        return ""
    return f"Needs the role {' or '.join(sorted(role.value for role in PERMISSIONS[action]))}."


def _log_size(here: Visit) -> int | None:
    try:
        head = log_queries.tree_head(here.store, here.actor)
    except Forbidden:  # the log is not for every role; the bar then leaves it out
        return None
    return head.size if head else 0


def html(request: Request, template: str, status: int, context: dict[str, Any]) -> HTMLResponse:
    """Fill a template. Pages are never stored by a browser or proxy: they show one person's
    view.
    """
    theme = request.cookies.get("theme", "")
    filled = ENVIRONMENT.get_template(template).render(
        context,
        path=request.url.path,
        theme=theme if theme in THEMES else "",
        now=datetime.now(UTC),
    )
    return HTMLResponse(filled, status_code=status, headers={"cache-control": "no-store"})


def render(here: Visit, template: str, status: int = 200, **context: Any) -> HTMLResponse:
    """A page for a signed-in person."""
    done = DONE.get(here.request.query_params.get("done", ""), "")
    return html(
        here.request,
        template,
        status,
        {"here": here, "log_size": _log_size(here), "done": done} | context,
    )


def sent(path: str, done: str = "") -> RedirectResponse:
    """Where a form that did its work leads: a plain GET, so that reloading never acts twice."""
    return RedirectResponse(f"{path}?done={done}" if done else path, status_code=303)


def refusal(request: Request, error: RegistryError) -> Response:
    """A page for a refusal that no form could show beside itself; nobody signed in is led to the
    sign-in.
    """
    if isinstance(error, Unauthenticated) and error.kind != "fresh-sign-in":
        return RedirectResponse(sign_in_path(request), status_code=303)
    here: Visit | None = getattr(request.state, "visit", None)
    context = {
        "here": here,
        "log_size": None,
        "done": "",
        "error": error,
        "request_id": request_id(request),
    }
    answer = html(request, "error.html", STATUSES[error.family], context)
    if error.family == "unavailable":
        answer.headers["retry-after"] = "2"
    return answer


class Page(APIRoute):
    """A route whose every way to fail is a page: refusals by their sentence, our own mistakes by
    their request id.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                if (
                    "\0" in request.url.path or "%00" in request.url.query
                ):  # PostgreSQL has no such text
                    raise NotFound("no-such-page", "There is no such page.")
                if request.method == "POST":
                    check_posted(request)
                return await handler(request)
            except RegistryError as error:
                failure = error
            except RequestValidationError:
                failure = NotFound("no-such-page", "There is no such page.")
            except Exception:
                log.exception(
                    "page failed",
                    extra={"request_id": request_id(request), "path": request.url.path},
                )
                failure = Fault(
                    "fault",
                    "Something of ours broke while making this page; nothing was changed by it.",
                    "Try again; if it stays, give the request id below to whoever runs "
                    "Countersign.",
                )
            return await run_in_threadpool(refusal, request, failure)

        return answer
