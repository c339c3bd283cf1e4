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


def asked_as_approved(body: dict[str, Any], path: str, version: ArmView) -> dict[str, Any]:
    """The body under the system prompt that this version was approved with.

    A body that an engine would refuse is returned as it is. Raises Invalid `system-prompt-approved`
    for another system prompt, and for a text that the approved one cannot stand before.
    """
    prompt = version.prompt
    if prompt is None or prompt.system is None:
        return body
    if path == CHAT:
        return _chat(body, prompt.system, version)
    if prompt.template != "plain":
        raise _refused(version, "a text on /v1/completions has no place for it", f"Ask {CHAT}.")
    match body.get("prompt"):
        case str(text):
            return {**body, "prompt": f"{prompt.system}\n{text}"}
        case list(texts) if texts and all(isinstance(text, str) for text in texts):
            return {**body, "prompt": [f"{prompt.system}\n{text}" for text in texts]}
        case list():
            raise _refused(version, "it cannot stand before token ids", "Send the prompt as text.")
    return body


def _chat(body: dict[str, Any], system: str, version: ArmView) -> dict[str, Any]:
    messages = body.get("messages")
    if not isinstance(messages, list):
        return body
    own = [
        at
        for at, message in enumerate(messages)
        if isinstance(message, dict) and message.get("role") in SYSTEM_ROLES
    ]
    if not own:
        return {**body, "messages": [{"role": "system", "content": system}, *messages]}
    if own == [0] and _text(messages[0].get("content")) == system:
        return {**body, "messages": [{"role": "system", "content": system}, *messages[1:]]}
    raise _refused(
        version,
        "this request brings another",
        "Leave the system message out: the gateway adds the approved one. To serve another, "
        "evaluate and submit the version with a suite that has it.",
    )


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
