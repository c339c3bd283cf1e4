"""A base as an adapter sees it: its tensors by name and shape, and the few numbers of its
config.json that count.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

Shape = tuple[int, ...]

EMBEDDINGS = ("embed_tokens", "wte", "word_embeddings", "embed_in", "tok_embeddings", "shared")
"""What architectures call the embedding of tokens; the first that stands there is it."""

POSITIONS = ("wpe", "position_embeddings", "token_type_embeddings", "relative_attention_bias")
"""Other embeddings, which are adapted as such."""

HEAD = "lm_head"
LABELS = -1
"""Stands in a shape for the number of labels, which no base says."""

INNER = {"gpt2": "transformer", "bloom": "transformer"}
"""Types whose published files name tensors as the inner model does; loaded for text, they stand
under this name.
"""

TRANSPOSED = ("gpt_oss",)
"""Types whose fused experts keep their matrices as (in, out)."""

TURNED = ("gpt2", "openai-gpt", "imagegpt", "decision_transformer")
"""Types built of Conv1D, which keeps its matrix as (in, out)."""


@dataclass(frozen=True, slots=True)
class Anatomy:
    """`shapes` are of every tensor the loaded model has; the numbers are None where config.json
    does not say them.

    `key_values` is the width of one layer's keys (and of its values): heads that keep them times
    their size. `turned` is a base of Conv1D modules, `transposed` one whose experts are.
    """

    shapes: Mapping[str, Shape]
    width: int | None
    layers: int | None
    heads: int | None
    key_value_heads: int | None
    key_values: int | None
    turned: bool = False
    transposed: bool = False

    def modules(self) -> dict[str, dict[str, Shape]]:
        """Every module that holds a tensor, itself or further down, with the tensors it holds
        itself by their last name.
        """
        found: dict[str, dict[str, Shape]] = {}
        for name, shape in self.shapes.items():
            for module in inside(name)[:-1]:
                found.setdefault(module, {})
            module, _, last = name.rpartition(".")
            if module:
                found[module][last] = shape
        return found


def inside(name: str) -> list[str]:
    """The modules around a name, from the outermost, and the name itself."""
    return [*(name[: at - 1] for at in _parts(name)), name]


def ends(name: str) -> list[str]:
    """The name in full and every end of it that begins a module's name, from the longest."""
    return [name, *(name[at:] for at in _parts(name))]


def _parts(name: str) -> Iterator[int]:
    """Where each part but the first begins."""
    return accumulate(len(part) + 1 for part in name.split(".")[:-1])


def anatomy(shapes: Mapping[str, Shape], config: Mapping[str, Any]) -> Anatomy:
    """A base's shapes as a language model loads them.

    A file of tied weights leaves the head out: it is the embedding once more, so it gets the
    embedding's shape.
    """
    outer = INNER.get(str(config.get("model_type")))
    if outer is not None and not any(name.startswith(f"{outer}.") for name in shapes):
        shapes = {
            name if name.startswith(HEAD) else f"{outer}.{name}": shape
            for name, shape in shapes.items()
        }
    return bare(_with_head(shapes, _numbers(config)), config)


def bare(shapes: Mapping[str, Shape], config: Mapping[str, Any]) -> Anatomy:
    """These very shapes, and what its config.json says, as transformers names its numbers (and PEFT
    0.21 looks for them).

    Models whose layers keep keys and values of different sizes have no one width of them.
    """
    numbers = _numbers(config)

    def number(*names: str) -> int | None:
        found = next((numbers[name] for name in names if numbers.get(name) is not None), None)
        return found if type(found) is int and found > 0 else None

    width = number("hidden_size", "n_embd", "d_model", "dim")
    heads = number("num_attention_heads", "n_head", "num_heads")
    kept = number("num_key_value_heads") or heads
    size = number("head_dim")
    uneven = (
        numbers.get("global_head_dim") is not None or numbers.get("per_layer_config") is not None
    )
    if size is None and width and heads:
        size = width // heads
    return Anatomy(
        shapes=shapes,
        turned=config.get("model_type") in TURNED,
        transposed=config.get("model_type") in TRANSPOSED,
        width=width,
        layers=number("num_hidden_layers", "num_layers", "n_layer"),
        heads=heads,
        key_value_heads=kept,
        key_values=None if uneven or not (kept and size) else kept * size,
    )


def _numbers(config: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) else config


def _with_head(shapes: Mapping[str, Shape], numbers: Mapping[str, Any]) -> Mapping[str, Shape]:
    if f"{HEAD}.weight" in shapes or numbers.get("tie_word_embeddings", True) is False:
        return shapes
    tied = next((shapes[name] for name in shapes if is_tokens(name.removesuffix(".weight"))), None)
    return {**shapes, f"{HEAD}.weight": tied} if tied is not None else shapes


def is_tokens(module: str) -> bool:
    """Is it by its name the embedding of tokens?"""
    return module.rpartition(".")[2] in EMBEDDINGS


def is_embedding(module: str) -> bool:
    """Is it by its name an embedding, rather than a linear module?"""
    return module.rpartition(".")[2] in EMBEDDINGS + POSITIONS
