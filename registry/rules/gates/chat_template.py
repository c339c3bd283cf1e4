"""Chat template: an adapter uses its base's template unless a policy allows one of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from registry.fields import Fields, choice
from registry.rules.gates.rule import Evidence, Rule, RuleResult


@dataclass(frozen=True, slots=True)
class ChatTemplate(Rule):
    """A chat template that is not the base's needs a policy with `chat_templates: allow`.

    There is evidence only where an adapter brings its own template; otherwise there is nothing to
    judge.
    """

    name: ClassVar[str] = "chat_template"
    title: ClassVar[str] = "Chat template"
    reads: ClassVar[str] = "chat_template"
    fields: ClassVar[Fields] = {"chat_templates": choice("refuse", "allow").optional("refuse")}
    always: ClassVar[bool] = True

    chat_templates: str = "refuse"

    def judge(self, evidence: Evidence | None) -> RuleResult | None:
        if evidence is None:
            return None
        digest = evidence["digest"]
        allowed = self.chat_templates == "allow"
        why = (
            "the policy allows that, and people decide on what it changes"
            if allowed
            else "the policy allows none"
        )
        detail = f"The adapter brings a chat template of its own ({digest}); {why}."
        return self.result("pass" if allowed else "fail", detail, digest=digest)
