"""The gate: three values, sharp boundaries, the same bytes twice, and no more false passes than it
promises.
"""

from __future__ import annotations

import json
import pkgutil
import random
from dataclasses import asdict, fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import Invalid
from registry.fields import MISSING
from registry.rules import gates
from registry.rules.evals import Paired, difference
from registry.rules.gates import RuleResult, Verdict, judge

SUPERIORITY = {
    "metric": "exact_match",
    "over": "base",
    "confidence": 0.95,
    "min_items": 40,
    "min_gain_points": 0,
}
POLICY = {
    "environment": "dev",
    "evidence": {"superiority": SUPERIORITY, "contamination": {"exact": 0}},
}
CLEAN = {"items": 64, "train_rows": 900, "exact": 0, "examples": []}


def policy(**changes: Any) -> dict[str, Any]:
    return {"evidence": {"superiority": SUPERIORITY | changes}}


def compared(
    both: int, only_adapter: int, only_base: int, neither: int, *, metric: str = "exact_match"
) -> dict[str, Any]:
    n = both + only_adapter + only_base + neither
    return {
        "metric": metric,
        "suite": "legal/notices@v1",
        "suite_digest": "sha256:00",
        "adapter": {"run": "a", "samples_sha256": "0" * 64, "correct": both + only_adapter},
        "base": {"run": "b", "samples_sha256": "1" * 64, "correct": both + only_base},
        "paired": {
            "n": n,
            "both": both,
            "only_adapter": only_adapter,
            "only_base": only_base,
            "neither": neither,
        },
    }


def superiority(evidence: dict[str, Any] | None, **changes: Any) -> RuleResult:
    (result,) = judge(policy(**changes), {"eval": evidence}).rules
    return result


def test_a_better_adapter_passes_and_says_on_what() -> None:
    verdict = judge(
        POLICY, {"eval": compared(0, 35, 0, 29), "contamination": CLEAN, "licence": "ignored"}
    )
    assert verdict.outcome == "pass"
    assert [(result.rule, result.outcome) for result in verdict.rules] == [
        ("superiority", "pass"),
        ("contamination", "pass"),
    ]
    numbers = verdict.rules[0].numbers
    _, low, high = difference(Paired(64, 0, 35, 0, 29))
    assert (numbers["n"], numbers["adapter_correct"], numbers["base_correct"]) == (64, 35, 0)
    assert numbers["gain_points"] == 54.6875
    assert (numbers["low_points"], numbers["high_points"]) == (
        round(100 * low, 6),
        round(100 * high, 6),
    )
    assert "+54.7" in verdict.rules[0].detail


def test_equal_and_slightly_better_are_inconclusive_and_worse_fails() -> None:
    assert superiority(compared(20, 0, 0, 20)).outcome == "inconclusive"
    assert superiority(compared(20, 5, 5, 20)).outcome == "inconclusive"
    assert superiority(compared(20, 4, 2, 34)).outcome == "inconclusive"
    assert superiority(compared(0, 0, 35, 29)).outcome == "fail"


def test_the_boundary_belongs_to_no_pass() -> None:
    """Low end exactly at the wanted gain is not above it; high end exactly at it leaves nothing
    above.
    """
    evidence = compared(10, 30, 2, 22)
    numbers = superiority(evidence).numbers
    low, high = numbers["low_points"], numbers["high_points"]
    assert superiority(evidence, min_gain_points=low).outcome == "inconclusive"
    assert superiority(evidence, min_gain_points=low - 1e-6).outcome == "pass"
    assert superiority(evidence, min_gain_points=high).outcome == "fail"
    assert superiority(evidence, min_gain_points=high - 1e-6).outcome == "inconclusive"


def test_too_few_items_hold_however_good_or_bad() -> None:
    for counts in ((0, 39, 0, 0), (0, 0, 39, 0)):
        assert superiority(compared(*counts)).outcome == "inconclusive"
    assert superiority(compared(0, 40, 0, 0)).outcome == "pass"
    assert superiority(compared(0, 0, 40, 0)).outcome == "fail"


def test_no_data_is_neither_pass_nor_fail() -> None:
    for evidence in ({}, {"eval": None, "contamination": None}):
        verdict = judge(POLICY, evidence)
        assert verdict.outcome == "inconclusive"
        assert [result.outcome for result in verdict.rules] == ["inconclusive"] * 2
    assert superiority(compared(0, 40, 0, 0, metric="other")).outcome == "inconclusive"
    for hollow in (CLEAN | {"items": 0}, CLEAN | {"train_rows": 0}):
        assert judge(POLICY, {"contamination": hollow}).rules[1].outcome == "inconclusive"


@pytest.mark.parametrize(
    ("exact", "allowed", "outcome"),
    [(0, 0, "pass"), (1, 0, "fail"), (2, 2, "pass"), (3, 2, "fail")],
)
def test_contamination_fails_above_what_is_allowed(exact: int, allowed: int, outcome: str) -> None:
    rules = {"evidence": {"contamination": {"exact": allowed}}}
    (result,) = judge(rules, {"contamination": CLEAN | {"exact": exact}}).rules
    assert result.outcome == outcome
    assert result.numbers == {"exact": exact, "allowed": allowed, "items": 64, "train_rows": 900}


