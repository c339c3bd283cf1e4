"""How a quantised checkpoint may descend from its base: the recipe of each tensor, and the verdict.

A recipe is recognised by the names, types and shapes that its library writes. Whether the numbers
are those that the recipe gives is computed from the bytes of both
(`artifacts.quantised.quantisations`). What cannot be computed remains a claim.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

from registry.artifacts.bundles.comparisons import tokenizer_defects
from registry.artifacts.bundles.files import Bundle
from registry.artifacts.bundles.texts import texts_of
from registry.artifacts.tokenizers.chat_templates import templates_of
from registry.artifacts.weights.tensors import File, TensorInfo
from registry.documents.differences import differences, short
from registry.errors import Defect

Outcome = Literal["verified", "unchecked", "false"]
Grade = Literal["verified", "claimed"]
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
STATE = re.compile(r"quant_state\.bitsandbytes__(nf4|fp4)")
CALIBRATED = ("qweight", "qzeros", "scales", "g_idx")
"""Parts of a GPTQ or AWQ tensor.

Their numbers depend on data and on the order of the work, so they cannot be computed again.
"""
MIN_BITS = 2
"""Bits of one value in a qweight, at least: GPTQ and AWQ use 2, 3, 4 or 8."""
MAX_BITS = 10
"""Bits of one value in a qweight, at most: some kernels pad the rows."""
CONFIG_FREE = frozenset(
    {
        "quantization_config",
        "torch_dtype",
        "dtype",
        "transformers_version",
        "_name_or_path",
        "use_cache",
    }
)
"""Keys of config.json that a quantisation may change without making another model."""
MAX_LISTED = 20
"""Unchecked tensors and texts that the facts list."""


@dataclass(frozen=True, slots=True)
class Placed:
    """One tensor and the file that holds it."""

    file: File
    info: TensorInfo


@dataclass(frozen=True, slots=True)
class Step:
    """How one tensor of the base became what the checkpoint holds.

    `parts` are the checkpoint's tensors by their role in the recipe.
    """

    name: str
    recipe: str
    parts: Mapping[str, Placed]


@dataclass(frozen=True, slots=True)
class TensorVerdict:
    """What the bytes show for one step; `detail` says why it is not verified."""

    name: str
    recipe: str
    outcome: Outcome
    detail: str = ""


@dataclass(slots=True)
class Plan:
    """Every step to verify from the bytes, and the verdicts that need no weights."""

    steps: list[Step] = field(default_factory=list)
    verdicts: list[TensorVerdict] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Descent:
    """The whole verdict: `verified` only when every tensor and text is.

    A contradiction is a defect, never a grade.
    """

    grade: Grade
    recipes: dict[str, int]
    unchecked: tuple[str, ...]
    defects: tuple[Defect, ...]

    def facts(self, of: str, base_root: str | None) -> dict[str, Any]:
        """The facts to store with the version."""
        return {
            "of": of,
            "base_root": base_root,
            "grade": self.grade,
            "recipes": self.recipes,
            "unchecked": list(self.unchecked[:MAX_LISTED]),
            "unchecked_count": len(self.unchecked),
        }


def placed(bundle: Bundle) -> dict[str, Placed]:
    """Every tensor of a bundle by name."""
    return {
        info.name: Placed(bundle.files[path], info)
        for path, header in bundle.weights.items()
        for info in header.tensors
    }


def plan(base: Mapping[str, Placed], child: Mapping[str, Placed]) -> Plan:
    """Assign a recipe to each tensor of the checkpoint.

    A tensor that no recipe explains gets its verdict at once.
    """
    result = Plan()
    used: set[str] = set()
    for name, original in sorted(base.items()):
        step = _step(name, original.info, child)
        if step is None:
            stem = name.removesuffix(".weight")
            parts = {f"{stem}.{part}" for part in CALIBRATED} & set(child)
            used |= parts
            result.verdicts.append(
                _calibrated(name, original.info, child.get(f"{stem}.qweight"))
                if parts
                else TensorVerdict(name, "missing", "unchecked", "the checkpoint does not hold it")
            )
            continue
        used |= {part.info.name for part in step.parts.values()}
        if step.recipe == "other":
            received = step.parts["weight"].info
            result.verdicts.append(
                TensorVerdict(
                    name,
                    "other",
                    "false",
                    f"{received.dtype} of shape {list(received.shape)} is not a form of the base's "
                    f"{original.info.dtype} of shape {list(original.info.shape)}",
                )
            )
        else:
            result.steps.append(step)
    for name in sorted(set(child) - used):
        is_scale = name.endswith(("input_scale", "output_scale", "k_scale", "v_scale"))
        result.verdicts.append(
            TensorVerdict(
                name,
                "activation-scale",
                "unchecked",
                "a scale of activations comes from data, not from weights",
            )
            if is_scale
            else TensorVerdict(name, "other", "false", "no tensor of the base explains it")
        )
    return result


def _calibrated(name: str, original: TensorInfo, packed: Placed | None) -> TensorVerdict:
    """The verdict on a GPTQ or AWQ form of a tensor.

    Without the calibration data, only the number of values that fit into it can be checked.
    """
    if packed is None or packed.info.dtype != "I32":
        return TensorVerdict(name, "calibrated", "false", "its scales have no qweight of type I32")
    bits = packed.info.elements * 32 / max(original.elements, 1)
    if not MIN_BITS <= bits <= MAX_BITS:
        return TensorVerdict(
            name,
            "calibrated",
            "false",
            f"its qweight has {bits:.3g} bits for each of the base's {original.elements} values",
        )
    return TensorVerdict(
        name, "calibrated", "unchecked", "its numbers depend on the data it was calibrated with"
    )


def _step(name: str, original: TensorInfo, child: Mapping[str, Placed]) -> Step | None:
    stem = name.removesuffix(".weight")
    packed = child.get(f"{stem}.weight_packed")
    if name not in child:
        parts = {
            "weight": packed,
            "scale": child.get(f"{stem}.weight_scale"),
            "shape": child.get(f"{stem}.weight_shape"),
        }
        present = {part: tensor for part, tensor in parts.items() if tensor is not None}
        if len(present) == 3 and f"{stem}.weight_zero_point" not in child:
            return Step(name, "packed-int4", present)
        return None
    weight = child[name]
    dtype, shape = weight.info.dtype, weight.info.shape
    if (dtype, shape) == (original.dtype, original.shape):
        return Step(name, "equal", {"weight": weight})
    if dtype in FLOATS and original.dtype in FLOATS and shape == original.shape:
        return Step(name, "cast", {"weight": weight})
    if dtype == "U8":
        extra = {
            key[len(name) + 1 :]: tensor
            for key, tensor in child.items()
            if key.startswith(f"{name}.")
        }
        states = [match for key in extra if (match := STATE.fullmatch(key))]
        if len(states) == 1 and {"absmax", "quant_map"} <= set(extra):
            return Step(
                name,
                f"bitsandbytes-{states[0][1]}",
                {"weight": weight, "state": extra.pop(states[0][0]), **extra},
            )
    if dtype == "I8" and shape == original.shape and f"{stem}.SCB" in child:
        rows = {"weight": weight, "scale": child[f"{stem}.SCB"]}
        if f"{stem}.weight_format" in child:
            rows["format"] = child[f"{stem}.weight_format"]
        return Step(name, "bitsandbytes-int8", rows)
    for scale in ("weight_scale", "weight_scale_inv"):
        if dtype in ("F8_E4M3", "I8") and shape == original.shape and f"{stem}.{scale}" in child:
            recipe = "fp8" if dtype == "F8_E4M3" else "int8"
            return Step(name, recipe, {"weight": weight, "scale": child[f"{stem}.{scale}"]})
    return Step(name, "other", {"weight": weight})


def text_verdicts(base: Bundle, child: Bundle) -> list[TensorVerdict]:
    """The verdicts on configuration, tokenizer and chat template.

    Where both have a value, the values must agree; what only one has cannot be compared.
    """
    verdicts: list[TensorVerdict] = []
    own_config = child.documents.get("config.json", {})
    base_config = base.documents.get("config.json", {})
    if isinstance(own_config, dict) and isinstance(base_config, dict):
        verdicts += _config_verdicts(own_config, base_config)
    texts = texts_of(base)
    for defect in tokenizer_defects(child, texts):
        # A file that the base lacks cannot be compared; a file that differs contradicts the base.
        outcome: Outcome = "false" if defect.where or defect.file in texts.files else "unchecked"
        name = f"{defect.file} {defect.where}".strip()
        verdicts.append(TensorVerdict(name, "tokenizer", outcome, defect.detail))
    own, other = templates_of(child.documents), templates_of(base.documents)
    if own is not None and (other is None or own.texts != other.texts):
        verdicts.append(TensorVerdict("chat template", "template", "false", "it is not the base's"))
    return verdicts


def _config_verdicts(own: dict[str, Any], base: dict[str, Any]) -> Iterator[TensorVerdict]:
    for key in sorted({*own, *base} - CONFIG_FREE):
        if key in own and key in base:
            for path, received, expected in islice(differences(own[key], base[key], key), 1):
                detail = f"it has {short(received)}, the base has {short(expected)}"
                yield TensorVerdict(f"config.json {path}", "config", "false", detail)
        elif (own.get(key), base.get(key)) != (None, None):
            owner = "the checkpoint" if key in own else "the base"
            detail = f"only {owner} has it"
            yield TensorVerdict(f"config.json {key}", "config", "unchecked", detail)


def conclude(verdicts: Sequence[TensorVerdict], file: str = "model.safetensors") -> Descent:
    """The grade, and a defect for each contradiction; `file` is where the tensors' defects go."""
    defects = tuple(_defect(verdict, file) for verdict in verdicts if verdict.outcome == "false")
    unchecked = tuple(
        f"{verdict.name}: {verdict.detail}"
        for verdict in verdicts
        if verdict.outcome == "unchecked"
    )
    recipes = Counter(verdict.recipe for verdict in verdicts if verdict.outcome == "verified")
    grade: Grade = "claimed" if unchecked else "verified"
    return Descent(grade, dict(sorted(recipes.items())), unchecked, defects)


def _defect(verdict: TensorVerdict, weights: str) -> Defect:
    text_file = verdict.name.partition(" ")[0]
    is_text = text_file.endswith((".json", ".txt", ".model"))
    return Defect(
        text_file if is_text else weights,
        verdict.name,
        "descent-false",
        f"it is not the base's by the recipe {verdict.recipe}: {verdict.detail}",
        "Name the model it was made from, or register it without --quantised-of.",
    )
