"""A gate: a policy's evidence rules against the evidence, three-valued and pure, so that a re-run
gives the same bytes.

No data is never a pass and never a failure: it holds. The verdict is the worst of its rules, fail
before inconclusive before pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, assert_never

from registry.errors import Invalid
from registry.rules.evals import METRICS, Paired, difference, mcnemar

Outcome = Literal["pass", "fail", "inconclusive"]
SEVERITY: tuple[Outcome, ...] = ("pass", "inconclusive", "fail")


@dataclass(frozen=True, slots=True)
class Superiority:
    """The adapter must beat what it stands on: the low end of the interval of its gain lies above
    `min_gain_points`.

    Points are percentage points. It fails when the whole interval lies at or below the wanted gain,
    and is inconclusive in between or with fewer than `min_items` items.
    """

    metric: str
    over: str
    confidence: float
    min_items: int
    min_gain_points: float


@dataclass(frozen=True, slots=True)
class Contamination:
    """At most `exact` items of the suite may have their prompt among the rows trained on."""

    exact: int


Rule = Superiority | Contamination


@dataclass(frozen=True, slots=True)
class RuleResult:
    """One rule's outcome, in a sentence and in the numbers it rests on (rounded to 6 places)."""

    rule: str
    outcome: Outcome
    detail: str
    numbers: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The worst outcome, and every rule's own."""

    outcome: Outcome
    rules: tuple[RuleResult, ...]


def _number(value: Any, low: float, high: float) -> bool:
    return type(value) in (int, float) and low <= value < high


FIELDS: dict[str, dict[str, tuple[Any, str]]] = {
    "superiority": {
        "metric": (lambda value: value in tuple(METRICS), f"one of {', '.join(METRICS)}"),
        "over": (lambda value: value == "base", "base"),
        "confidence": (lambda value: _number(value, 0.5, 1), "a number from 0.5 to below 1"),
        "min_items": (lambda value: type(value) is int and value >= 1, "an integer from 1"),
        "min_gain_points": (
            lambda value: _number(value, 0, 100),
            "percentage points from 0 to below 100",
        ),
    },
    "contamination": {
        "exact": (lambda value: type(value) is int and value >= 0, "an integer from 0")
    },
}


def parse_rules(raw: Any) -> tuple[tuple[Rule, ...], list[str]]:
    """The evidence rules in their fixed order, and everything wrong with them; the rules count only
    if nothing is.
    """
    if not isinstance(raw, Mapping) or not raw:
        return (), ["evidence: at least one rule is needed, or anything would pass"]
    problems = [f"evidence.{name}: there is no such rule" for name in raw if name not in FIELDS]
    rules: list[Rule] = []
    for name, fields in FIELDS.items():
        if name not in raw:
            continue
        given = raw[name]
        if not isinstance(given, Mapping):
            problems.append(f"evidence.{name}: must be a table of {', '.join(fields)}")
            continue
        problems += [
            f"evidence.{name}.{key}: there is no such key" for key in given if key not in fields
        ]
        problems += [f"evidence.{name}.{key}: is missing" for key in fields if key not in given]
        wrong = [
            key for key, (holds, _) in fields.items() if key in given and not holds(given[key])
        ]
        problems += [f"evidence.{name}.{key}: must be {fields[key][1]}" for key in wrong]
        if not problems:
            rules.append(Superiority(**given) if name == "superiority" else Contamination(**given))
    return tuple(rules), problems


