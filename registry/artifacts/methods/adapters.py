"""An adapter's configuration: read by the table of methods, and written in one form.

The stored configuration is never the uploaded one. It contains only the known keys, in one order,
and names the registered base: its one-version repository and its commit. Two uploads of one adapter
are therefore one version, and no text carries anything else along.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from registry.artifacts.methods.configs import CONVERTED, FILE, Values, is_import
from registry.artifacts.methods.table import METHODS, Method
from registry.documents import canonical
from registry.errors import Defect
from registry.fields import Problem, problems

RESOLVE = (
    'Name what it matched, in its folder: python -c "import json,safetensors as s;'
    "f='adapter_config.json';c=json.load(open(f));"
    "c.update(target_modules=[*{k[17:].split('.lora_')[0]for k in "
    "s.safe_open('adapter_model.safetensors','np').keys()}],exclude_modules=[]);"
    "json.dump(c,open(f,'w'))\""
)
"""Replaces a pattern by the names of the trained modules; as long as a defect's fix may be."""
PATTERN_FIXES = {
    "target_modules": RESOLVE,
    "exclude_modules": RESOLVE,
    "layers_pattern": "Name each module in full in target_modules, and set layers_pattern and "
    "layers_to_transform to null.",
}
"""Fixes for keys that PEFT would run as regular expressions where they are texts."""
OTHER_BASE = (
    "Save the changed base (model.unload().save_pretrained(folder)), register that as a base, set "
    "init_lora_weights to true and loftq_config to {}, and bind the adapter to it."
)


@dataclass(frozen=True, slots=True)
class Config:
    """A valid configuration: its PEFT type, its method and every stored value."""

    peft_type: str
    method: Method
    values: Values


def read_config(raw: Any) -> tuple[Config | None, list[Defect]]:
    """Read the content of adapter_config.json by the table of its method.

    Returns the configuration, or None and everything that is wrong with it.
    """
    if not isinstance(raw, dict):
        return None, [
            Defect(
                FILE,
                "",
                "json-object",
                "it is not a JSON object",
                "Save the adapter again with PEFT.",
            )
        ]
    kind = raw.get("peft_type")
    if "peft_type" not in raw:
        return None, [
            Defect(
                FILE,
                "peft_type",
                "config-missing",
                "the key peft_type is missing",
                f"Set one of {', '.join(METHODS)}.",
            )
        ]
    method = METHODS.get(kind) if isinstance(kind, str) else None
    if not isinstance(kind, str) or method is None:
        return None, [
            Defect(
                FILE,
                "peft_type",
                "method-unsupported",
                f"the method {str(kind)[:80]!r} is not supported",
                f"Train with one of {', '.join(METHODS)}.",
            )
        ]
    keys = {key: value for key, value in raw.items() if key != "peft_type"}
    defects = [
        defect
        for problem in problems(keys, method.keys)
        if (defect := _defect(method, problem, keys)) is not None
    ]
    if not defects:
        defects = _contradictions(raw, kind)
    if defects:
        return None, defects
    stored = {name: key for name, key in method.keys.items() if key.stored}
    values = {name: key.write(raw.get(name, key.default)) for name, key in stored.items()}
    return Config(
        kind,
        method,
        {
            name: value
            for name, value in values.items()
            if not stored[name].sparse or value != stored[name].default
        },
    ), []


def _defect(method: Method, problem: Problem, keys: Mapping[str, Any]) -> Defect | None:
    """The defect of a problem with a key; None for a key that PEFT writes and that is empty."""
    key = problem.path
    if problem.fault == "missing":
        fix = f"Set {method.keys[key].expected}."
        return Defect(FILE, key, "config-missing", f"the key {key} is missing", fix)
    if problem.fault == "wrong":
        return _wrong(key, keys[key], f"Use {method.keys[key].expected}.")
    if key in method.empty:
        return _forbidden(key, keys[key], method.empty[key])
    detail = f"the key {key[:80]!r} is unknown"
    return Defect(FILE, key[:120], "config-unknown", detail, "Remove it.")


def _wrong(key: str, value: Any, fix: str) -> Defect:
    """The defect of a wrong value, with a way out where somebody chose the value on purpose."""
    if key == "init_lora_weights" and value == "loftq":
        return Defect(
            FILE,
            key,
            "init-unconverted",
            "it started as loftq, which changed the base's weights: its answers are right only on "
            "the changed base",
            OTHER_BASE,
        )
    if key == "init_lora_weights" and str(value).startswith(CONVERTED):
        return Defect(
            FILE,
            key,
            "init-unconverted",
            f"it started as {str(value)[:40]}, which moves a part of the base's weights into the "
            "adapter: its answers are right only on a base that was changed in the same way",
            "Save it as plain LoRA: model.save_pretrained(folder, "
            "path_initial_model_for_weight_conversion=start), where start is the folder to which "
            "it was saved before training.",
        )
    if isinstance(value, str) and key in PATTERN_FIXES:
        return Defect(
            FILE,
            key,
            "config-value",
            f"{key} is the text {value[:80]!r}, which would run as a regular expression",
            PATTERN_FIXES[key],
        )
    return Defect(FILE, key, "config-value", f"{key} is {str(value)[:80]!r}", fix)


