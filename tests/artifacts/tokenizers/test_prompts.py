"""A chat template tried on one question: a refusal is kept, what the machine stopped is not."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from registry.artifacts.tokenizers import prompts, sandbox
from registry.artifacts.tokenizers.prompts import Question

TURNS = "{% for m in messages %}{{ m.role }} {{ m.content }} {% endfor %}"
ROW = Question("What is a mortgage?", "A loan that a house secures.")


def tried(template: str, question: Question = ROW) -> prompts.Trial:
    return prompts.tried({"chat_template.jinja": template}, question)


@pytest.mark.parametrize("stopped", [1, 2])
def test_what_the_machine_stopped_is_tried_again(
    stopped: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first render asks, the second has the answer; each may be the one that is killed."""
    template, calls, run = f"{TURNS}{{# {stopped} #}}", 0, sandbox._run

    def killed(request: bytes) -> tuple[list[dict[str, Any]], int]:
        nonlocal calls
        calls += 1
        return ([{"begins": "default"}], -signal.SIGKILL) if calls == stopped else run(request)

    monkeypatch.setattr(sandbox, "_run", killed)
    trial = tried(template)
    assert trial.passing
    assert "could not be rendered: it did not end" in str(trial.unfit)
    assert trial.way_out("take another base") == "Try again. If that fails too, take another base"
    assert tried(template).unfit is None
    assert tried(template).unfit is None
    assert calls == stopped + 2  # the third is kept


def test_what_the_template_refuses_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    template = "{{ raise_exception('only tools') }}"
    trial = tried(template)
    assert trial.unfit == "the base's chat template refuses the question: only tools"
    assert (trial.passing, trial.way_out("take another")) == (False, "Take another")
    monkeypatch.setattr(sandbox, "_run", None)
    assert tried(template) == trial


@pytest.mark.parametrize(
    ("name", "lacks"),
    [
        ("PreTrainedTokenizerFast", True),
        ("TokenizersBackend", True),
        ("PreTrainedTokenizer", True),
        ("LlamaTokenizerFast", False),
        (None, False),
    ],
)
def test_only_a_class_without_special_tokens_surely_lacks_an_end(
    name: str | None, lacks: bool
) -> None:
    settings: dict[str, Any] = {"tokenizer_class": name}
    assert prompts.lacks_end({"tokenizer_config.json": settings}) is lacks
    assert not prompts.lacks_end({"tokenizer_config.json": settings | {"eos_token": "</s>"}})


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (
            "{% if messages | length > 1 %}{{ raise_exception('one turn') }}{% endif %}" + TURNS,
            "refuses the answer: one turn",
        ),
        (
            "{% if messages | length > 1 %}{% else %}" + TURNS + "{% endif %}",
            "leaves out what the assistant answers",
        ),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "could not be rendered: it calls"),
        ("{{ raise_exception('') }}", "refuses the question"),
    ],
)
def test_why_a_template_is_unfit(template: str, words: str) -> None:
    assert words in str(tried(template).unfit)
