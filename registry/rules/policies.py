"""What an environment asks for before something may serve there: who must sign, and what the
evidence must show.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from registry.errors import Invalid
from registry.rules.actions import Action
from registry.rules.actors import PERMISSIONS
from registry.rules.gates import Contamination, Rule, Superiority, parse_rules
from registry.rules.refs import ENVIRONMENTS

VOTERS = tuple(sorted(role.value for role in PERMISSIONS[Action.REVIEW_VOTE]))
MAX_APPROVALS = 20
MAX_DAYS = 730


@dataclass(frozen=True, slots=True)
class Quorum:
    """How many different people must approve, in which roles, and whether each must speak for
    another team.
    """

    approvals: int
    roles: tuple[str, ...]
    distinct_teams: bool


@dataclass(frozen=True, slots=True)
class Policy:
    """One environment's policy; an approval under it lasts `approval_days` days.

    `chat_templates` says whether an adapter may bring a chat template of its own; every policy that
    says nothing of it, such as all that were published before it could, refuses.
    """

    environment: str
    quorum: Quorum
    votes: str
    evidence: tuple[Rule, ...]
    fallback_to_base: bool
    approval_days: int
    chat_templates: str = "refuse"


def _approvals(value: Any) -> bool:
    return type(value) is int and 2 <= value <= MAX_APPROVALS


def _roles(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and len(set(map(str, value))) == len(value)
        and set(map(str, value)) <= set(VOTERS)
    )


KEYS: dict[str, tuple[Any, str]] = {
    "environment": (lambda value: value in ENVIRONMENTS, f"one of {', '.join(ENVIRONMENTS)}"),
    "votes": (lambda value: value == "signed", "signed"),
    "fallback_to_base": (lambda value: isinstance(value, bool), "true or false"),
    "approval_days": (
        lambda value: type(value) is int and 1 <= value <= MAX_DAYS,
        f"days from 1 to {MAX_DAYS}",
    ),
}
OPTIONAL: dict[str, tuple[Any, str]] = {
    "chat_templates": (lambda value: value in ("refuse", "allow"), "refuse or allow"),
}
QUORUM: dict[str, tuple[Any, str]] = {
    "approvals": (
        _approvals,
        f"an integer from 2 to {MAX_APPROVALS}: nothing ships on one signature",
    ),
    "roles": (_roles, f"a list out of {', '.join(VOTERS)}, the roles that may vote"),
    "distinct_teams": (lambda value: isinstance(value, bool), "true or false"),
}


def _check(
    raw: Mapping[str, Any], keys: Mapping[str, tuple[Any, str]], within: str = "", also: str = ""
) -> list[str]:
    """What is unknown, missing or out of range; `also` names a key that is checked elsewhere."""
    known = {*keys, *also.split()}
    problems = [f"{within}{key}: there is no such key" for key in raw if key not in known]
    problems += [f"{within}{key}: is missing" for key in sorted(known) if key not in raw]
    wrong = [key for key, (holds, _) in keys.items() if key in raw and not holds(raw[key])]
    return problems + [f"{within}{key}: must be {keys[key][1]}" for key in wrong]


def parse(raw: Any) -> Policy:
    """Read a policy (the caller parsed its YAML); Invalid (`bad-policy`) names everything that is
    wrong at once.
    """
    if not isinstance(raw, Mapping):
        raise Invalid(
            "bad-policy",
            "The policy is no table of keys.",
            "Write it as the built-in ones are written.",
        )
    problems = _check(
        {key: value for key, value in raw.items() if key not in OPTIONAL},
        KEYS,
        also="quorum evidence",
    )
    problems += _check(
        raw, {key: OPTIONAL[key] for key in OPTIONAL if key in raw}, also=" ".join(map(str, raw))
    )
    quorum = raw.get("quorum", {})
    if isinstance(quorum, Mapping):
        problems += _check(quorum, QUORUM, "quorum.") if "quorum" in raw else []
    else:
        problems.append(f"quorum: must be a table of {', '.join(QUORUM)}")
    rules: tuple[Rule, ...] = ()
    if "evidence" in raw:
        rules, wrong = parse_rules(raw["evidence"])
        problems += wrong
    if problems:
        raise Invalid(
            "bad-policy",
            f"The policy cannot be used: {'; '.join(problems)}.",
            "Fix every point named and publish it again.",
            problems=problems,
        )
    return Policy(
        environment=raw["environment"],
        quorum=Quorum(
            quorum["approvals"], tuple(sorted(quorum["roles"])), quorum["distinct_teams"]
        ),
        votes=raw["votes"],
        evidence=rules,
        fallback_to_base=raw["fallback_to_base"],
        approval_days=raw["approval_days"],
        chat_templates=raw.get("chat_templates", "refuse"),
    )


def _name(rule: Rule) -> str:
    match rule:
        case Superiority():
            return "superiority"
        case Contamination():
            return "contamination"


def as_rules(policy: Policy) -> dict[str, Any]:
    """The policy as a plain document, the same for every way of writing it: what is stored, hashed
    and judged by.

    A key that came later stands in it only where it says more than its absence: what was published
    keeps its digest.
    """
    whole = asdict(policy)
    if policy.chat_templates == "refuse":
        del whole["chat_templates"]
    return {
        **whole,
        "quorum": {**asdict(policy.quorum), "roles": list(policy.quorum.roles)},
        "evidence": {_name(rule): asdict(rule) for rule in policy.evidence},
    }
