"""Whether a recipe's targets and layers are in a base, by the names of the loaded model.

The registry asks when a training is queued, the trainer when it starts. Both get the same answer,
so a fit that cannot hold costs nobody a lease.
"""

from __future__ import annotations

from collections.abc import Sequence

from registry.artifacts.methods.anatomies import HEAD, Anatomy, is_tokens
from registry.artifacts.methods.targets import layer_of, linear, matched
from registry.errors import Defect

FILE = "recipe"
MAX_SHOWN = 12
"""Names of modules that a message lists."""


def fit_defects(
    base: Anatomy, targets: Sequence[str], layers: tuple[int, int] | None
) -> list[Defect]:
    """What of a recipe's targets and layers a base does not have, by the loaded model's names.

    The rules of the defects are `layers-beyond-base` and `targets-missing`, which are kinds of
    problems too.
    """
    defects: list[Defect] = []
    depth = depth_of(base)
    if layers is not None and layers[1] >= depth:
        defects.append(
            Defect(
                FILE,
                "layers",
                "layers-beyond-base",
                f"The recipe adapts layers {layers[0]} to {layers[1]}, but the base has "
                f"{_span(depth)}.",
                "Name layers of these, or leave layers out." if depth else "Leave layers out.",
            )
        )
        layers = None  # the targets are then looked for in all layers
    modules = text_modules(base)
    chosen = None if layers is None else range(layers[0], layers[1] + 1)
    missing = [name for name, named in matched(targets, chosen, modules).items() if not named]
    if not missing:
        return defects
    inside = [name for name in modules if chosen is None or layer_of(name) in chosen]
    known = sorted({module.rpartition(".")[2] for module in inside})
    where = "" if layers is None else f" in layers {layers[0]} to {layers[1]}"
    others = " and others" if len(known) > MAX_SHOWN else ""
    return [
        *defects,
        Defect(
            FILE,
            "targets",
            "targets-missing",
            f"The base has no modules for LoRA named {', '.join(missing[:MAX_SHOWN])}{where}.",
            f"It has {', '.join(known[:MAX_SHOWN]) or 'none'}{others}: name some of these.",
        ),
    ]


def depth_of(base: Anatomy) -> int:
    """The number of the base's layers: what config.json says, else what its names show."""
    if base.layers is not None:
        return base.layers
    return max(
        (layer + 1 for name in linear(base) if (layer := layer_of(name)) is not None), default=0
    )


def _span(depth: int) -> str:
    return f"layers 0 to {depth - 1}" if depth > 1 else "layer 0 only" if depth else "no layers"


def text_modules(base: Anatomy) -> list[str]:
    """The linear modules of a base that read or write text.

    They lie in the module around the embedding of tokens, but for the head. A model that also sees
    or hears has modules of the same names in its other towers, which training on text would not
    change.
    """
    modules = linear(base)
    embedding = next((module for module in modules if is_tokens(module)), "")
    around = embedding.rpartition(".")[0]
    return [
        module
        for module in modules
        if not around or module.startswith(f"{around}.") or module == HEAD
    ]


def targets_in_full(
    base: Anatomy, targets: Sequence[str], layers: Sequence[int] | None
) -> list[str] | None:
    """The full names of a recipe's modules; None where the short names mean no other module."""
    text = frozenset(text_modules(base))
    others = [module for module in base.modules() if module not in text]
    if not any(matched(targets, None, others).values()):
        return None
    named = matched(targets, layers, sorted(text)).values()
    return sorted({module for modules in named for module in modules})
