"""An adapter read and judged: its configuration by the table of methods, its tensors against the
base, its written form.

The configuration that is kept is never the one that came, but ours: the known keys only, in one
order, naming the registered base and its commit. So two uploads of one adapter are one version, and
nothing rides along in a text.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from registry.artifacts.methods import heads
from registry.artifacts.methods.anatomies import LABELS, Shape
from registry.artifacts.methods.configs import CONVERTED, FILE, Values, is_import
from registry.artifacts.methods.heads import PREFIX, View
from registry.artifacts.methods.table import METHODS, Method
from registry.artifacts.weights.tensors import TensorInfo
from registry.documents import canonical
from registry.errors import Defect
from registry.fields import Problem, problems

TENSOR_DTYPES = frozenset({"F32", "F16", "BF16"})
BIND = "Bind the adapter to the base it was trained on, or train it again."
# No longer than a defect's fix may be.
RESOLVE = (
    'Name what it matched, in its folder: python -c "import json,safetensors as '
    "s;f='adapter_config.json';c=json.load(open(f));"
    "c.update(target_modules=[*{k[17:].split('.lora_')[0]for k in "
    "s.safe_open('adapter_model.safetensors','np').keys()}],"
    "exclude_modules=[]);json.dump(c,open(f,'w'))\""
)
PATTERN_FIXES = {
    "target_modules": RESOLVE,
    "exclude_modules": RESOLVE,
    "layers_pattern": "Name each module in full in target_modules, and set it and "
    "layers_to_transform to null.",
}
"""Keys that PEFT would run as regular expressions where they are texts."""
OTHER_BASE = (
    "Save the base it left (model.unload().save_pretrained(folder)), register that as a base, set "
    "init_lora_weights to "
    "true and loftq_config to {}, and bind the adapter to it."
)
MAX_LABELS = 65536


@dataclass(frozen=True, slots=True)
class Config:
    """A sound configuration: its PEFT type, its method, every kept value."""

    peft_type: str
    method: Method
    values: Values


def read_config(raw: Any) -> tuple[Config | None, list[Defect]]:
    """Read adapter_config.json's content by its method's table, and say all that is wrong; None
    unless it is sound.
    """
    if not isinstance(raw, dict):
        return None, [
            Defect(
                FILE, "", "json-object", "it is no JSON object", "Save the adapter again with PEFT."
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
    found = (_defect(method, problem, keys) for problem in problems(keys, method.keys))
    defects = [defect for defect in found if defect is not None]
    if not defects:
        defects = _at_odds(raw, kind)
    if defects:
        return None, defects
    kept = {key: entry for key, entry in method.keys.items() if entry.kept}
    values = {key: entry.write(raw.get(key, entry.default)) for key, entry in kept.items()}
    return Config(
        kind,
        method,
        {
            key: value
            for key, value in values.items()
            if not kept[key].sparse or value != kept[key].default
        },
    ), []


def _defect(method: Method, problem: Problem, keys: Mapping[str, Any]) -> Defect | None:
    """A problem with a key as a defect; None for a key that PEFT writes and that says nothing."""
    key = problem.path
    if problem.fault == "missing":
        fix = f"Set {method.keys[key].expected}."
        return Defect(FILE, key, "config-missing", f"the key {key} is missing", fix)
    if problem.fault == "wrong":
        return _wrong(key, keys[key], f"Use {method.keys[key].expected}.")
    if key in method.empty:
        return _forbidden(key, keys[key], method.empty[key])
    detail = f"the key {key[:80]!r} is not known"
    return Defect(FILE, key[:120], "config-unknown", detail, "Remove it.")


def _wrong(key: str, value: Any, fix: str) -> Defect:
    """A value that the key cannot have, with the way out where it was written on purpose."""
    if key == "init_lora_weights" and value == "loftq":
        return Defect(
            FILE,
            key,
            "init-unconverted",
            "it began as loftq, which changed the base's weights: it answers "
            "rightly only on the base that was changed with it",
            OTHER_BASE,
        )
    if key == "init_lora_weights" and str(value).startswith(CONVERTED):
        return Defect(
            FILE,
            key,
            "init-unconverted",
            f"it began as {str(value)[:40]}, which moves a part of the base's weights "
            "into the adapter: it answers rightly only on a base altered in the same way",
            "Save it as plain LoRA: model.save_pretrained(folder, "
            "path_initial_model_for_weight_conversion=start), "
            "where start is the folder it was saved to before training.",
        )
    if isinstance(value, str) and key in PATTERN_FIXES:
        return Defect(
            FILE,
            key,
            "config-value",
            f"{key} is the text {value[:80]!r}, which would be run as a regular expression",
            PATTERN_FIXES[key],
        )
    return Defect(FILE, key, "config-value", f"{key} is {str(value)[:80]!r}", fix)


def _forbidden(key: str, value: Any, why: str) -> Defect | None:
    """A key that must say nothing, unless it does."""
    empty = value is None or value is False or value in ({}, [], "")
    if empty or (key == "auto_mapping" and is_import(value)):
        return None
    fix = MENDS.get(key, f"Train without {key}.")
    return Defect(FILE, key, "config-forbidden", f"{key} is set, and {why}", fix)


MERGE = (
    "Merge it (model.merge_and_unload().save_pretrained(folder)) and register the outcome as "
    "a checkpoint."
)
MENDS = {
    "auto_mapping": "Set it to null, and task_type to what the model was trained for.",
    "layer_replication": MERGE,
    "ensure_weight_tying": MERGE,
    "loftq_config": OTHER_BASE,
    "merge_weights": "Set it to false where the base's own weights were left alone; else register "
    "them as a checkpoint.",
}


def _at_odds(raw: Mapping[str, Any], kind: str) -> list[Defect]:
    """Keys that are right alone and wrong together."""
    if kind == "LORA":
        return _lora_at_odds(raw)
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
                f"tinit {start} and tfinal {end} leave no step of {total}, and PEFT "
                "refuses to load that",
                "Save the adapter again with the numbers it was trained by.",
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
                    "rank_pattern leaves it no rank, so its tensors are empty",
                    "Train with a higher target_r, or without this module.",
                )
            )
    return wrong


def _lora_at_odds(raw: Mapping[str, Any]) -> list[Defect]:
    """What PEFT would refuse to load, or has no meaning."""
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
                "it says where layers stand, and none are chosen by layers_to_transform",
                "Set layers_pattern to null.",
            )
        )
    alone = ("lora_dropout", "fan_in_fan_out", "lora_bias", "use_dora", "alora_invocation_tokens")
    wrong += [
        Defect(
            FILE,
            key,
            "config-at-odds",
            f"PEFT loads no {key} beside {other}",
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
    """What base a configuration says it was trained on, and which revision of it; None where it
    says nothing.
    """
    name, revision = (
        (raw.get("base_model_name_or_path"), raw.get("revision"))
        if isinstance(raw, dict)
        else (None, None)
    )
    return (
        (name, revision if isinstance(revision, str) else None)
        if isinstance(name, str) and name
        else None
    )


def written(config: Config, base: str | None, commit: str | None) -> bytes:
    """The configuration as it is kept: canonical JSON, bound to `team/name` at a commit (None while
    it has no base).

    Written again it is the same bytes, whichever of its forms it is read from.
    """
    bound = {"peft_type": config.peft_type, "base_model_name_or_path": base, "revision": commit}
    return canonical.encode({**config.values, **bound}, large_floats=True)


@dataclass(frozen=True, slots=True)
class Fit:
    """How an adapter's tensors stand on a base: what is wrong, and what only they say of it."""

    defects: list[Defect]
    facts: dict[str, Any]


