"""The approved system prompt: added where a caller sends none, never replaced by another.

What reviewers approved is a version under one system prompt, or under none. A caller's own system
prompt is left alone where none was approved; the application is then responsible for it.
"""

from __future__ import annotations

from typing import Any

from registry.errors import Invalid
from registry.views.rollouts import ArmView

CHAT = "/v1/chat/completions"
SYSTEM_ROLES = ("system", "developer")
OTHER_ROLES = ("user", "assistant", "tool")
RESHAPING = (
    "chat_template",
    "chat_template_kwargs",
    "documents",
    "prompt_embeds",
    "truncate_prompt_tokens",
    "add_generation_prompt",
    "add_special_tokens",
    "continue_final_message",
)
"""Keys that change how an engine puts a prompt, or cut it: the approved one would not arrive."""
LEAVE_OUT = (
    "Leave the system message out: the gateway adds the approved one. To serve another, evaluate "
    "and submit the version with a suite that has it."
)


def asked_as_approved(body: dict[str, Any], path: str, version: ArmView) -> dict[str, Any]:
    """The body under the system prompt and the template that this version was approved with.

    Raises Invalid `system-prompt-approved` for another system prompt, for a prompt that the
    approved one cannot stand before, and for a key that would replace it or cut it off.
    """
    prompt = version.prompt
    if prompt is None:
        return body
    if prompt.system is None:
        if prompt.template == "chat" and body.get("chat_template") is not None:
            raise Invalid(
                "system-prompt-approved",
                f"{version.ref} was approved with the chat template it was evaluated with, and "
                "'chat_template' replaces that.",
                "Leave 'chat_template' out.",
                ref=version.ref,
            )
        return body
    for key in RESHAPING:
        if body.get(key) is not None:
            why = f"'{key}' changes how the engine puts it"
            raise _refused(version, why, f"Leave '{key}' out.")
    if path == CHAT:
        return {**body, "messages": _led(body.get("messages"), prompt.system, version)}
    if prompt.template != "plain":
        raise _refused(version, "a text on /v1/completions has no place for it", f"Ask {CHAT}.")
    match body.get("prompt"):
        case str(text):
            return {**body, "prompt": f"{prompt.system}\n{text}"}
        case list(texts) if texts and all(isinstance(text, str) for text in texts):
            return {**body, "prompt": [f"{prompt.system}\n{text}" for text in texts]}
    raise _refused(
        version,
        "it can stand only before a text or a list of texts",
        "Send 'prompt' as text, not as token ids.",
    )


def _led(messages: Any, system: str, version: ArmView) -> list[Any]:
    """The messages behind the approved system prompt, which may be there already."""
    if not isinstance(messages, list):
        raise _refused(version, "'messages' is not a list", "Send a list of messages.")
    roles = [message.get("role") if isinstance(message, dict) else None for message in messages]
    if roles and roles[0] in SYSTEM_ROLES and _text(messages[0].get("content")) == system:
        messages, roles = messages[1:], roles[1:]
    if any(role in SYSTEM_ROLES for role in roles):
        raise _refused(version, "this request brings another", LEAVE_OUT)
    if any(role not in OTHER_ROLES for role in roles):
        raise _refused(
            version,
            f"a message has none of the roles {', '.join(OTHER_ROLES)}: a chat template may put "
            "any other role as a system prompt",
            "Give every message one of these roles.",
        )
    return [{"role": "system", "content": system}, *messages]


def _text(content: Any) -> str | None:
    """The text of a message, which may be a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(
        isinstance(part, dict) and isinstance(part.get("text"), str) for part in content
    ):
        return "".join(part["text"] for part in content)
    return None


def _refused(version: ArmView, why: str, fix: str) -> Invalid:
    return Invalid(
        "system-prompt-approved",
        f"{version.ref} was approved under a system prompt, and {why}.",
        fix,
        ref=version.ref,
    )
