"""Recipes: how to train, checked once and then frozen.

A recipe is hashed, signed into the training report and run again years later. It therefore contains
decided numbers only, and its defaults are filled in before it is hashed: a default that changes
later changes no recipe of the past.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

from registry.errors import Invalid
from registry.fields import (
    Field,
    Problem,
    by_path,
    choice,
    described,
    filled,
    integer,
    list_of,
    nullable,
    number,
    pattern,
    problems,
)

MODULE = re.compile(r"[A-Za-z0-9_]+")
MAX_STEPS = 1_000_000
MAX_RANK = 512
"""The largest LoRA rank that can be trained; `artifacts.methods.configs` accepts no larger one."""
MAX_PUBLISHED = 20
MAX_SYSTEM = 32_768
"""Characters of a system prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A LoRA fine-tune in every detail.

    `layers` is the first and the last layer adapted, None for all of them. `steps` are optimiser
    steps of `batch_size` rows each. `max_length` counts the tokens of prompt and completion
    together. `system` is the system prompt of rows that have none of their own; None adds none.
    `publish_at` lists the steps whose weights become versions; the last of them is always the end
    of training.
    """

    method: str
    rank: int
    alpha: int
    dropout: float
    targets: tuple[str, ...]
    layers: tuple[int, int] | None
    steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int
    max_length: int
    seed: int
    template: str
    system: str | None
    dtype: str
    publish_at: tuple[int, ...]
    save_every: int
    sample: int | None

    def as_dict(self) -> dict[str, Any]:
        """The recipe as JSON, which is stored, signed and hashed; `parse` reads it back."""
        listed = dataclasses.asdict(self)
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in listed.items()
        }


def _layers(value: Any) -> bool:
    return value is None or (
        isinstance(value, list) and len(value) == 2 and all(map(integer(0, 9999).check, value))
    )


def _publish_at(value: Any) -> bool:
    return list_of(integer(1, MAX_STEPS), 1, MAX_PUBLISHED).check(value) and all(
        first < second for first, second in itertools.pairwise(value)
    )


def is_system_prompt(value: Any) -> bool:
    """Whether this can be a system prompt. A blank one is refused: leaving it out adds none."""
    return isinstance(value, str) and 0 < len(value) <= MAX_SYSTEM and bool(value.strip())


MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
"""The linear layers of a Llama-like model, which are adapted unless a recipe says otherwise."""
FIELDS: dict[str, Field] = {
    "method": choice("lora").because("the one method so far").optional("lora"),
    "rank": integer(1, MAX_RANK).optional(8),
    "alpha": integer(1, 65536).optional(),
    "dropout": number(0, 1, exclusive=True).optional(0.0),
    "targets": list_of(
        pattern(MODULE, "a module name such as q_proj"), 1, 64, different=True
    ).optional(MODULES),
    "layers": Field(
        _layers, "null, or the first and the last layer as two integers from 0"
    ).optional(None),
    "steps": integer(1, MAX_STEPS),
    "batch_size": integer(1, 4096),
    "learning_rate": number(1e-9, 1, exclusive=True),
    "warmup_steps": integer(0, MAX_STEPS).optional(0),
    "max_length": integer(8, 1_048_576).optional(512),
    "seed": integer(0, 2**32 - 1).optional(0),
    "template": choice("chat", "plain").optional("chat"),
    "system": nullable(
        Field(is_system_prompt, f"a text of up to {MAX_SYSTEM:,} characters, not blank")
    ).optional(None),
    "dtype": choice("float32", "bfloat16").optional("float32"),
    "publish_at": Field(_publish_at, f"a list of up to {MAX_PUBLISHED} rising steps").optional(),
    "save_every": integer(1, MAX_STEPS).optional(),
    "sample": nullable(integer(1, 1 << 40)).because("the most rows to use").optional(None),
}
"""The keys of a recipe.

When left out, `alpha` becomes twice the rank, `publish_at` the last step and `save_every` a tenth
of the steps.
"""


def parse(raw: Mapping[str, Any]) -> Recipe:
    """Read a recipe and fill in its defaults.

    Raises Invalid `bad-recipe`, which lists every unknown, missing and wrong key.
    """
    wrong = problems(raw, FIELDS)
    values = filled(raw, FIELDS)
    sound = values.keys() - {problem.path for problem in wrong}
    if "rank" in sound:
        values.setdefault("alpha", 2 * values["rank"])
    if "steps" in sound:
        values.setdefault("publish_at", [values["steps"]])
        values.setdefault("save_every", max(1, values["steps"] // 10))
    wrong += _contradictions(values, sound)
    if wrong:
        raise Invalid(
            "bad-recipe",
            described("The recipe cannot be used", wrong),
            f"Fix each of them. A recipe has the keys {', '.join(FIELDS)}.",
            problems=by_path(wrong),
        )
    for key in ("dropout", "learning_rate"):
        values[key] = float(values[key])
    for key in ("targets", "layers", "publish_at"):
        values[key] = None if values[key] is None else tuple(values[key])
    return Recipe(**values | {"targets": tuple(sorted(values["targets"]))})


def _contradictions(values: Mapping[str, Any], sound: Set[str]) -> list[Problem]:
    """Keys that are valid alone and contradict each other."""
    wrong = []

    def report(key: str, text: str) -> None:
        wrong.append(Problem(key, "wrong", text))

    steps = values["steps"] if "steps" in sound else None
    if steps and "publish_at" in sound and values["publish_at"][-1] != steps:
        last = values["publish_at"][-1]
        report(
            "publish_at",
            f"its last step is {last}, not {steps}: what training ends with is published",
        )
    if steps and "warmup_steps" in sound and values["warmup_steps"] >= steps:
        report("warmup_steps", f"{values['warmup_steps']} leaves nothing of {steps} steps")
    if "layers" in sound and values["layers"]:
        first, last = values["layers"]
        if first > last:
            report("layers", f"the first, {first}, comes after the last, {last}")
    if {"sample", "batch_size"} <= sound and values["sample"] is not None:
        sample, batch = values["sample"], values["batch_size"]
        if sample < batch:
            report("sample", f"{sample} rows do not fill a batch of {batch}")
    return wrong