def fit(file: str, config: Config, tensors: Sequence[TensorInfo], seen: View) -> Fit:
    """Hold the adapter's tensors against the prediction: each that lacks, is too many or differs is
    named.
    """
    if seen.defects:
        return Fit(list(seen.defects), {})
    prediction = config.method.predict(config.values, seen.body)
    present = {info.name: info for info in tensors}
    copies = {name: shape for name, shape in prediction.copies.items() if name in present}
    wanted = copies | prediction.tensors
    defects = prediction.defects + heads.unsaved(seen.fresh, wanted)

    def wrong(name: str, rule: str, detail: str, fix: str) -> None:
        defects.append(Defect(file, name, rule, detail, fix))

    for name in sorted(wanted.keys() - present.keys()):
        wrong(
            name,
            "tensor-missing",
            f"expected with shape {_said(wanted[name])}, but it is not there",
            BIND,
        )
    for name in sorted(present.keys() - wanted.keys()):
        wrong(
            name,
            "tensor-unexpected",
            f"expected no such tensor on this base; got one of shape {list(present[name].shape)}",
            _mend_of_whole(name.removeprefix(PREFIX), present[name].shape, seen),
        )
    labels: set[int] = set()
    for name in sorted(wanted.keys() & present.keys()):
        info = present[name]
        if not _same(info.shape, wanted[name], labels):
            wrong(
                name,
                "tensor-shape",
                f"expected shape {_said(wanted[name])}, got {list(info.shape)}",
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
            f"its head is of {' and of '.join(map(str, sorted(labels)))} labels",
            BIND,
        )
    return Fit(defects, _facts_of_fit(config, seen, copies, labels))


