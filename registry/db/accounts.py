"""Accounts of people and services, with their roles, tokens, keys, sessions and personal text."""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    Index,
    LargeBinary,
    UniqueConstraint,
    select,
    text,
)
from sqlalchemy.orm import Mapped, Session, mapped_column

from registry.db.table import Id, Moment, Table, hex_digest, one_of
from registry.errors import NotFound


class Account(Table):
    """A person or a service. The name is in `personal`; the log holds only its commitment."""

    __tablename__ = "account"
    id: Mapped[Id]
    kind: Mapped[str]
    name_commitment: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[Moment]
    __table_args__ = (
        CheckConstraint(one_of("kind", "person", "service"), name="kind"),
        CheckConstraint(hex_digest("name_commitment"), name="commitment"),
    )


class RoleGrant(Table):
    """One role of one account in one team; a null team means every team."""

    __tablename__ = "role_grant"
    id: Mapped[Id]
    account_id: Mapped[UUID] = mapped_column(ForeignKey("account.id"), index=True)
    role: Mapped[str]
    team: Mapped[str | None]
    granted_at: Mapped[Moment]
    __table_args__ = (
        UniqueConstraint("account_id", "role", "team", postgresql_nulls_not_distinct=True),
        CheckConstraint(
            one_of("role", "admin", "engineer", "reviewer", "auditor", "trainer", "gateway"),
            name="role",
        ),
    )


BOUND_SCOPES = (
    'not jsonb_path_exists(scopes, \'$[*] ? (exists(@.environment) && !(@.role == "gateway" && '
    '(@.environment == "dev" || @.environment == "staging" || @.environment == "production")))\')'
)
"""CHECK: only a gateway's scope may be bound to an environment, and only to one that exists."""


class Token(Table):
    """A bearer token. Only the SHA-256 of its secret is kept: 32 random bytes need no slow hash."""

    __tablename__ = "token"
    id: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[UUID] = mapped_column(ForeignKey("account.id"), index=True)
    secret_hash: Mapped[str] = mapped_column(unique=True)
    scopes: Mapped[list[Any]]
    created_at: Mapped[Moment]
    expires_at: Mapped[Moment]
    revoked_at: Mapped[datetime | None]
    __table_args__ = (
        CheckConstraint(hex_digest("secret_hash"), name="hash"),
        CheckConstraint(
            "expires_at > created_at and expires_at <= created_at + interval '366 days'",
            name="expiry",
        ),
        CheckConstraint(BOUND_SCOPES, name="environment"),
    )


class SigningKey(Table):
    """An Ed25519 public key, enrolled by its owner with a proof that they hold the private key."""

    __tablename__ = "signing_key"
    id: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[UUID] = mapped_column(ForeignKey("account.id"), index=True)
    label: Mapped[str]
    public_key: Mapped[str] = mapped_column(unique=True)
    proof: Mapped[str]
    enrolled_at: Mapped[Moment]
    revoked_at: Mapped[datetime | None]
    __table_args__ = (CheckConstraint("id ~ '^[0-9a-f]{16}$'", name="id"),)


class Personal(Table):
    """Personal text with its salt, by commitment.

    Deleting a row erases the text, while every proof stays valid.
    """

    __tablename__ = "personal"
    governed = False
    commitment: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    salt: Mapped[bytes] = mapped_column(LargeBinary)
    value: Mapped[str]
    __table_args__ = (
        CheckConstraint(hex_digest("commitment"), name="commitment"),
        # Each name belongs to one account. Other texts may repeat.
        Index(
            "uq_personal_account_name",
            "value",
            unique=True,
            postgresql_where=text("kind = 'account'"),
        ),
    )


class TokenUse(Table):
    """When a token was last used; upkeep, so not governed."""

    __tablename__ = "token_use"
    governed = False
    token_id: Mapped[str] = mapped_column(ForeignKey("token.id"), primary_key=True)
    used_at: Mapped[Moment]


class WebSession(Table):
    """A signed-in browser. Only the hash of the cookie's secret is kept."""

    __tablename__ = "web_session"
    governed = False
    secret_hash: Mapped[str] = mapped_column(primary_key=True)
    token_id: Mapped[str] = mapped_column(ForeignKey("token.id"), index=True)
    created_at: Mapped[Moment]
    seen_at: Mapped[Moment]


def seal(session: Session, kind: str, value: str, salt: bytes | None = None) -> str:
    """Store a personal text and return its commitment: `sha256:` and the hash of salt and text."""
    salt = salt if salt is not None else secrets.token_bytes(16)
    commitment = "sha256:" + hashlib.sha256(salt + value.encode()).hexdigest()
    session.add(Personal(commitment=commitment, kind=kind, salt=salt, value=value))
    session.flush()
    return commitment


def by_name(session: Session, name: str) -> Account:
    """The account of that name, or NotFound."""
    account = find(session, name)
    if account is None:
        raise NotFound("account-unknown", f"There is no account '{name[:80]}'.")
    return account


def find(session: Session, name: str) -> Account | None:
    """The account of that name, if there is one."""
    statement = (
        select(Account)
        .join(Personal, Personal.commitment == Account.name_commitment)
        .where(Personal.kind == "account", Personal.value == name)
    )
    return session.scalars(statement).one_or_none()


def names(session: Session, ids: set[UUID | None]) -> dict[UUID | None, str]:
    """Display names by account id: `(erased)` for erased ones, `system` for the registry."""
    people = [id for id in ids if id is not None]
    known: dict[UUID | None, str] = {None: "system"}
    if people:
        rows = session.execute(
            select(Account.id, Personal.value)
            .outerjoin(Personal, Personal.commitment == Account.name_commitment)
            .where(Account.id.in_(people))
        )
        known.update({row.id: row.value or "(erased)" for row in rows})
    return known


def personal_texts(session: Session, commitments: set[str]) -> dict[str, str]:
    """Personal texts by commitment; erased texts are missing."""
    if not commitments:
        return {}
    rows = session.execute(
        select(Personal.commitment, Personal.value).where(Personal.commitment.in_(commitments))
    )
    return {row.commitment: row.value for row in rows}


def grants_of(session: Session, account_id: UUID) -> list[RoleGrant]:
    """The roles of an account, in a fixed order."""
    statement = (
        select(RoleGrant)
        .where(RoleGrant.account_id == account_id)
        .order_by(RoleGrant.role, RoleGrant.team)
    )
    return list(session.scalars(statement))
