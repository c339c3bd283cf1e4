"""Find who sends a request, by token or by console session."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from registry.db.accounts import RoleGrant, Token, WebSession, names


@dataclass(frozen=True, slots=True)
class Caller:
    """A token's row, its account's name and roles, and the database's clock."""

    token: Token
    name: str
    grants: list[tuple[str, str | None]]
    now: datetime


def by_token(session: Session, token_id: str) -> Caller | None:
    """The caller with that token, if there is one."""
    token = session.get(Token, token_id)
    if token is None:
        return None
    statement = select(RoleGrant.role, RoleGrant.team).where(
        RoleGrant.account_id == token.account_id
    )
    grants = [(row.role, row.team) for row in session.execute(statement)]
    name = names(session, {token.account_id})[token.account_id]
    return Caller(token, name, grants, session.execute(select(func.clock_timestamp())).scalar_one())


def add_session(session: Session, secret_hash: str, token_id: str) -> None:
    """Open a console session, and remove sessions opened more than two days ago."""
    now = session.execute(select(func.clock_timestamp())).scalar_one()
    session.execute(delete(WebSession).where(WebSession.created_at < now - timedelta(days=2)))
    session.add(WebSession(secret_hash=secret_hash, token_id=token_id, created_at=now, seen_at=now))


def by_session(
    session: Session, secret_hash: str, idle: timedelta, longest: timedelta
) -> Caller | None:
    """The caller of a live session, which is marked as seen now."""
    web_session = session.get(WebSession, secret_hash)
    now = session.execute(select(func.clock_timestamp())).scalar_one()
    if web_session is None:
        return None
    if now - web_session.seen_at > idle or now - web_session.created_at > longest:
        return None
    if now - web_session.seen_at > timedelta(seconds=30):
        web_session.seen_at = now
    return by_token(session, web_session.token_id)


def drop_session(session: Session, secret_hash: str) -> None:
    """Close a session."""
    session.execute(delete(WebSession).where(WebSession.secret_hash == secret_hash))
