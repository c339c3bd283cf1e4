"""Who stands at the door: the session cookie, and the checks that a posted form came from our own
page.
"""

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

FORM_LIMIT = (
    128 * 1024
)  # bytes; the largest form carries a reason and a signed decision, some 10 kB
LIFETIME = (
    12 * 3600
)  # seconds; the server-side session ends by itself sooner when idle, this only tidies the browser


@dataclass(frozen=True, slots=True)
class Visit:
    """One request by a signed-in person; `secret` is the session's and never shown."""

    request: Request
    store: Store
    actor: Actor
    secret: str
    request_id: str

    @property
    def form_token(self) -> str:
        """What every form of this session must carry: bound to the session's secret, so nothing
        needs storing.
        """
        digest = hmac.new(
            self.secret.encode(), b"countersign/console-form/1", hashlib.sha256
        ).digest()
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def is_https(request: Request) -> bool:
    return request.url.scheme == "https"


def cookie_name(request: Request) -> str:
    """`__Host-` makes the browser itself refuse a cookie set by a sibling host; it exists only over
    HTTPS.
    """
    return "__Host-countersign" if is_https(request) else "countersign"


def set_session(request: Request, response: Response, secret: str) -> None:
    """Hand the session to the browser. Lax, not Strict: a review's link in a mail must open signed
    in; posts are guarded by their own origin and token checks besides.
    """
    response.set_cookie(
        cookie_name(request),
        secret,
        max_age=LIFETIME,
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
    """The id the app gave this request; the same one stands in the log line and on an error
    page.
    """
    found = getattr(request.state, "request_id", None)
    if not found:
        found = uuid4().hex
        request.state.request_id = found
    return str(found)


def local_path(text: str) -> str:
    """Where to go after signing in: only a path of ours, so that a crafted link cannot send people
    elsewhere.
    """
    parts = urlsplit(text)
    plain = text.startswith("/") and not text.startswith(("//", "/\\")) and text.isprintable()
    return text if plain and not parts.scheme and not parts.netloc and "\\" not in text else "/"


def sign_in_path(request: Request) -> str:
    """The sign-in page, remembering a page that was merely looked at; a lost form is not
    replayed.
    """
    if request.method != "GET":
        return "/login"
    target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return "/login" if target == "/" else f"/login?next={quote(target, safe='')}"


def check_posted(request: Request) -> None:
    """Refuse an oversized form and one another site made: both are known from the headers, before
    the body is read.
    """
    length = request.headers.get("content-length", "")
    if not length.isdigit() or int(length) > FORM_LIMIT:
        limit = FORM_LIMIT // 1024
        raise TooLarge(
            "form-too-large",
            f"This form carries more than {limit} kB.",
        )
    origin = request.headers.get("origin")
    site = request.headers.get("sec-fetch-site", "same-origin")
    foreign = origin is not None and urlsplit(origin).netloc != request.headers.get("host", "")
    if foreign or site not in ("same-origin", "none"):
        raise Forbidden(
            "foreign-form",
            "This form was sent from another site, so nothing was done.",
        )


def visit(request: Request) -> Visit:
    """The signed-in person of this request; Unauthenticated when there is none or the session
    ended.
    """
    secret = request.cookies.get(cookie_name(request), "")
    if not secret:
        raise Unauthenticated("not-signed-in", "You are not signed in.")
    identity = request_id(request)
    store = request.app.state.store
    found = Visit(request, store, callers.session_actor(store, secret, identity), secret, identity)
    request.state.visit = found
    return found


def posted(
    here: Annotated[Visit, Depends(visit)], form_token: Annotated[str, Form()] = ""
) -> Visit:
    """The person of a posted form, once its token proves that our page made it for this very
    session.
    """
    if not hmac.compare_digest(here.form_token.encode(), form_token.encode()):
        raise Forbidden(
            "stale-form",
            "This form does not belong to your present session, so nothing was done.",
        )
    return here


Here = Annotated[Visit, Depends(visit)]
Posted = Annotated[Visit, Depends(posted)]
