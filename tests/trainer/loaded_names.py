"""How transformers names the tensors of a file when it loads them, written out as data.

`python -m tests.trainer.loaded_names` writes registry/artifacts/methods/loaded_names.json from the
installed transformers, whose conversion mapping is the only place that knows. The registry reads
the table and imports no transformers. A test holds it fresh.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
from peft.utils import transformers_weight_conversion as by_peft
from transformers import conversion_mapping as conversions
from transformers import core_model_loading as loading
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING, CONFIG_MAPPING_NAMES
from transformers.models.timm_wrapper import modeling_timm_wrapper
from transformers.utils.import_utils import DummyObject

import registry

FILE = Path(registry.__file__).parent / "artifacts" / "methods" / "loaded_names.json"
AUTO = {
    "AutoModelForCausalLM": "CAUSAL_LM",
    "AutoModelForImageTextToText": "IMAGE_TEXT_TO_TEXT",
    "AutoModelForMultimodalLM": "MULTIMODAL_LM",
    "AutoModelForSeq2SeqLM": "SEQ_TO_SEQ_CAUSAL_LM",
    "AutoModelForSpeechSeq2Seq": "SPEECH_SEQ_2_SEQ",
    "AutoModelForCTC": "CTC",
    "AutoModelForMaskedLM": "MASKED_LM",
    "AutoModelForSequenceClassification": "SEQUENCE_CLASSIFICATION",
    "AutoModelForTokenClassification": "TOKEN_CLASSIFICATION",
    "AutoModelForQuestionAnswering": "QUESTION_ANSWERING",
    "AutoModelForImageClassification": "IMAGE_CLASSIFICATION",
    "AutoModelForSemanticSegmentation": "SEMANTIC_SEGMENTATION",
    "AutoModelForObjectDetection": "OBJECT_DETECTION",
    "AutoModelForPreTraining": "PRETRAINING",
    "AutoModelForTextToWaveform": "TEXT_TO_WAVEFORM",
    "AutoModel": "",
}
"""The automatic classes through which an adapter may be trained, the likeliest first."""


def _timm(self: Any, config: Any) -> None:
    # timm is not installed; what it would put inside has its own names under this module.
    transformers.PreTrainedModel.__init__(self, config)
    self.timm_model = torch.nn.Linear(1, 1)
    self.num_features = 8


@contextmanager
def _without_timm() -> Iterator[None]:
    """Let models be built whose vision tower is timm's."""
    wrapper = modeling_timm_wrapper.TimmWrapperModel
    original = wrapper.__init__
    wrapper.__init__ = _timm
    try:
        yield
    finally:
        wrapper.__init__ = original


CHANGES: dict[str, dict[str, Any]] = {
    "chameleon": {"vocabulary_map": {"<image>": 1}},
    "emu3": {"vocabulary_map": {"<image>": 1}},
    "esm": {"vocab_size": 33, "mask_token_id": 32, "pad_token_id": 1},
    "aya_vision": {"vision_config": {"model_type": "siglip_vision_model"}},
}
"""What the default configuration of a type lacks to be built."""


def config_of(kind: str) -> Any:
    """The default configuration of a type of model, completed where it alone builds no model."""
    return CONFIG_MAPPING[kind](**CHANGES.get(kind, {}))


def classes_of(kind: str) -> dict[str, str]:
    """The class by each automatic class that knows a type of model."""
    classes = {}
    for auto, name in AUTO.items():
        table = f"MODEL_FOR_{name}_MAPPING_NAMES" if name else "MODEL_MAPPING_NAMES"
        names = getattr(modeling_auto, table).get(kind, ())
        first = names if isinstance(names, str) else next(iter(names), "")
        # A class whose libraries are not installed is a stand-in without anything of its own.
        if not isinstance(getattr(transformers, first, None), (DummyObject, type(None))):
            classes[auto] = first
    return classes


def built(kind: str, name: str) -> Any:
    """A model of a class without memory of its own, from the default configuration of a type."""
    config, model_class = config_of(kind), getattr(transformers, name)
    if not isinstance(config, model_class.config_class):
        config = config.get_text_config()
    with warnings.catch_warnings(), torch.device("meta"), _without_timm():
        warnings.simplefilter("ignore")
        return model_class(config)


def _rule(transform: Any) -> dict[str, Any]:
    """One transform: its pattern as transformers compiled it, and what replaces a match."""
    rule: dict[str, Any] = {
        "from": transform.compiled_sources.pattern,
        "to": list(transform.target_patterns),
    }
    if isinstance(transform, loading.GroupWeightRename):
        rule["group"] = True
    if isinstance(transform, loading.Inkling2IndexOffsetWeightRename):
        rule["offset"] = transform.offset
    if isinstance(transform, loading.WeightConverter):
        rule["operations"] = [_operation(operation) for operation in transform.operations]
    return rule


