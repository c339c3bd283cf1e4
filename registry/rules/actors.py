"""Who may do what: one table of role, action and team that denies by default."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from registry.errors import Forbidden, Invalid, Unauthenticated
from registry.rules.actions import STEP_UP, Action
from registry.rules.refs import check_environment


class Role(StrEnum):
    """A role of an account. People have the first four, services the last two."""

    ADMIN = "admin"
    ENGINEER = "engineer"
    REVIEWER = "reviewer"
    AUDITOR = "auditor"
    TRAINER = "trainer"
    GATEWAY = "gateway"


SERVICE_ROLES = frozenset({Role.TRAINER, Role.GATEWAY})
FRESH = timedelta(hours=12)
"""How long a sign-in counts as fresh."""

PERMISSIONS: dict[Action, frozenset[Role]] = {
    Action.ACCOUNT_CREATE: frozenset({Role.ADMIN}),
    Action.TOKEN_CREATE: frozenset({Role.ADMIN}),
    Action.TOKEN_REVOKE: frozenset({Role.ADMIN}),
    Action.KEY_ENROLL: frozenset(Role),
    Action.USE_CASE_REGISTER: frozenset({Role.ENGINEER, Role.REVIEWER}),
    Action.USE_CASE_UPDATE: frozenset({Role.ENGINEER, Role.REVIEWER}),
    Action.POLICY_PUBLISH: frozenset({Role.ADMIN}),
    Action.VERSION_REGISTER: frozenset({Role.ENGINEER, Role.TRAINER}),
    Action.DATASET_REGISTER: frozenset({Role.ENGINEER}),
    Action.PROFILE_DEFINE: frozenset({Role.ENGINEER}),
    Action.SUITE_FREEZE: frozenset({Role.ENGINEER, Role.REVIEWER}),
    Action.TRAINING_QUEUE: frozenset({Role.ENGINEER}),
    Action.EVAL_QUEUE: frozenset({Role.ENGINEER, Role.REVIEWER}),
    Action.WORK_LEASE: frozenset({Role.TRAINER}),
    Action.WORK_REQUEUE: frozenset({Role.TRAINER}),
    Action.WORK_RECLAIM: frozenset(),
    Action.WORK_FAIL: frozenset({Role.TRAINER}),
    Action.WORK_CANCEL: frozenset({Role.ENGINEER}),
    Action.TRAINING_FINISH: frozenset({Role.TRAINER}),
    Action.EVAL_FINISH: frozenset({Role.TRAINER}),
    Action.REVIEW_SUBMIT: frozenset({Role.ENGINEER}),
    Action.REVIEW_VOTE: frozenset({Role.REVIEWER}),
    Action.REVIEW_WITHDRAW: frozenset({Role.ENGINEER}),
    Action.REVIEW_EXPIRE: frozenset(),
    Action.ROLLOUT_START: frozenset({Role.ENGINEER}),
    Action.ROLLOUT_PROMOTE: frozenset({Role.ENGINEER}),
    Action.CHANNEL_ROLL_BACK: frozenset({Role.ENGINEER}),
    Action.RECALL: frozenset({Role.ENGINEER, Role.REVIEWER}),
    Action.DEPRECATE: frozenset({Role.ENGINEER}),
    Action.TAG_SET: frozenset({Role.ENGINEER}),
    Action.RETENTION_DEFINE: frozenset({Role.ADMIN}),
    Action.RETENTION_ASSIGN: frozenset({Role.ADMIN, Role.ENGINEER}),
    # A hold only preserves, so either role may place one at once. It protects against deletion, so
    # only reviewers lift it.
    Action.HOLD_PLACE: frozenset({Role.ADMIN, Role.REVIEWER}),
    Action.HOLD_LIFT: frozenset({Role.REVIEWER}),
    Action.VERSION_DELETE: frozenset({Role.ENGINEER}),
    Action.DRAFT_DISCARD: frozenset({Role.ENGINEER}),
    Action.DRAFT_EXPIRE: frozenset(),
    Action.BLOB_COLLECT: frozenset({Role.ADMIN}),
    Action.QUOTA_SET: frozenset({Role.ADMIN}),
}

UPLOADERS = frozenset({Role.ENGINEER, Role.TRAINER})
"""Roles that send bytes. What the bytes become is decided when they are registered."""

PEOPLE = frozenset(Role) - SERVICE_ROLES


class Matter(StrEnum):
    """What an actor may read only with a certain role, even in a team that they see."""

    KEEPING = "what is kept and held"
    CASE = "the case and the reasons of a legal hold"
    QUOTA = "what a team may use"
    COLLECTION = "what a collection would take"
    LOG = "the whole log as one file"


# Everybody whose deletion may be refused sees that a hold exists, what it covers and since when.
# Only those who place and lift holds, and those who supervise them, see the case. A gateway and a
# trainer delete nothing and need none of this.
READERS: dict[Matter, frozenset[Role]] = {
    Matter.KEEPING: PEOPLE,
    Matter.CASE: PERMISSIONS[Action.HOLD_PLACE] | PERMISSIONS[Action.HOLD_LIFT] | {Role.AUDITOR},
    Matter.QUOTA: PEOPLE,
    Matter.COLLECTION: frozenset({Role.ADMIN, Role.AUDITOR}),
    Matter.LOG: frozenset({Role.ADMIN, Role.AUDITOR, Role.REVIEWER}),
}

# Reviewers judge across teams. Their own team (compliance, risk) says for whom they speak, not what
# they may see.
ACROSS_TEAMS = frozenset({Role.ADMIN, Role.REVIEWER, Role.AUDITOR})


@dataclass(frozen=True, slots=True)
class Grant:
    """One role in one team, or in all teams where `team` is None.

    A gateway's token may be bound to one environment.
    """

    role: Role
    team: str | None
    environment: str | None = None


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts, with which grants; `account` is None for the registry's own upkeep."""

    account: UUID | None
    name: str
    grants: frozenset[Grant]
    via: str = "rest"
    signed_in: datetime | None = None
    request_id: str = ""

    @property
    def is_system(self) -> bool:
        return self.account is None

    @property
    def is_service(self) -> bool:
        return bool(self.grants) and all(grant.role in SERVICE_ROLES for grant in self.grants)

    def teams(self) -> frozenset[str] | None:
        """The teams whose rows this actor sees; None means all of them."""
        if self.is_system or any(
            grant.team is None or grant.role in ACROSS_TEAMS for grant in self.grants
        ):
            return None
        return frozenset(grant.team for grant in self.grants if grant.team is not None)

    def sees(self, team: str | None) -> bool:
        teams = self.teams()
        return teams is None or team is None or team in teams

    def holds(self, role: Role) -> bool:
        return any(grant.role is role for grant in self.grants)