RESIZED = (
    "Tokens were added before training: save the resized model, register it as the base, "
    "and bind the adapter to it."
)


def _mend_of_whole(name: str, shape: Shape, seen: View) -> str:
    """What to do about a tensor that stands in the base too: PEFT saved it because it was told to,
    or tokens were added.
    """
    base = seen.body.shapes.get(name)
    if base is None or len(base) != 2 or shape[1:] != base[1:]:
        return BIND
    if shape != base:
        return RESIZED
    return (
        f"If it was trained, name {name.removesuffix('.weight')} in modules_to_save of {FILE}; if "
        "not, save the adapter with "
        "save_embedding_layers=False."
    )


def _said(shape: Shape) -> str:
    return str(["labels" if size == LABELS else size for size in shape]).replace("'", "")


def _same(found: Shape, wanted: Shape, labels: set[int]) -> bool:
    """Equal but for the number of labels, which is the adapter's own, and one."""
    if len(found) != len(wanted):
        return False
    for has, size in zip(found, wanted, strict=True):
        if size == LABELS and 0 < has <= MAX_LABELS:
            labels.add(has)
        elif has != size:
            return False
    return True


def _facts_of_fit(
    config: Config, seen: View, copies: Collection[str], labels: Collection[int]
) -> dict[str, Any]:
    """Through what it must be loaded, how many labels its own head has, and what it brings of the
    base's embeddings.
    """
    facts: dict[str, Any] = {} if seen.loads_as is None else {"loads_as": seen.loads_as}
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
            f"high: it brings the base's whole {name} once more, which takes the place of the "
            "base's own"
            for name in brought
        ]
    return facts


def facts_of(config: Config) -> dict[str, Any]:
    """What a version says of its tuning: method, variant, ranks, patterns, targets, layers, and
    what is risky in it.

    `max_rank` is the highest of any module, which is what an engine must make room for.
    """
    values = config.values
    facts: dict[str, Any] = {"method": config.method.name, "variant": "plain"}
    if on := [
        name
        for name, key in (
            ("dora", "use_dora"),
            ("rslora", "use_rslora"),
            ("alora", "alora_invocation_tokens"),
        )
        if values.get(key)
    ]:
        facts["variant"] = "+".join(on)
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
    ):
        if values.get(key) is not None:
            facts[fact] = values[key]
    if config.method.serving == "in-process":
        facts["serving"] = "in-process"
    facts["risks"] = [
        f"high: it replaces the base's whole {name} (modules_to_save), not by a small difference"
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
