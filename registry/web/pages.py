"""Render templates as answers, and refusals as pages that say what to do."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.routing import APIRoute
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.concurrency import run_in_threadpool
from starlette.routing import Match

from registry.api.problems import STATUSES
from registry.errors import Fault, Forbidden, NotFound, RegistryError, Unauthenticated
from registry.queries import audit as log_queries
from registry.rules.actions import Action
from registry.rules.actors import PERMISSIONS, allowed
from registry.web import assets, words
from registry.web.shelves import version_path
from registry.web.visits import Visit, check_posted, request_id, sign_in_path

log = logging.getLogger(__name__)

DONE = {
    "signed": "Your decision is signed and in the log.",
    "canary": "The canary has started.",
    "promoted": "Promoted. It now serves the whole channel.",
    "rolled-back": "Rolled back.",
    "signed-in": "You are signed in again.",
    "deprecated": "Deprecated. No new rollout of it starts. Where it serves, it stays.",
    "recalled": "Recalled. It no longer serves anywhere, nor does anything derived from it.",
    "held": "The hold is placed. What it covers cannot be deleted until another reviewer lifts it.",
    "lifted": "The hold is lifted.",
    "classed": "The class is assigned. It applies to what is registered from now on.",
    "deleted": "Deleted. Its tombstone stays, and its number is never used again.",
    "enrolled": "This browser's key is enrolled. You can sign decisions here.",
    "theme": "Saved.",
    "tagged": "The tag is set.",
    "untagged": "The tag is removed. The log keeps that it was there.",
}
"""Code in a redirect -> what was just done. The list is fixed, so that a link cannot make a page
say anything else.
"""
THEMES = ("light", "dark")

ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
MAX_ROWS = 50
"""Rows of a list that is not paged. The page says how many rows it leaves out."""
ENVIRONMENT.globals |= {
    "asset": assets.address,
    "look": words.look,
    "max_rows": MAX_ROWS,
    "engine_names": words.ENGINES,
    "version_path": version_path,
}
FILTERS = (
    "address ago arm link measured number percent place points share short short_line size tag utc"
)
ENVIRONMENT.filters |= {name: getattr(words, name) for name in FILTERS.split()}


def needs(here: Visit, action: Action, team: str | None) -> str:
    """Why this person's roles do not allow an act, as a sentence beside the disabled button, or ''.

    The command decides again. This only keeps people from writing a reason in vain.
    """
    if allowed(here.actor, action, team):
        return ""
    return f"Needs the role {' or '.join(sorted(role.value for role in PERMISSIONS[action]))}."


def others(here: Visit, action: str, team: str | None = None) -> str:
    """Who can do what this person cannot, as a sentence; '' if they can themselves."""
    if allowed(here.actor, Action(action), team):
        return ""
    roles = " or ".join(sorted(role.value for role in PERMISSIONS[Action(action)]))
    return f"{'An' if roles[0] in 'ae' else 'A'} {roles} can do this."


ENVIRONMENT.globals["others"] = others


def _log_size(here: Visit) -> int | None:
    try:
        head = log_queries.tree_head(here.store, here.actor)
    except Forbidden:  # not every role may read the log; the bar then omits its size
        return None
    return head.size if head else 0


def html(request: Request, template: str, status: int, context: dict[str, Any]) -> HTMLResponse:
    """Fill a template.

    No browser or proxy may store a page, because it shows what one person may see.
    """
    theme = request.cookies.get("theme", "")
    filled = ENVIRONMENT.get_template(template).render(
        context,
        path=request.url.path,
        back=page_of(request),
        url=request.url,
        theme=theme if theme in THEMES else "",
        now=datetime.now(UTC),
    )
    return HTMLResponse(filled, status_code=status, headers={"cache-control": "no-store"})


def render(here: Visit, template: str, status: int = 200, **context: Any) -> HTMLResponse:
    """A page for the person who is signed in."""
    done = DONE.get(here.request.query_params.get("done", ""), "")
    return html(
        here.request,
        template,
        status,
        {"here": here, "log_size": _log_size(here), "done": done} | context,
    )


def sent(path: str, done: str = "") -> RedirectResponse:
    """A redirect after a form has acted: a plain GET, so that reloading never acts twice."""
    return RedirectResponse(f"{path}?done={done}" if done else path, status_code=303)


def refusal(request: Request, error: RegistryError, status: int | None = None) -> Response:
    """A page for a refusal that no form shows, or the sign-in page for a person not signed in."""
    if isinstance(error, Unauthenticated) and error.kind != "fresh-sign-in":
        if request.method == "POST":
            return sign_in_form(request, SignIn(page_of(request), typed_by(request)))
        return RedirectResponse(sign_in_path(request), status_code=303)
    here: Visit | None = getattr(request.state, "visit", None)
    status = status or STATUSES[error.family]
    context = {
        "here": here,
        "log_size": None,
        "done": "",
        "status": status,
        "error": error,
        "request_id": request_id(request),
    }
    answer = html(request, "error.html", status, context)
    if error.family == "unavailable":
        answer.headers["retry-after"] = "2"
    return answer


@dataclass(frozen=True, slots=True)
class SignIn:
    """What the sign-in form carries on: where to go, and what was typed into a lost form."""

    destination: str
    typed: dict[str, str] = field(default_factory=dict)
    form: str = ""
    error: RegistryError | None = None


def sign_in_form(request: Request, asked: SignIn) -> Response:
    """The form that asks for a token, with what was typed before the session ended."""
    lost = bool(asked.typed)
    status = 401 if lost else 200
    context = {
        "here": None,
        "log_size": None,
        "done": "",
        "asked": asked,
        "form": asked.form or (request.url.path if lost else ""),
        "error": asked.error,
        "request_id": request_id(request),
    }
    return html(
        request, "login.html", STATUSES[asked.error.family] if asked.error else status, context
    )


SECRETS = frozenset({"form_token", "token", "decision", "salt", "key", "signature", "proof"})
"""Fields of a form that end with their session, or that only the browser can make again."""


def typed_by(request: Request) -> dict[str, str]:
    """What a person typed into the posted form, as far as it can be sent again."""
    form = getattr(request, "_form", None)
    if form is None:
        return {}
    return {
        name: value
        for name, value in form.multi_items()
        if isinstance(value, str) and value and name not in SECRETS
    }


def page_of(request: Request) -> str:
    """The page of this address: itself, or for the address of a form, the page the form is on."""
    path = request.url.path
    while path not in ("", "/"):
        scope = {**request.scope, "method": "GET", "path": path}
        if any(route.matches(scope)[0] is Match.FULL for route in request.app.state.pages):
            return path
        path = path.rpartition("/")[0]
    return "/"


class Page(APIRoute):
    """A route that answers every failure with a page.

    A refusal shows its own text. An unexpected exception shows only the request id.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                # PostgreSQL cannot store a NUL character, so nothing has such a name.
                if "\0" in request.url.path or "%00" in request.url.query:
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
                    "Countersign met an unexpected error while making this page.",
                    "Try again. If it happens again, report the request id below to whoever runs "
                    "Countersign.",
                )
            return await run_in_threadpool(refusal, request, failure)

        return answer
