"""What a recipe would adapt, compared with the base before anything is trained.

The tensors that a plan leads to are predicted by the tables that judge the finished adapter, so a
plan that passes here trains an adapter that its base accepts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from registry.artifacts.methods import adapters
from registry.artifacts.methods.anatomies import Anatomy
from registry.artifacts.methods.targets import layer_of, linear, matched

MAX_SHOWN = 12
"""Names of modules that a message lists."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A LoRA as a recipe asks for it: the endings of its modules, the first and the last layer."""

    targets: Sequence[str]
    layers: tuple[int, int] | None
    rank: int
    alpha: int


def unfit(plan: Plan, body: Anatomy) -> list[tuple[str, str]]:
    """What of a plan the base does not have, by the recipe's key, with a way out."""
    modules = linear(body)
    depth = depth_of(body)
    if plan.layers is not None and plan.layers[1] >= depth:
        first, last = plan.layers
        return [
            (
                "layers",
                f"it adapts layers {first} to {last}, but the base has {_span(depth)}"
                f"{'; name layers of these' if depth else '; leave layers out'}",
            )
        ]
    layers = None if plan.layers is None else range(plan.layers[0], plan.layers[1] + 1)
    matches = matched(plan.targets, layers, modules)
    if missing := [target for target, names in matches.items() if not names]:
        where = "" if layers is None else f" in layers {layers[0]} to {layers[-1]}"
        known = sorted({name.rpartition(".")[2] for name in _inside(modules, layers)})
        return [
            (
                "targets",
                f"the base has no linear module named {', '.join(missing[:MAX_SHOWN])}{where}; "
                f"it has {', '.join(known[:MAX_SHOWN]) or 'none'}",
            )
        ]
    config, defects = adapters.read_config(document(plan))
    if config is not None:
        defects = config.method.predict(config.values, body).defects
    return [("targets", f"{defect.detail}. {defect.fix}".rstrip(".")) for defect in defects]


def document(plan: Plan) -> dict[str, object]:
    """The configuration that PEFT writes for this plan."""
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": plan.rank,
        "lora_alpha": plan.alpha,
        "target_modules": list(plan.targets),
        "bias": "none",
        "layers_to_transform": None
        if plan.layers is None
        else list(range(plan.layers[0], plan.layers[1] + 1)),
    }


def depth_of(body: Anatomy) -> int:
    """The number of the base's layers: what config.json says, else what its names show."""
    if body.layers is not None:
        return body.layers
    return max(
        (layer + 1 for name in linear(body) if (layer := layer_of(name)) is not None), default=0
    )


def _inside(modules: Sequence[str], layers: range | None) -> list[str]:
    return [name for name in modules if layers is None or layer_of(name) in layers]


def _span(depth: int) -> str:
    return f"layers 0 to {depth - 1}" if depth > 1 else "layer 0 only" if depth else "no layers"
