"""People, services, tokens and keys over REST."""

from __future__ import annotations

from fastapi import APIRouter

from registry.api.door import Caller, RestRoute, TheStore
from registry.api.rest.forms import TokenId
from registry.api.rest.schemas import NewAccount, NewKey, NewToken
from registry.commands import accounts as commands
from registry.commands import keys, tokens
from registry.queries import accounts as queries
from registry.views.accounts import AccountView, KeyView, TokenView

router = APIRouter(route_class=RestRoute, tags=["people"])


@router.get("/me", responses={404: {}})
def me(store: TheStore, caller: Caller) -> AccountView:
    """The caller's own account, with its roles and keys."""
    return queries.me(store, caller)


@router.post("/accounts", status_code=201)
def create_account(store: TheStore, caller: Caller, body: NewAccount) -> AccountView:
    """Create an account unless it exists, and grant it roles."""
    commands.create(store, caller, body.name, body.roles, body.team)
    return next(each for each in queries.accounts(store, caller) if each.name == body.name)


@router.get("/accounts")
def accounts(store: TheStore, caller: Caller) -> list[AccountView]:
    """Every account, with roles and keys."""
    return queries.accounts(store, caller)


@router.post("/tokens", status_code=201)
def create_token(store: TheStore, caller: Caller, body: NewToken) -> TokenView:
    """Create a token. Its secret is in this answer and nowhere else."""
    return tokens.create(
        store,
        caller,
        tokens.TokenRequest(body.account, body.roles, body.team, body.days, body.environment),
    )


@router.get("/tokens")
def list_tokens(store: TheStore, caller: Caller) -> list[TokenView]:
    """The caller's tokens, or every token for an administrator; never a secret."""
    return queries.tokens(store, caller)


@router.delete("/tokens/{token_id}", status_code=204)
def revoke_token(store: TheStore, caller: Caller, token_id: TokenId) -> None:
    """Revoke a token at once."""
    tokens.revoke(store, caller, token_id)


@router.post("/keys", status_code=201)
def enroll_key(store: TheStore, caller: Caller, body: NewKey) -> KeyView:
    """Enrol an Ed25519 key of the caller."""
    return keys.enroll(store, caller, body.public_key, body.label, body.proof)


@router.get("/keys")
def list_keys(store: TheStore, caller: Caller) -> list[KeyView]:
    """Every enrolled public key."""
    return queries.keys(store, caller)
