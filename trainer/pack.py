"""PEFT's output -> a clean bundle: the weights as they are, a configuration by whitelist, and a card of facts.

PEFT writes some forty keys, its own version and the path the base was loaded from; a bundle says what the weights are and
where they come from, and nothing about the machine that made them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from registry.rules import lora
from registry.rules.files import ADAPTER_WEIGHTS
from registry.rules.recipes import Recipe

KEPT = ("peft_type", "task_type", "r", "lora_alpha", "lora_dropout", "bias", "fan_in_fan_out", "init_lora_weights",
        "use_rslora", "use_dora", "layers_to_transform", "target_modules")  # fmt: skip


def clean_config(written: dict[str, Any], base_ref: str) -> dict[str, Any]:
    """What stays of PEFT's adapter_config.json; lists sorted, and the base named by its registry reference."""
    config = {key: written[key] for key in KEPT}
    config["target_modules"] = sorted(config["target_modules"])
    return config | {"base_model_name_or_path": base_ref, "revision": None, "inference_mode": True}


def card(run: str, adapter: str, base_ref: str, dataset_ref: str, recipe: Recipe, step: int, tokens: int) -> str:
    """The README.md of a version: facts only, no claim that an eval run has not made.

    It names the training run, so that a recipe run twice makes two versions of equal weights (one tensor root), each
    with a report of its own to stand on.
    """
    layers = f"layers {recipe.layers[0]} to {recipe.layers[1]}" if recipe.layers else "all layers"
    facts: Sequence[tuple[str, object]] = (
        ("Base model", f"`{base_ref}`"),
        ("Data set", f"`{dataset_ref}`, split `train`"),
        ("Method", f"LoRA, rank {recipe.rank}, alpha {recipe.alpha}, dropout {recipe.dropout:g}"),
        ("Adapted", f"{', '.join(recipe.targets)} in {layers}"),
        ("Trained", f"step {step} of {recipe.steps}, batches of {recipe.batch_size}, {tokens} tokens"),
        ("Learning rate", f"{recipe.learning_rate:g}, {recipe.warmup_steps} warm-up steps, then falling to 0"),
        ("Template", recipe.template),
        ("Precision", recipe.dtype),
        ("Seed", recipe.seed),
        ("Recipe", f"`{recipe.digest()}`"),
        ("Training run", f"`{run}`"),
    )
    head = f"---\nbase_model: {base_ref}\nlibrary_name: peft\ntags:\n- lora\n---\n\n# {adapter}\n\n"
    return head + "| | |\n|---|---|\n" + "".join(f"| {name} | {value} |\n" for name, value in facts)


def bundle(written: Path, into: Path, *, base_ref: str, readme: str) -> Path:
    """Make the bundle folder from the folder PEFT saved to; it appears whole or not at all, and is never rewritten."""
    if into.is_dir():
        return into
    part = into.with_name(f".{into.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    shutil.copyfile(written / ADAPTER_WEIGHTS, part / ADAPTER_WEIGHTS)
    config = clean_config(json.loads((written / lora.FILE).read_text("utf-8")), base_ref)
    (part / lora.FILE).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (part / "README.md").write_text(readme, encoding="utf-8")
    return part.rename(into)
