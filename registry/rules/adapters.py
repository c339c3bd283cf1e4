"""An adapter read and judged: its configuration by the table of methods, its tensors against the base, its written form.

The configuration that is kept is never the one that came, but ours: the known keys only, in one order, naming the
registered base and its commit. So two uploads of one adapter are one version, and nothing rides along in a text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from registry.errors import Defect
from registry.rules.anatomies import Anatomy
from registry.rules.configs import CONVERTED, FILE, Values
from registry.rules.documents import canonical
from registry.rules.recipes import METHODS, Method
from registry.rules.tensors import TensorInfo

TENSOR_DTYPES = frozenset({"F32", "F16", "BF16"})
BIND = "Bind the adapter to the base it was trained on, or train it again."


@dataclass(frozen=True, slots=True)
class Config:
    """A sound configuration: its PEFT type, its method, every kept value."""

    peft_type: str
    method: Method
    values: Values


def read_config(raw: Any) -> tuple[Config | None, list[Defect]]:
    """Read adapter_config.json's content by its method's table, and say all that is wrong; None unless it is sound."""
    if not isinstance(raw, dict):
        return None, [Defect(FILE, "", "json-object", "it is no JSON object", "Save the adapter again with PEFT.")]
    kind = raw.get("peft_type")
    if "peft_type" not in raw:
        return None, [Defect(FILE, "peft_type", "config-missing", "the key peft_type is missing",
                             f"Set one of {', '.join(METHODS)}.")]  # fmt: skip
    method = METHODS.get(kind) if isinstance(kind, str) else None
    if not isinstance(kind, str) or method is None:
        return None, [Defect(FILE, "peft_type", "method-unsupported", f"the method {str(kind)[:80]!r} is not supported",
                             f"Train with one of {', '.join(METHODS)}.")]  # fmt: skip
    defects = [_missing(key, method) for key in method.required if key not in raw]
    for key, value in raw.items():
        if key != "peft_type" and (wrong := _check(method, key, value)):
            defects.append(wrong)
    if not defects:
        defects = _at_odds(raw, kind)
    if defects:
        return None, defects
    kept = {key: entry for key, entry in method.keys.items() if entry.kept}
    return Config(kind, method, {key: entry.write(raw.get(key, entry.default)) for key, entry in kept.items()}), []


def _missing(key: str, method: Method) -> Defect:
    return Defect(FILE, key, "config-missing", f"the key {key} is missing", f"Set {method.keys[key].wanted}.")


def _check(method: Method, key: str, value: Any) -> Defect | None:
    """What is wrong with one key, if anything is."""
    if (entry := method.keys.get(key)) is not None:
        if entry.holds(value):
            return None
        if key == "init_lora_weights" and str(value).startswith(CONVERTED):
            return Defect(
                FILE, key, "init-unconverted", f"it began as {str(value)[:40]}, which moves a part of the base's weights "
                "into the adapter: it answers rightly only on a base altered in the same way",
                "Save it as plain LoRA: model.save_pretrained(folder, path_initial_model_for_weight_conversion=start), "
                "where start is the folder it was saved to before training.",
            )  # fmt: skip
        return Defect(FILE, key, "config-value", f"{key} is {str(value)[:80]!r}", f"Use {entry.wanted}.")
    if key in method.empty:
        if value is None or value is False or value in ({}, [], ""):
            return None
        mend = "Set task_type and save the adapter again." if key == "auto_mapping" else f"Train without {key}."
        return Defect(FILE, key, "config-forbidden", f"{key} is set, and {method.empty[key]}", mend)
    return Defect(FILE, key[:120], "config-unknown", f"the key {key[:80]!r} is not known", "Remove it.")


def _at_odds(raw: Mapping[str, Any], kind: str) -> list[Defect]:
    """Keys that are right alone and wrong together."""
    if kind != "ADALORA":
        return []
    start, end, total = raw.get("tinit", 0), raw.get("tfinal", 0), raw["total_step"]
    wrong = [] if start < total - end else [
        Defect(FILE, "total_step", "config-at-odds", f"tinit {start} and tfinal {end} leave no step of {total}, and PEFT "
               "refuses to load that", "Save the adapter again with the numbers it was trained by."),
    ]  # fmt: skip
    for name, mask in (raw.get("rank_pattern") or {}).items():
        if not name.endswith(".lora_E"):
            wrong.append(Defect(FILE, name[:120], "config-value", "a key of rank_pattern must end in .lora_E",
                                "Save it again with PEFT."))  # fmt: skip
        elif not any(mask):
            wrong.append(Defect(FILE, name[:120], "pruned-away", "rank_pattern leaves it no rank, so its tensors are empty",
                                "Train with a higher target_r, or without this module."))  # fmt: skip
    return wrong


def named_base(raw: Any) -> tuple[str, str | None] | None:
    """What base a configuration says it was trained on, and which revision of it; None where it says nothing."""
    name, revision = (
        (raw.get("base_model_name_or_path"), raw.get("revision")) if isinstance(raw, dict) else (None, None)
    )
    return (name, revision if isinstance(revision, str) else None) if isinstance(name, str) and name else None


def written(config: Config, base: str | None, commit: str | None) -> bytes:
    """The configuration as it is kept: canonical JSON, bound to `team/name` at a commit (None while it has no base).

    Written again it is the same bytes, whichever of its forms it is read from.
    """
    bound = {"peft_type": config.peft_type, "base_model_name_or_path": base, "revision": commit}
    return canonical({**config.values, **bound})


def check_tensors(
    file: str, config: Config, tensors: Sequence[TensorInfo], base: Anatomy
) -> list[Defect]:  # fmt: skip
    """Hold the adapter's tensors against the prediction: each that lacks, is too many or differs is named."""
    prediction = config.method.predict(config.values, base)
    wanted, defects = prediction.tensors, prediction.defects
    present = {info.name: info for info in tensors}

    def wrong(name: str, rule: str, detail: str, mend: str) -> None:
        defects.append(Defect(file, name, rule, detail, mend))

    for name in sorted(wanted.keys() - present.keys()):
        wrong(name, "tensor-missing", f"expected with shape {list(wanted[name])}, but it is not there", BIND)
    for name in sorted(present.keys() - wanted.keys()):
        copied = name.endswith(".base_layer.weight")
        wrong(name, "tensor-unexpected",
              f"expected no such tensor on this base; got one of shape {list(present[name].shape)}",
              "Save it with save_embedding_layers=False: it is a copy of the base's own." if copied else BIND)  # fmt: skip
    for name in sorted(wanted.keys() & present.keys()):
        info = present[name]
        if info.shape != wanted[name]:
            wrong(name, "tensor-shape", f"expected shape {list(wanted[name])}, got {list(info.shape)}", BIND)
        if info.dtype not in TENSOR_DTYPES:
            wrong(name, "tensor-dtype", f"expected one of {', '.join(sorted(TENSOR_DTYPES))}, got {info.dtype}",
                  "Save the adapter in a floating point type.")  # fmt: skip
    return defects


