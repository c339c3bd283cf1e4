"""LoRA adapters: a configuration with nothing in it that runs, and tensors that fit the base by name and shape.

PEFT's own configuration class accepts unknown keys, any rank, names that are imported, and regular expressions that
hang a server ((a+)+b was measured to run without end). Here every key is known, or the adapter is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from registry.errors import Defect
from registry.rules.tensors import TensorInfo

MAX_RANK = 512
MAX_TARGETS = 4096
MAX_LAYER = 9999
MODULE = re.compile(r"[A-Za-z0-9_]+(?:\.[A-Za-z0-9_]+)*")
TASKS = ("CAUSAL_LM", "SEQ_2_SEQ_LM", "FEATURE_EXTRACTION")
TENSOR_DTYPES = frozenset({"F32", "F16", "BF16"})
PREFIX = "base_model.model."
FILE = "adapter_config.json"


@dataclass(frozen=True, slots=True)
class LoraConfig:
    """What decides which tensors an adapter has; `layers` None means every layer."""

    rank: int
    alpha: int
    targets: tuple[str, ...]
    layers: tuple[int, ...] | None
    dora: bool
    rslora: bool
    transposed: bool


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _int(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= high


def _text(value: Any) -> bool:
    return value is None or (isinstance(value, str) and len(value) <= 512)


def _dropout(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < 1


def _targets(value: Any) -> bool:
    return (
        isinstance(value, list) and 0 < len(value) <= MAX_TARGETS
        and all(isinstance(item, str) and MODULE.fullmatch(item) for item in value)
    )  # fmt: skip


def _layers(value: Any) -> bool:
    index = _int(0, MAX_LAYER)
    return value is None or index(value) or (isinstance(value, list) and all(map(index, value)))


def _initial(value: Any) -> bool:
    return isinstance(value, bool) or value == "gaussian"


KNOWN: dict[str, tuple[Callable[[Any], bool], str]] = {
    "peft_type": (lambda value: value == "LORA", "LORA, the one method accepted so far"),
    "r": (_int(1, MAX_RANK), f"an integer from 1 to {MAX_RANK}"),
    "lora_alpha": (_int(1, 65536), "an integer from 1 to 65536"),
    "target_modules": (_targets, "a list of module names; a text would be run as a regular expression"),
    "layers_to_transform": (_layers, "null, a layer's number, or a list of them"),
    "task_type": (lambda value: value is None or value in TASKS, f"null or one of {', '.join(TASKS)}"),
    "bias": (lambda value: value == "none", "none: a trained bias would change the base's own weights"),
    "lora_dropout": (_dropout, "a number from 0 to below 1"),
    "use_dora": (_flag, "true or false"),
    "use_rslora": (_flag, "true or false"),
    "fan_in_fan_out": (_flag, "true or false"),
    "inference_mode": (_flag, "true or false"),
    "init_lora_weights": (_initial, "true, false or gaussian; other starts change the base's weights"),
    "base_model_name_or_path": (_text, "a text; the binding is the base root, not this name"),
    "revision": (_text, "a text or null"),
    "peft_version": (_text, "a text"),
    "qalora_group_size": (_int(1, 65536), "an integer"),
    "megatron_core": (lambda value: value in (None, "megatron.core"), "null or its default: it is a module to import"),
}
REQUIRED = ("peft_type", "r", "lora_alpha", "target_modules")
EMPTY: dict[str, str] = {
    "auto_mapping": "it makes the loader import a class by name",
    "modules_to_save": "it replaces whole layers of the base",
    "rank_pattern": "its keys are run as regular expressions",
    "alpha_pattern": "its keys are run as regular expressions",
    "layers_pattern": "it is run as a regular expression",
    "exclude_modules": "it is run as a regular expression",
    "megatron_config": "it makes the loader import a module by name",
    "loftq_config": "it changes the base's weights",
    "eva_config": "it changes how loading initialises",
    "corda_config": "it names files that are unpickled",
    "lora_ga_config": "it names files that are unpickled",
    "layer_replication": "it builds another model than the base",
    "target_parameters": "such tensors cannot be checked against the base yet",
    "trainable_token_indices": "it changes the base's embedding",
    "alora_invocation_tokens": "our engines do not serve it",
    "arrow_config": "it routes between several adapters",
    "kasa_config": "its tensors cannot be checked yet",
    "monteclora_config": "its tensors cannot be checked yet",
    "velora_config": "its tensors cannot be checked yet",
    "use_qalora": "its tensors have other shapes",
    "use_bdlora": "its tensors have other shapes",
    "lora_bias": "it adds biases to the base's layers",
    "ensure_weight_tying": "it ties weights of the base",
}
"""Keys that PEFT 0.21 writes and that must stay at their empty default, each with the reason."""


def check_config(raw: Any) -> tuple[LoraConfig | None, list[Defect]]:
    """Read adapter_config.json's content by the table above; None when its tensors cannot be predicted from it."""
    if not isinstance(raw, dict):
        return None, [Defect(FILE, "", "json-object", "it is no JSON object", "Save the adapter again with PEFT.")]
    defects = []
    for key in REQUIRED:
        if key not in raw:
            defects.append(Defect(FILE, key, "config-missing", f"the key {key} is missing", f"Set {KNOWN[key][1]}."))
    for key, value in raw.items():
        if key in KNOWN:
            holds, wanted = KNOWN[key]
            if not holds(value):
                defects.append(Defect(FILE, key, "config-value", f"{key} is {str(value)[:80]!r}", f"Use {wanted}."))
        elif key in EMPTY:
            if value is not None and value is not False and value not in ({}, [], ""):
                defects.append(Defect(
                    FILE, key, "config-forbidden", f"{key} is set, and {EMPTY[key]}", f"Train without {key}.",
                ))  # fmt: skip
        else:
            defects.append(
                Defect(FILE, key[:120], "config-unknown", f"the key {key[:80]!r} is not known", "Remove it.")
            )
    if defects:
        return None, defects
    layers = raw.get("layers_to_transform")
    return LoraConfig(
        rank=raw["r"],
        alpha=raw["lora_alpha"],
        targets=tuple(sorted(set(raw["target_modules"]))),
        # PEFT takes an empty list for none at all
        layers=None if layers in (None, []) else tuple(sorted({layers} if isinstance(layers, int) else set(layers))),
        dora=raw.get("use_dora", False),
        rslora=raw.get("use_rslora", False),
        transposed=raw.get("fan_in_fan_out", False),
    ), []


