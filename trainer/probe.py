"""Measure what an adapter does: how far it moves its base's logits on the first prompts of a suite.

An adapter that was never trained, or whose tensors the loader dropped, moves none of them. The base
is asked before the adapter is put on it, so that every method is measured in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from registry.artifacts.datasets.rows import Question

PROMPTS = 8
"""How many prompts are asked: enough to show an effect, few enough to cost nothing."""
MAX_TOKENS = 256
"""The last so many tokens of a prompt."""
POSITIONS = 16
"""The logits of so many last positions are compared; all of them would fill the memory."""


def logits(net: Any, tokenizer: Any, items: Sequence[Question]) -> list[torch.Tensor]:
    """The logits of the last positions of the first prompts, one (positions, vocabulary) each.

    The prompts are read plainly: a template changes what the model says, not whether an adapter has
    an effect.
    """
    answers = []
    for item in items[:PROMPTS]:
        ids = tokenizer(item.prompt)["input_ids"][-MAX_TOKENS:] or [tokenizer.eos_token_id]
        with torch.inference_mode():
            answer = net(input_ids=torch.tensor([ids], device=net.device)).logits
        # A prompt adapter puts tokens before the text; only the text's own positions are compared.
        answers.append(answer[0, -min(POSITIONS, len(ids)) :].float().cpu())
    return answers


def difference(base: Sequence[torch.Tensor], adapted: Sequence[torch.Tensor]) -> dict[str, Any]:
    """The largest and the mean absolute difference of logits, as a report states them."""
    gaps = [
        (own[:, : other.shape[1]] - other[:, : own.shape[1]]).abs()
        for own, other in zip(adapted, base, strict=True)
    ]
    return {
        "largest": float(f"{max(float(gap.max()) for gap in gaps):.6g}"),
        "mean": float(f"{sum(float(gap.mean()) for gap in gaps) / len(gaps):.6g}"),
        "prompts": len(gaps),
        "positions": sum(len(gap) for gap in gaps),
    }
