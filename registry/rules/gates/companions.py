"""Companions: weights that may belong to a version are not left out unless a policy allows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from registry.fields import Fields, choice
from registry.rules.gates.rule import Evidence, Rule, RuleResult


@dataclass(frozen=True, slots=True)
class Companions(Rule):
    """A version registered without a value head or the like needs `companions: allow`.

    There is evidence only where its maker asked for such files to be left out.
    """

    name: ClassVar[str] = "companions"
    title: ClassVar[str] = "Nothing of it left out"
    reads: ClassVar[str] = "companions"
    fields: ClassVar[Fields] = {"companions": choice("refuse", "allow").optional("refuse")}
    always: ClassVar[bool] = True

    companions: str = "refuse"

    def judge(self, evidence: Evidence | None) -> RuleResult | None:
        if evidence is None:
            return None
        files = [f"{file['path']} ({file['holds']})" for file in evidence["files"]]
        allowed = self.companions == "allow"
        why = "the policy allows that" if allowed else "the policy does not allow that"
        more = f" and {len(files) - 5} more files" if len(files) > 5 else ""
        return self.result(
            "pass" if allowed else "fail",
            f"It was registered without {', '.join(files[:5])}{more}, as its maker asked; {why}.",
            files=len(files),
        )
