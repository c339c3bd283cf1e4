"""Create people and services, and grant them roles."""

from __future__ import annotations

from uuid import UUID, uuid4

from registry.db import accounts
from registry.db.accounts import Account, RoleGrant
from registry.db.store import Store
from registry.errors import Conflict, Invalid
from registry.rules.actions import Action
from registry.rules.actors import SERVICE_ROLES, Actor, parse_roles
from registry.rules.refs import NAME


def create(store: Store, actor: Actor, name: str, roles: list[str], team: str | None) -> UUID:
    """Create the account if it is missing, and grant it the roles that it lacks.

    The same call again changes nothing. Raises Invalid for a bad name, team or role, Conflict when
    a person would get a role of a service, or a service one of a person.
    """
    parsed = parse_roles(roles)
    if not NAME.fullmatch(name):
        raise Invalid(
            "bad-account-name",
            f"'{name[:60]}' cannot name an account.",
        )
    # People may be of a team that can have no line: auditors often are of one called audit.
    if team is not None and not NAME.fullmatch(team):
        raise Invalid(
            "bad-team",
            f"'{team[:60]}' cannot name a team.",
        )
    kind = "service" if parsed[0] in SERVICE_ROLES else "person"
    with store.write(actor, Action.ACCOUNT_CREATE) as tx:
        account = accounts.find(tx.session, name)
        if account is None:
            commitment = accounts.seal(tx.session, "account", name)
            account = tx.add(
                Account(id=uuid4(), kind=kind, name_commitment=commitment, created_at=tx.now)
            )
        elif account.kind != kind:
            raise Conflict(
                "account-kind",
                f"'{name}' is a {account.kind}; {parsed[0].value} is a role of a {kind}.",
            )
        granted = {(grant.role, grant.team) for grant in accounts.grants_of(tx.session, account.id)}
        for role in parsed:
            if (role.value, team) not in granted:
                tx.add(
                    RoleGrant(
                        id=uuid4(),
                        account_id=account.id,
                        role=role.value,
                        team=team,
                        granted_at=tx.now,
                    )
                )
        tx.audit(
            f"account:{account.id}", kind=kind, roles=[role.value for role in parsed], team=team
        )
        return account.id