def _layer(module: str) -> int | None:
    """The first number with two names before it, as PEFT 0.21 finds a layer (tuners_utils.check_target_module_exists).

    A later number may be an expert's. A module named in full is taken whatever its layer.
    """
    parts = module.split(".")
    return next((int(part) for part in parts[2:-1] if part.isdecimal() and part.isascii()), None)


def targets_of(config: LoraConfig, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, list[str]]:
    """The base's linear modules that each target names, after the choice of layers."""
    found: dict[str, list[str]] = {target: [] for target in config.targets}
    for name, shape in shapes.items():
        module = name.removesuffix(".weight")
        if module == name or len(shape) != 2:
            continue
        exact = module in found
        parts = module.split(".")
        for cut in range(len(parts)):
            tail = ".".join(parts[cut:])
            if tail in found and (exact or config.layers is None or _layer(module) in config.layers):
                found[tail].append(module)
    return found


def predict(config: LoraConfig, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor this configuration makes on this base: A is (r, in), B is (out, r).

    DoRA adds a magnitude of (out,). Naming and shapes are PEFT's; its Conv1D (fan_in_fan_out) stores (in, out).
    """
    wanted: dict[str, tuple[int, ...]] = {}
    for module in {module for modules in targets_of(config, shapes).values() for module in modules}:
        out, into = shapes[f"{module}.weight"]
        if config.transposed:
            out, into = into, out
        wanted[f"{PREFIX}{module}.lora_A.weight"] = (config.rank, into)
        wanted[f"{PREFIX}{module}.lora_B.weight"] = (out, config.rank)
        if config.dora:
            wanted[f"{PREFIX}{module}.lora_magnitude_vector"] = (out,)
    return wanted


def check_tensors(
    file: str, config: LoraConfig, tensors: Sequence[TensorInfo], shapes: Mapping[str, tuple[int, ...]]
) -> list[Defect]:
    """Hold the adapter's tensors against the prediction: each that lacks, is too many or differs is named."""
    defects = [
        Defect(FILE, target, "target-unmatched", f"the base has no linear module {target!r} in the layers chosen",
               "Name modules of this base, or bind the adapter to the base it was trained on.")
        for target, modules in targets_of(config, shapes).items() if not modules
    ]  # fmt: skip
    wanted = predict(config, shapes)
    present = {info.name: info for info in tensors}

    def wrong(name: str, rule: str, detail: str, mend: str) -> None:
        defects.append(Defect(file, name, rule, detail, mend))

    bind = "Bind the adapter to the base it was trained on, or train it again."
    for name in sorted(wanted.keys() - present.keys()):
        wrong(name, "tensor-missing", f"expected with shape {list(wanted[name])}, but it is not there", bind)
    for name in sorted(present.keys() - wanted.keys()):
        shape = list(present[name].shape)
        wrong(name, "tensor-unexpected", f"expected no such tensor on this base; got one of shape {shape}", bind)
    for name in sorted(wanted.keys() & present.keys()):
        info = present[name]
        if info.shape != wanted[name]:
            wrong(name, "tensor-shape", f"expected shape {list(wanted[name])}, got {list(info.shape)}", bind)
        if info.dtype not in TENSOR_DTYPES:
            wrong(name, "tensor-dtype", f"expected one of {', '.join(sorted(TENSOR_DTYPES))}, got {info.dtype}",
                  "Save the adapter in a floating point type.")  # fmt: skip
    return defects
