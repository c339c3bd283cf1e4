"""Policies: everything wrong is named at once, and the built-in ones are what they say."""

from __future__ import annotations

import copy
import json
from importlib import resources
from typing import Any

import pytest
import yaml

from registry.documents.canonical import digest
from registry.errors import Invalid
from registry.rules.gates import ChatTemplate, Companions, Contamination, Effect, Superiority, judge
from registry.rules.policies import Policy, Quorum, as_rules, parse
from registry.rules.refs import ENVIRONMENTS

GOOD: dict[str, Any] = {
    "environment": "production",
    "quorum": {"approvals": 2, "roles": ["reviewer"], "distinct_teams": True},
    "votes": "signed",
    "evidence": {
        "superiority": {
            "metric": "exact_match",
            "over": "base",
            "confidence": 0.95,
            "min_items": 40,
            "min_gain_points": 0,
        },
        "contamination": {"exact": 0},
    },
    "fallback_to_base": True,
    "approval_days": 180,
}
MISSING = object()


def changed(path: str, value: Any) -> dict[str, Any]:
    raw = copy.deepcopy(GOOD)
    *parents, last = path.split(".")
    inner = raw
    for parent in parents:
        inner = inner[parent]
    if value is MISSING:
        del inner[last]
    else:
        inner[last] = value
    return raw


def builtin(environment: str) -> str:
    return resources.files("registry").joinpath(f"policies/{environment}.yaml").read_text("utf-8")


def test_parse_and_back() -> None:
    policy = parse(GOOD)
    assert policy == Policy(
        environment="production",
        quorum=Quorum(approvals=2, roles=("reviewer",), distinct_teams=True),
        votes="signed",
        rules=(
            Superiority("exact_match", "base", 0.95, 40, 0),
            Contamination(0),
            Effect("weights"),
            Companions("refuse"),
            ChatTemplate("refuse"),
        ),
        fallback_to_base=True,
        approval_days=180,
    )
    assert as_rules(policy) == GOOD
    assert parse(as_rules(policy)) == policy
    assert json.loads(json.dumps(as_rules(policy))) == GOOD


def test_a_key_that_came_later_changes_nothing_that_was_published() -> None:
    assert ChatTemplate("refuse") in parse(GOOD).rules
    assert as_rules(parse(GOOD | {"chat_templates": "refuse"})) == GOOD
    allowing = GOOD | {"chat_templates": "allow"}
    assert ChatTemplate("allow") in parse(allowing).rules
    assert as_rules(parse(allowing)) == allowing
    assert parse(as_rules(parse(allowing))) == parse(allowing)


def test_order_of_writing_does_not_change_the_digest() -> None:
    turned = {key: GOOD[key] for key in reversed(GOOD)}
    turned["evidence"] = dict(reversed(GOOD["evidence"].items()))
    assert digest(as_rules(parse(turned))) == digest(as_rules(parse(GOOD)))
    assert digest(as_rules(parse(changed("approval_days", 181)))) != digest(as_rules(parse(GOOD)))


LEAVES = [
    *GOOD,
    "quorum.approvals",
    "quorum.roles",
    "quorum.distinct_teams",
    "evidence.superiority.metric",
    "evidence.superiority.over",
    "evidence.superiority.confidence",
    "evidence.superiority.min_items",
    "evidence.superiority.min_gain_points",
    "evidence.contamination.exact",
]


@pytest.mark.parametrize("path", LEAVES)
def test_a_missing_key_is_named(path: str) -> None:
    with pytest.raises(Invalid) as error:
        parse(changed(path, MISSING))
    assert error.value.kind == "bad-policy"
    ((named, text),) = error.value.facts["problems"].items()
    assert named == path
    assert text.startswith("is missing; expected ")


@pytest.mark.parametrize(
    "path", ["x", "quorum.x", "evidence.superiority.x", "evidence.contamination.x"]
)
def test_an_unknown_key_is_named(path: str) -> None:
    with pytest.raises(Invalid) as error:
        parse(changed(path, 1))
    ((named, text),) = error.value.facts["problems"].items()
    assert named == path
    assert text.startswith("there is no such key; the keys are ")