def test_every_rule_is_one_file_and_is_known() -> None:
    files = {module.name for module in pkgutil.iter_modules(gates.__path__)} - {"rule"}
    assert {rule.__module__.rpartition(".")[2] for rule in gates.RULES} == files
    assert len(gates.BY_NAME) == len(gates.RULES) == len(files)


@pytest.mark.parametrize("rule", gates.RULES, ids=lambda rule: rule.name)
def test_a_rule_s_attributes_are_its_fields_and_nothing_to_show_is_no_error(
    rule: type[gates.Rule],
) -> None:
    assert [field.name for field in fields(rule)] == list(rule.fields)  # type: ignore[arg-type]
    assert rule.columns({}).subject == ""
    if rule.always:  # every policy, older ones too, is read with its defaults
        assert all(field.default is not MISSING for field in rule.fields.values())
        assert rule.of({}).judge(None) is None


GOOD, EVEN, BAD = compared(0, 35, 0, 29), compared(20, 5, 5, 20), compared(0, 0, 35, 29)
DIRTY = CLEAN | {"exact": 1}


@pytest.mark.parametrize(
    ("run", "contamination", "outcome"),
    [
        (GOOD, CLEAN, "pass"),
        (GOOD, None, "inconclusive"),
        (GOOD, DIRTY, "fail"),
        (EVEN, CLEAN, "inconclusive"),
        (EVEN, None, "inconclusive"),
        (EVEN, DIRTY, "fail"),
        (BAD, CLEAN, "fail"),
        (BAD, None, "fail"),
        (BAD, DIRTY, "fail"),
    ],
)
def test_the_verdict_is_the_worst_of_its_rules(run: Any, contamination: Any, outcome: str) -> None:
    assert judge(POLICY, {"eval": run, "contamination": contamination}).outcome == outcome


@pytest.mark.parametrize(
    "change",
    [
        {"paired": {"n": 65, "both": 0, "only_adapter": 35, "only_base": 0, "neither": 29}},
        {"paired": {"n": 64, "both": 1, "only_adapter": 35, "only_base": -1, "neither": 29}},
        {"paired": {"n": 64, "both": 0, "only_adapter": 36, "only_base": 0, "neither": 28}},
        {"base": {"run": "b", "samples_sha256": "", "correct": 1}},
        {"paired": {"n": 64}},
        {"paired": None},
        {"adapter": {}},
    ],
)
def test_evidence_that_contradicts_itself_is_not_judged(change: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as error:
        judge(POLICY, {"eval": GOOD | change, "contamination": CLEAN})
    assert error.value.kind == "bad-evidence"


@pytest.mark.parametrize(
    "rules",
    [
        {},
        {"evidence": {}},
        {"evidence": {"vibes": {}}},
        {"evidence": {"superiority": {"over": "base"}}},
    ],
)
def test_a_policy_that_cannot_be_judged_by_never_passes(rules: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as error:
        judge(rules, {"eval": GOOD, "contamination": CLEAN})
    assert error.value.kind == "bad-policy"


def as_bytes(verdict: Verdict) -> bytes:
    return json.dumps(asdict(verdict), sort_keys=True).encode()


counts = st.integers(0, 80)


@given(counts, counts, counts, counts, st.sampled_from([0, 0.5, 5]), st.booleans())
def test_a_rerun_gives_the_same_bytes_and_better_is_never_judged_worse(
    both: int, ours: int, theirs: int, neither: int, wanted: float, clean: bool
) -> None:
    rules = {
        "evidence": {**policy(min_gain_points=wanted)["evidence"], "contamination": {"exact": 0}}
    }
    evidence = {
        "eval": compared(both, ours, theirs, neither),
        "contamination": CLEAN if clean else DIRTY,
    }
    first = judge(rules, evidence)
    assert as_bytes(
        judge(json.loads(json.dumps(rules)), json.loads(json.dumps(evidence)))
    ) == as_bytes(first)
    if theirs:  # one item turned from the base's win into the adapter's
        order = ["fail", "inconclusive", "pass"]
        better = judge(rules, evidence | {"eval": compared(both, ours + 1, theirs - 1, neither)})
        assert order.index(better.rules[0].outcome) >= order.index(first.rules[0].outcome)


@pytest.mark.parametrize(
    ("n", "rate", "discordance"), [(40, 0.5, 0.3), (100, 0.2, 0.1), (300, 0.8, 0.15)]
)
def test_an_equal_adapter_passes_no_more_often_than_promised(
    n: int, rate: float, discordance: float
) -> None:
    """Seeded: at 95 % two-sided an adapter truly equal to its base may pass 2.5 % of its gates, a
    worse one less.

    3,000 gates have a standard error of 0.29 points; the tolerance is three of them.
    """
    rng = random.Random(f"{n} {rate}")
    weights = (rate - discordance / 2, discordance / 2, discordance / 2, 1 - rate - discordance / 2)
    passes = 0
    for _ in range(3000):
        drawn = rng.choices(range(4), weights, k=n)
        passes += superiority(compared(*(drawn.count(kind) for kind in range(4)))).outcome == "pass"
    assert passes / 3000 <= 0.025 + 0.0087


def test_a_truly_better_adapter_passes_nearly_always() -> None:
    """The demo's own effect (0 to about half right on 64 items), so the gate is no wall either."""
    rng = random.Random(64)
    passes = 0
    for _ in range(500):
        right = sum(rng.random() < 0.5 for _ in range(64))
        passes += superiority(compared(0, right, 0, 64 - right)).outcome == "pass"
    assert passes == 500