SYSTEM = Actor(account=None, name="system", grants=frozenset(), via="system")


def allowed(actor: Actor, action: Action, team: str | None) -> bool:
    """Whether a grant allows this act in this team.

    Reviewers, administrators and auditors act in every team.
    """
    if actor.is_system:
        return True
    roles = PERMISSIONS[action]
    return any(
        grant.role in roles
        and (grant.team is None or team is None or grant.team == team or grant.role in ACROSS_TEAMS)
        for grant in actor.grants
    )


def require(actor: Actor, action: Action, team: str | None, now: datetime) -> None:
    """Check that the actor may do this.

    Raises Forbidden `role-missing`, which names the roles that may, or Unauthenticated
    `fresh-sign-in`.
    """
    if not allowed(actor, action, team):
        roles = sorted(role.value for role in PERMISSIONS[action]) or ["the registry itself"]
        where = f" in team {team}" if team else ""
        raise Forbidden(
            "role-missing",
            f"{actor.name} may not {action.value}{where}: it needs the role {' or '.join(roles)}.",
            action=action.value,
            team=team,
            roles=roles,
        )
    if (
        action in STEP_UP
        and not actor.is_system
        and (actor.signed_in is None or now - actor.signed_in > FRESH)
    ):
        raise Unauthenticated(
            "fresh-sign-in",
            f"{action.value} needs a fresh sign-in: this token was created more than 12 hours ago.",
        )


def may_read(actor: Actor, matter: Matter) -> bool:
    """Whether a role of the actor may read this, in the teams that they see."""
    return actor.is_system or any(grant.role in READERS[matter] for grant in actor.grants)


def require_reader(actor: Actor, matter: Matter) -> None:
    """Raise Forbidden `role-missing`, which names the roles, unless the actor may read this."""
    if not may_read(actor, matter):
        roles = sorted(role.value for role in READERS[matter])
        raise Forbidden(
            "role-missing",
            f"{actor.name} may not read {matter.value}: it needs the role {' or '.join(roles)}.",
            "Ask somebody who has one of these roles.",
            roles=roles,
        )


def check_bound(roles: list[Role], environment: str | None) -> str | None:
    """Check that only a gateway is bound to an environment: all others work across environments."""
    if environment is not None and set(roles) != {Role.GATEWAY}:
        raise Invalid(
            "environment-not-for-role",
            "Only a gateway's token can be bound to an environment.",
        )
    return check_environment(environment) if environment is not None else None


def parse_roles(names: list[str]) -> list[Role]:
    """Read the names of roles.

    Raises Invalid `bad-role` for an unknown one, `mixed-roles` for roles of people and of services
    together: an account is never both.
    """
    unknown = sorted(set(names) - {role.value for role in Role})
    if unknown or not names:
        raise Invalid(
            "bad-role",
            f"There is no role {', '.join(unknown) or '(none given)'}.",
            f"Use {', '.join(role.value for role in Role)}.",
        )
    roles = [Role(name) for name in dict.fromkeys(names)]
    if len({role in SERVICE_ROLES for role in roles}) > 1:
        raise Invalid(
            "mixed-roles",
            "An account is a person or a service, not both.",
        )
    return roles
