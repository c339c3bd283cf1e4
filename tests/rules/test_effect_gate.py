"""What changes nothing, and what was registered without its weights, passes only where it may."""

from __future__ import annotations

from typing import Any

import pytest

from registry.errors import Invalid
from registry.rules.gates import BY_NAME, RuleResult, judge
from registry.rules.probes import check_effect

POLICY = {"evidence": {"contamination": {"exact": 0}}}
MOVES = {"run": "r", "largest": 0.5, "mean": 0.01, "prompts": 8}
STILL = MOVES | {"largest": 0.0, "mean": 0.0}
WHOLE: dict[str, Any] = {"state": "weights", "parts": 24, "idle": 0, "same_as": None}
NONE = WHOLE | {"state": "none", "idle": 24}
MERGED = WHOLE | {"parts": None, "idle": None}
SAME = MERGED | {"state": "none", "same_as": "legal/base@v1"}


def rule(name: str, evidence: dict[str, Any], **policy: Any) -> RuleResult:
    _, result = judge(POLICY | policy, evidence).rules
    assert result.rule == name
    return result


@pytest.mark.parametrize(
    ("weights", "measured", "policy", "outcome"),
    [
        (WHOLE, None, None, "pass"),
        (WHOLE, None, "weights", "pass"),
        (WHOLE, None, "measured", "inconclusive"),
        (WHOLE, None, "any", "pass"),
        (WHOLE, MOVES, "measured", "pass"),
        (WHOLE, STILL, None, "fail"),
        (WHOLE, STILL, "measured", "fail"),
        (WHOLE, STILL, "any", "pass"),
        (NONE, None, None, "fail"),
        (NONE, None, "measured", "fail"),
        (NONE, STILL, "weights", "fail"),
        (NONE, None, "any", "pass"),
        (NONE, MOVES, None, "fail"),
        (NONE, MOVES, "measured", "fail"),
        (NONE, MOVES, "any", "pass"),
        (SAME, MOVES, "measured", "fail"),
        (SAME, None, None, "fail"),
        (SAME, None, "any", "pass"),
        (MERGED, None, None, "pass"),
        (MERGED, None, "measured", "inconclusive"),
        (WHOLE | {"idle": 5}, None, None, "pass"),
    ],
)
def test_the_effect(weights: Any, measured: Any, policy: str | None, outcome: str) -> None:
    settings = {} if policy is None else {"effect": policy}
    result = rule("effect", {"effect": weights | {"measured": measured}}, **settings)
    assert result.outcome == outcome
    if weights is SAME:
        assert "exactly those of legal/base@v1" in result.detail
    if measured is MOVES:
        assert "On 8 prompts it moves the logits of its base by at most 0.5" in result.detail
    contradicted = weights is NONE and measured is MOVES
    assert ("report contradicts the weights" in result.detail) == contradicted


def test_the_columns_show_the_measure_or_the_parts() -> None:
    columns = BY_NAME["effect"].columns
    some = rule("effect", {"effect": WHOLE | {"idle": 5, "measured": None}})
    assert (columns(some.numbers).subject, columns(some.numbers).n) == ("19 changed", 24)
    assert "changes 19 of the 24 parts" in some.detail
    moved = rule("effect", {"effect": WHOLE | {"measured": MOVES}})
    assert (columns(moved.numbers).subject, columns(moved.numbers).n) == ("0.5 logits", 8)
    merged = rule("effect", {"effect": MERGED | {"measured": None}})
    assert columns(merged.numbers).subject == "" and columns({}).subject == ""


@pytest.mark.parametrize(("policy", "outcome"), [("refuse", "fail"), ("allow", "pass")])
def test_left_out_weights(policy: str, outcome: str) -> None:
    files = [{"path": f"part-{n}.bin", "size": n, "holds": "a head"} for n in range(7)]
    result = rule("companions", {"companions": {"files": files}}, companions=policy)
    assert result.outcome == outcome
    assert "part-0.bin (a head)" in result.detail and "and 2 more files" in result.detail
    assert rule("companions", {"companions": {"files": files[:1]}}).outcome == "fail"


def test_nothing_is_judged_where_there_is_nothing() -> None:
    assert [result.rule for result in judge(POLICY, {}).rules] == ["contamination"]
    with pytest.raises(Invalid, match="does not have the form"):
        judge(POLICY, {"effect": {}})


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        [],
        {"largest": 1, "mean": 0.5, "prompts": 8},
        {"largest": -1, "mean": 0, "prompts": 8, "positions": 9},
        {"largest": 0.1, "mean": 0.2, "prompts": 8, "positions": 9},
        {"largest": "1", "mean": 0, "prompts": 8, "positions": 9},
        {"largest": 1, "mean": 0, "prompts": 8, "positions": 9, "more": 1},
    ],
)
def test_a_report_measures_in_one_form_or_not_at_all(wrong: Any) -> None:
    check_effect({})
    check_effect({"effect": None})
    check_effect({"effect": {"largest": 0, "mean": 0, "prompts": 8, "positions": 9}})
    with pytest.raises(Invalid) as refused:
        check_effect({"effect": wrong})
    assert refused.value.kind == "bad-report"
