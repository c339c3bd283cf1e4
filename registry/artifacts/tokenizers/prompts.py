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
from registry.documents import canonical
from registry.views.chat_templates import RenderedView

MAX_SHOWN_CHARACTERS = 2000
"""Characters of each turn that are rendered: enough to see whether a template keeps them."""
GENERIC = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""Classes of tokenizers without special tokens of their own."""


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
    """Whether a tokenizer surely has no end-of-text token, without which no answer ends."""
    settings = documents.get(SETTINGS)
    return (
        isinstance(settings, dict)
        and settings.get("tokenizer_class") in GENERIC
        and "eos_token" not in chat_templates.tokens_of(documents)
    )


@dataclass(frozen=True, slots=True)
class Trial:
    """What a template made of a question: why it is unfit, or None and the words it adds."""

    unfit: str | None
    added_words: int = 0


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
    return _judged(_Key(templates, chat_templates.tokens_of(documents), question.cut()))


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
    if refusal := rendered.raised or rendered.failed:
        what = "a system prompt" if opening and _takes_no_system(key) else "the first row"
        return Trial(f"the base's chat template refuses {what}: {refusal}")
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
    if whole.text is not None and not _keeps(whole.text, answer):
        return Trial("the base's chat template leaves out what the assistant answers")
    return Trial(None, max(added, 0))


def _takes_no_system(key: _Key) -> bool:
    return _render(key, [{"role": "user", "content": key.question.prompt}], True).text is not None


def _render(key: _Key, messages: Sequence[Mapping[str, str]], ask: bool) -> RenderedView:
    variables = {
        **key.tokens,
        "messages": messages,
        "tools": None,
        "documents": None,
        "add_generation_prompt": ask,
    }
    return sandbox.render(key.text, variables)


def _keeps(text: str, content: str) -> bool:
    """Whether a text contains this content; templates may change the blanks in it."""
    return "".join(content.split()) in "".join(text.split())
