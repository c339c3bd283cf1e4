"""An adapter's configuration: read by the table of methods, and written in one form.

The stored configuration is never the uploaded one. It contains only the known keys, in one order,
and names the registered base: its one-version repository and its commit. Two uploads of one adapter
are therefore one version, and no text carries anything else along.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from registry.artifacts.methods.anatomies import HEAD, is_tokens
from registry.artifacts.methods.configs import (
    ANYWHERE,
    CONVERTED,
    FILE,
    Values,
    is_import,
    is_name,
)
from registry.artifacts.methods.table import METHODS, Method
from registry.documents import canonical
from registry.errors import Defect
from registry.fields import Problem, problems

RESOLVE = (
    'Name what it matched, in its folder: python -c "import json,safetensors as s;'
    "f='adapter_config.json';c=json.load(open(f));"
    "c.update(target_modules=[*{k[17:].split('.lora_')[0]for k in "
    "s.safe_open('adapter_model.safetensors','np').keys()if'.lora_'in k}],exclude_modules=[]);"
    "json.dump(c,open(f,'w'))\""
)
"""Replaces a pattern by the names of the trained modules."""
RESOLVE_KEYS = (
    'Name what they matched, in its folder: python -c "import json,re,safetensors as s;'
    "f='adapter_config.json';c=json.load(open(f));"
    "c['{key}']={{m:v for m in{{k[17:].split('.lora_')[0]for k in "
    "s.safe_open('adapter_model.safetensors','np').keys()if'.lora_'in k}}for k,v in "
    "[*c['{key}'].items()][::-1]if re.match(r'(.*\\.)?('+k+')$',m)}};json.dump(c,open(f,'w'))\""
)
"""Replaces the patterns of an object by the names of the trained modules that PEFT matches.

Of several that match one module PEFT takes the first, so they are read from the last to the first.
"""
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


MAX_KEY_NAME = 120
MAX_DROPPED_KEYS = 64
"""How many unknown keys without a value a configuration may have; PEFT 0.21 has 42 keys in all."""


@dataclass(frozen=True, slots=True)
class Config:
    """A valid configuration: its PEFT type, its method and every stored value.

    `dropped` are the names of unknown keys that hold no value (null, false or empty). A later
    release of PEFT writes such keys for options that are not used, so they change nothing.
    """

    peft_type: str
    method: Method
    values: Values
    dropped: tuple[str, ...] = ()


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
    dropped = tuple(
        sorted(
            key[:MAX_KEY_NAME]
            for key, value in keys.items()
            if _is_empty(value) and key not in method.keys and key not in method.empty
        )
    )
    defects = [
        defect
        for problem in problems(keys, method.keys)
        if (defect := _defect(method, problem, keys)) is not None
    ]
    if len(dropped) > MAX_DROPPED_KEYS:
        detail = f"it has {len(dropped)} unknown keys, and {MAX_DROPPED_KEYS} are allowed"
        defects.append(Defect(FILE, "", "config-unknown", detail, "Save it again with PEFT."))
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
        dropped,
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
    if _is_empty(keys[key]):
        return None
    detail = (
        f"the key {key[:80]!r} is unknown, and its value {str(keys[key])[:80]!r} may change how "
        "the adapter answers"
    )
    fix = (
        "If it is an option of a newer PEFT, train without it. If another tool wrote it, remove it "
        f"from {FILE}; what PEFT does not know, it does not use."
    )
    return Defect(FILE, key[:MAX_KEY_NAME], "config-unknown", detail, fix)


def _is_empty(value: Any) -> bool:
    """Whether a value says nothing: null, false, or an empty text, list or object."""
    return value is None or value is False or value in ({}, [], "")


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
    if key in ("rank_pattern", "alpha_pattern") and isinstance(value, dict):
        pattern = next((name for name in value if not is_name(name.removeprefix(ANYWHERE))), None)
        if pattern is not None:
            detail = f"{key} has the key {pattern[:80]!r}, which would run as a regular expression"
            return Defect(FILE, key, "config-value", detail, RESOLVE_KEYS.format(key=key))
    return Defect(FILE, key, "config-value", f"{key} is {str(value)[:80]!r}", fix)


def _forbidden(key: str, value: Any, why: str) -> Defect | None:
    """The defect of a key that must be empty; None when it is."""
    if _is_empty(value) or (key == "auto_mapping" and is_import(value)):
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
    "loftq_config": OTHER_BASE,
    "merge_weights": "Set it to false if the base's own weights were not changed; otherwise "
    "register them as a checkpoint.",
}
"""Fixes for keys that must be empty."""


def _contradictions(raw: Mapping[str, Any], kind: str) -> list[Defect]:
    """Defects of keys that are valid alone and contradict each other."""
    if kind == "LORA":
        return _lora_contradictions(raw)
    if kind == "IA3":
        return _ia3_contradictions(raw)
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


def _ia3_contradictions(raw: Mapping[str, Any]) -> list[Defect]:
    """Defects of feedforward modules that are not targets; PEFT does not load such a file."""
    return [
        Defect(
            FILE,
            "feedforward_modules",
            "config-at-odds",
            f"feedforward_modules names {name!r}, which target_modules does not",
            "Save the adapter again with PEFT, or name it in both.",
        )
        for name in raw["feedforward_modules"] or ()
        if name not in raw["target_modules"]
    ]


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


def untied(config: Config, raw: Mapping[str, Any], tied: bool) -> Config:
    """The configuration that gives the same answers without `ensure_weight_tying`.

    On a base whose head is its embedding (`tied`), PEFT 0.21 then adapts or saves both as one, and
    writes both into the file, but names only the embedding (measured on Llama). With both named in
    the list, every loader reads the same tensors and needs no such key. On any other base the key
    does nothing.
    """
    if not raw.get("ensure_weight_tying") or not tied:
        return config
    both = {
        key: sorted({*names, HEAD})
        for key in ("target_modules", "modules_to_save")
        if (names := config.values.get(key))
        and any(is_tokens(name) or name == HEAD for name in names)
    }
    return replace(config, values={**config.values, **both})


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