def facts_of(config: Config) -> dict[str, Any]:
    """What a version says of its tuning: method, variant, ranks, patterns, targets, layers, and what is risky in it.

    `max_rank` is the highest of any module, which is what an engine must make room for.
    """
    values = config.values
    facts: dict[str, Any] = {"method": config.method.name, "variant": "plain"}
    if on := [name for name, key in (("dora", "use_dora"), ("rslora", "use_rslora")) if values.get(key)]:
        facts["variant"] = "+".join(on)
    if "lora_alpha" in values:
        facts |= _ranks(config) | {"alpha": values["lora_alpha"], "bias": values["bias"]}
    if "target_modules" in values:
        facts["targets"] = sorted({target.rpartition(".")[2] for target in values["target_modules"]})
    for fact, key in (("layers", "layers_to_transform"), ("virtual_tokens", "num_virtual_tokens"),
                      ("bottleneck_size", "bottleneck_size"), ("modules_to_save", "modules_to_save")):  # fmt: skip
        if values.get(key) is not None:
            facts[fact] = values[key]
    if config.method.serving == "in-process":
        facts["serving"] = "in-process"
    facts["risks"] = [
        f"high: it replaces the base's whole {name} (modules_to_save), not by a small difference"
        for name in values.get("modules_to_save") or ()
    ]  # fmt: skip
    return facts


def _ranks(config: Config) -> dict[str, Any]:
    values = config.values
    if config.method.name == "adalora":
        masks = (values["rank_pattern"] or {}).items()
        pattern = {name.removesuffix(".lora_E"): sum(mask) for name, mask in masks}
        return {"rank": values["init_r"], "max_rank": max(pattern.values(), default=values["init_r"])} | (
            {"rank_pattern": pattern} if pattern else {}
        )
    patterns = {key: values[key] for key in ("rank_pattern", "alpha_pattern") if values[key]}
    return {"rank": values["r"], "max_rank": max(values["r"], *values["rank_pattern"].values(), 0), **patterns}
