"""Effect: what is approved must change something, or its base is approved in its name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from registry.fields import Fields, choice
from registry.rules.gates.rule import Columns, Evidence, Rule, RuleResult


@dataclass(frozen=True, slots=True)
class Effect(Rule):
    """A version that changes nothing fails, unless a policy says `effect: any`.

    With `weights`, weights that are not all idle pass until a trainer measures otherwise; with
    `measured`, the gate waits for that. No report outweighs weights that are all idle. There is
    evidence for what stands on a base.
    """

    name: ClassVar[str] = "effect"
    title: ClassVar[str] = "Changes its base"
    reads: ClassVar[str] = "effect"
    fields: ClassVar[Fields] = {
        "effect": choice("weights", "measured", "any").optional("weights"),
    }
    always: ClassVar[bool] = True

    effect: str = "weights"

    def judge(self, evidence: Evidence | None) -> RuleResult | None:
        if evidence is None:
            return None
        measured = evidence["measured"]
        largest = None if measured is None else measured["largest"]
        numbers = {key: evidence[key] for key in ("state", "parts", "idle")} | {
            "largest": largest,
            "mean": None if measured is None else measured["mean"],
            "prompts": None if measured is None else measured["prompts"],
        }
        detail = _weights_words(evidence)
        if measured is not None:
            detail += (
                f" On {measured['prompts']} prompts it moves the logits of its base by at most "
                f"{largest:.3g}, on average by {measured['mean']:.3g}."
            )
        idle = evidence["state"] == "none"
        if idle and largest and not evidence["same_as"]:
            detail += " That report contradicts the weights; the weights count."
        if largest == 0 or idle:
            if self.effect == "any":
                return self.result("pass", f"{detail} The policy allows that.", **numbers)
            return self.result("fail", f"{detail} It answers as its base.", **numbers)
        if self.effect == "measured" and measured is None:
            return self.result(
                "inconclusive", f"{detail} No eval run has measured its effect yet.", **numbers
            )
        return self.result("pass", detail, **numbers)

    @classmethod
    def columns(cls, numbers: Mapping[str, Any]) -> Columns:
        if numbers.get("largest") is not None:
            return Columns(subject=f"{numbers['largest']:.3g} logits", n=numbers["prompts"])
        if not numbers.get("parts"):
            return Columns()
        changed = numbers["parts"] - numbers["idle"]
        return Columns(subject=f"{changed:,} changed", n=numbers["parts"])


def _weights_words(evidence: Evidence) -> str:
    parts, idle = evidence["parts"], evidence["idle"]
    if evidence["same_as"]:
        return f"Its weights are exactly those of {evidence['same_as']}."
    if evidence["state"] == "none":
        return f"All {parts} parts that it adapts are zero or the base's own: it changes nothing."
    if parts is None:
        return "Its weights are not those of any model registered before it."
    return f"By its weights it changes {parts - idle} of the {parts} parts that it adapts."
