"""The tensors of the LoRA family on a base: plain, rank-stabilised, DoRA and AdaLoRA.

Names and shapes are those of PEFT 0.21.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from registry.artifacts.methods.anatomies import HEAD, Anatomy, ends, is_embedding, is_tokens
from registry.artifacts.methods.configs import Values
from registry.artifacts.methods.effects import Norms, Part, Replaced, others
from registry.artifacts.methods.loaded_names import PREFIX
from registry.artifacts.methods.targets import (
    Prediction,
    adapted,
    biases,
    fans,
    linear,
    matched,
    save_whole,
)


def pick(pattern: Mapping[str, Any], module: str) -> list[str]:
    """The keys of a pattern that name a module, in full or by its ending, sorted.

    PEFT uses the first, and sorts the keys when it saves.
    """
    return sorted(end for end in ends(module) if end in pattern)


def _patterns(values: Values, modules: Collection[str], prediction: Prediction) -> None:
    """Check that each key names an adapted module or parameter, and that none is ambiguous."""
    for name in ("rank_pattern", "alpha_pattern"):
        pattern, used = values[name], set()
        for module in modules if pattern else ():
            keys = pick(pattern, module)
            used.update(keys)
            if len({pattern[key] for key in keys}) > 1:
                prediction.wrong(
                    f"{name}.{keys[1]}",
                    "pattern-ambiguous",
                    f"{module} is {pattern[keys[0]]} by {keys[0]} and {pattern[keys[1]]} by "
                    f"{keys[1]}; PEFT uses the first key, and sorts the keys when it saves",
                    "Name each module by one key only.",
                )
        for key in pattern.keys() - used:
            prediction.wrong(
                f"{name}.{key}",
                "target-unmatched",
                f"{name} names {key!r}, which is not an adapted module of the base",
            )


def _rank(values: Values, module: str) -> int:
    ranks: list[int] = [values["rank_pattern"][key] for key in pick(values["rank_pattern"], module)]
    return ranks[0] if ranks else values["r"]


def predict_lora(values: Values, base: Anatomy) -> Prediction:
    """The tensors of LoRA: A of (rank, in) and B of (out, rank).

    Those of an embedding are (rank, tokens) and (width, rank). DoRA adds a magnitude of (out,).
    """
    prediction = Prediction()
    modules = adapted(values, linear(base), prediction, "linear")
    whole = _parameters(values, base, modules, prediction)
    _patterns(values, [*modules, *whole], prediction)
    for module in modules:
        rank, stem = _rank(values, module), PREFIX + module
        if is_embedding(module):
            tokens, width = base.shapes[f"{module}.weight"]
            prediction.tensors |= {
                f"{stem}.lora_embedding_A": (rank, tokens),
                f"{stem}.lora_embedding_B": (width, rank),
            }
            out = width
        else:
            out, into = fans(values, base, module)
            prediction.tensors |= {
                f"{stem}.lora_A.weight": (rank, into),
                f"{stem}.lora_B.weight": (out, rank),
            }
            if values.get("lora_bias"):
                prediction.tensors[f"{stem}.lora_B.bias"] = (out,)
        if values["use_dora"]:
            prediction.tensors[f"{stem}.lora_magnitude_vector"] = (out,)
    biases(values, base, modules, prediction)
    save_whole(values, base, prediction)
    _tokens(values, base, prediction)
    _copies(base, modules, prediction)
    return prediction


NESTED = ("gate_up_proj", "down_proj")
"""The parameters of fused experts, in the order in which PEFT wraps them: that of their module."""


def _parameters(
    values: Values, base: Anatomy, modules: Collection[str], prediction: Prediction
) -> list[str]:
    """Add LoRA on parameters, and return their names.

    For a parameter of (experts, out, in), A is (rank x experts, in) and B is (out, rank x experts).
    A second parameter of the same module is wrapped around the first.
    """
    targets = values.get("target_parameters") or ()
    matches = matched(
        targets,
        None,
        [name for name, shape in base.shapes.items() if targets and len(shape) in (2, 3)],
    )
    parameters: dict[str, list[str]] = {}
    for target, names in matches.items():
        if not names:
            prediction.wrong(
                target,
                "target-unmatched",
                f"the base has no parameter {target!r} of two or three dimensions",
            )
        for name in names:
            parameters.setdefault(name.rpartition(".")[0], []).append(name)
    for module, names in parameters.items():
        lasts = {name.rpartition(".")[2] for name in names}
        if module in modules or (len(lasts) > 1 and lasts != set(NESTED)):
            prediction.wrong(
                module,
                "target-unfit",
                f"it is not known here how PEFT wraps {', '.join(sorted(lasts))} of one module",
                "Train one parameter of a module, and name it in target_parameters alone.",
            )
            continue
        order = [last for last in NESTED if last in lasts] if len(lasts) > 1 else list(lasts)
        for depth, last in enumerate(reversed(order)):
            name = f"{module}.{last}"
            *experts, out, into = base.shapes[name]
            if experts and base.transposed_experts:
                out, into = into, out
            rank = _rank(values, name) * (experts[0] if experts else 1)
            stem = f"{PREFIX}{module}{'.base_layer' * depth}"
            prediction.tensors |= {
                f"{stem}.lora_A.weight": (rank, into),
                f"{stem}.lora_B.weight": (out, rank),
            }
    return sorted({name for names in matches.values() for name in names})


def _tokens(values: Values, base: Anatomy, prediction: Prediction) -> None:
    """Add single trained tokens: (tokens, width) of the named embedding or of the model's own."""
    indices = values.get("trainable_token_indices")
    if not indices:
        return
    target, tokens = next(iter(indices.items())) if isinstance(indices, dict) else (None, indices)
    embeddings = [module for module in linear(base) if is_tokens(module)]
    named = (
        embeddings[:1]
        if target is None
        else [module for module in embeddings if module.endswith(target)]
    )
    if len(named) != 1 or (target is not None and target not in ends(named[0])):
        prediction.wrong(
            "trainable_token_indices",
            "target-unmatched",
            f"the base does not have exactly one embedding {target or 'of tokens'}",
        )
        return
    rows, width = base.shapes[f"{named[0]}.weight"]
    if max(tokens) >= rows:
        prediction.wrong(
            "trainable_token_indices",
            "target-unmatched",
            f"the base has no token {max(tokens)}: it has {rows} tokens",
        )
    prediction.tensors[f"{PREFIX}{named[0]}.token_adapter.trainable_tokens_delta"] = (
        len(tokens),
        width,
    )


