"""LoRA configurations that could run something, and tensors that must fit the base; PEFT itself is the oracle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from registry.rules import lora
from registry.rules.bundles import BaseFacts, base_facts
from tests.rules.bundle_files import LORA, Files, adapter_files, broken, declared, look, lora_arrays, tiny_base


@pytest.fixture(scope="module")
def base() -> BaseFacts:
    return tiny_base()


PATTERNS: list[Any] = ["(a+)+b", "all-linear", [], ["a|b"], [1], None, ["a.*"]]
CONFIG_CHANGES: list[tuple[dict[str, Any], str]] = [
    *(({key: "x"}, "config-forbidden") for key in lora.EMPTY),
    ({"auto_mapping": {"parent_library": "antigravity", "base_model_class": "x"}}, "config-forbidden"),
    ({"rank_pattern": {"(a+)+b": 4}}, "config-forbidden"),
    ({"modules_to_save": ["lm_head"]}, "config-forbidden"),
    ({"trust_remote_code": True}, "remote-code"),
    ({"tokenizer_kwargs": {"trust_remote_code": True}}, "config-unknown"),
    ({"some_new_key": None}, "config-unknown"),
    *(({"target_modules": value}, "config-value") for value in PATTERNS),
    *(({"r": value}, "config-value") for value in (0, -1, 513, 10**9, "4", 4.0, True, None)),
    *(({"lora_alpha": value}, "config-value") for value in (0, "8", None)),
    *(({"peft_type": value}, "config-value") for value in ("IA3", "PREFIX_TUNING", None)),
    *(({"bias": value}, "config-value") for value in ("all", "lora_only", None)),
    *(({"layers_to_transform": value}, "config-value") for value in ([-1], "1", [True], [10**6], 1.0)),
    *(({"task_type": value}, "config-value") for value in ("SEQ_CLS", 1, ["CAUSAL_LM"])),
    *(({"init_lora_weights": value}, "config-value") for value in ("loftq", "eva", "corda", "pissa", 1)),
    *(({"lora_dropout": value}, "config-value") for value in (1, -0.1, "0", True)),
    *(({key: "yes"}, "config-value") for key in ("use_dora", "use_rslora", "fan_in_fan_out", "inference_mode")),
    ({"megatron_core": "os"}, "config-value"),
    ({"base_model_name_or_path": "x" * 513}, "config-value"),
]


@pytest.mark.parametrize(("change", "rule"), CONFIG_CHANGES, ids=lambda value: str(value)[:50])
def test_a_configuration_that_could_run_or_change_the_base_is_refused(
    base: BaseFacts, change: dict[str, Any], rule: str
) -> None:
    found = look("adapter", adapter_files(**change), base)
    assert rule in [defect.rule for defect in found.defects]
    assert {defect.where for defect in found.defects} == set(change)
    assert found.tensor_root is None


@pytest.mark.parametrize("key", lora.REQUIRED)
def test_a_configuration_needs_its_keys(base: BaseFacts, key: str) -> None:
    files = adapter_files()
    files["adapter_config.json"] = json.dumps({k: v for k, v in LORA.items() if k != key}).encode()
    assert broken(look("adapter", files, base)) == [("adapter_config.json", "config-missing")]


@pytest.mark.parametrize(
    "change",
    [{"use_rslora": True}, {"init_lora_weights": "gaussian"}, {"layers_to_transform": [0, 1]}, {"lora_dropout": 0.1},
     {"layers_to_transform": []}, {"task_type": None}, {"base_model_name_or_path": None},
     {"target_modules": ["self_attn.q_proj", "v_proj"]}],
)  # fmt: skip
def test_harmless_settings_are_accepted(base: BaseFacts, change: dict[str, Any]) -> None:
    assert look("adapter", adapter_files(**change), base).defects == []


A0 = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
B0 = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"


@pytest.mark.parametrize(
    ("arrays", "changes", "expected"),
    [
        ({A0: None}, {}, [(A0, "tensor-missing", "[4, 8]")]),
        ({A0: np.zeros((4, 7), np.float32)}, {}, [(A0, "tensor-shape", "expected shape [4, 8], got [4, 7]")]),
        ({A0: np.zeros((8, 4), np.float32), B0: np.zeros((4, 8), np.float32)}, {},
         [(A0, "tensor-shape", "got [8, 4]"), (B0, "tensor-shape", "expected shape [8, 4]")]),
        ({A0: np.zeros((4, 8), np.int32)}, {}, [(A0, "tensor-dtype", "I32")]),
        ({"base_model.model.lm_head.weight": np.zeros((16, 8), np.float32)}, {},
         [("base_model.model.lm_head.weight", "tensor-unexpected", "[16, 8]")]),
        ({}, {"target_modules": ["q_proj", "v_proj", "nonesuch"]}, [("nonesuch", "target-unmatched", "nonesuch")]),
    ],
    ids=["missing", "shape", "swapped", "dtype", "unexpected", "target"],
)  # fmt: skip
def test_every_tensor_must_fit_the_base(
    base: BaseFacts, arrays: dict[str, Any], changes: dict[str, Any], expected: list[tuple[str, str, str]]
) -> None:
    merged = {name: array for name, array in (lora_arrays() | arrays).items() if array is not None}
    found = look("adapter", adapter_files(merged, **changes), base)
    assert [(defect.where, defect.rule) for defect in found.defects] == [(where, rule) for where, rule, _ in expected]
    for defect, (_, _, words) in zip(found.defects, expected, strict=True):
        assert words in defect.detail


def test_rank_or_layers_that_differ_from_the_tensors(base: BaseFacts) -> None:
    wrong_rank = look("adapter", adapter_files(r=8), base)
    assert [defect.rule for defect in wrong_rank.defects] == ["tensor-shape"] * 8
    one_layer = look("adapter", adapter_files(layers_to_transform=[1]), base)
    assert [defect.rule for defect in one_layer.defects] == ["tensor-unexpected"] * 4
    no_layer = look("adapter", adapter_files(layers_to_transform=[7]), base)
    assert [d.rule for d in no_layer.defects] == ["target-unmatched"] * 2 + ["tensor-unexpected"] * 8


@pytest.mark.trainer
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT asks for it
def test_the_prediction_is_what_peft_makes(tmp_path: Path) -> None:
    """Adapters written by PEFT on a model written by transformers are sound, whatever targets they choose."""
    import peft
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "base")
    listed, read = declared(folder(tmp_path / "base"))
    base = base_facts(listed, read)
    choices: list[dict[str, Any]] = [
        {"target_modules": ["q_proj", "down_proj"], "layers_to_transform": [1, 2]},
        {"target_modules": ["self_attn.k_proj"], "layers_to_transform": 0, "use_rslora": True},
        {"target_modules": "all-linear", "use_dora": True},
        {"target_modules": ["model.layers.0.mlp.up_proj", "v_proj"], "layers_to_transform": [2]},
    ]
    for number, choice in enumerate(choices):
        model = transformers.LlamaForCausalLM(config)
        wrapped = peft.get_peft_model(model, peft.LoraConfig(r=4, task_type="CAUSAL_LM", **choice))
        wrapped.save_pretrained(tmp_path / f"{number}")
        found = look("adapter", folder(tmp_path / f"{number}"), base)
        assert found.defects == [], choice
        assert found.facts["trainable_parameters"] == sum(p.numel() for p in wrapped.parameters() if p.requires_grad)


def folder(path: Path) -> Files:
    return {file.name: file.read_bytes() for file in path.iterdir()}
