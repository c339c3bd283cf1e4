"""What a recipe would adapt, compared with the base before anything is trained.

The tensors that a plan leads to are predicted by the tables that judge the finished adapter, so a
plan that passes here trains an adapter that its base accepts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from registry.artifacts.methods import adapters
from registry.artifacts.methods.anatomies import Anatomy
from registry.artifacts.methods.recipe_fits import fit_defects


@dataclass(frozen=True, slots=True)
class Plan:
    """A LoRA as a recipe asks for it: the endings of its modules, the first and the last layer."""

    targets: Sequence[str]
    layers: tuple[int, int] | None
    rank: int
    alpha: int


def unfit(plan: Plan, body: Anatomy) -> list[tuple[str, str]]:
    """What of a plan the base does not have, by the recipe's key, with a way out."""
    if misfits := fit_defects(body, plan.targets, plan.layers):
        return [(defect.where, f"{defect.detail} {defect.fix}".rstrip(".")) for defect in misfits]
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
