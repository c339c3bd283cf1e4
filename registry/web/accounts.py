"""Signing in and out, the start page, a person's settings and keys, and the find box."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Request
from fastapi.responses import Response

from registry import callers
from registry.api.problems import STATUSES
from registry.commands import keys
from registry.errors import Invalid, NotFound, RegistryError, Unauthenticated
from registry.queries import accounts
from registry.rules.actors import Role
from registry.rules.refs import parse_ref
from registry.web.pages import THEMES, Page, html, render, sent
from registry.web.shelves import path_of
from registry.web.visits import (
    Here,
    Posted,
    Visit,
    clear_session,
    cookie_name,
    is_https,
    local_path,
    request_id,
    set_session,
)

router = APIRouter(route_class=Page, include_in_schema=False)


@router.get("/")
def start(here: Here) -> Response:
    """Send each person to the page where their work is."""
    if here.actor.holds(Role.REVIEWER):
        return sent("/reviews")
    return sent("/audit" if here.actor.holds(Role.AUDITOR) else "/adapters")


def _sign_in_form(
    request: Request, destination: str, error: RegistryError | None, status: int
) -> Response:
    context = {
        "here": None,
        "log_size": None,
        "done": "",
        "destination": destination,
        "error": error,
    }
    return html(request, "login.html", status, context | {"request_id": request_id(request)})


@router.get("/login")
def sign_in_form(request: Request, next: str = "/") -> Response:
    """The form that asks for a token."""
    return _sign_in_form(request, local_path(next), None, 200)


@router.post("/login")
def sign_in(
    request: Request, token: Annotated[str, Form()] = "", destination: Annotated[str, Form()] = "/"
) -> Response:
    """Exchange a token for a new session.

    A session that the browser already had is closed, so that its secret cannot be used again.
    """
    store = request.app.state.store
    try:
        if not token.strip():
            raise Unauthenticated("token-missing", "No token was given.", "Paste your token.")
        secret = callers.open_session(store, token.strip())
    except RegistryError as error:
        return _sign_in_form(request, local_path(destination), error, STATUSES[error.family])
    former = request.cookies.get(cookie_name(request))
    if former:
        callers.close_session(store, former)
    answer = sent(local_path(destination))
    set_session(request, answer, secret)
    return answer


@router.post("/logout")
def sign_out(here: Posted) -> Response:
    """End the session on the server and in the browser."""
    callers.close_session(here.store, here.secret)
    answer = sent("/login")
    clear_session(here.request, answer)
    return answer


def _settings(
    here: Visit, status: int = 200, error: RegistryError | None = None, label: str = ""
) -> Response:
    me = accounts.me(here.store, here.actor)
    return render(
        here, "settings.html", status, me=me, error=error, label=label, theme_names=THEMES
    )


@router.get("/settings")
def settings(here: Here) -> Response:
    """A person's account, keys, roles and colours."""
    return _settings(here)


@router.post("/settings/keys")
def enroll(
    here: Posted,
    label: Annotated[str, Form()] = "",
    public_key: Annotated[str, Form()] = "",
    proof: Annotated[str, Form()] = "",
) -> Response:
    """Enrol the key that this browser made.

    The form carries its public half, and a signature that proves possession of the private half.
    """
    try:
        if not public_key or not proof:
            raise Invalid(
                "browser-key-missing", "The browser made no key, because that needs JavaScript."
            )
        keys.enroll(here.store, here.actor, public_key, label.strip() or "browser", proof)
    except RegistryError as error:
        return _settings(here, STATUSES[error.family], error, label)
    return sent("/settings", "enrolled")


@router.post("/settings/theme")
def theme(here: Posted, theme: Annotated[str, Form()] = "") -> Response:
    """Light, dark, or the system's setting (anything else).

    A cookie keeps the choice, so that a page never appears in the wrong colours first.
    """
    answer = sent("/settings", "theme")
    if theme in THEMES:
        answer.set_cookie(
            "theme",
            theme,
            max_age=31_536_000,
            secure=is_https(here.request),
            httponly=True,
            samesite="lax",
        )
    else:
        answer.delete_cookie("theme")
    return answer


@router.get("/find")
def find(here: Here, q: str = "") -> Response:
    """Go to the review, version or digest that the text names; search for any other text."""
    text = q.strip()
    if text.isdecimal() and len(text) < 10:
        return sent(f"/reviews/{text}")
    try:
        if "@" in text or parse_ref(text).digest:
            return sent(path_of(here, text))
    except NotFound:
        pass
    except Invalid as error:
        if error.kind != "bad-reference":  # an ambiguous digest is reported, not searched for
            raise
    return sent(f"/search?{urlencode({'q': text})}")
