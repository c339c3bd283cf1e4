"""Answer a frozen suite greedily, with a base or an adapter on it. The registry judges."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from registry.artifacts.datasets.rows import Question
from registry.errors import Invalid
from registry.rules import evals
from trainer import data, memory, model

BATCH = 16
"""Items that are answered together."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is evaluated: a model, and the tokenizer of its base."""

    net: Any
    tokenizer: Any


def generation(net: Any, tokenizer: Any, max_new_tokens: int) -> GenerationConfig:
    """Greedy decoding that takes only the end tokens from the base's generation_config.json."""
    return GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=max_new_tokens,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=list(model.end_tokens(net, tokenizer)),
    )


class AtStops(StoppingCriteria):  # type: ignore[misc]  # transformers is untyped to mypy
    """End each answer that contains a stop sequence, as engines do.

    Only what was generated counts, not the prompt. The last tokens are enough to see a stop that
    has just been completed.
    """

    def __init__(self, tokenizer: Any, width: int, stop: Sequence[str]) -> None:
        self._tokenizer, self._width, self._stop = tokenizer, width, stop
        # Tokens that are decoded: a character has at most four bytes, a token at least one.
        self._last = 4 * max(map(len, stop))

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        start = max(self._width, input_ids.shape[1] - self._last)
        texts = self._tokenizer.batch_decode(input_ids[:, start:], skip_special_tokens=True)
        ended = [evals.cut(text, self._stop) != text for text in texts]
        return torch.tensor(ended, device=input_ids.device, dtype=torch.bool)


def at_stops(tokenizer: Any, width: int, stop: Sequence[str]) -> StoppingCriteriaList:
    """What ends answers to prompts of `width` tokens at these texts, if there are any."""
    return StoppingCriteriaList([AtStops(tokenizer, width, stop)] if stop else [])


def check_decoding(decoding: Mapping[str, Any]) -> tuple[str, int, str | None]:
    """(template, max_new_tokens, system) of a suite's decoding; `stop` may stand beside them.

    Raises Invalid `bad-decoding` for one that this trainer cannot follow.
    """
    template, limit = decoding.get("template"), decoding.get("max_new_tokens")
    system = decoding.get("system")
    unknown = set(decoding) - {"template", "max_new_tokens", "system", "stop"}
    sound = (
        template in ("chat", "plain")
        and type(limit) is int
        and limit > 0
        and (system is None or type(system) is str)
    )
    if unknown or not sound or type(limit) is not int:
        raise Invalid(
            "bad-decoding",
            f"This trainer cannot decode as the suite asks: {dict(decoding)}.",
            "Freeze the suite with template chat or plain, max_new_tokens, and a system prompt or "
            "null. Update the trainer if the registry is newer.",
        )
    return str(template), limit, system


def answer(
    subject: Subject,
    items: Sequence[Question],
    decoding: Mapping[str, Any],
    on_progress: Callable[[int, int], None],
    batch: int = BATCH,
) -> tuple[list[str], int]:
    """Each item's output in the suite's order, and the number of tokens generated.

    Prompts are padded on the left, so that every answer starts at the same place, and batched by
    length. The batching depends only on the suite, so the same model gives the same outputs again.
    """
    net, tokenizer = subject.net, subject.tokenizer
    template, limit, system = check_decoding(decoding)
    stop = evals.check_stop(decoding.get("stop", []))
    prompts = [
        data.prompt_ids(tokenizer, item.prompt, template, item.system or system) for item in items
    ]
    config = generation(net, tokenizer, limit)
    by_length = sorted(range(len(items)), key=lambda index: (len(prompts[index]), index))
    outputs = [""] * len(items)
    written = 0
    for start in range(0, len(items), batch):
        chosen = by_length[start : start + batch]
        width = len(prompts[chosen[-1]])
        ids = torch.tensor(
            [[tokenizer.pad_token_id] * (width - len(prompts[i])) + prompts[i] for i in chosen]
        )
        mask = torch.tensor(
            [[0] * (width - len(prompts[i])) + [1] * len(prompts[i]) for i in chosen]
        )
        with torch.inference_mode():
            generated = net.generate(
                input_ids=ids.to(net.device),
                attention_mask=mask.to(net.device),
                generation_config=config,
                stopping_criteria=at_stops(tokenizer, width, stop),
            )[:, width:]
        written += int((generated != tokenizer.pad_token_id).sum())
        texts = tokenizer.batch_decode(generated, skip_special_tokens=True)
        for index, text in zip(chosen, texts, strict=True):
            outputs[index] = evals.cut(text, stop)
        on_progress(min(start + batch, len(items)), len(items))
    return outputs, written


def run(
    subject: Subject,
    items: Sequence[Question],
    decoding: Mapping[str, Any],
    into: Path,
    on_progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """Answer a suite into a samples file and return the meters.

    The file is JSON Lines of item and output, in the suite's order.
    """
    since = time.perf_counter()
    outputs, written = answer(subject, items, decoding, on_progress)
    into.write_text(
        "".join(
            json.dumps({"item": item.id, "output": output}, ensure_ascii=False) + "\n"
            for item, output in zip(items, outputs, strict=True)
        ),
        encoding="utf-8",
    )
    seconds = time.perf_counter() - since
    return {
        "seconds": round(seconds, 3),
        "items": len(items),
        "tokens": written,
        "peak_memory_bytes": memory.peak_bytes(),
    }
