"""What an environment requires before something may serve there: signatures and evidence."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from registry.errors import Invalid
from registry.fields import (
    Field,
    by_path,
    choice,
    described,
    flag,
    integer,
    list_of,
    problems,
    table,
)
from registry.rules import gates
from registry.rules.actions import Action
from registry.rules.actors import PERMISSIONS
from registry.rules.refs import ENVIRONMENTS

VOTERS = tuple(sorted(role.value for role in PERMISSIONS[Action.REVIEW_VOTE]))
MAX_APPROVALS = 20
MAX_DAYS = 730


@dataclass(frozen=True, slots=True)
class Quorum:
    """How many different people must approve, in which roles, and whether from different teams."""

    approvals: int
    roles: tuple[str, ...]
    distinct_teams: bool


@dataclass(frozen=True, slots=True)
class Policy:
    """One environment's policy; an approval under it lasts `approval_days` days."""

    environment: str
    quorum: Quorum
    votes: str
    rules: tuple[gates.Rule, ...]
    fallback_to_base: bool
    approval_days: int


QUORUM: dict[str, Field] = {
    "approvals": integer(2, MAX_APPROVALS).because("nothing ships on one signature"),
    "roles": Field(
        list_of(choice(*VOTERS), 1, len(VOTERS), different=True).check,
        f"a list of different roles out of {', '.join(VOTERS)} (those that may vote)",
    ),
    "distinct_teams": flag(),
}
FIELDS: dict[str, Field] = {
    "environment": choice(*ENVIRONMENTS),
    "quorum": table(QUORUM),
    "votes": choice("signed"),
    **gates.FIELDS,
    "fallback_to_base": flag(),
    "approval_days": integer(1, MAX_DAYS),
}
"""The keys of a policy: who must sign, how long an approval lasts, what the gate judges by."""


def parse(raw: Any) -> Policy:
    """Read a policy, whose YAML the caller has parsed.

    Raises Invalid `bad-policy`, which lists everything that is wrong.
    """
    if wrong := problems(raw, FIELDS):
        raise Invalid(
            "bad-policy",
            described("The policy cannot be used", wrong),
            "Fix every point listed and publish it again.",
            problems=by_path(wrong),
        )
    quorum = raw["quorum"]
    return Policy(
        environment=raw["environment"],
        quorum=Quorum(
            quorum["approvals"], tuple(sorted(quorum["roles"])), quorum["distinct_teams"]
        ),
        votes=raw["votes"],
        rules=gates.rules_of(raw),
        fallback_to_base=raw["fallback_to_base"],
        approval_days=raw["approval_days"],
    )


def as_rules(policy: Policy) -> dict[str, Any]:
    """The policy as a plain document, which is stored, hashed and used by the gate.

    It is the same for every way of writing the policy. It contains an optional key only where its
    value is not the default (`Rule.settings`).
    """
    evidence = {rule.name: rule.settings() for rule in policy.rules if not rule.always}
    others = {
        key: value for rule in policy.rules if rule.always for key, value in rule.settings().items()
    }
    return {
        "environment": policy.environment,
        "quorum": {**asdict(policy.quorum), "roles": list(policy.quorum.roles)},
        "votes": policy.votes,
        "evidence": evidence,
        "fallback_to_base": policy.fallback_to_base,
        "approval_days": policy.approval_days,
        **others,
    }