def _copies(base: Anatomy, modules: Collection[str], prediction: Prediction) -> None:
    """Allow the base's own weight of an adapted embedding of tokens or head.

    PEFT saves it as well, unless save_embedding_layers is False.
    """
    for module in modules:
        if is_tokens(module) or module == HEAD:
            prediction.copies[f"{PREFIX}{module}.base_layer.weight"] = base.shapes[
                f"{module}.weight"
            ]


def predict_adalora(values: Values, base: Anatomy) -> Prediction:
    """The tensors of AdaLoRA: A of (rank, in), E of (rank, 1) and B of (out, rank).

    The rank is `init_r` or, for a pruned module, what remains of it.
    """
    prediction = Prediction()
    modules = adapted(values, linear(base), prediction, "linear")
    masks = {
        name.removesuffix(".lora_E"): mask for name, mask in (values["rank_pattern"] or {}).items()
    }
    known = set(modules)
    for name, mask in masks.items():
        if name not in known:
            prediction.wrong(
                name,
                "target-unmatched",
                f"rank_pattern names {name}, which is not adapted on this base",
            )
        elif len(mask) != values["init_r"]:
            prediction.wrong(
                name,
                "config-at-odds",
                f"rank_pattern has {len(mask)} ranks for it, but init_r is {values['init_r']}",
                "Save the adapter again with PEFT.",
            )
    for module in modules:
        out, into = fans(values, base, module)
        rank = sum(masks[module]) if module in masks else values["init_r"]
        stem = PREFIX + module
        prediction.tensors |= {
            f"{stem}.lora_A": (rank, into),
            f"{stem}.lora_B": (out, rank),
            f"{stem}.lora_E": (rank, 1),
        }
    biases(values, base, modules, prediction)
    save_whole(values, base, prediction)
    return prediction


def lora_parts(values: Values, names: Collection[str]) -> list[Part]:
    """A module is idle if B or A is zero, and the bias of B.

    With DoRA its norms must be the base's, too. Single trained tokens are idle if they are the
    base's, as every whole module is.
    """
    parts: list[Part] = []
    known: set[str] = set()
    for name in sorted(names):
        stem, mark, kind = name.partition(".lora_")
        if mark and kind in ("B.weight", "embedding_B"):
            up, down = f"{stem}.lora_{kind}", f"{stem}.lora_{kind.replace('B', 'A')}"
            bias = tuple(each for each in (f"{stem}.lora_B.bias",) if each in names)
            module = stem.removeprefix(PREFIX)
            norms = f"{stem}.lora_magnitude_vector"
            compared = Norms(norms, f"{module}.weight") if norms in names else None
            parts.append(Part(module, ((up, *bias), (down, *bias)), compared))
            known |= {up, down, *bias, norms}
        elif name.endswith(".token_adapter.trainable_tokens_delta"):
            module = name.removeprefix(PREFIX).rpartition(".token_adapter.")[0]
            indices = values["trainable_token_indices"]
            rows = next(iter(indices.values())) if isinstance(indices, dict) else indices
            target = Replaced(name, f"{module}.weight", tuple(rows))
            parts.append(Part(f"{len(rows)} tokens of {module}", compared=target))
            known.add(name)
    return parts + others(names, known)


def adalora_parts(values: Values, names: Collection[str]) -> list[Part]:
    """A module is idle if one of the three matrices, which are multiplied, is zero."""
    stems = sorted(name.removesuffix(".lora_E") for name in names if name.endswith(".lora_E"))
    triples = {stem: [f"{stem}.lora_{letter}" for letter in "ABE"] for stem in stems}
    known = {name for triple in triples.values() for name in triple}
    parts = [
        Part(stem.removeprefix(PREFIX), tuple((name,) for name in triple))
        for stem, triple in triples.items()
    ]
    return parts + others(names, known)
