"""Who sees whom, and that no answer holds a secret."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from registry.commands import tokens
from registry.db.store import Store
from registry.errors import NotFound
from registry.queries import accounts
from registry.rules.actors import SYSTEM, Actor, Grant, Role
from tests.build import Person, a_person


@pytest.fixture
def admin(store: Store) -> Person:
    """An administrator of everything."""
    return a_person(store, "admin")


def test_me_tells_what_this_token_allows(store: Store, team: str) -> None:
    person = a_person(store, "engineer", "reviewer", team=team)
    narrow = Actor(person.id, person.actor.name, frozenset({Grant(Role.ENGINEER, team)}))
    view = accounts.me(store, narrow)
    assert (view.name, view.kind) == (person.actor.name, "person")
    assert [(grant.role, grant.team) for grant in view.grants] == [("engineer", team)]
    assert person.key is not None
    assert [key.id for key in view.keys] == [person.key.id]
    with pytest.raises(NotFound):
        accounts.me(store, SYSTEM)


def test_people_see_their_teams_and_themselves(store: Store, admin: Person, team: str) -> None:
    mine, colleague = a_person(store, "engineer", team=team), a_person(store, "trainer", team=team)
    other = a_person(store, "engineer", team=f"{team}x")
    seen = {account.name for account in accounts.accounts(store, mine.actor)}
    assert {mine.actor.name, colleague.actor.name, admin.actor.name} <= seen
    assert other.actor.name not in seen
    assert other.actor.name in {account.name for account in accounts.accounts(store, admin.actor)}
    assert other.key is not None
    assert other.key.id not in {key.id for key in accounts.keys(store, mine.actor)}
    assert other.key.id in {key.id for key in accounts.keys(store, admin.actor)}


def test_tokens_are_ones_own_and_never_tell_their_secret(
    store: Store, admin: Person, team: str
) -> None:
    person = a_person(store, "engineer", team=team)
    minted = tokens.create(
        store, SYSTEM, tokens.TokenRequest(person.actor.name, ["engineer"], team, 7)
    )
    (own,) = accounts.tokens(store, person.actor)
    assert own.id == minted.id
    assert [(grant.role, grant.team) for grant in own.grants] == [("engineer", team)]
    assert minted.token is not None
    secret = minted.token.rpartition("_")[2]
    assert secret not in str(asdict(own))
    assert own.token is None
    assert accounts.tokens(store, a_person(store, "engineer", team=team).actor) == []
    assert minted.id in {token.id for token in accounts.tokens(store, admin.actor)}
    tokens.revoke(store, SYSTEM, minted.id)
    assert accounts.tokens(store, person.actor)[0].revoked_at is not None
