"""Accounts with their grants, their signing keys, and their tokens without the secrets."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from sqlalchemy import ColumnElement, or_, select, true
from sqlalchemy.orm import Session

from registry.db.accounts import Account, RoleGrant, SigningKey, Token, names
from registry.db.store import Store
from registry.errors import NotFound
from registry.rules.actors import Actor, Role
from registry.views.accounts import AccountView, GrantView, KeyView, TokenView


def me(store: Store, actor: Actor) -> AccountView:
    """The caller's account with the grants of their token, which may be fewer than the account's.

    Raises NotFound `account-unknown` for a caller without an account.
    """
    with store.read(actor) as session:
        views = _views(session, Account.id == actor.account)
    if not views:
        raise NotFound(
            "account-unknown", "This caller has no account.", "Use a token of an account."
        )
    in_teams = sorted(
        (grant.role.value, grant.team) for grant in actor.grants if grant.team is not None
    )
    everywhere = sorted((grant.role.value, None) for grant in actor.grants if grant.team is None)
    return replace(
        views[0], grants=[GrantView(role, team) for role, team in [*everywhere, *in_teams]]
    )


def accounts(store: Store, actor: Actor) -> list[AccountView]:
    """The accounts that may act in a team the caller sees, and the caller's own, by name."""
    with store.read(actor) as session:
        return sorted(_views(session, _known_to(actor)), key=lambda account: account.name)


def keys(store: Store, actor: Actor) -> list[KeyView]:
    """The signing keys of the same accounts, oldest first.

    Revoked keys are among them, because old votes still name them.
    """
    with store.read(actor) as session:
        rows = session.scalars(
            select(SigningKey)
            .join(Account, Account.id == SigningKey.account_id)
            .where(_known_to(actor))
            .order_by(SigningKey.enrolled_at, SigningKey.id)
        ).all()
        names_by_id = names(session, {row.account_id for row in rows})
        return [_key(row, names_by_id[row.account_id]) for row in rows]


def tokens(store: Store, actor: Actor) -> list[TokenView]:
    """The caller's own tokens, or everybody's for an administrator, newest first.

    The secrets are not among them, because they are not stored.
    """
    everybody = actor.is_system or actor.holds(Role.ADMIN)
    with store.read(actor) as session:
        rows = session.scalars(
            select(Token)
            .where(true() if everybody else Token.account_id == actor.account)
            .order_by(Token.created_at.desc(), Token.id)
        ).all()
        names_by_id = names(session, {row.account_id for row in rows})
        return [
            TokenView(
                id=row.id,
                account=names_by_id[row.account_id],
                grants=[
                    GrantView(scope["role"], scope["team"], scope.get("environment"))
                    for scope in row.scopes
                ],
                created_at=row.created_at,
                expires_at=row.expires_at,
                revoked_at=row.revoked_at,
            )
            for row in rows
        ]


def _known_to(actor: Actor) -> ColumnElement[bool]:
    teams = actor.teams()
    if teams is None:
        return true()
    shared = select(RoleGrant.account_id).where(
        or_(RoleGrant.team.is_(None), RoleGrant.team.in_(teams))
    )
    return or_(Account.id == actor.account, Account.id.in_(shared))


def _views(session: Session, which: ColumnElement[bool]) -> list[AccountView]:
    rows = session.scalars(select(Account).where(which)).all()
    ids = [row.id for row in rows]
    grants: dict[UUID, list[GrantView]] = {account_id: [] for account_id in ids}
    granted = (
        select(RoleGrant)
        .where(RoleGrant.account_id.in_(ids))
        .order_by(RoleGrant.role, RoleGrant.team.nulls_first())
    )
    for grant in session.scalars(granted):
        grants[grant.account_id].append(GrantView(grant.role, grant.team))
    names_by_id = names(session, set(ids))
    enrolled: dict[UUID, list[KeyView]] = {account_id: [] for account_id in ids}
    owned = (
        select(SigningKey)
        .where(SigningKey.account_id.in_(ids))
        .order_by(SigningKey.enrolled_at, SigningKey.id)
    )
    for key in session.scalars(owned):
        enrolled[key.account_id].append(_key(key, names_by_id[key.account_id]))
    return [
        AccountView(
            row.id, names_by_id[row.id], row.kind, grants[row.id], enrolled[row.id], row.created_at
        )
        for row in rows
    ]


def _key(key: SigningKey, account: str) -> KeyView:
    return KeyView(key.id, account, key.label, key.public_key, key.enrolled_at, key.revoked_at)
