"""The system prompt that was approved is the one that engines get."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from registry.errors import Invalid
from registry.gateway.prompts import CHAT, asked_as_approved
from registry.views.rollouts import PromptForm
from tests.gateway.door import BASE

TEXT = "/v1/completions"
CHATTING = replace(BASE, prompt=PromptForm("chat", "One word."))
PLAIN = replace(BASE, prompt=PromptForm("plain", "One word."))
USER = {"role": "user", "content": "my car"}
LED = [{"role": "system", "content": "One word."}, USER]


def system(content: Any, role: str = "system") -> dict[str, Any]:
    return {"role": role, "content": content}


@pytest.mark.parametrize(
    "messages",
    [
        [USER],
        LED,
        [system("One word.", "developer"), USER],
        [system([{"type": "text", "text": "One word."}]), USER],
    ],
)
def test_the_approved_system_prompt_is_added_and_no_other_passes(messages: list[Any]) -> None:
    asked = asked_as_approved({"messages": messages, "n": 1}, CHAT, CHATTING)
    assert asked == {"messages": LED, "n": 1}
    for other in (
        [system("Two."), USER],
        [USER, system("One word.")],
        [*LED, system("More.")],
        [system(None), USER],
        [system("Two.", "developer"), USER],
    ):
        with pytest.raises(Invalid) as refusal:
            asked_as_approved({"messages": other}, CHAT, CHATTING)
        assert refusal.value.kind == "system-prompt-approved"


def test_where_none_was_approved_the_request_stays_as_it_is() -> None:
    for version in (BASE, replace(BASE, prompt=PromptForm("chat", None))):
        body = {"messages": [system("Mine."), USER]}
        assert asked_as_approved(body, CHAT, version) == body


def test_a_text_gets_it_as_the_template_plain_writes_it() -> None:
    assert asked_as_approved({"prompt": "a"}, TEXT, PLAIN)["prompt"] == "One word.\na"
    assert asked_as_approved({"prompt": ["a"]}, TEXT, PLAIN)["prompt"] == ["One word.\na"]
    for prompt, version in (([1, 2], PLAIN), ("a", CHATTING)):
        with pytest.raises(Invalid):
            asked_as_approved({"prompt": prompt}, TEXT, version)
    for malformed in ({}, {"messages": "a"}, {"prompt": 3}):
        assert asked_as_approved(malformed, CHAT, CHATTING) == malformed
