"""Who may pull what: by role, by the state of a version, and by what is approved or serves."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from registry.rules.actors import ACROSS_TEAMS, Actor, Role


@dataclass(frozen=True, slots=True)
class Standing:
    """What decides a pull of one version; `approved`, `live` and `carries` hold in any environment, now.

    `carries`: an approved or serving version stands on this one as its base.
    """

    state: str
    created_by: UUID | None = None
    approved: bool = False
    live: bool = False
    carries: bool = False
    recall_reason: str | None = None


def roles_in(actor: Actor, team: str) -> frozenset[Role]:
    """The roles by which an actor stands before a team's repositories; none: they do not exist for him."""
    return frozenset(
        grant.role for grant in actor.grants if grant.team is None or grant.team == team or grant.role in ACROSS_TEAMS
    )


def refusal(actor: Actor, team: str, standing: Standing) -> str | None:
    """Why this actor may not pull this version; None when he may. He sees the team: that was judged before."""
    roles = roles_in(actor, team)
    if not roles:
        return "there is no such version"
    if standing.state == "recalled":
        return f"this version was recalled: {standing.recall_reason or 'no reason is kept'}"
    if standing.state == "deleted":
        return "this version was deleted"
    if standing.state == "draft":
        maker = actor.account is not None and actor.account == standing.created_by
        if Role.REVIEWER in roles or (maker and roles != {Role.GATEWAY}):
            return None
        return "there is no such version"
    if roles == {Role.GATEWAY} and not (standing.approved or standing.live or standing.carries):
        return "this version is not approved for any environment, or its approval is over"
    return None
