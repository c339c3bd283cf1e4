"""A gate's verdict in people's words: what was measured, against what, how sure, and whether it
passed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from registry.views.evals import RuleView, VerdictView
from registry.web.words import number, percent, points

ORDER = {"fail": 0, "inconclusive": 1, "pass": 2}


@dataclass(frozen=True, slots=True)
class Measure:
    """One row of the evidence table; empty strings where a rule measures nothing of the kind."""

    title: str
    detail: str
    outcome: str
    tile: str = ""
    base: str = ""
    subject: str = ""
    change: str = ""
    interval: str = ""
    n: str = ""
    sense: str = ""


def _superiority(rule: RuleView) -> Measure:
    """How much better than its base, from `*_points` in percentage points; the colour follows the
    interval's ends.
    """
    found = rule.numbers
    row = Measure("Better than its base", rule.detail, rule.outcome)
    if "gain_points" not in found:
        return row
    low, high, n = found["low_points"] / 100, found["high_points"] / 100, found["n"]
    return replace(
        row,
        tile="Right answers",
        base=percent(found["base_correct"] / n),
        subject=percent(found["adapter_correct"] / n),
        change=points(found["gain_points"] / 100),
        interval=f"{points(low)} to {points(high)}, {found['confidence'] * 100:g}%",
        n=number(n),
        sense="good" if low > 0 else "bad" if high < 0 else "",
    )


def _contamination(rule: RuleView) -> Measure:
    found = rule.numbers
    row = Measure("Kept out of training", rule.detail, rule.outcome)
    return (
        replace(row, subject=f"{number(found['exact'])} seen", n=number(found["items"]))
        if found
        else row
    )


def _other(rule: RuleView) -> Measure:
    """A rule this console has no columns for yet: its own sentence says everything."""
    return Measure(rule.rule.replace("_", " ").capitalize(), rule.detail, rule.outcome)


ROWS = {"superiority": _superiority, "contamination": _contamination}


def measures(verdict: VerdictView) -> list[Measure]:
    """The rules as rows, failures first: what speaks against a release must not hide below what
    speaks for it.
    """
    failures_first = sorted(verdict.rules, key=lambda rule: ORDER.get(rule.outcome, 0))
    return [ROWS.get(rule.rule, _other)(rule) for rule in failures_first]


def passed(verdict: VerdictView) -> int:
    """How many rules passed."""
    return sum(rule.outcome == "pass" for rule in verdict.rules)


@dataclass(frozen=True, slots=True)
class Footing:
    """One thing that a review's evidence rests on: in words, by digest, or both."""

    label: str
    text: str = ""
    digest: str = ""


def footing(evidence: dict[str, Any]) -> list[Footing]:
    """What the evidence root was taken over besides the version itself: data, training, suite and
    samples.

    What is missing is said to be missing: a reviewer must see what nobody can vouch for.
    """
    found = [
        Footing(
            "Data set",
            f"{data['ref']}, {number(data['rows'])} rows, {data['licence']}",
            data["record_root"],
        )
        for data in evidence.get("datasets") or []
    ] or [Footing("Data set", "not known")]
    training = evidence.get("training_run") or {}
    found.append(
        Footing(
            "Training recipe", "" if training else "not known", training.get("recipe_digest", "")
        )
    )
    if training.get("report_digest"):
        found.append(Footing("Training report", digest=training["report_digest"]))
    if suite := evidence.get("suite"):
        found.append(
            Footing(
                "Eval suite",
                f"{suite['ref'].removeprefix('suite:')}, {number(suite['items'])} items",
                suite["digest"],
            )
        )
    pair = evidence.get("eval") or {}
    for side, label in (("adapter", "Its answers"), ("base", "The base's answers")):
        samples = pair.get(side, {}).get("samples_sha256", "")
        found.append(
            Footing(
                label, "" if samples else "not evaluated", f"sha256:{samples}" if samples else ""
            )
        )
    return found
