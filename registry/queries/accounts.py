"""Who there is: people and services, what they may do, their keys, and their tokens without the
secrets.
"""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import ColumnElement, or_, select, true
from sqlalchemy.orm import Session

from registry.db.accounts import Account, RoleGrant, SigningKey, Token, names
from registry.db.store import Store
from registry.errors import NotFound
from registry.rules.actors import Actor, Role
from registry.views.accounts import AccountView, GrantView, KeyView, TokenView


def me(store: Store, actor: Actor) -> AccountView:
    """The caller as this token lets him act: `grants` are the token's, which may be fewer than the
    account's.
    """
    with store.read(actor) as session:
        found = _views(session, Account.id == actor.account)
    if not found:
        raise NotFound(
            "account-unknown", "This caller has no account.", "Use a token of an account."
        )
    held = sorted(
        (grant.role.value, grant.team) for grant in actor.grants if grant.team is not None
    )
    everywhere = sorted((grant.role.value, None) for grant in actor.grants if grant.team is None)
    one = found[0]
    grants = [GrantView(role, team) for role, team in [*everywhere, *held]]
    return AccountView(one.id, one.name, one.kind, grants, one.keys, one.created_at)


def accounts(store: Store, actor: Actor) -> list[AccountView]:
    """Everybody who may act in a team that the caller sees, by name; always the caller himself."""
    with store.read(actor) as session:
        return sorted(_views(session, _known_to(actor)), key=lambda account: account.name)


def keys(store: Store, actor: Actor) -> list[KeyView]:
    """The signing keys of the same people, oldest first, revoked ones too: old votes still name
    them.
    """
    with store.read(actor) as session:
        rows = session.scalars(
            select(SigningKey)
            .join(Account, Account.id == SigningKey.account_id)
            .where(_known_to(actor))
            .order_by(SigningKey.enrolled_at, SigningKey.id)
        ).all()
        called = names(session, {row.account_id for row in rows})
        return [_key(row, called[row.account_id]) for row in rows]


def tokens(store: Store, actor: Actor) -> list[TokenView]:
    """The caller's own tokens, or everybody's for an administrator, newest first; secrets are kept
    nowhere.
    """
    everybody = actor.is_system or actor.holds(Role.ADMIN)
    with store.read(actor) as session:
        rows = session.scalars(
            select(Token)
            .where(true() if everybody else Token.account_id == actor.account)
            .order_by(Token.created_at.desc(), Token.id)
        ).all()
        called = names(session, {row.account_id for row in rows})
        return [
            TokenView(
                id=row.id,
                account=called[row.account_id],
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
    grants: dict[UUID, list[GrantView]] = {one: [] for one in ids}
    held = (
        select(RoleGrant)
        .where(RoleGrant.account_id.in_(ids))
        .order_by(RoleGrant.role, RoleGrant.team.nulls_first())
    )
    for grant in session.scalars(held):
        grants[grant.account_id].append(GrantView(grant.role, grant.team))
    called = names(session, set(ids))
    enrolled: dict[UUID, list[KeyView]] = {one: [] for one in ids}
    owned = (
        select(SigningKey)
        .where(SigningKey.account_id.in_(ids))
        .order_by(SigningKey.enrolled_at, SigningKey.id)
    )
    for key in session.scalars(owned):
        enrolled[key.account_id].append(_key(key, called[key.account_id]))
    return [
        AccountView(
            row.id, called[row.id], row.kind, grants[row.id], enrolled[row.id], row.created_at
        )
        for row in rows
    ]


def _key(key: SigningKey, account: str) -> KeyView:
    return KeyView(key.id, account, key.label, key.public_key, key.enrolled_at, key.revoked_at)
