"""Create and revoke bearer tokens."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from registry.db import accounts
from registry.db.accounts import Token
from registry.db.store import Store
from registry.errors import Refused
from registry.rules import tokens
from registry.rules.actions import Action
from registry.rules.actors import Actor, check_bound, parse_roles
from registry.views.accounts import GrantView, TokenView


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A token for an account: its roles in one team (None: in every team) and its days to live."""

    account: str
    roles: list[str]
    team: str | None
    days: int
    environment: str | None = None


def create(store: Store, actor: Actor, request: TokenRequest) -> TokenView:
    """Create a token for roles that its account holds; only this answer ever contains the secret.

    A gateway's token may be bound to one environment: it then pulls only what is approved or serves
    there. Raises NotFound for an unknown account, Refused `role-not-held`, Invalid.
    """
    account, team, environment = request.account, request.team, request.environment
    roles = parse_roles(request.roles)
    bound = {"environment": check_bound(roles, environment)} if environment is not None else {}
    lifetime = tokens.lifetime(request.days)
    token_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    with store.write(actor, Action.TOKEN_CREATE) as tx:
        owner = accounts.by_name(tx.session, account)
        granted = {(grant.role, grant.team) for grant in accounts.grants_of(tx.session, owner.id)}
        missing = [role.value for role in roles if (role.value, team) not in granted]
        if missing:
            raise Refused(
                "role-not-held",
                f"{account} does not hold {', '.join(missing)}"
                f"{' in team ' + team if team else ''}.",
                subject=f"account:{owner.id}",
            )
        scopes = [{"role": role.value, "team": team, **bound} for role in roles]
        tx.add(
            Token(
                id=token_id,
                account_id=owner.id,
                secret_hash=tokens.fingerprint(secret),
                scopes=scopes,
                created_at=tx.now,
                expires_at=tx.now + lifetime,
                revoked_at=None,
            )
        )
        tx.audit(
            f"token:{token_id}",
            account=owner.id,
            roles=[role.value for role in roles],
            team=team,
            **bound,
        )
        return TokenView(
            id=token_id,
            account=account,
            grants=[GrantView(role.value, team, environment) for role in roles],
            created_at=tx.now,
            expires_at=tx.now + lifetime,
            revoked_at=None,
            token=f"cs_{token_id}_{secret}",
        )


def revoke(store: Store, actor: Actor, token_id: str) -> None:
    """Revoke a token; from the next request on it is unknown."""
    with store.write(actor, Action.TOKEN_REVOKE) as tx:
        token = tx.get(Token, token_id, lock=True)
        if token.revoked_at is None:
            token.revoked_at = tx.now
        tx.audit(f"token:{token_id}", account=token.account_id)
