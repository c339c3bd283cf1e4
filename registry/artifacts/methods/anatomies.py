"""A base as an adapter sees it: its tensors by name and shape, and a few sizes of config.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

Shape = tuple[int, ...]

EMBEDDINGS = ("embed_tokens", "wte", "word_embeddings", "embed_in", "tok_embeddings", "shared")
"""Names of the embedding of tokens in the architectures; the first one present counts."""

POSITIONS = ("wpe", "position_embeddings", "token_type_embeddings", "relative_attention_bias")
"""Names of other embeddings, which are adapted as embeddings too."""

HEAD = "lm_head"
"""The name of a language model's head."""

LABELS = -1
"""Stands for the number of labels in a shape; no base says it."""

INNER = {"gpt2": "transformer", "bloom": "transformer"}
"""Types of model whose published files name tensors as the inner model does.

Loaded as a language model, their tensors are under this name.
"""

TRANSPOSED_EXPERTS = ("gpt_oss",)
"""Types of model whose fused experts store their matrices as (in, out)."""

CONV1D = ("gpt2", "openai-gpt", "imagegpt", "decision_transformer")
"""Types of model made of Conv1D, which stores its matrix as (in, out)."""


@dataclass(frozen=True, slots=True)
class Anatomy:
    """A base's tensors and sizes.

    `shapes` has every tensor of the loaded model. A size is None where config.json does not say it.
    `key_values` is the width of the keys (and of the values) of one layer: the number of heads that
    keep them times the size of a head. `conv1d`: the base is made of Conv1D modules;
    `transposed_experts`: its fused experts store their matrices as (in, out). `tied`: its head is
    its embedding.
    """

    shapes: Mapping[str, Shape]
    width: int | None
    layers: int | None
    heads: int | None
    key_value_heads: int | None
    key_values: int | None
    conv1d: bool = False
    transposed_experts: bool = False
    tied: bool = False

    def modules(self) -> dict[str, dict[str, Shape]]:
        """Every module with a tensor in it, and the module's direct tensors by their last name."""
        modules: dict[str, dict[str, Shape]] = {}
        for name, shape in self.shapes.items():
            for module in inside(name)[:-1]:
                modules.setdefault(module, {})
            module, _, last = name.rpartition(".")
            if module:
                modules[module][last] = shape
        return modules


def inside(name: str) -> list[str]:
    """The modules around a name, the outermost first, and the name itself."""
    return [*(name[: start - 1] for start in _part_starts(name)), name]


def ends(name: str) -> list[str]:
    """The full name and every ending of it after a dot, the longest first."""
    return [name, *(name[start:] for start in _part_starts(name))]


def _part_starts(name: str) -> Iterator[int]:
    """The index at which each part except the first begins."""
    return accumulate(len(part) + 1 for part in name.split(".")[:-1])


def anatomy(shapes: Mapping[str, Shape], config: Mapping[str, Any]) -> Anatomy:
    """The anatomy of a base that is loaded as a language model.

    A file of tied weights omits the head, which is the embedding again: it gets the embedding's
    shape.
    """
    outer = INNER.get(str(config.get("model_type")))
    if outer is not None and not any(name.startswith(f"{outer}.") for name in shapes):
        shapes = {
            name if name.startswith(HEAD) else f"{outer}.{name}": shape
            for name, shape in shapes.items()
        }
    body = body_anatomy(_with_head(shapes, _numbers(config)), config)
    return replace(body, tied=is_tied(shapes, config))


def body_anatomy(shapes: Mapping[str, Shape], config: Mapping[str, Any]) -> Anatomy:
    """The anatomy of exactly these tensors, with the sizes that config.json says.

    Sizes have the names by which transformers writes them and PEFT 0.21 looks for them. Models
    whose layers have keys and values of different sizes have no single width of them.
    """
    numbers = _numbers(config)

    def number(*names: str) -> int | None:
        size = next((numbers[name] for name in names if numbers.get(name) is not None), None)
        return size if type(size) is int and size > 0 else None

    width = number("hidden_size", "n_embd", "d_model", "dim")
    heads = number("num_attention_heads", "n_head", "num_heads")
    key_value_heads = number("num_key_value_heads") or heads
    size = number("head_dim")
    uneven = (
        numbers.get("global_head_dim") is not None or numbers.get("per_layer_config") is not None
    )
    if size is None and width and heads:
        size = width // heads
    return Anatomy(
        shapes=shapes,
        conv1d=config.get("model_type") in CONV1D,
        transposed_experts=config.get("model_type") in TRANSPOSED_EXPERTS,
        width=width,
        layers=number("num_hidden_layers", "num_layers", "n_layer"),
        heads=heads,
        key_value_heads=key_value_heads,
        key_values=None if uneven or not (key_value_heads and size) else key_value_heads * size,
    )


def _numbers(config: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) else config


def _with_head(shapes: Mapping[str, Shape], numbers: Mapping[str, Any]) -> Mapping[str, Shape]:
    if f"{HEAD}.weight" in shapes or numbers.get("tie_word_embeddings", True) is False:
        return shapes
    tied = next((shapes[name] for name in shapes if is_tokens(name.removesuffix(".weight"))), None)
    return {**shapes, f"{HEAD}.weight": tied} if tied is not None else shapes


def is_tied(shapes: Mapping[str, Shape], config: Mapping[str, Any]) -> bool:
    """Whether a language model's head is its embedding: by config.json, or as it has no head."""
    return _numbers(config).get("tie_word_embeddings") is True or f"{HEAD}.weight" not in shapes


def is_tokens(module: str) -> bool:
    """Whether a module's name is that of the embedding of tokens."""
    return module.rpartition(".")[2] in EMBEDDINGS


def is_embedding(module: str) -> bool:
    """Whether a module's name is that of an embedding rather than a linear module."""
    return module.rpartition(".")[2] in EMBEDDINGS + POSITIONS
