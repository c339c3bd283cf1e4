"""What the rules really answer becomes rows a reviewer can read."""

from __future__ import annotations

from typing import Any

from registry.rules import gates as rules
from registry.views.evals import RuleView, VerdictView
from registry.web.gates import footing, measures, passed

POLICY = {
    "evidence": {
        "superiority": {
            "metric": "exact_match",
            "over": "base",
            "confidence": 0.95,
            "min_items": 20,
            "min_gain_points": 0,
        },
        "contamination": {"exact": 0},
    }
}


def judged(only_adapter: int, only_base: int, exact: int) -> VerdictView:
    paired = {"n": 64, "both": 4, "only_adapter": only_adapter, "only_base": only_base}
    paired["neither"] = 64 - 4 - only_adapter - only_base
    evidence: dict[str, Any] = {
        "eval": {
            "metric": "exact_match",
            "paired": paired,
            "adapter": {"correct": 4 + only_adapter},
            "base": {"correct": 4 + only_base},
        },
        "contamination": {"items": 64, "train_rows": 480, "exact": exact, "examples": []},
    }
    verdict = rules.judge(POLICY, evidence)
    shown = [RuleView(one.rule, one.outcome, one.detail, one.numbers) for one in verdict.rules]
    return VerdictView(verdict.outcome, "production-v1", "sha256:" + "0" * 64, shown)


def test_a_clear_gain_shows_both_sides_the_change_and_its_interval() -> None:
    verdict = judged(only_adapter=32, only_base=0, exact=0)
    better, clean = measures(verdict)
    assert (better.base, better.subject, better.change) == ("6.2%", "56.2%", "+50.0 pt")
    assert better.sense == "good"
    assert better.interval.startswith("+")
    assert better.interval.endswith(", 95%")
    assert (clean.subject, clean.n) == ("0 seen", "64")
    assert passed(verdict) == 2


def test_what_speaks_against_a_release_comes_first() -> None:
    verdict = judged(only_adapter=32, only_base=0, exact=3)
    assert [row.outcome for row in measures(verdict)] == ["fail", "pass"]
    assert passed(verdict) == 1


def test_an_interval_around_nothing_is_coloured_neither_way() -> None:
    (better, _) = measures(judged(only_adapter=3, only_base=2, exact=0))
    assert better.outcome == "inconclusive"
    assert better.sense == ""


def test_a_rule_without_numbers_still_shows_its_sentence() -> None:
    verdict = rules.judge(POLICY, {})
    shown = [RuleView(one.rule, one.outcome, one.detail, one.numbers) for one in verdict.rules]
    rows = measures(VerdictView(verdict.outcome, "p", "d", shown))
    assert all(row.detail and not row.change for row in rows)


def test_missing_evidence_is_said_to_be_missing() -> None:
    told = {
        row.label: row.text
        for row in footing({"datasets": [], "training_run": None, "suite": None, "eval": None})
    }
    assert told["Data set"] == "not known"
    assert told["Training recipe"] == "not known"
    assert told["The version's eval runs"] == "not evaluated"
