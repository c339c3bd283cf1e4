"""PEFT's output -> a clean bundle: the weights as they are, the configuration as the registry keeps
it, a card of facts.

PEFT writes some forty keys, its own version and the path the base was loaded from; a bundle says
what the weights are and where they come from, and nothing about the machine that made them. The
registry writes every configuration again, by the very rule used here: so what a trainer signs is,
byte for byte, what is registered.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from registry.artifacts.bundles.names import ADAPTER_WEIGHTS
from registry.artifacts.methods import adapters
from registry.artifacts.methods.configs import FILE
from registry.documents import canonical, strict_json
from registry.errors import BundleRejected
from registry.rules.recipes import Recipe


def clean_config(written: bytes, line: str, commit: str) -> bytes:
    """PEFT's adapter_config.json as it is registered on a base's line at a commit; BundleRejected
    names what is no key of a supported method.
    """
    config, defects = adapters.read_config(strict_json.loads(written))
    if config is None:
        raise BundleRejected(defects)
    return adapters.written(config, line, commit)


def card(
    run: str, adapter: str, base_ref: str, dataset_ref: str, recipe: Recipe, step: int, tokens: int
) -> str:
    """The README.md of a version: facts only, no claim that an eval run has not made.

    It names the training run, so that a recipe run twice makes two versions of equal weights (one
    tensor root), each with a report of its own to stand on.
    """
    layers = f"layers {recipe.layers[0]} to {recipe.layers[1]}" if recipe.layers else "all layers"
    facts: Sequence[tuple[str, object]] = (
        ("Base model", f"`{base_ref}`"),
        ("Data set", f"`{dataset_ref}`, split `train`"),
        ("Method", f"LoRA, rank {recipe.rank}, alpha {recipe.alpha}, dropout {recipe.dropout:g}"),
        ("Adapted", f"{', '.join(recipe.targets)} in {layers}"),
        (
            "Trained",
            f"step {step} of {recipe.steps}, batches of {recipe.batch_size}, {tokens} tokens",
        ),
        (
            "Learning rate",
            f"{recipe.learning_rate:g}, {recipe.warmup_steps} warm-up steps, then falling to 0",
        ),
        ("Template", recipe.template),
        ("Precision", recipe.dtype),
        ("Seed", recipe.seed),
        ("Recipe", f"`{canonical.digest(recipe.as_dict())}`"),
        ("Training run", f"`{run}`"),
    )
    head = f"---\nbase_model: {base_ref}\nlibrary_name: peft\ntags:\n- lora\n---\n\n# {adapter}\n\n"
    return head + "| | |\n|---|---|\n" + "".join(f"| {name} | {value} |\n" for name, value in facts)


def bundle(written: Path, into: Path, *, line: str, commit: str, readme: str) -> Path:
    """Make the bundle folder from the folder PEFT saved to; it appears whole or not at all, and is
    never rewritten.

    `line` and `commit` are the base's, as it is registered.
    """
    if into.is_dir():
        return into
    part = into.with_name(f".{into.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    shutil.copyfile(written / ADAPTER_WEIGHTS, part / ADAPTER_WEIGHTS)
    (part / FILE).write_bytes(clean_config((written / FILE).read_bytes(), line, commit))
    (part / "README.md").write_text(readme, encoding="utf-8")
    return part.rename(into)
