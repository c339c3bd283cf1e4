"""An adapter's tensors compared with its base, and the facts of its tuning."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from registry.artifacts.methods import heads
from registry.artifacts.methods.adapters import Config
from registry.artifacts.methods.anatomies import LABELS, Anatomy, Shape
from registry.artifacts.methods.configs import FILE
from registry.artifacts.methods.heads import View
from registry.artifacts.methods.loaded_names import PREFIX
from registry.artifacts.methods.misnamed import older_names, resized, wrapped
from registry.artifacts.weights.tensors import TensorInfo
from registry.errors import Defect

T = TypeVar("T")
TENSOR_DTYPES = frozenset({"F32", "F16", "BF16"})
MAX_LABELS = 65536
BIND = "Bind the adapter to the base it was trained on, or train it again."


@dataclass(frozen=True, slots=True)
class Fit:
    """The comparison of an adapter's tensors with a base: defects, and facts of the tensors."""

    defects: list[Defect]
    facts: dict[str, Any]


def fit(file: str, config: Config, tensors: Sequence[TensorInfo], seen: View) -> Fit:
    """Compare an adapter's tensors with those its configuration implies on a base.

    `file` is the file of the tensors, `seen` the base as the adapter saw it. Each tensor that is
    missing, unexpected or different is a defect.
    """
    if seen.defects:
        return Fit(list(seen.defects), {})
    prediction = config.method.predict(config.values, seen.body)
    present = {info.name: info for info in tensors}
    for name, loaded in seen.renamed.items():
        if name in present and loaded not in present:
            present[loaded] = present.pop(name)
    copies = {name: shape for name, shape in prediction.copies.items() if name in present}
    expected = copies | prediction.tensors
    if (misnamed := wrapped(file, present, expected)) is not None:
        return Fit([*prediction.defects, misnamed], {})
    shapes = {name: info.shape for name, info in present.items()}
    resizes, resized_modules = resized(file, shapes, seen.body)
    if resized_modules:
        expected = _without(expected, resized_modules)
        present = _without(present, resized_modules)
    defects = prediction.defects + resizes + heads.unsaved(seen.fresh, expected)

    def wrong(name: str, rule: str, detail: str, fix: str) -> None:
        defects.append(Defect(file, name, rule, detail, fix))

    if seen.model_class and (older := older_names(file, seen.model_class, present, expected)):
        return Fit([older], {})
    for name in sorted(expected.keys() - present.keys()):
        wrong(
            name,
            "tensor-missing",
            f"expected with shape {_shape_text(expected[name])}, but it is missing",
            BIND,
        )
    for name in sorted(present.keys() - expected.keys()):
        wrong(
            name,
            "tensor-unexpected",
            f"not expected on this base; its shape is {list(present[name].shape)}",
            _fix_unexpected(name.removeprefix(PREFIX), present[name].shape, seen.body),
        )
    labels: set[int] = set()
    for name in sorted(expected.keys() & present.keys()):
        info = present[name]
        if not _matches(info.shape, expected[name], labels):
            wrong(
                name,
                "tensor-shape",
                f"expected shape {_shape_text(expected[name])}, got {list(info.shape)}",
                BIND,
            )
        if info.dtype not in TENSOR_DTYPES:
            wrong(
                name,
                "tensor-dtype",
                f"expected one of {', '.join(sorted(TENSOR_DTYPES))}, got {info.dtype}",
                "Save the adapter in a floating point type.",
            )
    if len(labels) > 1:
        wrong(
            "",
            "labels-differ",
            f"parts of its head have {' and '.join(map(str, sorted(labels)))} labels",
            BIND,
        )
    return Fit(defects, _facts_of_fit(config, seen, copies, labels))


def _without(tensors: Mapping[str, T], modules: Collection[str]) -> dict[str, T]:
    """The tensors that are in none of these modules."""
    return {
        name: tensor
        for name, tensor in tensors.items()
        if not any(name.startswith(f"{PREFIX}{module}.") for module in modules)
    }


def _fix_unexpected(name: str, shape: Shape, base: Anatomy) -> str:
    """The fix for an unexpected tensor; PEFT saves one of the base when it is asked to."""
    if base.shapes.get(name) != shape or len(shape) != 2:
        return BIND
    return (
        f"If it was trained, name {name.removesuffix('.weight')} in modules_to_save of {FILE}; if "
        "not, save the adapter with save_embedding_layers=False."
    )


