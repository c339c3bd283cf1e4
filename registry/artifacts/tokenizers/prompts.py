"""Whether the chat template of a base can ask what a recipe or a suite asks, found before it runs.

The template renders one conversation in the sandbox, as transformers would. It is unfit if it is
not there, refuses the conversation, or loses its words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from registry.artifacts.tokenizers import chat_templates, sandbox
from registry.artifacts.tokenizers.chat_templates import SETTINGS, Templates
from registry.artifacts.tokenizers.lengths import words
from registry.artifacts.tokenizers.meanings import takes_file
from registry.documents import canonical
from registry.views.chat_templates import RenderedView

MAX_SHOWN_CHARACTERS = 2000
"""Characters of each turn that are rendered: enough to see whether a template keeps them."""
NO_END = (
    "the tokenizer names no end-of-text token, so answers would never end. Set eos_token in "
    "tokenizer_config.json and register the base again"
)
"""What to say where `lacks_end`."""


@dataclass(frozen=True, slots=True)
class Question:
    """One row or item: what is asked, the answer that is learned, and the system prompt if any."""

    prompt: str
    answer: str | None = None
    system: str | None = None

    def cut(self) -> Question:
        """The same with long turns cut."""
        texts = (self.prompt, self.answer, self.system)
        prompt, answer, system = (text and text[:MAX_SHOWN_CHARACTERS] for text in texts)
        return Question(prompt or "", answer, system)


def lacks_end(documents: Mapping[str, Any]) -> bool:
    """Whether a tokenizer surely has no end-of-text token, without which no answer ends.

    A class that takes its tokenizer.json as it is has no special tokens of its own.
    """
    settings = documents.get(SETTINGS)
    return (
        isinstance(settings, dict)
        and takes_file(settings)
        and "eos_token" not in chat_templates.tokens_of(documents)
    )


@dataclass(frozen=True, slots=True)
class Trial:
    """What a template made of a question: why it is unfit, or None and the words it adds.

    `passing`: the machine may be the cause, and another try may succeed.
    """

    unfit: str | None
    added_words: int = 0
    passing: bool = False

    def way_out(self, instead: str) -> str:
        """The way out: what to do instead, after another try where that may help."""
        return f"Try again. If that fails too, {instead}" if self.passing else capital(instead)


def capital(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]


class _Stopped(Exception):
    """The sandbox stopped a template.

    The machine may be the cause. The cache keeps what is returned, so this is raised.
    """


def tried(documents: Mapping[str, Any], question: Question) -> Trial:
    """Try the chat template in these files on one question.

    Raises Unavailable when no sandbox can be started.
    """
    templates = chat_templates.templates_of(documents)
    if templates is None:
        return Trial("the base has no chat template")
    if "default" not in templates.texts:
        names = ", ".join(sorted(templates.texts))[:120]
        return Trial(f"the base has several chat templates ({names}), and none is the default")
    try:
        return _judged(_Key(templates, chat_templates.tokens_of(documents), question.cut()))
    except _Stopped as error:
        return Trial(f"the base's chat template could not be rendered: {error}", passing=True)


class _Key:
    """A template and a question, as a key of the cache by content."""

    def __init__(self, templates: Templates, tokens: dict[str, str], question: Question) -> None:
        self.text, self.tokens, self.question = templates.texts["default"], tokens, question
        asked = [question.prompt, question.answer, question.system]
        self.digest = canonical.digest([self.text, tokens, asked])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and other.digest == self.digest

    def __hash__(self) -> int:
        return hash(self.digest)


@lru_cache(maxsize=256)
def _judged(key: _Key) -> Trial:
    question = key.question
    opening = [] if question.system is None else [{"role": "system", "content": question.system}]
    asked = [*opening, {"role": "user", "content": question.prompt}]
    rendered = _render(key, asked, True)
    if rendered.raised is not None:
        what = "a system prompt" if opening and _takes_no_system(key) else "the question"
        return _refused(what, rendered.raised)
    text = rendered.text or ""
    for role, content in ((turn["role"], turn["content"]) for turn in asked):
        if not _keeps(text, content):
            return Trial(f"the base's chat template leaves out what the {role} says")
    added = words(text) - sum(words(turn["content"]) for turn in asked)
    if question.answer is None:
        return Trial(None, max(added, 0))
    # Reasoning before </think> is removed from earlier turns by many templates, and rightly so.
    answer = question.answer.rpartition("</think>")[2]
    whole = _render(key, [*asked, {"role": "assistant", "content": question.answer}], False)
    if whole.raised is not None:
        return _refused("the answer", whole.raised)
    if not _keeps(whole.text or "", answer):
        return Trial("the base's chat template leaves out what the assistant answers")
    return Trial(None, max(added, 0))


def _refused(what: str, reason: str) -> Trial:
    return Trial(f"the base's chat template refuses {what}" + (f": {reason}" if reason else ""))


def _takes_no_system(key: _Key) -> bool:
    return _render(key, [{"role": "user", "content": key.question.prompt}], True).text is not None


def _render(key: _Key, messages: Sequence[Mapping[str, str]], ask: bool) -> RenderedView:
    """What the template makes of messages. Raises _Stopped if it makes nothing."""
    variables = {
        **key.tokens,
        "messages": messages,
        "tools": None,
        "documents": None,
        "add_generation_prompt": ask,
    }
    rendered = sandbox.render(key.text, variables)
    if rendered.failed is not None:
        raise _Stopped(rendered.failed)
    return rendered


def _keeps(text: str, content: str) -> bool:
    """Whether a text contains this content; templates may change the blanks in it."""
    return "".join(content.split()) in "".join(text.split())