def judge(policy_rules: Mapping[str, Any], evidence: Mapping[str, Any]) -> Verdict:
    """Hold the evidence against a policy as it was published (`policies.as_rules`); other keys of
    both are ignored.

    Raises Invalid: `bad-policy` for a rule it does not know, `bad-evidence` for counts that
    contradict each other.
    """
    rules, problems = parse_rules(policy_rules.get("evidence"))
    if problems:
        raise Invalid(
            "bad-policy",
            f"The policy cannot be judged by: {'; '.join(problems)}.",
            "Publish it again.",
        )
    try:
        results = (
            *(_apply(rule, evidence) for rule in rules),
            *_chat_template(policy_rules, evidence),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise Invalid(
            "bad-evidence",
            f"The evidence has not the form a gate reads: {str(error)[:120]}.",
        ) from error
    return Verdict(max((result.outcome for result in results), key=SEVERITY.index), results)


def _chat_template(
    policy_rules: Mapping[str, Any], evidence: Mapping[str, Any]
) -> tuple[RuleResult, ...]:
    """A chat template that is not the base's needs a policy that allows it; without one there is
    nothing to judge.
    """
    found = evidence.get("chat_template")
    if found is None:
        return ()
    allowed = policy_rules.get("chat_templates") == "allow"
    ends = (
        "the policy allows that, and people decide on what it changes"
        if allowed
        else "the policy allows none"
    )
    detail = f"The adapter brings a chat template of its own ({found['digest']}); {ends}."
    return (
        RuleResult(
            "chat_template", "pass" if allowed else "fail", detail, {"digest": found["digest"]}
        ),
    )


def _apply(rule: Rule, evidence: Mapping[str, Any]) -> RuleResult:
    match rule:
        case Superiority():
            return _superiority(rule, evidence.get("eval"))
        case Contamination():
            return _contamination(rule, evidence.get("contamination"))
        case _:
            assert_never(rule)


def _superiority(rule: Superiority, found: Mapping[str, Any] | None) -> RuleResult:
    def result(outcome: Outcome, detail: str, **numbers: Any) -> RuleResult:
        return RuleResult("superiority", outcome, detail, numbers)

    if found is None:
        return result(
            "inconclusive", "The suite has not been run on both the adapter and its base."
        )
    if found["metric"] != rule.metric:
        return result(
            "inconclusive",
            f"The suite measures {found['metric']}, the policy asks for {rule.metric}.",
        )
    paired = _paired(found)
    if paired.n < rule.min_items:
        return result(
            "inconclusive",
            f"{paired.n} items are too few to tell: the policy asks for {rule.min_items}.",
            n=paired.n,
            min_items=rule.min_items,
        )
    gain, low, high = (round(100 * value, 6) for value in difference(paired, rule.confidence))
    outcome: Outcome
    if low > rule.min_gain_points:
        outcome, words = "pass", "is better"
    elif high <= rule.min_gain_points:
        outcome, words = "fail", "is not better"
    else:
        outcome, words = "inconclusive", "may or may not be better"
    detail = (
        f"On {paired.n} items the adapter {words} than its base by more than "
        f"{rule.min_gain_points:g} points: gain "
        f"{gain:+.1f}, {100 * rule.confidence:g} % interval {low:+.1f} to {high:+.1f}."
    )
    return result(
        outcome,
        detail,
        n=paired.n,
        min_items=rule.min_items,
        adapter_correct=paired.both + paired.only_adapter,
        base_correct=paired.both + paired.only_base,
        both=paired.both,
        only_adapter=paired.only_adapter,
        only_base=paired.only_base,
        neither=paired.neither,
        gain_points=gain,
        low_points=low,
        high_points=high,
        confidence=rule.confidence,
        min_gain_points=rule.min_gain_points,
        mcnemar_p=round(mcnemar(paired.only_adapter, paired.only_base), 6),
    )


def _paired(found: Mapping[str, Any]) -> Paired:
    """The paired counts, if they add up to what both runs say on their own."""
    paired = Paired(**found["paired"])
    counts = (paired.both, paired.only_adapter, paired.only_base, paired.neither)
    if (
        min(counts) < 0
        or sum(counts) != paired.n
        or paired.both + paired.only_adapter != found["adapter"]["correct"]
        or paired.both + paired.only_base != found["base"]["correct"]
    ):
        raise Invalid(
            "bad-evidence",
            "The paired counts contradict the counts of the two eval runs.",
            "Score both eval runs again from their samples.",
        )
    return paired


def _contamination(rule: Contamination, found: Mapping[str, Any] | None) -> RuleResult:
    if found is None or not found["items"] or not found["train_rows"]:
        return RuleResult(
            "contamination",
            "inconclusive",
            "The rows trained on, or the suite, are not known.",
            {},
        )
    exact = found["exact"]
    numbers = {
        "exact": exact,
        "allowed": rule.exact,
        "items": found["items"],
        "train_rows": found["train_rows"],
    }
    detail = (
        f"{exact} of {found['items']} items stand among the {found['train_rows']} rows trained on; "
        f"{rule.exact} are allowed."
    )
    return RuleResult("contamination", "fail" if exact > rule.exact else "pass", detail, numbers)
