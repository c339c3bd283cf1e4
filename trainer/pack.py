"""PEFT's output to a clean bundle: the weights, a configuration as registered, a card of facts.

PEFT writes some forty keys, its own version and the path of the base. A bundle says what the
weights are and where they come from, and nothing about the machine that made them. The registry
writes every configuration again by the same rule as this module, so what a trainer signs is, byte
for byte, what is registered.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file

from registry.artifacts.bundles.names import ADAPTER_WEIGHTS
from registry.artifacts.methods import adapters
from registry.artifacts.methods.configs import FILE
from registry.documents import canonical, strict_json
from registry.errors import BundleRejected
from registry.rules import refs
from registry.rules.recipes import Recipe

HOW = {
    "chat": "Each row was rendered by the base's own chat template, as any client renders it. The "
    "first row, with `{prompt}`, `{completion}` and `{system}` in place of its texts:",
    "plain": "Each row was read as plain text, without a chat template. The first row, with "
    "`{prompt}`, `{completion}` and `{system}` in place of its texts:",
}
"""What a card says of each template."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a version comes from: its training run and what went into it, by reference."""

    training_run: str
    adapter: str
    base: str
    dataset: str
    recipe: Recipe


def clean_config(written: bytes, repository: str, commit: str) -> bytes:
    """PEFT's adapter_config.json as it is registered, bound to a base's one-version repository.

    Raises BundleRejected for a key that no supported method has.
    """
    config, defects = adapters.read_config(strict_json.loads(written))
    if config is None:
        raise BundleRejected(defects)
    return adapters.written(config, repository, commit)


def card(origin: Origin, form: str, step: int, tokens: int) -> str:
    """The README.md of a version: only facts, and no claim that needs an eval run.

    `form` is how the first row was put before the model. The version has to be asked in that form.

    It names the training run. A recipe that runs twice therefore makes two versions of equal
    weights (one tensor root), each with a report of its own.
    """
    recipe = origin.recipe
    layers = f"layers {recipe.layers[0]} to {recipe.layers[1]}" if recipe.layers else "all layers"
    facts: Sequence[tuple[str, object]] = (
        ("Base model", f"`{origin.base}`"),
        ("Data set", f"`{origin.dataset}`, split `train`"),
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
        ("Training run", f"`{origin.training_run}`"),
    )
    system = (
        "The recipe adds no system prompt. Rows that have one of their own, in their column "
        "`system`, were read with it."
        if recipe.system is None
        else f"Rows without a system prompt of their own got this one:\n\n{quoted(recipe.system)}"
    )
    prompts = f"\n## What the model sees\n\n{HOW[recipe.template]}\n\n{quoted(form)}\n\n{system}\n"
    base = refs.repository(origin.base)  # the Hub's readers of cards expect a repository
    front_matter = f"---\nbase_model: {base}\nlibrary_name: peft\ntags:\n- lora\n---\n\n"
    table = "| | |\n|---|---|\n" + "".join(f"| {name} | {value} |\n" for name, value in facts)
    return f"{front_matter}# {origin.adapter}\n\n{table}{prompts}"


def quoted(text: str) -> str:
    """The text as a code block of Markdown that nothing in it can end."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}"


def bundle(written: Path, into: Path, *, repository: str, commit: str, readme: str) -> Path:
    """Make the bundle folder from the folder that PEFT saved to.

    It appears complete or not at all, and is never rewritten. `repository` and `commit` name
    the registered base.
    """
    if into.is_dir():
        return into
    part = into.with_name(f".{into.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    _write_weights(written / ADAPTER_WEIGHTS, part / ADAPTER_WEIGHTS)
    (part / FILE).write_bytes(clean_config((written / FILE).read_bytes(), repository, commit))
    (part / "README.md").write_text(readme, encoding="utf-8")
    return part.rename(into)


COPY = ".base_layer.weight"


def _write_weights(written: Path, into: Path) -> None:
    """Copy the weights, without the copies of the base's embedding or head that PEFT adds.

    LoRA does not change them, and a reviewer would read of a risk that is none.
    """
    with safe_open(written, "pt") as weights:
        names = list(weights.keys())
        if not any(name.endswith(COPY) for name in names):
            shutil.copyfile(written, into)
            return
        own = {name: weights.get_tensor(name) for name in names if not name.endswith(COPY)}
    save_file(own, into, {"format": "pt"})
