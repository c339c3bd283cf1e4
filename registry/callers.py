"""Who is calling: only a bearer token or a console session becomes an Actor."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta

from registry.db import callers as table
from registry.db.accounts import Token
from registry.db.store import Store
from registry.errors import Unauthenticated
from registry.rules import tokens
from registry.rules.actors import SYSTEM, Actor, Grant, Role

MAX_IDLE_TIME = timedelta(minutes=30)
"""How long a console session lives without a request."""
MAX_SESSION_TIME = timedelta(hours=12)
"""How long a console session lives at all."""
UNKNOWN = (
    "token-unknown",
    "This token is unknown or was revoked.",
    "Ask an administrator for a new one (countersign token create).",
)


def _actor(caller: table.Caller, via: str, request_id: str) -> Actor:
    """The actor of a token, with the token's grants that its account still has."""
    current = {(role, team) for role, team in caller.grants}
    grants = frozenset(
        Grant(Role(scope["role"]), scope["team"], scope.get("environment"))
        for scope in caller.token.scopes
        if (scope["role"], scope["team"]) in current
    )
    return Actor(
        account=caller.token.account_id,
        name=caller.name,
        grants=grants,
        via=via,
        signed_in=caller.token.created_at,
        request_id=request_id,
    )


def _check_usable(token: Token, now: datetime) -> None:
    if token.revoked_at is not None:
        raise Unauthenticated(*UNKNOWN)
    if token.expires_at <= now:
        raise Unauthenticated("token-expired", "This token has expired.")


def actor_of(store: Store, token: str, via: str, request_id: str) -> Actor:
    """The actor of a bearer token.

    Raises Unauthenticated when the token is malformed, unknown, revoked or expired.
    """
    secret = tokens.parse(token)
    with store.read(SYSTEM) as session:
        caller = table.by_token(session, secret.id)
        # The comparison takes constant time, although nobody can guess 256 random bits byte by byte
        # through a hash.
        if caller is None or not secrets.compare_digest(caller.token.secret_hash, secret.hash):
            raise Unauthenticated(*UNKNOWN)
        _check_usable(caller.token, caller.now)
    return _actor(caller, via, request_id)


def open_session(store: Store, token: str) -> str:
    """Sign a browser in with a token, and return a new random secret for its cookie."""
    secret = tokens.parse(token)
    actor_of(store, token, "console", "")
    cookie = secrets.token_urlsafe(32)
    with store.upkeep("sign in") as session:
        table.add_session(session, tokens.fingerprint(cookie), secret.id)
    return cookie


def session_actor(store: Store, cookie: str, request_id: str) -> Actor:
    """The actor of a console session.

    Raises Unauthenticated after `MAX_IDLE_TIME` without a request, after `MAX_SESSION_TIME`, or
    when the token of the session is revoked or has expired.
    """
    with store.upkeep("see a session") as session:
        fingerprint = tokens.fingerprint(cookie)
        caller = table.by_session(session, fingerprint, MAX_IDLE_TIME, MAX_SESSION_TIME)
        if caller is None:
            raise Unauthenticated("session-over", "You are signed out.")
        _check_usable(caller.token, caller.now)
    return _actor(caller, "console", request_id)


def close_session(store: Store, cookie: str) -> None:
    """Sign a browser out."""
    with store.upkeep("sign out") as session:
        table.drop_session(session, tokens.fingerprint(cookie))