def _forbidden(key: str, value: Any, why: str) -> Defect | None:
    """The defect of a key that must be empty; None when it is."""
    empty = value is None or value is False or value in ({}, [], "")
    if empty or (key == "auto_mapping" and is_import(value)):
        return None
    fix = EMPTY_FIXES.get(key, f"Train without {key}.")
    return Defect(FILE, key, "config-forbidden", f"{key} is set, and {why}", fix)


MERGE = (
    "Merge it (model.merge_and_unload().save_pretrained(folder)) and register the result as a "
    "checkpoint."
)
EMPTY_FIXES = {
    "auto_mapping": "Set it to null, and task_type to what the model was trained for.",
    "layer_replication": MERGE,
    "ensure_weight_tying": MERGE,
    "loftq_config": OTHER_BASE,
    "merge_weights": "Set it to false if the base's own weights were not changed; otherwise "
    "register them as a checkpoint.",
}
"""Fixes for keys that must be empty."""


def _contradictions(raw: Mapping[str, Any], kind: str) -> list[Defect]:
    """Defects of keys that are valid alone and contradict each other."""
    if kind == "LORA":
        return _lora_contradictions(raw)
    if kind != "ADALORA":
        return []
    start, end, total = raw.get("tinit", 0), raw.get("tfinal", 0), raw["total_step"]
    wrong = (
        []
        if start < total - end
        else [
            Defect(
                FILE,
                "total_step",
                "config-at-odds",
                f"tinit {start} and tfinal {end} leave no step of {total}, and PEFT does not load "
                "that",
                "Save the adapter again with the numbers of its training.",
            ),
        ]
    )
    for name, mask in (raw.get("rank_pattern") or {}).items():
        if not name.endswith(".lora_E"):
            wrong.append(
                Defect(
                    FILE,
                    name[:120],
                    "config-value",
                    "a key of rank_pattern must end in .lora_E",
                    "Save it again with PEFT.",
                )
            )
        elif not any(mask):
            wrong.append(
                Defect(
                    FILE,
                    name[:120],
                    "pruned-away",
                    "rank_pattern gives it no rank, so its tensors are empty",
                    "Train with a higher target_r, or without this module.",
                )
            )
    return wrong


def _lora_contradictions(raw: Mapping[str, Any]) -> list[Defect]:
    """Defects that PEFT would refuse to load, or that have no meaning."""
    wrong = []
    if not raw.get("target_modules") and not raw.get("target_parameters"):
        wrong.append(
            Defect(
                FILE,
                "target_modules",
                "config-value",
                "it names no modules, and there are no target_parameters",
                "Name the modules that were trained.",
            )
        )
    if raw.get("layers_pattern") and raw.get("layers_to_transform") in (None, []):
        wrong.append(
            Defect(
                FILE,
                "layers_pattern",
                "config-at-odds",
                "it says where the layers are, but layers_to_transform chooses none",
                "Set layers_pattern to null.",
            )
        )
    alone = ("lora_dropout", "fan_in_fan_out", "lora_bias", "use_dora", "alora_invocation_tokens")
    wrong += [
        Defect(
            FILE,
            key,
            "config-at-odds",
            f"PEFT does not load {key} together with {other}",
            f"Save it without {key}.",
        )
        for other, keys in (
            ("target_parameters", alone),
            ("lora_bias", ("use_dora",)),
            ("alora_invocation_tokens", ("use_dora",)),
        )
        if raw.get(other)
        for key in keys
        if raw.get(key)
    ]
    return wrong


def named_base(raw: Any) -> tuple[str, str | None] | None:
    """The name and revision of the base that a configuration names; None where it names none."""
    if not isinstance(raw, dict):
        return None
    name, revision = raw.get("base_model_name_or_path"), raw.get("revision")
    if not isinstance(name, str) or not name:
        return None
    return name, revision if isinstance(revision, str) else None


def written(config: Config, repository: str | None, commit: str | None) -> bytes:
    """The stored configuration: canonical JSON, bound to the base `team/name.v1` at a commit.

    The name alone must mean one version: transformers ignores the revision in this file, asks the
    repository for `main`, and would load the newest base under an adapter of an older one.
    `repository` and `commit` are None while it has no base. Every form of a configuration gives the
    same bytes, including the stored form itself.
    """
    bound = {
        "peft_type": config.peft_type,
        "base_model_name_or_path": repository,
        "revision": commit,
    }
    return canonical.encode({**config.values, **bound}, large_floats=True)
