"""Who is calling: a bearer token or a console session becomes an Actor; nothing else ever does."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta

from registry.db import callers as table
from registry.db.accounts import Token
from registry.db.store import Store
from registry.errors import Unauthenticated
from registry.rules import tokens
from registry.rules.actors import SYSTEM, Actor, Grant, Role

IDLE = timedelta(minutes=30)
LONGEST = timedelta(hours=12)
UNKNOWN = (
    "token-unknown",
    "This token is unknown or was revoked.",
    "Ask for a new one (countersign token create).",
)


def _actor(found: table.Caller, via: str, request_id: str) -> Actor:
    """The grants of a token are those it was minted for and its account still holds."""
    held = {(role, team) for role, team in found.grants}
    grants = frozenset(
        Grant(Role(scope["role"]), scope["team"], scope.get("environment"))
        for scope in found.token.scopes
        if (scope["role"], scope["team"]) in held
    )
    return Actor(
        account=found.token.account_id,
        name=found.name,
        grants=grants,
        via=via,
        signed_in=found.token.created_at,
        request_id=request_id,
    )


def _usable(token: Token, now: datetime) -> None:
    if token.revoked_at is not None:
        raise Unauthenticated(*UNKNOWN)
    if token.expires_at <= now:
        raise Unauthenticated(
            "token-expired",
            "This token has expired.",
        )


def actor_of(store: Store, token: str, via: str, request_id: str) -> Actor:
    """The actor behind a bearer token; Unauthenticated when it is malformed, unknown, revoked or
    expired.
    """
    secret = tokens.parse(token)
    with store.read(SYSTEM) as session:
        found = table.by_token(session, secret.id)
        # Compared in constant time, though 256 random bits cannot be guessed byte by byte through a
        # hash anyway.
        if found is None or not secrets.compare_digest(found.token.secret_hash, secret.hash):
            raise Unauthenticated(*UNKNOWN)
        _usable(found.token, found.now)
    return _actor(found, via, request_id)


def open_session(store: Store, token: str) -> str:
    """Sign a browser in with a token: a new random secret for its cookie."""
    secret = tokens.parse(token)
    actor_of(store, token, "console", "")
    cookie = secrets.token_urlsafe(32)
    with store.upkeep("sign in") as session:
        table.add_session(session, tokens.fingerprint(cookie), secret.id)
    return cookie


def session_actor(store: Store, cookie: str, request_id: str) -> Actor:
    """The actor behind a console session; Unauthenticated after 30 idle minutes or 12 hours, or
    when its token ended.
    """
    with store.upkeep("see a session") as session:
        found = table.by_session(session, tokens.fingerprint(cookie), IDLE, LONGEST)
        if found is None:
            raise Unauthenticated("session-over", "You are signed out.")
        _usable(found.token, found.now)
    return _actor(found, "console", request_id)


def close_session(store: Store, cookie: str) -> None:
    """Sign a browser out."""
    with store.upkeep("sign out") as session:
        table.drop_session(session, tokens.fingerprint(cookie))