WRONG: list[tuple[str, list[Any]]] = [
    ("environment", ["prod", None, ["dev"]]),
    ("quorum", [None, 2, []]),
    ("quorum.approvals", [1, 0, -1, 21, "2", 2.0, True]),
    (
        "quorum.roles",
        [[], ["engineer"], ["reviewer", "admin"], ["reviewer", "reviewer"], "reviewer", None, [1]],
    ),
    ("quorum.distinct_teams", [1, "yes", None]),
    ("votes", ["session", True, None]),
    ("evidence", [{}, None, []]),
    ("evidence.superiority", [None, [], True]),
    ("evidence.superiority.metric", ["bleu", 1, [], None]),
    ("evidence.superiority.over", ["incumbent", None]),
    ("evidence.superiority.confidence", [1, 0.4, 95, "0.95", True, float("nan")]),
    ("evidence.superiority.min_items", [0, -1, 40.0, "40", True]),
    ("evidence.superiority.min_gain_points", [-1, 100, "0", float("nan"), False]),
    ("evidence.contamination", [0, None]),
    ("evidence.contamination.exact", [-1, 0.0, None, False]),
    ("fallback_to_base", ["yes", 1, None]),
    ("approval_days", [0, 731, -1, "180", 180.0, True]),
    ("chat_templates", ["yes", True, None, [], {}]),
]


@pytest.mark.parametrize(
    ("path", "value"), [(path, value) for path, values in WRONG for value in values]
)
def test_a_value_out_of_range_is_named(path: str, value: Any) -> None:
    with pytest.raises(Invalid) as error:
        parse(changed(path, value))
    ((named, text),) = error.value.facts["problems"].items()
    assert named == path
    assert text.startswith("must be ")


def test_a_rule_nobody_knows_is_invalid() -> None:
    with pytest.raises(
        Invalid, match=r"evidence\.vibes: there is no such key; .* superiority, contamination"
    ):
        parse(changed("evidence.vibes", {"good": True}))


@pytest.mark.parametrize("raw", [None, [], "environment: dev", 1])
def test_what_is_no_table_is_invalid(raw: Any) -> None:
    with pytest.raises(Invalid, match="it must be a table of environment, quorum"):
        parse(raw)


def test_everything_wrong_is_named_at_once() -> None:
    with pytest.raises(Invalid) as error:
        parse(
            {
                "environment": "moon",
                "quorum": {"approvals": 1, "roles": ["reviewer"]},
                "evidence": {"x": {}},
                "y": 1,
            }
        )
    problems = error.value.facts["problems"]
    assert list(problems) == [
        "environment",
        "quorum.approvals",
        "quorum.distinct_teams",
        "votes",
        "evidence.x",
        "fallback_to_base",
        "approval_days",
        "y",
    ]
    assert all(f"{path}: {text}" in error.value.detail for path, text in problems.items())


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_built_in_policies(environment: str) -> None:
    policy = parse(yaml.safe_load(builtin(environment)))
    assert policy.environment == environment
    assert policy.quorum == Quorum(approvals=2, roles=("reviewer",), distinct_teams=True)
    assert policy.votes == "signed"
    assert policy.rules == (
        Superiority("exact_match", "base", 0.95, 40, 0),
        Contamination(0),
        Effect("weights"),
        Companions("refuse"),
        ChatTemplate("refuse"),
    )
    assert policy.fallback_to_base
    assert policy.approval_days == {"dev": 365, "staging": 180, "production": 180}[environment]
    assert judge(as_rules(policy), {}).outcome == "inconclusive"


def test_a_gate_judges_by_the_policy_as_stored() -> None:
    stored = json.loads(json.dumps(as_rules(parse(yaml.safe_load(builtin("production"))))))
    clean = {"items": 64, "train_rows": 10, "exact": 0, "examples": []}
    run = {
        "metric": "exact_match",
        "adapter": {"correct": 35},
        "base": {"correct": 0},
        "paired": {"n": 64, "both": 0, "only_adapter": 35, "only_base": 0, "neither": 29},
    }
    assert judge(stored, {"eval": run, "contamination": clean}).outcome == "pass"
    assert judge(stored, {"eval": run, "contamination": clean | {"exact": 1}}).outcome == "fail"
