"""The session of a person, and the checks that a posted form came from one of our own pages."""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import quote, urlsplit
from uuid import uuid4

from fastapi import Depends, Form, Request
from fastapi.responses import Response

from registry import callers
from registry.db.store import Store
from registry.errors import Forbidden, TooLarge, Unauthenticated
from registry.rules.actors import Actor

MAX_FORM_BYTES = 128 << 10
"""The largest real form carries a reason and a signed decision, some 10 kB."""
COOKIE_SECONDS = 12 * 3600
"""When the browser forgets the cookie. The session on the server ends sooner when idle."""


@dataclass(frozen=True, slots=True)
class Visit:
    """One request by a signed-in person; `secret` is the session's and is never shown."""

    request: Request
    store: Store
    actor: Actor
    secret: str
    request_id: str

    @property
    def form_token(self) -> str:
        """The token that every form of this session must carry.

        It derives from the session's secret, so that nothing needs to be stored.
        """
        digest = hmac.new(
            self.secret.encode(), b"countersign/console-form/1", hashlib.sha256
        ).digest()
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def is_https(request: Request) -> bool:
    return request.url.scheme == "https"


def cookie_name(request: Request) -> str:
    """The name of the session's cookie.

    With the prefix `__Host-`, which works only over HTTPS, the browser itself refuses a cookie that
    a sibling host sets.
    """
    return "__Host-countersign" if is_https(request) else "countersign"


def set_session(request: Request, response: Response, secret: str) -> None:
    """Give the session to the browser.

    The cookie is Lax, not Strict, so that a review's link in a mail opens signed in. Posts have
    their own checks of origin and token.
    """
    response.set_cookie(
        cookie_name(request),
        secret,
        max_age=COOKIE_SECONDS,
        path="/",
        secure=is_https(request),
        httponly=True,
        samesite="lax",
    )


def clear_session(request: Request, response: Response) -> None:
    response.delete_cookie(
        cookie_name(request), path="/", secure=is_https(request), httponly=True, samesite="lax"
    )


def request_id(request: Request) -> str:
    """The id that the app gave this request. The log line and an error page show the same id."""
    if not getattr(request.state, "request_id", None):
        request.state.request_id = uuid4().hex
    return str(request.state.request_id)


def local_path(text: str) -> str:
    """The path to open after signing in; '/' unless it is one of our own.

    Otherwise a crafted link could send people to another site.
    """
    parts = urlsplit(text)
    plain = text.startswith("/") and not text.startswith(("//", "/\\")) and text.isprintable()
    return text if plain and not parts.scheme and not parts.netloc and "\\" not in text else "/"


def sign_in_path(request: Request) -> str:
    """The sign-in page, which then returns to this page."""
    target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return "/login" if target == "/" else f"/login?next={quote(target, safe='')}"


def check_posted(request: Request) -> None:
    """Refuse a form that is too large or that another site made.

    The headers show both, before the body is read. Raises TooLarge and Forbidden.
    """
    length = request.headers.get("content-length", "")
    if not length.isdigit() or int(length) > MAX_FORM_BYTES:
        raise TooLarge("form-too-large", f"This form has more than {MAX_FORM_BYTES >> 10} kB.")
    origin = request.headers.get("origin")
    site = request.headers.get("sec-fetch-site", "same-origin")
    foreign = origin is not None and urlsplit(origin).netloc != request.headers.get("host", "")
    if foreign or site not in ("same-origin", "none"):
        raise Forbidden(
            "foreign-form", "This form was sent from another site, so nothing was done."
        )


def visit(request: Request) -> Visit:
    """The signed-in person of this request; Unauthenticated if nobody is signed in any more."""
    secret = request.cookies.get(cookie_name(request), "")
    if not secret:
        raise Unauthenticated("not-signed-in", "You are not signed in.")
    identity = request_id(request)
    store = request.app.state.store
    actor = callers.session_actor(store, secret, identity)
    here = Visit(request, store, actor, secret, identity)
    request.state.visit = here
    return here


def posted(
    here: Annotated[Visit, Depends(visit)], form_token: Annotated[str, Form()] = ""
) -> Visit:
    """The person who posted a form, if its token proves that our page made it for this session."""
    if not hmac.compare_digest(here.form_token.encode(), form_token.encode()):
        raise Forbidden(
            "stale-form",
            "This form does not belong to your present session, so nothing was done.",
        )
    return here


Here = Annotated[Visit, Depends(visit)]
Posted = Annotated[Visit, Depends(posted)]
