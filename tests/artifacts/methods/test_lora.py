"""LoRA configurations that could run something, and tensors that must fit the base; PEFT itself is
the oracle.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from registry.artifacts.bundles.judge import BaseFacts
from registry.artifacts.methods import configs
from registry.artifacts.methods.table import METHODS
from tests.artifacts.bundle_files import LORA, adapter_files, broken, look, lora_arrays, tiny_base


@pytest.fixture(scope="module")
def base() -> BaseFacts:
    return tiny_base()


PATTERNS: list[Any] = ["(a+)+b", "all-linear", [], ["a|b"], [1], None, ["a.*"]]
CONFIG_CHANGES: list[tuple[dict[str, Any], str]] = [
    *(({key: "x"}, "config-forbidden") for key in configs.LORA_EMPTY),
    (
        {"auto_mapping": {"parent_library": "antigravity", "base_model_class": "x"}},
        "config-forbidden",
    ),
    *(
        ({key: {name: 4}}, "config-value")
        for key in ("rank_pattern", "alpha_pattern")
        for name in ("(a+)+b", ".*", "")
    ),
    *(
        ({"rank_pattern": value}, "config-value")
        for value in ({"q_proj": 0}, {"q_proj": 513}, {"q_proj": True}, ["q_proj"])
    ),
    *(
        ({"modules_to_save": value}, "config-value")
        for value in ("lm_head", ["(a+)+b"], ["norm"] * 65, [1])
    ),
    ({"trust_remote_code": True}, "remote-code"),
    ({"tokenizer_kwargs": {"trust_remote_code": True}}, "config-unknown"),
    ({"some_new_key": 1}, "config-unknown"),
    *(({"target_modules": value}, "config-value") for value in PATTERNS),
    *(({"r": value}, "config-value") for value in (0, -1, 513, 10**9, "4", 4.0, True, None)),
    *(({"lora_alpha": value}, "config-value") for value in (0, "8", None)),
    *(
        ({"peft_type": value}, "method-unsupported")
        for value in ("LOHA", "XLORA", "lora", None, 1, ["LORA"])
    ),
    *(({"bias": value}, "config-value") for value in ("some", True, None)),
    *(
        ({"layers_to_transform": value}, "config-value")
        for value in ([-1], "1", [True], [10**6], 1.0)
    ),
    *(({"task_type": value}, "config-value") for value in ("SEQUENCES", 1, ["CAUSAL_LM"])),
    *(({"init_lora_weights": value}, "config-value") for value in ("nonesuch", 1)),
    *(
        ({"init_lora_weights": value}, "init-unconverted")
        for value in ("pissa", "pissa_niter_16", "olora", "corda", "loftq")
    ),
    *(({"eva_config": value}, "config-value") for value in ("x", {"a": "b"}, {"a": [1]})),
    *(({"exclude_modules": value}, "config-value") for value in ("(a+)+b", ["a|b"], [1], {})),
    *(({"target_parameters": value}, "config-value") for value in ("(a+)+b", ["a.*"], {})),
    *(({"layers_pattern": value}, "config-value") for value in ("(a+)+b", ["a.b"], [1], 3)),
    *(
        ({"trainable_token_indices": value}, "config-value")
        for value in (
            [-1],
            [1, 1],
            {"a|b": [1]},
            {"a": [1], "b": [1]},
            {"embed_tokens": "x"},
            "all",
            [True],
        )
    ),
    *(({"alora_invocation_tokens": value}, "config-value") for value in ("x", [-1], ["a"])),
    ({"runtime_config": {"other": 1}}, "config-value"),
    (
        {
            "auto_mapping": {
                "parent_library": "transformers.models.llama",
                "base_model_class": "a b",
            }
        },
        "config-forbidden",
    ),
    (
        {"auto_mapping": {"parent_library": "os.transformers", "base_model_class": "x"}},
        "config-forbidden",
    ),
    *(({"lora_dropout": value}, "config-value") for value in (1, -0.1, "0", True)),
    *(
        ({key: "yes"}, "config-value")
        for key in ("use_dora", "use_rslora", "fan_in_fan_out", "inference_mode")
    ),
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


@pytest.mark.parametrize("key", ["peft_type", *METHODS["LORA"].required])
def test_a_configuration_needs_its_keys(base: BaseFacts, key: str) -> None:
    files = adapter_files()
    files["adapter_config.json"] = json.dumps({k: v for k, v in LORA.items() if k != key}).encode()
    assert broken(look("adapter", files, base)) == [("adapter_config.json", "config-missing")]


@pytest.mark.parametrize(
    "change",
    [
        {"use_rslora": True},
        {"init_lora_weights": "gaussian"},
        {"layers_to_transform": [0, 1]},
        {"lora_dropout": 0.1},
        {"layers_to_transform": []},
        {"task_type": None},
        {"base_model_name_or_path": None},
        {"target_modules": ["self_attn.q_proj", "v_proj"]},
        {"rank_pattern": {"v_proj": 4}},
        {"rank_pattern": None},
        {"alpha_pattern": {"layers.0.self_attn.q_proj": 1.5}},
        {"modules_to_save": []},
        {"bias": "all"},
        {"enable_lora": None, "merge_weights": False},
        {"runtime_config": {"ephemeral_gpu_offload": False}},
        {"init_lora_weights": "orthogonal"},
        {"init_lora_weights": "eva", "eva_config": {"rho": 2.0, "whiten": False}},
        {"exclude_modules": ["lm_head"]},
        {"layers_pattern": ["layers"], "layers_to_transform": [0, 1]},
        {
            "auto_mapping": {
                "base_model_class": "LlamaForCausalLM",
                "parent_library": "transformers.models.llama.modeling_llama",
                "unsloth_fixed": True,
            }
        },
    ],
)
def test_harmless_settings_are_accepted(base: BaseFacts, change: dict[str, Any]) -> None:
    assert look("adapter", adapter_files(**change), base).defects == []


A0 = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
B0 = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"


@pytest.mark.parametrize(
    ("arrays", "changes", "expected"),
    [
        ({A0: None}, {}, [(A0, "tensor-missing", "[4, 8]")]),
        (
            {A0: np.zeros((4, 7), np.float32)},
            {},
            [(A0, "tensor-shape", "expected shape [4, 8], got [4, 7]")],
        ),
        (
            {A0: np.zeros((8, 4), np.float32), B0: np.zeros((4, 8), np.float32)},
            {},
            [(A0, "tensor-shape", "got [8, 4]"), (B0, "tensor-shape", "expected shape [8, 4]")],
        ),
        ({A0: np.zeros((4, 8), np.int32)}, {}, [(A0, "tensor-dtype", "I32")]),
        (
            {"base_model.model.lm_head.weight": np.zeros((16, 8), np.float32)},
            {},
            [("base_model.model.lm_head.weight", "tensor-unexpected", "[16, 8]")],
        ),
        (
            {},
            {"target_modules": ["q_proj", "v_proj", "nonesuch"]},
            [("nonesuch", "target-unmatched", "nonesuch")],
        ),
    ],
    ids=["missing", "shape", "swapped", "dtype", "unexpected", "target"],
)
def test_every_tensor_must_fit_the_base(
    base: BaseFacts,
    arrays: dict[str, Any],
    changes: dict[str, Any],
    expected: list[tuple[str, str, str]],
) -> None:
    merged = {name: array for name, array in (lora_arrays() | arrays).items() if array is not None}
    found = look("adapter", adapter_files(merged, **changes), base)
    assert [(defect.where, defect.rule) for defect in found.defects] == [
        (where, rule) for where, rule, _ in expected
    ]
    for defect, (_, _, words) in zip(found.defects, expected, strict=True):
        assert words in defect.detail


def test_rank_or_layers_that_differ_from_the_tensors(base: BaseFacts) -> None:
    wrong_rank = look("adapter", adapter_files(r=8), base)
    assert [defect.rule for defect in wrong_rank.defects] == ["tensor-shape"] * 8
    one_layer = look("adapter", adapter_files(layers_to_transform=[1]), base)
    assert [defect.rule for defect in one_layer.defects] == ["tensor-unexpected"] * 4
    no_layer = look("adapter", adapter_files(layers_to_transform=[7]), base)
    assert [d.rule for d in no_layer.defects] == ["target-unmatched"] * 2 + [
        "tensor-unexpected"
    ] * 8
