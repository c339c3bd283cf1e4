"""Weights that are finite in their file, and too large for the type in which the model computes.

The largest magnitude of each tensor was noted while its bytes were hashed, so this reads nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from registry.artifacts.bundles.bases import BaseFacts
from registry.artifacts.bundles.files import Bundle
from registry.artifacts.statements import Finding
from registry.artifacts.weights.tensors import TensorInfo, Weighed

INFINITE_FROM = {
    "float16": 65520.0,
    "bfloat16": 2.0**128 - 2.0**119,
    "float32": 2.0**128 - 2.0**103,
    "float64": float("inf"),
}
"""The least number that each type rounds to infinity: half a step above its largest."""
USELESS_FROM = 2.0**63
"""The least number of which no matrix product is safe, about 9.2e18.

Four products of two of them add up to more than the largest float32, which is also about the
largest bfloat16: 3.4e38. Engines compute in no wider type.
"""
NAMES = {"half": "float16", "float": "float32", "double": "float64"}
"""Other names that torch has for these types."""
STORED = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}
MAX_EXAMPLES = 3


def overflow(
    bundle: Bundle, base: BaseFacts | None, weighed: Mapping[str, Weighed]
) -> Finding | None:
    """The finding of a bundle with such numbers; `base` is the base of an adapter.

    It blocks nothing: some models have such a number in a place that nothing computes with.
    """
    dtype, config = _in_use(bundle, base)
    limit = min(INFINITE_FROM.get(dtype, USELESS_FROM), USELESS_FROM)
    largest = {
        name: number
        for each in weighed.values()
        for name, number in each.largest.items()
        if number >= limit
    }
    if not largest:
        return None
    names = sorted(largest, key=lambda name: (-largest[name], name))
    top = largest[names[0]]
    shown = ", ".join(f"{name[:120]} ({largest[name]:.6g})" for name in names[:MAX_EXAMPLES])
    more = f" and {len(names) - MAX_EXAMPLES} more" if len(names) > MAX_EXAMPLES else ""
    tensors = "1 tensor holds" if len(names) == 1 else f"{len(names)} tensors hold"
    becomes = (
        f"which is infinite in {dtype}"
        if top >= INFINITE_FROM.get(dtype, top + 1)
        else f"of which products overflow in {dtype}"
    )
    return Finding(
        "overflow",
        f"high: {tensors} numbers too large for {dtype}, the type in which the model computes: "
        f"{shown}{more}. The largest is {top:.6g}, {becomes}",
        _fix(top, config),
        blocks=False,
    )


def _fix(top: float, config: str) -> str:
    diverged = "Find the step at which training diverged, and save weights from before it."
    if top >= USELESS_FROM:
        return f"{diverged} No type that engines compute in has room for such numbers."
    return (
        f'If the numbers are right, write "dtype": "bfloat16" into {config}, and register that. '
        f"Else: {diverged[0].lower()}{diverged[1:]}"
    )


def _in_use(bundle: Bundle, base: BaseFacts | None) -> tuple[str, str]:
    """The type in which the model computes, and the config.json that says so.

    Where none says so, it is the type in which most of its weights are stored.
    """
    stored: Iterable[TensorInfo]
    stored = (info for header in bundle.weights.values() for info in header.tensors)
    config, name = bundle.documents.get("config.json"), "config.json"
    if bundle.kind == "adapter":
        config, name = {}, "the config.json of its base"
        if base is not None:
            config, stored = base.config, (info for _, info in base.tensors.values())
    return _declared(config) or _most(stored), name


def _declared(config: Any) -> str | None:
    if not isinstance(config, Mapping):
        return None
    for value in (config.get("dtype"), config.get("torch_dtype")):
        if isinstance(value, str):
            name = value.removeprefix("torch.")
            name = NAMES.get(name, name)
            if name in INFINITE_FROM:
                return name
    return _declared(config.get("text_config"))


def _most(stored: Iterable[TensorInfo]) -> str:
    counts: Counter[str] = Counter()
    for info in stored:
        if info.dtype in STORED:
            counts[STORED[info.dtype]] += info.elements
    return max(counts, key=lambda name: counts[name], default="float32")
