"""Which tensors the LoRA family has on a base: plain, rank-stabilised, DoRA and AdaLoRA, their
biases and whole modules.

Names, shapes and the matching of names are those of PEFT 0.21
(tuners_utils.check_target_module_exists, utils.other.get_pattern_key, _set_trainable), found again
without running anything of a configuration as a pattern.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from registry.artifacts.methods.anatomies import (
    HEAD,
    Anatomy,
    Shape,
    ends,
    inside,
    is_embedding,
    is_tokens,
)
from registry.artifacts.methods.configs import CLASSES as CLASSES
from registry.artifacts.methods.configs import FILE as FILE
from registry.artifacts.methods.configs import MAX_RANK as MAX_RANK
from registry.artifacts.methods.configs import Values
from registry.artifacts.methods.heads import PREFIX as PREFIX
from registry.errors import Defect

OTHER_BASE = "Name modules of this base, or bind the adapter to the base it was trained on."


@dataclass(slots=True)
class Wanted:
    """The tensors an adapter must have on a base, by name; and what of its configuration finds no
    place there.

    `copies` may be there too: of embeddings and heads that are adapted, PEFT saves the base's own
    beside.
    """

    tensors: dict[str, Shape] = field(default_factory=dict)
    copies: dict[str, Shape] = field(default_factory=dict)
    defects: list[Defect] = field(default_factory=list)

    def wrong(self, where: str, rule: str, detail: str, fix: str = OTHER_BASE) -> None:
        self.defects.append(Defect(FILE, where, rule, detail, fix))


def layer_of(module: str, under: Collection[str] = ()) -> int | None:
    """The first number with two names before it, as PEFT 0.21 finds a layer; or after one of the
    names it is `under`.

    A later number may be an expert's. A module named in full is taken whatever its layer.
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
    """The modules that each target names, in full or by their end, after the choice of layers."""
    found: dict[str, list[str]] = {target: [] for target in targets}
    layers = None if layers is None else frozenset(layers)
    for module in modules:
        exact = module in found
        for tail in ends(module):
            if tail in found and (exact or layers is None or layer_of(module, under) in layers):
                found[tail].append(module)
    return found


def linear(base: Anatomy) -> list[str]:
    """The modules whose weight is a matrix."""
    return [
        name.removesuffix(".weight")
        for name, shape in base.shapes.items()
        if name.endswith(".weight") and len(shape) == 2
    ]


def adapted(values: Values, modules: Iterable[str], wanted: Wanted, kind: str) -> list[str]:
    """The modules a method changes; each target that names none is a defect. Modules saved whole
    are left alone.
    """
    saved, left = set(values.get("modules_to_save") or ()), set(values.get("exclude_modules") or ())
    free = [
        module
        for module in modules
        if (not saved or not _is_inside(module, saved))
        and (not left or left.isdisjoint(ends(module)))
    ]
    layers, under = values.get("layers_to_transform"), values.get("layers_pattern") or ()
    found = matched(values["target_modules"], layers, free, under)
    for target, named in found.items():
        if not named and not left:
            wanted.wrong(
                target,
                "target-unmatched",
                f"the base has no {kind} module {target!r} in the layers chosen",
            )
    return sorted({module for named in found.values() for module in named})


def _is_inside(module: str, saved: Collection[str]) -> bool:
    """Is it, or anything around it, named by one of these in full or by its end?"""
    return any(name in module and f".{name}." in f".{module}." for name in saved)


