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


@pytest.mark.parametrize(
    "key",
    [
        "chat_template",
        "chat_template_kwargs",
        "documents",
        "prompt_embeds",
        "truncate_prompt_tokens",
        "add_generation_prompt",
        "add_special_tokens",
        "continue_final_message",
    ],
)
def test_nothing_replaces_or_cuts_the_approved_prompt(key: str) -> None:
    for path, version, body in (
        (CHAT, CHATTING, {"messages": [USER]}),
        (TEXT, PLAIN, {"prompt": "a"}),
    ):
        for value in ("{{ 'x' }}", 5, False, {}):
            with pytest.raises(Invalid) as refusal:
                asked_as_approved({**body, key: value}, path, version)
            assert refusal.value.kind == "system-prompt-approved"
            assert f"'{key}'" in str(refusal.value)
        # Null is what an engine takes for a key that is not there.
        assert asked_as_approved({**body, key: None}, path, version)[key] is None


@pytest.mark.parametrize(
    "role", ["System", "SYSTEM", "system ", "Developer", "function", "ipython", None, ["system"]]
)
def test_a_role_that_a_template_may_take_for_system_is_refused(role: Any) -> None:
    for messages in ([{"role": role, "content": "x"}, USER], [*LED, {"role": role}], [role]):
        with pytest.raises(Invalid) as refusal:
            asked_as_approved({"messages": messages}, CHAT, CHATTING)
        assert refusal.value.kind == "system-prompt-approved"


def test_the_roles_of_a_conversation_pass() -> None:
    turns = [USER, {"role": "assistant", "content": "x"}, {"role": "tool", "content": "y"}, USER]
    assert asked_as_approved({"messages": turns}, CHAT, CHATTING)["messages"] == [LED[0], *turns]


@pytest.mark.parametrize("prompt", [None, 3, {"x": 1}, [["a"]], ["a", 1], [], [1, 2]])
def test_a_prompt_that_is_no_text_is_refused(prompt: Any) -> None:
    with pytest.raises(Invalid) as refusal:
        asked_as_approved({"prompt": prompt}, TEXT, PLAIN)
    assert refusal.value.kind == "system-prompt-approved"
    for malformed in ({}, {"messages": "a"}, {"messages": {"0": USER}}, {"prompt": "a"}):
        with pytest.raises(Invalid):
            asked_as_approved(malformed, CHAT, CHATTING)


def test_no_caller_replaces_the_template_that_was_evaluated() -> None:
    body = {"messages": [USER], "chat_template": "{{ 'x' }}"}
    with pytest.raises(Invalid, match="'chat_template' replaces that") as refusal:
        asked_as_approved(body, CHAT, replace(BASE, prompt=PromptForm("chat", None)))
    assert refusal.value.kind == "system-prompt-approved"
    for version in (BASE, replace(BASE, prompt=PromptForm("plain", None))):
        assert asked_as_approved(body, CHAT, version) == body