def _shape_text(shape: Shape) -> str:
    return str(["labels" if size == LABELS else size for size in shape]).replace("'", "")


def _matches(shape: Shape, expected: Shape, labels: set[int]) -> bool:
    """Whether a shape is as expected, with any number of labels, which is added to `labels`."""
    if len(shape) != len(expected):
        return False
    for actual, size in zip(shape, expected, strict=True):
        if size == LABELS and 0 < actual <= MAX_LABELS:
            labels.add(actual)
        elif actual != size:
            return False
    return True


def _facts_of_fit(
    config: Config, seen: View, copies: Collection[str], labels: Collection[int]
) -> dict[str, Any]:
    """The class that loads it, the number of its labels, its copies of the base's embeddings."""
    facts: dict[str, Any] = {} if seen.loads_as is None else {"loads_as": seen.loads_as}
    if seen.loads_as and seen.model_class:
        facts["model_class"] = seen.model_class
    if seen.renamed:
        facts["names"] = "older"
    if labels:
        facts["labels"] = max(labels)
    brought = sorted(
        name.removeprefix(PREFIX).removesuffix(".weight").removesuffix(".base_layer")
        for name in copies
    )
    risks = facts_of(config)["risks"]
    if brought:
        facts["embeddings"] = brought
        facts["risks"] = risks + [
            f"high: it brings a copy of the base's whole {name}, which replaces the base's own"
            for name in brought
        ]
    return facts


def facts_of(config: Config) -> dict[str, Any]:
    """The facts of a tuning: method, variant, ranks, patterns, targets, layers and risks.

    `max_rank` is the highest rank of any module, for which an engine must have room.
    """
    values = config.values
    facts: dict[str, Any] = {"method": config.method.name, "variant": "plain"}
    if variants := [
        name
        for name, key in (
            ("dora", "use_dora"),
            ("rslora", "use_rslora"),
            ("alora", "alora_invocation_tokens"),
        )
        if values.get(key)
    ]:
        facts["variant"] = "+".join(variants)
    if "lora_alpha" in values:
        facts |= _ranks(config) | {"alpha": values["lora_alpha"], "bias": values["bias"]}
    if values.get("lora_bias"):
        facts["bias"] = "lora_bias"
    if "target_modules" in values:
        targets = [*values["target_modules"], *(values.get("target_parameters") or ())]
        facts["targets"] = sorted({target.rpartition(".")[2] for target in targets})
    for fact, key in (
        ("layers", "layers_to_transform"),
        ("virtual_tokens", "num_virtual_tokens"),
        ("bottleneck_size", "bottleneck_size"),
        ("modules_to_save", "modules_to_save"),
        ("target_parameters", "target_parameters"),
        ("feedforward_modules", "feedforward_modules"),
    ):
        if values.get(key) is not None:
            facts[fact] = values[key]
    if config.dropped:
        facts["dropped_keys"] = list(config.dropped)
    if config.method.serving == "in-process":
        facts["serving"] = "in-process"
    facts["risks"] = [
        f"high: it replaces the base's whole {name} (modules_to_save) with its own"
        for name in values.get("modules_to_save") or ()
    ]
    if tokens := values.get("trainable_token_indices"):
        count = len(tokens if isinstance(tokens, list) else next(iter(tokens.values())))
        facts["tokens"] = count
        facts["risks"].append(
            f"high: it replaces the embedding of {count} tokens (trainable_token_indices)"
        )
    return facts


def _ranks(config: Config) -> dict[str, Any]:
    values = config.values
    if config.method.name == "adalora":
        masks = (values["rank_pattern"] or {}).items()
        pattern = {name.removesuffix(".lora_E"): sum(mask) for name, mask in masks}
        return {
            "rank": values["init_r"],
            "max_rank": max(pattern.values(), default=values["init_r"]),
        } | ({"rank_pattern": pattern} if pattern else {})
    patterns = {key: values[key] for key in ("rank_pattern", "alpha_pattern") if values[key]}
    return {
        "rank": values["r"],
        "max_rank": max(values["r"], *values["rank_pattern"].values(), 0),
        **patterns,
    }
