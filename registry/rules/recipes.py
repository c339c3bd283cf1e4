"""Recipes: how to train, checked once and frozen.

A recipe is hashed, signed into the training report and run again years later, so it holds decided
numbers only, and its defaults are filled in before it is hashed: a default that changes later
changes no recipe of the past.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from registry.errors import Invalid

MODULE = re.compile(r"[A-Za-z0-9_]+")
MAX_STEPS = 1_000_000
MAX_RANK = 512
"""The largest LoRA rank that can be trained; `artifacts.methods.configs` accepts no larger one."""
MAX_PUBLISHED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A LoRA fine-tune, wholly decided; `layers` is the first and the last layer adapted, None for
    all of them.

    `steps` are optimiser steps of `batch_size` rows each; `max_length` is in tokens of prompt and
    completion together; `publish_at` names the steps whose weights become versions, the last of
    them always the end of training.
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
    dtype: str
    publish_at: tuple[int, ...]
    save_every: int
    sample: int | None

    def as_dict(self) -> dict[str, Any]:
        """The recipe as JSON: what is stored, signed and hashed; `parse` reads it back to an equal
        recipe.
        """
        listed = dataclasses.asdict(self)
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in listed.items()
        }


def _int(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= high


def _number(value: Any, low: float, below: float) -> bool:
    return type(value) in (int, float) and low <= value < below


def _targets(value: Any) -> bool:
    return (
        isinstance(value, list)
        and 0 < len(value) <= 64
        and len(set(map(str, value))) == len(value)
        and all(isinstance(name, str) and MODULE.fullmatch(name) for name in value)
    )


def _layers(value: Any) -> bool:
    index = _int(0, 9999)
    return value is None or (isinstance(value, list) and len(value) == 2 and all(map(index, value)))


def _publish_at(value: Any) -> bool:
    return (
        isinstance(value, list)
        and 0 < len(value) <= MAX_PUBLISHED
        and all(map(_int(1, MAX_STEPS), value))
        and all(first < second for first, second in itertools.pairwise(value))
    )


KEYS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "method": (lambda value: value == "lora", "lora, the one method so far"),
    "rank": (_int(1, MAX_RANK), f"an integer from 1 to {MAX_RANK}"),
    "alpha": (_int(1, 65536), "an integer from 1 to 65536"),
    "dropout": (lambda value: _number(value, 0, 1), "a number from 0 to below 1"),
    "targets": (_targets, "a list of up to 64 different module names such as q_proj"),
    "layers": (_layers, "null, or the first and the last layer as two integers from 0"),
    "steps": (_int(1, MAX_STEPS), f"an integer from 1 to {MAX_STEPS}"),
    "batch_size": (_int(1, 4096), "an integer from 1 to 4096"),
    "learning_rate": (lambda value: _number(value, 1e-9, 1), "a number from 1e-9 to below 1"),
    "warmup_steps": (_int(0, MAX_STEPS), f"an integer from 0 to {MAX_STEPS}"),
    "max_length": (_int(8, 1_048_576), "an integer from 8 to 1048576"),
    "seed": (_int(0, 2**32 - 1), "an integer from 0 to 4294967295"),
    "template": (lambda value: value in ("chat", "plain"), "chat or plain"),
    "dtype": (lambda value: value in ("float32", "bfloat16"), "float32 or bfloat16"),
    "publish_at": (_publish_at, f"a list of up to {MAX_PUBLISHED} rising steps"),
    "save_every": (_int(1, MAX_STEPS), f"an integer from 1 to {MAX_STEPS}"),
    "sample": (
        lambda value: value is None or _int(1, 1 << 40)(value),
        "null, or the most rows to use",
    ),
}
DEFAULTS: dict[str, Any] = {
    "method": "lora",
    "rank": 8,
    "dropout": 0.0,
    "targets": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "layers": None,
    "warmup_steps": 0,
    "max_length": 512,
    "seed": 0,
    "template": "chat",
    "dtype": "float32",
    "sample": None,
}
"""What a recipe may leave out. `alpha` becomes twice the rank, `publish_at` the last step,
`save_every` a tenth.
"""


def parse(raw: Mapping[str, Any]) -> Recipe:
    """Read a recipe, its defaults filled in; Invalid (`bad-recipe`) names every unknown, missing
    and wrong key at once.

    `facts["problems"]` maps each key to what is wrong with it.
    """
    problems = {str(key)[:80]: "no such key" for key in raw if key not in KEYS}
    values = DEFAULTS | {key: value for key, value in raw.items() if key in KEYS}
    sound = {key for key, value in values.items() if KEYS[key][0](value)}
    problems |= {
        key: f"{str(values[key])[:60]!r} is not {KEYS[key][1]}"
        for key in values
        if key not in sound
    }
    problems |= {
        key: f"missing; give {KEYS[key][1]}"
        for key in ("steps", "batch_size", "learning_rate")
        if key not in values
    }
    if "rank" in sound:
        values.setdefault("alpha", 2 * values["rank"])
    if "steps" in sound:
        values.setdefault("publish_at", [values["steps"]])
        values.setdefault("save_every", max(1, values["steps"] // 10))
    problems |= {key: text for key, text in _at_odds(values, sound).items() if key not in problems}
    if problems:
        raise Invalid(
            "bad-recipe",
            f"The recipe is wrong in {len(problems)} of its keys: "
            + "; ".join(f"{key}: {text}" for key, text in sorted(problems.items()))
            + ".",
            f"Fix each of them. A recipe has the keys {', '.join(KEYS)}.",
            problems=problems,
        )
    for key in ("dropout", "learning_rate"):
        values[key] = float(values[key])
    for key in ("targets", "layers", "publish_at"):
        values[key] = None if values[key] is None else tuple(values[key])
    return Recipe(**values | {"targets": tuple(sorted(values["targets"]))})


def _at_odds(values: Mapping[str, Any], sound: set[str]) -> dict[str, str]:
    """Keys that are right alone and wrong together."""
    found = {}
    if {"steps", "publish_at"} <= sound and values["publish_at"][-1] != values["steps"]:
        found["publish_at"] = (
            f"its last step is {values['publish_at'][-1]}, not {values['steps']}: what training "
            "ends with is published"
        )
    if {"steps", "warmup_steps"} <= sound and values["warmup_steps"] >= values["steps"]:
        found["warmup_steps"] = (
            f"{values['warmup_steps']} leaves nothing of {values['steps']} steps"
        )
    if "layers" in sound and values["layers"] and values["layers"][0] > values["layers"][1]:
        found["layers"] = (
            f"the first, {values['layers'][0]}, comes after the last, {values['layers'][1]}"
        )
    if (
        {"sample", "batch_size"} <= sound
        and values["sample"] is not None
        and values["sample"] < values["batch_size"]
    ):
        found["sample"] = f"{values['sample']} rows do not fill a batch of {values['batch_size']}"
    return found
