"""A gate's verdict as a table: what was measured, how certain it is, and whether it passed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from registry.rules.gates import BY_NAME
from registry.views.evals import RuleView, VerdictView
from registry.web.shelves import ref_path
from registry.web.words import number, percent, points

ORDER = {"fail": 0, "inconclusive": 1, "pass": 2}
"""Outcome -> its place in the table."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One row of the evidence table, with an empty string for what the rule does not measure."""

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


def _measure(result: RuleView) -> Measure:
    """A rule's result as a row of texts; the ends of the interval decide its colour.

    A rule that has been removed from the code since then still shows its name and its sentence.
    """
    rule = BY_NAME.get(result.rule)
    if rule is None:
        return Measure(result.rule.replace("_", " ").capitalize(), result.detail, result.outcome)
    shown = rule.columns(result.numbers)
    row = Measure(
        rule.title,
        result.detail,
        result.outcome,
        tile=shown.tile,
        base="" if shown.base is None else percent(shown.base),
        subject=shown.subject if isinstance(shown.subject, str) else percent(shown.subject),
        n="" if shown.n is None else number(shown.n),
    )
    if shown.gain is None:
        return row
    gain, low, high = shown.gain
    confidence = "" if shown.confidence is None else f", {shown.confidence * 100:g}%"
    return replace(
        row,
        change=points(gain),
        interval=f"{points(low)} to {points(high)}{confidence}",
        sense="good" if low > 0 else "bad" if high < 0 else "",
    )


def measures(verdict: VerdictView) -> list[Measure]:
    """The rules as rows, failures first, so that no reviewer overlooks them."""
    failures_first = sorted(verdict.rules, key=lambda rule: ORDER.get(rule.outcome, 0))
    return [_measure(rule) for rule in failures_first]


def passed(verdict: VerdictView) -> int:
    """How many rules passed."""
    return sum(rule.outcome == "pass" for rule in verdict.rules)


@dataclass(frozen=True, slots=True)
class Footing:
    """One part of a review's evidence: in words, by digest, or both."""

    label: str
    text: str = ""
    digest: str = ""
    path: str = ""


def footing(evidence: dict[str, Any]) -> list[Footing]:
    """What the evidence root covers besides the version itself: data, training, suite, samples.

    Missing parts are shown as missing, because a reviewer must see what nobody can vouch for.
    """
    parts = [
        Footing(
            "Data set",
            f"{data['ref']}, {number(data['rows'])} rows, {data['licence']}, {data['lineage']}",
            data["record_root"],
            ref_path("datasets", data["ref"]),
        )
        for data in evidence.get("datasets") or []
    ] or [Footing("Data set", "not known")]
    training = evidence.get("training_run") or {}
    recipe = training.get("recipe_digest", "")
    run = f"/runs/training/{training['id']}" if training.get("id") else ""
    parts.append(Footing("Training recipe", "" if training else "not known", recipe, run))
    if training.get("report_digest"):
        parts.append(Footing("Training report", digest=training["report_digest"]))
    if suite := evidence.get("suite"):
        parts.append(
            Footing(
                "Eval suite",
                f"{suite['ref'].removeprefix('suite:')}, {number(suite['items'])} items",
                suite["digest"],
                ref_path("suites", suite["ref"].removeprefix("suite:")),
            )
        )
    runs = evidence.get("runs") or {}
    for side, label in (("adapter", "The version's eval runs"), ("base", "The base's eval runs")):
        parts.append(Footing(label, _runs(runs.get(side) or {})))
        parts += [
            Footing(f"Answers, {run['correct']:,} right", digest=f"sha256:{run['samples_sha256']}")
            for run in runs.get(side, {}).get("succeeded", ())
        ]
    return parts


def _runs(side: dict[str, Any]) -> str:
    """How many eval runs there were, how they ended, and how far apart their results lie."""
    counts = [run["correct"] for run in side.get("succeeded", ())]
    ends = [f"{len(counts)} succeeded"] if counts else ["not evaluated"]
    if counts:
        ends[0] += f" with {min(counts):,} to {max(counts):,} right" if len({*counts}) > 1 else ""
    ends += [f"{side[end]} {end}" for end in ("failed", "cancelled") if side.get(end)]
    return ", ".join(ends)
