"""A gate: a policy's rules against the evidence.

The answer has three values and is a pure function, so that a second run gives the same bytes. No
data is never a pass and never a failure: the gate waits. The verdict is the worst of its rules:
fail before inconclusive before pass. A new rule is one file beside this one and its class in
`RULES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from registry.errors import Invalid
from registry.fields import Field, described, problems, table
from registry.rules.gates.chat_template import ChatTemplate
from registry.rules.gates.companions import Companions
from registry.rules.gates.contamination import Contamination
from registry.rules.gates.effect import Effect
from registry.rules.gates.rule import SEVERITY, Outcome, Rule, RuleResult
from registry.rules.gates.superiority import Superiority

RULES: tuple[type[Rule], ...] = (Superiority, Contamination, Effect, Companions, ChatTemplate)
"""Every rule, in the order in which rules are judged and shown."""
BY_NAME = {rule.name: rule for rule in RULES}
NAMED = {rule.name: table(rule.fields).optional() for rule in RULES if not rule.always}
AT_LEAST_ONE = (
    f"a table with at least one of {', '.join(NAMED)} (without a rule everything would pass)"
)
FIELDS: dict[str, Field] = {
    "evidence": Field(
        lambda value: isinstance(value, Mapping) and bool(value), AT_LEAST_ONE, fields=NAMED
    )
} | {key: field for rule in RULES if rule.always for key, field in rule.fields.items()}
"""The keys of a policy that the gate uses."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The worst outcome, and the outcome of every rule."""

    outcome: Outcome
    rules: tuple[RuleResult, ...]


def rules_of(policy: Mapping[str, Any]) -> tuple[Rule, ...]:
    """The rules of a valid policy, in their fixed order; its other keys are ignored."""
    rules = []
    for rule in RULES:
        settings = policy if rule.always else policy["evidence"].get(rule.name)
        if settings is not None:
            rules.append(rule.of(settings))
    return tuple(rules)


def judge(policy: Mapping[str, Any], evidence: Mapping[str, Any]) -> Verdict:
    """Judge the evidence by a policy as it was published (`policies.as_rules`).

    Other keys of both are ignored. Raises Invalid `bad-policy` for a rule that does not exist,
    `bad-evidence` for evidence in another form or counts that contradict each other.
    """
    if wrong := problems({key: policy[key] for key in FIELDS if key in policy}, FIELDS):
        raise Invalid(
            "bad-policy",
            described("This policy cannot judge evidence", wrong),
            "Publish it again.",
        )
    try:
        judged = [rule.judge(evidence.get(rule.reads)) for rule in rules_of(policy)]
    except (KeyError, TypeError, AttributeError) as error:
        raise Invalid(
            "bad-evidence",
            f"The evidence does not have the form that a gate reads: {str(error)[:120]}.",
        ) from error
    results = tuple(result for result in judged if result is not None)
    outcomes = [result.outcome for result in results]
    return Verdict(max(outcomes, key=SEVERITY.index, default="inconclusive"), results)


__all__ = [
    "BY_NAME",
    "FIELDS",
    "RULES",
    "SEVERITY",
    "ChatTemplate",
    "Companions",
    "Contamination",
    "Effect",
    "Outcome",
    "Rule",
    "RuleResult",
    "Superiority",
    "Verdict",
    "judge",
    "rules_of",
]
