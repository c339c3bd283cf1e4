"""Which tensors the LoRA family has on a base: plain, rank-stabilised, DoRA and AdaLoRA, their biases and whole modules.

Names, shapes and the matching of names are those of PEFT 0.21 (tuners_utils.check_target_module_exists,
utils.other.get_pattern_key, _set_trainable), found again without running anything of a configuration as a pattern.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from registry.errors import Defect
from registry.rules.anatomies import HEAD, Anatomy, Shape, ends, inside, is_embedding
from registry.rules.configs import FILE as FILE
from registry.rules.configs import MAX_RANK as MAX_RANK
from registry.rules.configs import Values

PREFIX = "base_model.model."
OTHER_BASE = "Name modules of this base, or bind the adapter to the base it was trained on."


@dataclass(slots=True)
class Wanted:
    """The tensors an adapter must have on a base, by name; and what of its configuration finds no place there."""

    tensors: dict[str, Shape] = field(default_factory=dict)
    defects: list[Defect] = field(default_factory=list)

    def wrong(self, where: str, rule: str, detail: str, mend: str = OTHER_BASE) -> None:
        self.defects.append(Defect(FILE, where, rule, detail, mend))


def layer_of(module: str) -> int | None:
    """The first number with two names before it, as PEFT 0.21 finds a layer.

    A later number may be an expert's. A module named in full is taken whatever its layer.
    """
    parts = module.split(".")
    return next((int(part) for part in parts[2:-1] if part.isdecimal() and part.isascii()), None)


def matched(targets: Collection[str], layers: Collection[int] | None, modules: Iterable[str]) -> dict[str, list[str]]:
    """The modules that each target names, in full or by their end, after the choice of layers."""
    found: dict[str, list[str]] = {target: [] for target in targets}
    layers = None if layers is None else frozenset(layers)
    for module in modules:
        exact = module in found
        for tail in ends(module):
            if tail in found and (exact or layers is None or layer_of(module) in layers):
                found[tail].append(module)
    return found


def linear(base: Anatomy) -> list[str]:
    """The modules whose weight is a matrix."""
    return [name.removesuffix(".weight") for name, shape in base.shapes.items()
            if name.endswith(".weight") and len(shape) == 2]  # fmt: skip


def adapted(values: Values, modules: Iterable[str], wanted: Wanted, kind: str) -> list[str]:
    """The modules a method changes; each target that names none is a defect. Modules saved whole are left alone."""
    saved = set(values.get("modules_to_save") or ())
    free = [module for module in modules if not saved or not _is_inside(module, saved)]
    found = matched(values["target_modules"], values.get("layers_to_transform"), free)
    for target, named in found.items():
        if not named:
            wanted.wrong(target, "target-unmatched", f"the base has no {kind} module {target!r} in the layers chosen")
    return sorted({module for named in found.values() for module in named})


def _is_inside(module: str, saved: Collection[str]) -> bool:
    """Is it, or anything around it, named by one of these in full or by its end?"""
    return any(name in module and f".{name}." in f".{module}." for name in saved)


def save_whole(values: Values, base: Anatomy, wanted: Wanted) -> None:
    """Modules saved whole: every tensor of the base's module of that name, which the adapter replaces.

    PEFT takes any module whose name ends so, in the middle of a word too; a name that would is refused.
    """
    names = tuple(values.get("modules_to_save") or ())
    found: dict[str, set[str]] = {name: set() for name in names}
    loose: dict[str, str] = {}
    for module in base.modules() if names else ():
        exact = [end for end in ends(module) if end in found] if module.endswith(names) else []
        for name in exact:
            found[name].add(module)
        if module.endswith(names):
            loose |= {name: module for name in names if name not in exact and module.endswith(name)}
    for name, module in loose.items():
        wanted.wrong(name, "module-ambiguous", f"PEFT would take {module} for {name!r} too", "Name it in full.")
    for name in [name for name, modules in found.items() if not modules]:
        wanted.wrong(name, "target-unmatched", f"the base has no module {name!r} to replace")
    whole = set().union(*found.values())
    for full, shape in base.shapes.items():
        if whole and not whole.isdisjoint(inside(full)[:-1]):
            wanted.tensors[PREFIX + full] = shape


def biases(values: Values, base: Anatomy, modules: Iterable[str], wanted: Wanted) -> None:
    """Biases trained beside: all of the base's, or those of the adapted modules only; they replace the base's own."""
    if values["bias"] == "none":
        return
    if values.get("modules_to_save"):
        wanted.wrong("bias", "config-at-odds", "PEFT would save the biases of modules_to_save twice",
                     "Train with one of the two.")  # fmt: skip
    changed = set(modules)
    for name, shape in base.shapes.items():
        module = name.removesuffix(".bias")
        if module != name and len(shape) == 1:
            if module in changed:
                wanted.tensors[f"{PREFIX}{module}.base_layer.bias"] = shape
            elif values["bias"] == "all":
                wanted.tensors[PREFIX + name] = shape


def fans(values: Values, base: Anatomy, module: str) -> tuple[int, int]:
    """How many numbers come out of a linear module, and go in; GPT-2's Conv1D stores them the other way round.

    PEFT sees that by itself, and notes fan_in_fan_out only when all its targets are such.
    """
    out, into = base.shapes[f"{module}.weight"]
    turned = (base.turned or values["fan_in_fan_out"]) and module.rpartition(".")[2] != HEAD
    return (into, out) if turned else (out, into)


def pick(pattern: Mapping[str, Any], module: str) -> list[str]:
    """The keys of a pattern that name a module, in full or by its end; PEFT takes the first, and sorts what it saves."""
    return sorted(end for end in ends(module) if end in pattern)


def _patterns(values: Values, modules: Collection[str], wanted: Wanted) -> None:
    """Each key names an adapted module, and no module has two meanings."""
    for name in ("rank_pattern", "alpha_pattern"):
        pattern, used = values[name], set()
        for module in modules if pattern else ():
            keys = pick(pattern, module)
            used.update(keys)
            if len({pattern[key] for key in keys}) > 1:
                wanted.wrong(f"{name}.{keys[1]}", "pattern-ambiguous", f"{module} is {pattern[keys[0]]} by {keys[0]} and "
                             f"{pattern[keys[1]]} by {keys[1]}; PEFT takes what stands first, and sorts them when it saves",
                             "Name each module by one key only.")  # fmt: skip
        for key in pattern.keys() - used:
            wanted.wrong(
                f"{name}.{key}", "target-unmatched", f"{name} names {key!r}, which is no adapted module of the base"
            )


def predict_lora(values: Values, base: Anatomy) -> Wanted:
    """A is (rank, in), B is (out, rank); an embedding's are (rank, tokens), (width, rank). DoRA adds a magnitude (out,)."""
    wanted = Wanted()
    modules = adapted(values, linear(base), wanted, "linear")
    _patterns(values, modules, wanted)
    for module in modules:
        ranks = [values["rank_pattern"][key] for key in pick(values["rank_pattern"], module)]
        rank = ranks[0] if ranks else values["r"]
        stem = PREFIX + module
        if is_embedding(module):
            tokens, width = base.shapes[f"{module}.weight"]
            wanted.tensors |= {f"{stem}.lora_embedding_A": (rank, tokens), f"{stem}.lora_embedding_B": (width, rank)}
            out = width
        else:
            out, into = fans(values, base, module)
            wanted.tensors |= {f"{stem}.lora_A.weight": (rank, into), f"{stem}.lora_B.weight": (out, rank)}
        if values["use_dora"]:
            wanted.tensors[f"{stem}.lora_magnitude_vector"] = (out,)
    biases(values, base, modules, wanted)
    save_whole(values, base, wanted)
    return wanted


