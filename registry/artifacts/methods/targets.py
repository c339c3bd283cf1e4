"""Which modules of a base an adapter changes, and the tensors that it must have.

Names, shapes and the matching of names are those of PEFT 0.21
(tuners_utils.check_target_module_exists, utils.other.get_pattern_key, _set_trainable). They are
found here without running anything of a configuration as a pattern.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from registry.artifacts.methods.anatomies import HEAD, Anatomy, Shape, ends, inside
from registry.artifacts.methods.configs import CLASSES, FILE, Values
from registry.artifacts.methods.loaded_names import PREFIX
from registry.errors import Defect

OTHER_BASE = "Name modules of this base, or bind the adapter to the base it was trained on."


@dataclass(slots=True)
class Prediction:
    """The tensors that an adapter must have on a base, and what does not fit that base.

    `tensors` are required. `copies` are allowed as well: PEFT saves the base's own weights of
    adapted embeddings and heads beside the adapter's.
    """

    tensors: dict[str, Shape] = field(default_factory=dict)
    copies: dict[str, Shape] = field(default_factory=dict)
    defects: list[Defect] = field(default_factory=list)

    def wrong(self, where: str, rule: str, detail: str, fix: str = OTHER_BASE) -> None:
        self.defects.append(Defect(FILE, where, rule, detail, fix))


def layer_of(module: str, under: Collection[str] = ()) -> int | None:
    """The layer of a module, as PEFT 0.21 finds it; None when it is in no layer.

    It is the first number with two names before it or, if `under` is given, the first number that
    follows one of these names. A later number may be that of an expert.
    """
    parts = module.split(".")
    numbers = [
        place
        for place in range(1, len(parts) - 1)
        if parts[place].isdecimal() and parts[place].isascii()
    ]
    if under:
        return next(
            (int(parts[place]) for name in under for place in numbers if parts[place - 1] == name),
            None,
        )
    return next((int(parts[place]) for place in numbers if place > 1), None)


def matched(
    targets: Collection[str],
    layers: Collection[int] | None,
    modules: Iterable[str],
    under: Collection[str] = (),
) -> dict[str, list[str]]:
    """The modules that each target names, in full or by their ending, in the chosen layers.

    A module named in full counts in any layer.
    """
    matches: dict[str, list[str]] = {target: [] for target in targets}
    layers = None if layers is None else frozenset(layers)
    for module in modules:
        exact = module in matches
        for ending in ends(module):
            if ending in matches and (exact or layers is None or layer_of(module, under) in layers):
                matches[ending].append(module)
    return matches


def linear(base: Anatomy) -> list[str]:
    """The modules whose weight is a matrix."""
    return [
        name.removesuffix(".weight")
        for name, shape in base.shapes.items()
        if name.endswith(".weight") and len(shape) == 2
    ]


def adapted(values: Values, modules: Iterable[str], prediction: Prediction, kind: str) -> list[str]:
    """The modules that a method changes; a target that names none is a defect.

    Modules that are saved whole are not among them.
    """
    saved = set(values.get("modules_to_save") or ())
    excluded = set(values.get("exclude_modules") or ())
    free = [
        module
        for module in modules
        if (not saved or not _is_inside(module, saved))
        and (not excluded or excluded.isdisjoint(ends(module)))
    ]
    layers, under = values.get("layers_to_transform"), values.get("layers_pattern") or ()
    matches = matched(values["target_modules"], layers, free, under)
    for target, named in matches.items():
        if not named and not excluded:
            prediction.wrong(
                target,
                "target-unmatched",
                f"the base has no {kind} module {target!r} in the chosen layers",
            )
    return sorted({module for named in matches.values() for module in named})


def _is_inside(module: str, saved: Collection[str]) -> bool:
    """Whether one of these names is that of the module or of a module around it."""
    return any(name in module and f".{name}." in f".{module}." for name in saved)


def save_whole(values: Values, base: Anatomy, prediction: Prediction) -> None:
    """Add the modules that are saved whole: every tensor of the base's module of that name.

    PEFT saves any module whose name ends with the given one, even in the middle of a word; a name
    that would match so is a defect.
    """
    names = tuple(values.get("modules_to_save") or ())
    matches: dict[str, set[str]] = {name: set() for name in names}
    loose: dict[str, str] = {}
    for module in base.modules() if names else ():
        exact = [end for end in ends(module) if end in matches] if module.endswith(names) else []
        for name in exact:
            matches[name].add(module)
        if module.endswith(names):
            loose |= {name: module for name in names if name not in exact and module.endswith(name)}
    # PEFT names both modules for a classifier, which has one of them. The classifier of DistilBERT
    # has a second module whose name ends with the same word.
    either = [
        name
        for name in ("classifier", "score")
        if values.get("task_type") in CLASSES and matches.get(name)
    ]
    for name, module in loose.items():
        if name in either:
            matches[name].add(module)
        else:
            prediction.wrong(
                name,
                "module-ambiguous",
                f"PEFT would save {module} for {name!r} too",
                "Name it in full.",
            )
    for name in [name for name, modules in matches.items() if not modules]:
        if either and name in ("classifier", "score"):
            continue
        prediction.wrong(name, "target-unmatched", f"the base has no module {name!r} to replace")
    whole = set().union(*matches.values())
    for full, shape in base.shapes.items():
        if whole and not whole.isdisjoint(inside(full)[:-1]):
            prediction.tensors[PREFIX + full] = shape


def biases(values: Values, base: Anatomy, modules: Iterable[str], prediction: Prediction) -> None:
    """Add the trained biases, which replace the base's: all, or those of the adapted modules."""
    if values["bias"] == "none":
        return
    if values.get("modules_to_save"):
        prediction.wrong(
            "bias",
            "config-at-odds",
            "PEFT would save the biases of modules_to_save twice",
            "Train with one of the two.",
        )
    changed = set(modules)
    for name, shape in base.shapes.items():
        module = name.removesuffix(".bias")
        if module != name and len(shape) == 1:
            if module in changed:
                prediction.tensors[f"{PREFIX}{module}.base_layer.bias"] = shape
            elif values["bias"] == "all":
                prediction.tensors[PREFIX + name] = shape


def fans(values: Values, base: Anatomy, module: str) -> tuple[int, int]:
    """The numbers of outputs and of inputs of a linear module.

    GPT-2's Conv1D stores its matrix transposed. PEFT recognises that by itself, and records
    fan_in_fan_out only when all targets are of that kind.
    """
    out, into = base.shapes[f"{module}.weight"]
    transposed = base.conv1d or values["fan_in_fan_out"]
    return (into, out) if transposed and module.rpartition(".")[2] != HEAD else (out, into)
