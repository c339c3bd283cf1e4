"""Who may pull a version: by role, by its state, and by the environments it is approved for."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

from registry.rules.actors import ACROSS_TEAMS, Actor, Grant, Role

ANSWERLESS = frozenset({Role.GATEWAY, Role.TRAINER})
"""The roles that read no expected answers."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What decides a pull of one version.

    `environments` are those where it, or a version that has it as its base, is approved or serves.
    """

    state: str
    created_by: UUID | None = None
    environments: frozenset[str] = frozenset()
    recall_reason: str | None = None


def _grants(actor: Actor, team: str) -> list[Grant]:
    return [
        grant
        for grant in actor.grants
        if grant.team is None or grant.team == team or grant.role in ACROSS_TEAMS
    ]


def roles_in(actor: Actor, team: str) -> frozenset[Role]:
    """The roles that an actor has for a team's repositories.

    Without a role the repositories do not exist for the actor.
    """
    return frozenset(grant.role for grant in _grants(actor, team))


def sees_answers(actor: Actor, team: str) -> bool:
    """Whether an actor reads a team's expected answers, and what models answered.

    Trainers do not: they answer suites, and the registry scores them. Gateways read neither. A data
    set counts as answers if it has rows of other splits than train, which suites are made of.
    """
    return bool(roles_in(actor, team) - ANSWERLESS)


def bound(actor: Actor, team: str) -> frozenset[str] | None:
    """The environments that a gateway's token is bound to for a team; None when it is not bound."""
    grants = _grants(actor, team)
    if any(grant.role is not Role.GATEWAY or grant.environment is None for grant in grants):
        return None
    return frozenset(grant.environment for grant in grants if grant.environment is not None)


def works_in(actor: Actor) -> frozenset[str] | None:
    """The teams whose versions an actor pulls in another role than gateway; None for all teams."""
    return _teams_but(actor, {Role.GATEWAY})


def answers_in(actor: Actor) -> frozenset[str] | None:
    """The teams of which `sees_answers` is true; None for all teams."""
    return _teams_but(actor, ANSWERLESS)


def _teams_but(actor: Actor, roles: Collection[Role]) -> frozenset[str] | None:
    grants = [grant for grant in actor.grants if grant.role not in roles]
    if actor.is_system or any(grant.team is None or grant.role in ACROSS_TEAMS for grant in grants):
        return None
    return frozenset(grant.team for grant in grants if grant.team is not None)


def refusal(actor: Actor, team: str, standing: Standing) -> str | None:
    """Why this actor may not pull this version; None when they may.

    A gateway pulls only what may serve: what is approved or serving in the environments that its
    token is bound to, or in any environment when it is not bound. Everybody who works on versions
    pulls what is registered. Only its maker and reviewers pull a draft.
    """
    roles = roles_in(actor, team)
    if not roles:
        return "there is no such version"
    if standing.state == "draft":
        maker = actor.account is not None and actor.account == standing.created_by
        if Role.REVIEWER in roles or (maker and roles != {Role.GATEWAY}):
            return None
        return "there is no such version"
    if standing.state == "recalled":
        return f"this version was recalled: {standing.recall_reason or 'no reason is recorded'}"
    if standing.state == "deleted":
        return "this version was deleted"
    if roles != {Role.GATEWAY}:
        return None
    within = bound(actor, team)
    if standing.environments if within is None else standing.environments & within:
        return None
    where = "any environment" if within is None else " or ".join(sorted(within))
    return f"this version is not approved for {where}, or its approval has expired"