def predict_adalora(values: Values, base: Anatomy) -> Wanted:
    """A is (rank, in), E is (rank, 1), B is (out, rank), with what is left of `init_r` once a module was pruned."""
    wanted = Wanted()
    modules = adapted(values, linear(base), wanted, "linear")
    masks = {name.removesuffix(".lora_E"): mask for name, mask in (values["rank_pattern"] or {}).items()}
    known = set(modules)
    for name, mask in masks.items():
        if name not in known:
            wanted.wrong(name, "target-unmatched", f"rank_pattern names {name}, which is not adapted on this base")
        elif len(mask) != values["init_r"]:
            wanted.wrong(name, "config-at-odds", f"rank_pattern has {len(mask)} ranks for it, not init_r's "
                         f"{values['init_r']}", "Save the adapter again with PEFT.")  # fmt: skip
    for module in modules:
        out, into = fans(values, base, module)
        rank = sum(masks[module]) if module in masks else values["init_r"]
        stem = PREFIX + module
        wanted.tensors |= {
            f"{stem}.lora_A": (rank, into), f"{stem}.lora_B": (out, rank), f"{stem}.lora_E": (rank, 1),
        }  # fmt: skip
    biases(values, base, modules, wanted)
    save_whole(values, base, wanted)
    return wanted