def save_whole(values: Values, base: Anatomy, wanted: Wanted) -> None:
    """Modules saved whole: every tensor of the base's module of that name, which the adapter
    replaces.

    PEFT takes any module whose name ends so, in the middle of a word too; a name that would is
    refused.
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
    # PEFT names both for a classifier, which has one of them; DistilBERT's has a second part that
    # ends so.
    either = [
        name
        for name in ("classifier", "score")
        if values.get("task_type") in CLASSES and found.get(name)
    ]
    for name, module in loose.items():
        if name in either:
            found[name].add(module)
        else:
            wanted.wrong(
                name,
                "module-ambiguous",
                f"PEFT would take {module} for {name!r} too",
                "Name it in full.",
            )
    for name in [name for name, modules in found.items() if not modules]:
        if either and name in ("classifier", "score"):
            continue
        wanted.wrong(name, "target-unmatched", f"the base has no module {name!r} to replace")
    whole = set().union(*found.values())
    for full, shape in base.shapes.items():
        if whole and not whole.isdisjoint(inside(full)[:-1]):
            wanted.tensors[PREFIX + full] = shape


def biases(values: Values, base: Anatomy, modules: Iterable[str], wanted: Wanted) -> None:
    """Biases trained beside: all of the base's, or those of the adapted modules only; they replace
    the base's own.
    """
    if values["bias"] == "none":
        return
    if values.get("modules_to_save"):
        wanted.wrong(
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
                wanted.tensors[f"{PREFIX}{module}.base_layer.bias"] = shape
            elif values["bias"] == "all":
                wanted.tensors[PREFIX + name] = shape


def fans(values: Values, base: Anatomy, module: str) -> tuple[int, int]:
    """How many numbers come out of a linear module, and go in; GPT-2's Conv1D stores them the other
    way round.

    PEFT sees that by itself, and notes fan_in_fan_out only when all its targets are such.
    """
    out, into = base.shapes[f"{module}.weight"]
    turned = (base.turned or values["fan_in_fan_out"]) and module.rpartition(".")[2] != HEAD
    return (into, out) if turned else (out, into)


def pick(pattern: Mapping[str, Any], module: str) -> list[str]:
    """The keys of a pattern that name a module, in full or by its end; PEFT takes the first, and
    sorts what it saves.
    """
    return sorted(end for end in ends(module) if end in pattern)


def _patterns(values: Values, modules: Collection[str], wanted: Wanted) -> None:
    """Each key names an adapted module or parameter, and none has two meanings."""
    for name in ("rank_pattern", "alpha_pattern"):
        pattern, used = values[name], set()
        for module in modules if pattern else ():
            keys = pick(pattern, module)
            used.update(keys)
            if len({pattern[key] for key in keys}) > 1:
                wanted.wrong(
                    f"{name}.{keys[1]}",
                    "pattern-ambiguous",
                    f"{module} is {pattern[keys[0]]} by {keys[0]} and "
                    f"{pattern[keys[1]]} by {keys[1]}; PEFT takes what stands first, and sorts "
                    "them when it saves",
                    "Name each module by one key only.",
                )
        for key in pattern.keys() - used:
            wanted.wrong(
                f"{name}.{key}",
                "target-unmatched",
                f"{name} names {key!r}, which is no adapted module of the base",
            )


def _rank(values: Values, module: str) -> int:
    ranks: list[int] = [values["rank_pattern"][key] for key in pick(values["rank_pattern"], module)]
    return ranks[0] if ranks else values["r"]


def predict_lora(values: Values, base: Anatomy) -> Wanted:
    """A is (rank, in), B is (out, rank); an embedding's are (rank, tokens), (width, rank). DoRA
    adds a magnitude (out,).
    """
    wanted = Wanted()
    modules = adapted(values, linear(base), wanted, "linear")
    whole = _parameters(values, base, modules, wanted)
    _patterns(values, [*modules, *whole], wanted)
    for module in modules:
        rank, stem = _rank(values, module), PREFIX + module
        if is_embedding(module):
            tokens, width = base.shapes[f"{module}.weight"]
            wanted.tensors |= {
                f"{stem}.lora_embedding_A": (rank, tokens),
                f"{stem}.lora_embedding_B": (width, rank),
            }
            out = width
        else:
            out, into = fans(values, base, module)
            wanted.tensors |= {
                f"{stem}.lora_A.weight": (rank, into),
                f"{stem}.lora_B.weight": (out, rank),
            }
            if values.get("lora_bias"):
                wanted.tensors[f"{stem}.lora_B.bias"] = (out,)
        if values["use_dora"]:
            wanted.tensors[f"{stem}.lora_magnitude_vector"] = (out,)
    biases(values, base, modules, wanted)
    save_whole(values, base, wanted)
    _tokens(values, base, wanted)
    _copies(base, modules, wanted)
    return wanted


NESTED = ("gate_up_proj", "down_proj")
"""The parameters of fused experts in the order their module has them, which is the order PEFT wraps
them in.
"""


def _parameters(
    values: Values, base: Anatomy, modules: Collection[str], wanted: Wanted
) -> list[str]:
    """LoRA on parameters: of (experts, out, in) A is (rank x experts, in) and B (out, rank x
    experts).

    A second one of the same module is wrapped around the first.
    """
    targets = values.get("target_parameters") or ()
    found = matched(
        targets,
        None,
        [name for name, shape in base.shapes.items() if targets and len(shape) in (2, 3)],
    )
    held: dict[str, list[str]] = {}
    for target, names in found.items():
        if not names:
            wanted.wrong(
                target,
                "target-unmatched",
                f"the base has no parameter {target!r} of two or three dimensions",
            )
        for name in names:
            held.setdefault(name.rpartition(".")[0], []).append(name)
    for module, listed in held.items():
        lasts = {name.rpartition(".")[2] for name in listed}
        if module in modules or (len(lasts) > 1 and lasts != set(NESTED)):
            wanted.wrong(
                module,
                "target-unfit",
                f"how PEFT wraps {', '.join(sorted(lasts))} of one module is not known here",
                "Train one parameter of a module, and name it in target_parameters alone.",
            )
            continue
        order = [last for last in NESTED if last in lasts] if len(lasts) > 1 else list(lasts)
        for depth, last in enumerate(reversed(order)):
            name = f"{module}.{last}"
            *experts, out, into = base.shapes[name]
            if experts and base.transposed:
                out, into = into, out
            rank = _rank(values, name) * (experts[0] if experts else 1)
            stem = f"{PREFIX}{module}{'.base_layer' * depth}"
            wanted.tensors |= {
                f"{stem}.lora_A.weight": (rank, into),
                f"{stem}.lora_B.weight": (out, rank),
            }
    return sorted({name for names in found.values() for name in names})


def _tokens(values: Values, base: Anatomy, wanted: Wanted) -> None:
    """Tokens trained alone: (tokens, width) of the one embedding named, or of the model's own."""
    said = values.get("trainable_token_indices")
    if not said:
        return
    target, tokens = next(iter(said.items())) if isinstance(said, dict) else (None, said)
    own = [module for module in linear(base) if is_tokens(module)]
    named = own[:1] if target is None else [module for module in own if module.endswith(target)]
    if len(named) != 1 or (target is not None and target not in ends(named[0])):
        wanted.wrong(
            "trainable_token_indices",
            "target-unmatched",
            f"the base has not one embedding {target or 'of tokens'}",
        )
        return
    rows, width = base.shapes[f"{named[0]}.weight"]
    if max(tokens) >= rows:
        wanted.wrong(
            "trainable_token_indices",
            "target-unmatched",
            f"the base has no token {max(tokens)}, only {rows}",
        )
    wanted.tensors[f"{PREFIX}{named[0]}.token_adapter.trainable_tokens_delta"] = (
        len(tokens),
        width,
    )