def _operation(operation: Any) -> list[Any]:
    name = type(operation).__name__
    if getattr(operation, "check_dims", False):
        return ["TransposeToFit"]  # a file that transformers 5 wrote fits as it is
    keys = {"Transpose": ("dim0", "dim1"), "ErnieFuseAndSplitTextVisionExperts": ()}
    return [name, *(getattr(operation, key, 0) for key in keys.get(name, ("dim",)))]


def _scopes(model: Any) -> list[list[Any]]:
    """The sets of rules that apply to a model, each with the module in which it does.

    transformers itself collects them; each list that it hands out is marked by its key.
    """
    handed: list[str] = []
    get = conversions.get_checkpoint_conversion_mapping

    def marked(key: str) -> Any:
        rules = get(key)
        if rules:
            handed.append(key)
        return rules

    conversions.get_checkpoint_conversion_mapping = marked
    try:
        rules = conversions.get_model_conversion_mapping(model)
    finally:
        conversions.get_checkpoint_conversion_mapping = get
    scopes, start = [], 0
    for key in handed:
        scopes.append([rules[start].scope_prefix, key])
        start += len(get(key))
    assert start == len(rules)
    return scopes


def roots_of(names: Iterator[str] | Any) -> list[str]:
    """The first two parts of the names of tensors, up to a number."""
    roots = set()
    for name in names:
        first, _, rest = name.partition(".")
        second = rest.partition(".")[0]
        roots.add(first if not second or second.isdecimal() else f"{first}.{second}")
    return sorted(roots)


def class_row(kind: str, name: str) -> dict[str, Any]:
    """A row of the table: what a class does with the names of a file."""
    model = built(kind, name)
    return {
        "type": model.config.model_type,
        "prefix": model.base_model_prefix,
        "rules": _scopes(model),
        "roots": roots_of(model.state_dict()),
    }


def fallback_row(kind: str, name: str) -> dict[str, Any]:
    """The row of a class that cannot be built here: its own rules, without those of its parts."""
    model_class = getattr(transformers, name)
    mapping = conversions.get_checkpoint_conversion_mapping
    key = name if mapping(name) else kind if mapping(kind) else None
    return {
        "type": kind,
        "prefix": model_class.base_model_prefix,
        "rules": ([[None, key]] if key else []) + [[None, "legacy"]],
        "roots": None,
    }


def table(kinds: Callable[[str], bool] = lambda kind: True) -> dict[str, Any]:
    """The whole table, or the part of some types of model."""
    types, classes, unbuilt = {}, {}, {}
    for kind in sorted(filter(kinds, CONFIG_MAPPING_NAMES)):
        types[kind] = classes_of(kind)
        for name in dict.fromkeys(types[kind].values()):
            if name in classes:
                continue
            try:
                classes[name] = class_row(kind, name)
            except Exception as error:  # whatever a default configuration lacks
                classes[name] = fallback_row(kind, name)
                unbuilt[name] = f"{type(error).__name__}: {str(error).strip()[:80]}"
    mapping = conversions._build_checkpoint_conversion_mapping()
    used = {key for row in classes.values() for _, key in row["rules"]} | {"legacy"}
    patterns = by_peft._MODEL_TO_CONVERSION_PATTERN
    return {
        "transformers": transformers.__version__,
        "rules": {key: [_rule(rule) for rule in mapping[key]] for key in sorted(used)},
        "classes": dict(sorted(classes.items())),
        "types": {kind: row for kind, row in types.items() if row},
        "renamed_by_peft": sorted(
            kind for kind in {row["type"] for row in classes.values()} if kind in mapping
        ),
        "experts_by_peft": sorted(
            kind
            for kind in {row["type"] for row in classes.values()}
            if kind in mapping and patterns.get(kind) in by_peft._MOE_FUSED_TARGETS
        ),
        "unbuilt": dict(sorted(unbuilt.items())),
    }


def text(content: dict[str, Any]) -> str:
    """The table as it is written: one line an entry, so that a new release is read as a diff."""
    parts = []
    for key, value in content.items():
        if isinstance(value, dict):
            rows = ",\n".join(
                f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in value.items()
            )
            parts.append(f" {json.dumps(key)}: {{\n{rows}\n }}")
        else:
            parts.append(f" {json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    FILE.write_text(text(table()), encoding="utf-8")
