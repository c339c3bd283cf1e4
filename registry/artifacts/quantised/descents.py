"""How a quantised checkpoint may come from its base: which recipe each tensor would need, and what
the verdicts make.

A recipe is recognised by the names, types and shapes its library writes. Whether the numbers are
those the recipe gives is worked out from the bytes of both (`artifacts.quantised.quantisations`);
what cannot be worked out stays a claim.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from registry.artifacts.bundles.bindings import differences, texts_of, tokenizer_defects
from registry.artifacts.bundles.files import Bundle
from registry.artifacts.tokenizers.chat_templates import templates_of
from registry.artifacts.weights.tensors import File, TensorInfo
from registry.documents import canonical
from registry.errors import Defect

Outcome = Literal["verified", "unchecked", "false"]
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
STATE = re.compile(r"quant_state\.bitsandbytes__(nf4|fp4)")
CALIBRATED = ("qweight", "qzeros", "scales", "g_idx")
"""Parts of GPTQ and AWQ: their numbers depend on data and on the order of the work, so they are not
worked out again.
"""
FEWEST_BITS, MOST_BITS = 2, 10
"""Of one value in a qweight: GPTQ and AWQ have 2, 3, 4 or 8, and some kernels fill up the rows."""
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
MOST = 20


@dataclass(frozen=True, slots=True)
class Placed:
    """One tensor and the file it lies in."""

    file: File
    info: TensorInfo


@dataclass(frozen=True, slots=True)
class Step:
    """How one tensor of the base became what the checkpoint holds: a recipe, and the checkpoint's
    tensors by their part.
    """

    name: str
    recipe: str
    parts: Mapping[str, Placed]


@dataclass(frozen=True, slots=True)
class TensorVerdict:
    """What the bytes say of one step; `detail` says where it is not verified and why."""

    name: str
    recipe: str
    outcome: Outcome
    detail: str = ""


@dataclass(slots=True)
class Plan:
    """Every step the bytes must show, and what is known without reading any weight."""

    steps: list[Step] = field(default_factory=list)
    verdicts: list[TensorVerdict] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Descent:
    """The whole verdict: `verified` only when every tensor and text is; a contradiction is a
    defect, never a grade.
    """

    grade: Literal["verified", "claimed"]
    recipes: dict[str, int]
    unchecked: tuple[str, ...]
    defects: tuple[Defect, ...]

    def facts(self, of: str, base_root: str | None) -> dict[str, Any]:
        """What is kept of it with the version."""
        return {
            "of": of,
            "base_root": base_root,
            "grade": self.grade,
            "recipes": self.recipes,
            "unchecked": list(self.unchecked[:MOST]),
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
    """Give each tensor of the checkpoint its recipe; what no recipe explains is a verdict
    already.
    """
    made = Plan()
    used: set[str] = set()
    for name, original in sorted(base.items()):
        step = _step(name, original.info, child)
        if step is None:
            if any(f"{name.removesuffix('.weight')}.{part}" in child for part in CALIBRATED):
                parts = {f"{name.removesuffix('.weight')}.{part}" for part in CALIBRATED} & set(
                    child
                )
                used |= parts
                made.verdicts.append(
                    _calibrated(
                        name, original.info, child.get(f"{name.removesuffix('.weight')}.qweight")
                    )
                )
            else:
                made.verdicts.append(
                    TensorVerdict(name, "missing", "unchecked", "the checkpoint does not hold it")
                )
            continue
        used |= {part.info.name for part in step.parts.values()}
        if step.recipe == "other":
            found = step.parts["weight"].info
            made.verdicts.append(
                TensorVerdict(
                    name,
                    "other",
                    "false",
                    f"{found.dtype} of shape {list(found.shape)} is no form of the base's "
                    f"{original.info.dtype} of shape {list(original.info.shape)}",
                )
            )
        else:
            made.steps.append(step)
    for name in sorted(set(child) - used):
        known = name.endswith(("input_scale", "output_scale", "k_scale", "v_scale"))
        made.verdicts.append(
            TensorVerdict(
                name,
                "activation-scale",
                "unchecked",
                "a scale of activations comes from data, not from weights",
            )
            if known
            else TensorVerdict(name, "other", "false", "no tensor of the base explains it")
        )
    return made


def _calibrated(name: str, original: TensorInfo, packed: Placed | None) -> TensorVerdict:
    """GPTQ's or AWQ's form of a tensor: only whether so many values can be in it is known without
    the data.
    """
    if packed is None or packed.info.dtype != "I32":
        return TensorVerdict(
            name, "calibrated", "false", "there is no qweight of I32 beside its scales"
        )
    bits = packed.info.elements * 32 / max(original.elements, 1)
    if not FEWEST_BITS <= bits <= MOST_BITS:
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
        held = {part: one for part, one in parts.items() if one is not None}
        return (
            Step(name, "packed-int4", held)
            if len(held) == 3 and f"{stem}.weight_zero_point" not in child
            else None
        )
    weight = child[name]
    dtype, shape = weight.info.dtype, weight.info.shape
    if (dtype, shape) == (original.dtype, original.shape):
        return Step(name, "equal", {"weight": weight})
    if dtype in FLOATS and original.dtype in FLOATS and shape == original.shape:
        return Step(name, "cast", {"weight": weight})
    if dtype == "U8":
        held = {
            key[len(name) + 1 :]: one for key, one in child.items() if key.startswith(f"{name}.")
        }
        states = [found for key in held if (found := STATE.fullmatch(key))]
        if len(states) == 1 and {"absmax", "quant_map"} <= set(held):
            return Step(
                name,
                f"bitsandbytes-{states[0][1]}",
                {"weight": weight, "state": held.pop(states[0][0]), **held},
            )
    if dtype == "I8" and shape == original.shape and f"{stem}.SCB" in child:
        held = {"weight": weight, "scale": child[f"{stem}.SCB"]}
        if f"{stem}.weight_format" in child:
            held["format"] = child[f"{stem}.weight_format"]
        return Step(name, "bitsandbytes-int8", held)
    for scale in ("weight_scale", "weight_scale_inv"):
        if dtype in ("F8_E4M3", "I8") and shape == original.shape and f"{stem}.{scale}" in child:
            recipe = "fp8" if dtype == "F8_E4M3" else "int8"
            return Step(name, recipe, {"weight": weight, "scale": child[f"{stem}.{scale}"]})
    return Step(name, "other", {"weight": weight})


def text_verdicts(base: Bundle, child: Bundle) -> list[TensorVerdict]:
    """Configuration, tokenizer and chat template: what both say must agree; what only one says
    cannot be compared.
    """
    verdicts = []
    ours, theirs = (one.documents.get("config.json", {}) for one in (child, base))
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted({*ours, *theirs} - CONFIG_FREE):
            if key in ours and key in theirs:
                found = next(differences(ours[key], theirs[key], key), None)
                if found is not None:
                    verdicts.append(
                        TensorVerdict(
                            f"config.json {found[0]}",
                            "config",
                            "false",
                            f"it says {_short(found[1])}, the base says {_short(found[2])}",
                        )
                    )
            elif (ours.get(key), theirs.get(key)) != (None, None):
                whose = "the checkpoint" if key in ours else "the base"
                verdicts.append(
                    TensorVerdict(
                        f"config.json {key}", "config", "unchecked", f"only {whose} says it"
                    )
                )
    texts = texts_of(base)
    for one in tokenizer_defects(child, texts):
        # A file the base has not cannot be held against anything; one it has, and says otherwise,
        # contradicts it.
        outcome: Outcome = "false" if one.where or one.file in texts.digests else "unchecked"
        verdicts.append(
            TensorVerdict(f"{one.file} {one.where}".strip(), "tokenizer", outcome, one.detail)
        )
    own, other = templates_of(child.documents), templates_of(base.documents)
    if own is not None and (other is None or own.texts != other.texts):
        verdicts.append(TensorVerdict("chat template", "template", "false", "it is not the base's"))
    return verdicts


def _short(value: Any) -> str:
    text = canonical.encode(value, large_floats=True).decode() if value is not None else "nothing"
    return text if len(text) <= 60 else f"{text[:57]}..."


def conclude(verdicts: Sequence[TensorVerdict], file: str = "model.safetensors") -> Descent:
    """The grade, and a defect for each thing the bytes contradict."""
    defects = tuple(
        Defect(
            one.name.partition(" ")[0]
            if one.name.partition(" ")[0].endswith((".json", ".txt", ".model"))
            else file,
            one.name,
            "descent-false",
            f"it is not the base's by the recipe {one.recipe}: {one.detail}",
            "Name the model it was really made from, or register it without --quantised-of.",
        )
        for one in verdicts
        if one.outcome == "false"
    )
    unchecked = tuple(f"{one.name}: {one.detail}" for one in verdicts if one.outcome == "unchecked")
    recipes = Counter(one.recipe for one in verdicts if one.outcome == "verified")
    return Descent(
        "claimed" if unchecked else "verified", dict(sorted(recipes.items())), unchecked, defects
    )
