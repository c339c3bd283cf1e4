"""Contamination: a suite measures nothing where training used its items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from registry.fields import Fields, choice, integer
from registry.rules.gates.rule import Columns, Evidence, Outcome, Rule, RuleResult
from registry.rules.versions import GRADES

KNOWN_BY = {
    "claimed": "Which rows it was trained on is claimed by its uploader; nobody observed it.",
    "observed": "The registry observed which rows it was trained on.",
    "verified": "Which rows it was trained on is verified.",
}
"""Grade of lineage -> what it says about the training rows."""


@dataclass(frozen=True, slots=True)
class Contamination(Rule):
    """At most `exact` items of the suite may have their prompt among the training rows.

    Which rows those are is only as certain as the version's lineage; below the grade `lineage` the
    rule is inconclusive.
    """

    name: ClassVar[str] = "contamination"
    title: ClassVar[str] = "Kept out of training"
    reads: ClassVar[str] = "contamination"
    fields: ClassVar[Fields] = {
        "exact": integer(0),
        "lineage": choice(*GRADES).optional("claimed"),
    }

    exact: int
    lineage: str = "claimed"

    def judge(self, evidence: Evidence | None) -> RuleResult:
        if evidence is None or not evidence["items"] or not evidence["train_rows"]:
            return self.result(
                "inconclusive",
                "The rows that it was trained on are not known. A training run here records them; "
                "of other versions, name them when adding: datasets: [team/name@v1] in meta.",
            )
        exact, items, rows = evidence["exact"], evidence["items"], evidence["train_rows"]
        detail = (
            f"{exact} of {items} items are among the {rows} training rows; {self.exact} may be."
        )
        outcome: Outcome = "fail" if exact > self.exact else "pass"
        numbers = {"exact": exact, "allowed": self.exact, "items": items, "train_rows": rows}
        if grade := evidence.get("lineage"):
            numbers["lineage"] = grade
            detail += f" {KNOWN_BY[grade]}"
            if GRADES.index(grade) < GRADES.index(self.lineage):
                detail += f" The policy requires {self.lineage} lineage."
                outcome = "fail" if outcome == "fail" else "inconclusive"
        return self.result(outcome, detail, **numbers)

    @classmethod
    def columns(cls, numbers: Mapping[str, Any]) -> Columns:
        if not numbers:
            return Columns()
        known = f" ({grade})" if (grade := numbers.get("lineage")) else ""
        return Columns(subject=f"{numbers['exact']:,} seen{known}", n=numbers["items"])
