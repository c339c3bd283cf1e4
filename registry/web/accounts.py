"""Signing in and out, the start page, a person's settings and keys."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from registry import callers
from registry.api.problems import STATUSES
from registry.commands import keys
from registry.errors import Invalid, RegistryError, Unauthenticated
from registry.queries import accounts
from registry.rules.actors import Role
from registry.web.pages import THEMES, Page, SignIn, render, sent, sign_in_form
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


@router.get("/login")
def ask_for_token(request: Request, next: str = "/") -> Response:
    """The form that asks for a token."""
    return sign_in_form(request, SignIn(local_path(next)))


TYPED = "typed:"
"""Begins the name of a field that carries what was typed before the session ended."""


@router.post("/login")
async def sign_in(
    request: Request,
    token: Annotated[str, Form()] = "",
    destination: Annotated[str, Form()] = "/",
    form: Annotated[str, Form()] = "",
) -> Response:
    """Exchange a token for a new session.

    A session that the browser already had is closed, so that its secret cannot be used again. What
    was typed into a form that met the end of a session is shown again, to send or to leave.
    """
    fields = (await request.form()).multi_items()
    typed = {
        name.removeprefix(TYPED): value
        for name, value in fields
        if name.startswith(TYPED) and isinstance(value, str)
    }
    asked = SignIn(local_path(destination), typed, local_path(form) if form else "")
    return await run_in_threadpool(_signed_in, request, token.strip(), asked)


def _signed_in(request: Request, token: str, asked: SignIn) -> Response:
    store = request.app.state.store
    try:
        if not token:
            raise Unauthenticated("token-missing", "No token was given.", "Paste your token.")
        secret = callers.open_session(store, token)
        actor = callers.session_actor(store, secret, request_id(request))
    except RegistryError as error:
        return sign_in_form(request, replace(asked, error=error))
    former = request.cookies.get(cookie_name(request))
    if former:
        callers.close_session(store, former)
    answer: Response = sent(asked.destination)
    if asked.typed and asked.form:
        here = Visit(request, store, actor, secret, request_id(request))
        answer = render(here, "typed.html", asked=asked)
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
