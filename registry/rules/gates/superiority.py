"""Superiority: the adapter must beat its base, item by item on one suite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from registry.errors import Invalid
from registry.fields import Fields, choice, integer, number
from registry.rules.evals import METRICS, Paired, difference, mcnemar
from registry.rules.gates.rule import Columns, Evidence, Outcome, Rule, RuleResult


@dataclass(frozen=True, slots=True)
class Superiority(Rule):
    """The low end of the interval of the adapter's gain must be above `min_gain_points`.

    Points are percentage points. The rule fails when the whole interval is at or below that gain.
    It is inconclusive in between, or with fewer than `min_items` items.
    """

    name: ClassVar[str] = "superiority"
    title: ClassVar[str] = "Better than its base"
    reads: ClassVar[str] = "eval"
    fields: ClassVar[Fields] = {
        "metric": choice(*METRICS),
        "over": choice("base"),
        "confidence": number(0.5, 1, exclusive=True),
        "min_items": integer(1),
        "min_gain_points": number(0, 100, exclusive=True).because("percentage points"),
    }

    metric: str
    over: str
    confidence: float
    min_items: int
    min_gain_points: float

    def judge(self, evidence: Evidence | None) -> RuleResult:
        if evidence is None:
            return self.result(
                "inconclusive", "The suite has not been run on both the adapter and its base."
            )
        if evidence["metric"] != self.metric:
            return self.result(
                "inconclusive",
                f"The suite measures {evidence['metric']}, the policy requires {self.metric}.",
            )
        paired = _paired(evidence)
        if paired.n < self.min_items:
            return self.result(
                "inconclusive",
                f"{paired.n} items are too few: the policy requires {self.min_items}.",
                n=paired.n,
                min_items=self.min_items,
            )
        return self._compared(paired, evidence)

    def _compared(self, paired: Paired, evidence: Evidence) -> RuleResult:
        gain, low, high = (round(100 * value, 6) for value in difference(paired, self.confidence))
        outcome: Outcome
        if low > self.min_gain_points:
            outcome, words = "pass", "is better"
        elif high <= self.min_gain_points:
            outcome, words = "fail", "is not better"
        else:
            outcome, words = "inconclusive", "may or may not be better"
        return self.result(
            outcome,
            f"On {paired.n} items the adapter {words} than its base by more than "
            f"{self.min_gain_points:g} points: gain {gain:+.1f}, "
            f"{100 * self.confidence:g} % interval {low:+.1f} to {high:+.1f}."
            f"{_disagreement(evidence)}",
            n=paired.n,
            min_items=self.min_items,
            adapter_correct=paired.both + paired.only_adapter,
            base_correct=paired.both + paired.only_base,
            both=paired.both,
            only_adapter=paired.only_adapter,
            only_base=paired.only_base,
            neither=paired.neither,
            gain_points=gain,
            low_points=low,
            high_points=high,
            confidence=self.confidence,
            min_gain_points=self.min_gain_points,
            mcnemar_p=round(mcnemar(paired.only_adapter, paired.only_base), 6),
        )

    @classmethod
    def columns(cls, numbers: Mapping[str, Any]) -> Columns:
        if "gain_points" not in numbers:
            return Columns()
        n = numbers["n"]
        return Columns(
            subject=numbers["adapter_correct"] / n,
            n=n,
            base=numbers["base_correct"] / n,
            gain=(
                numbers["gain_points"] / 100,
                numbers["low_points"] / 100,
                numbers["high_points"] / 100,
            ),
            confidence=numbers["confidence"],
            tile="Right answers",
        )


def _disagreement(evidence: Evidence) -> str:
    """What eval runs that differ mean for the numbers; empty where all runs agree."""
    sides = [
        f"{evidence[side]['runs']} runs of the {side} disagree on {items} items"
        for side in ("adapter", "base")
        if (items := evidence[side].get("disagreeing"))
    ]
    if not sides:
        return ""
    return f" {' and '.join(sides)}; the least favourable answer counts."


def _paired(evidence: Evidence) -> Paired:
    """The paired counts; raises Invalid `bad-evidence` unless both runs' counts agree."""
    paired = Paired(**evidence["paired"])
    counts = (paired.both, paired.only_adapter, paired.only_base, paired.neither)
    if (
        min(counts) < 0
        or sum(counts) != paired.n
        or paired.both + paired.only_adapter != evidence["adapter"]["correct"]
        or paired.both + paired.only_base != evidence["base"]["correct"]
    ):
        raise Invalid(
            "bad-evidence",
            "The paired counts contradict the counts of the two eval runs.",
            "Score both eval runs again from their samples.",
        )
    return paired
