"""Contamination: a suite measures nothing where training used its items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from registry.fields import Fields, integer
from registry.rules.gates.rule import Columns, Evidence, Rule, RuleResult


@dataclass(frozen=True, slots=True)
class Contamination(Rule):
    """At most `exact` items of the suite may have their prompt among the training rows."""

    name: ClassVar[str] = "contamination"
    title: ClassVar[str] = "Kept out of training"
    reads: ClassVar[str] = "contamination"
    fields: ClassVar[Fields] = {"exact": integer(0)}

    exact: int

    def judge(self, evidence: Evidence | None) -> RuleResult:
        if evidence is None or not evidence["items"] or not evidence["train_rows"]:
            return self.result("inconclusive", "The training rows or the suite are not known.")
        exact, items, rows = evidence["exact"], evidence["items"], evidence["train_rows"]
        return self.result(
            "fail" if exact > self.exact else "pass",
            f"{exact} of {items} items are among the {rows} training rows; {self.exact} may be.",
            exact=exact,
            allowed=self.exact,
            items=items,
            train_rows=rows,
        )

    @classmethod
    def columns(cls, numbers: Mapping[str, Any]) -> Columns:
        if not numbers:
            return Columns()
        return Columns(subject=f"{numbers['exact']:,} seen", n=numbers["items"])