def _copies(base: Anatomy, modules: Collection[str], wanted: Wanted) -> None:
    """The base's own weight of an adapted embedding of tokens or head, which PEFT saves beside
    unless it is told not to.
    """
    for module in modules:
        if is_tokens(module) or module == HEAD:
            wanted.copies[f"{PREFIX}{module}.base_layer.weight"] = base.shapes[f"{module}.weight"]


def predict_adalora(values: Values, base: Anatomy) -> Wanted:
    """A is (rank, in), E is (rank, 1), B is (out, rank), with what is left of `init_r` once a
    module was pruned.
    """
    wanted = Wanted()
    modules = adapted(values, linear(base), wanted, "linear")
    masks = {
        name.removesuffix(".lora_E"): mask for name, mask in (values["rank_pattern"] or {}).items()
    }
    known = set(modules)
    for name, mask in masks.items():
        if name not in known:
            wanted.wrong(
                name,
                "target-unmatched",
                f"rank_pattern names {name}, which is not adapted on this base",
            )
        elif len(mask) != values["init_r"]:
            wanted.wrong(
                name,
                "config-at-odds",
                f"rank_pattern has {len(mask)} ranks for it, not init_r's {values['init_r']}",
                "Save the adapter again with PEFT.",
            )
    for module in modules:
        out, into = fans(values, base, module)
        rank = sum(masks[module]) if module in masks else values["init_r"]
        stem = PREFIX + module
        wanted.tensors |= {
            f"{stem}.lora_A": (rank, into),
            f"{stem}.lora_B": (out, rank),
            f"{stem}.lora_E": (rank, 1),
        }
    biases(values, base, modules, wanted)
    save_whole(values, base, wanted)
    return wanted
