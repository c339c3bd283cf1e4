"""Whether a recipe can be trained on a base, judged from the base's files alone.

The registry asks when a training is queued, the trainer when it starts. Both get the same answer,
so a fit that cannot hold costs nobody a lease.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from registry.artifacts.methods.anatomies import Anatomy, Shape, is_tokens
from registry.artifacts.methods.heads import trained_view
from registry.artifacts.methods.targets import linear, matched
from registry.errors import Defect

FILE = "recipe"
SHOWN = 12


def recipe_defects(
    shapes: Mapping[str, Shape],
    config: Mapping[str, Any],
    targets: Sequence[str],
    layers: tuple[int, int] | None,
) -> list[Defect]:
    """What of a recipe's targets and layers a base does not have.

    `shapes` and `config` are the tensors and the config.json of the base's files (`BaseFacts`).
    The rules of the defects are `layers-beyond-base` and `targets-missing`, which are kinds of
    problems too.
    """
    return fit_defects(trained_view(shapes, config).body, targets, layers)


def fit_defects(
    base: Anatomy, targets: Sequence[str], layers: tuple[int, int] | None
) -> list[Defect]:
    """The same for a base by the names of its loaded model."""
    depth = base.layers
    if layers is not None and depth is not None and layers[1] >= depth:
        return [
            Defect(
                FILE,
                "layers",
                "layers-beyond-base",
                f"The recipe adapts layers {layers[0]} to {layers[1]}; the base has 0 to "
                f"{depth - 1}.",
                f"Name layers from 0 to {depth - 1}, or leave layers out to adapt all of them.",
            )
        ]
    modules = text_modules(base)
    chosen = None if layers is None else range(layers[0], layers[1] + 1)
    missing = [name for name, named in matched(targets, chosen, modules).items() if not named]
    if not missing:
        return []
    known = sorted({module.rpartition(".")[2] for module in modules})
    where = "" if layers is None else f" in layers {layers[0]} to {layers[1]}"
    return [
        Defect(
            FILE,
            "targets",
            "targets-missing",
            f"The base has no modules named {', '.join(missing)}{where}.",
            f"Name some of its linear modules: {', '.join(known[:SHOWN])}"
            f"{' and others' if len(known) > SHOWN else ''}.",
        )
    ]


def text_modules(base: Anatomy) -> list[str]:
    """The linear modules of a base that read or write text.

    They lie in the module around the embedding of tokens. A model that also sees or hears has
    modules of the same names in its other towers, which training on text would not change.
    """
    modules = linear(base)
    embedding = next((module for module in modules if is_tokens(module)), "")
    around = embedding.rpartition(".")[0]
    return [module for module in modules if not around or module.startswith(f"{around}.")]


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
