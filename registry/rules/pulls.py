"""Who may pull what: by role, by the state of a version, and by the environments it is approved or
serves in.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from registry.rules.actors import ACROSS_TEAMS, Actor, Grant, Role


@dataclass(frozen=True, slots=True)
class Standing:
    """What decides a pull of one version.

    `environments`: where it, or a version that stands on it as its base, is approved now or serves.
    """

    state: str
    created_by: UUID | None = None
    environments: frozenset[str] = frozenset()
    recall_reason: str | None = None


def _grants(actor: Actor, team: str) -> list[Grant]:
    return [
        one
        for one in actor.grants
        if one.team is None or one.team == team or one.role in ACROSS_TEAMS
    ]


def roles_in(actor: Actor, team: str) -> frozenset[Role]:
    """The roles by which an actor stands before a team's repositories; none: they do not exist for
    him.
    """
    return frozenset(grant.role for grant in _grants(actor, team))


def bound(actor: Actor, team: str) -> frozenset[str] | None:
    """The environments a gateway's token is bound to before a team's repositories; None: to none in
    particular.
    """
    grants = _grants(actor, team)
    if any(grant.role is not Role.GATEWAY or grant.environment is None for grant in grants):
        return None
    return frozenset(grant.environment for grant in grants if grant.environment is not None)


def works_in(actor: Actor) -> frozenset[str] | None:
    """The teams whose versions an actor pulls by another role than a gateway's; None: all
    teams'.
    """
    grants = [grant for grant in actor.grants if grant.role is not Role.GATEWAY]
    if actor.is_system or any(grant.team is None or grant.role in ACROSS_TEAMS for grant in grants):
        return None
    return frozenset(grant.team for grant in grants if grant.team is not None)


def refusal(actor: Actor, team: str, standing: Standing) -> str | None:
    """Why this actor may not pull this version; None when he may.

    A gateway pulls only what may serve: approved or serving somewhere, or, where its token is bound
    to an environment, there. All who work on versions pull whatever is registered; a draft only its
    maker and reviewers.
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
        return f"this version was recalled: {standing.recall_reason or 'no reason is kept'}"
    if standing.state == "deleted":
        return "this version was deleted"
    if roles != {Role.GATEWAY}:
        return None
    within = bound(actor, team)
    if standing.environments if within is None else standing.environments & within:
        return None
    where = "any environment" if within is None else " or ".join(sorted(within))
    return f"this version is not approved for {where}, or its approval is over"
