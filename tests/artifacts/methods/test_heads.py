"""Which of a base's two sets of names an adapter has, and the heads that nobody has; PEFT's own
outputs are in tests/trainer.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.artifacts.methods import adapters, fits, heads
from registry.artifacts.methods.anatomies import LABELS, Shape
from registry.artifacts.methods.loaded_names import loaded_class
from registry.artifacts.weights.tensors import TensorInfo
from tests.artifacts.methods.test_methods import read

BODY: dict[str, Shape] = {
    "embed_tokens.weight": (16, 8),
    "layers.0.self_attn.q_proj.weight": (8, 8),
    "norm.weight": (8,),
}
UNDER = {f"model.{name}": shape for name, shape in BODY.items()}
LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 8,
    "tie_word_embeddings": True,
    "architectures": ["LlamaModel"],
}
Q = "layers.0.self_attn.q_proj.lora_A.weight"


def seen(
    names: list[str], shapes: dict[str, Shape], task: str | None = None, **config: Any
) -> heads.View:
    values = read("LORA", task_type=task).values
    return heads.view(
        values, [f"base_model.model.{name}" for name in names], shapes, LLAMA | config
    )


@pytest.mark.parametrize(
    ("names", "shapes", "task", "loads_as", "has"),
    [
        ([f"model.{Q}"], UNDER, "CAUSAL_LM", None, "model.norm.weight"),
        ([Q], UNDER, None, "AutoModel", "norm.weight"),
        ([Q], UNDER, "FEATURE_EXTRACTION", "AutoModel", "norm.weight"),
        ([Q], BODY, None, "AutoModel", "norm.weight"),
        ([f"model.{Q}"], BODY, "CAUSAL_LM", "AutoModelForCausalLM", "lm_head.weight"),
        (
            [f"model.{Q}", "score.weight"],
            UNDER,
            "SEQ_CLS",
            "AutoModelForSequenceClassification",
            "score.weight",
        ),
        (
            [f"model.{Q}", "score.weight"],
            BODY,
            "SEQ_CLS",
            "AutoModelForSequenceClassification",
            "score.weight",
        ),
        ([], UNDER, "CAUSAL_LM", None, "lm_head.weight"),
        (["lm_head.lora_A.weight"], UNDER, "CAUSAL_LM", None, "lm_head.weight"),
    ],
)
def test_the_names_say_through_what_it_was_trained(
    names: list[str], shapes: dict[str, Shape], task: str | None, loads_as: str | None, has: str
) -> None:
    view = seen(names, shapes, task)
    assert (view.loads_as, view.defects, has in view.body.shapes) == (loads_as, (), True)


@pytest.mark.parametrize(
    ("names", "shapes", "task", "config", "rule"),
    [
        ([Q], UNDER, "CAUSAL_LM", {}, "task-at-odds"),
        ([Q], UNDER, "SEQ_CLS", {}, "task-at-odds"),
        ([f"model.{Q}"], UNDER, "QUESTION_ANS", {}, "head-unknown"),
        ([f"model.{Q}"], UNDER, "SEQ_CLS", {"model_type": "helium"}, "head-unknown"),
        ([f"bert.{Q}"], BODY, None, {"model_type": "bert"}, "head-unknown"),
        ([f"bert.{Q}"], BODY, "SEQ_CLS", {"model_type": "bert"}, "head-unknown"),
        ([f"model.{Q}"], UNDER, "SEQ_CLS", {"hidden_size": None}, "head-unknown"),
    ],
)
def test_what_is_not_known_or_at_odds_is_refused(
    names: list[str], shapes: dict[str, Shape], task: str | None, config: dict[str, Any], rule: str
) -> None:
    [defect] = seen(names, shapes, task, **config).defects
    assert (defect.where, defect.rule) == ("task_type", rule)


@pytest.mark.parametrize("task", [None, "FEATURE_EXTRACTION", "CAUSAL_LM", "SEQ_2_SEQ_LM"])
def test_names_of_a_bare_model_that_also_sees_are_at_odds_with_a_task(task: str | None) -> None:
    """What AutoModel names so, the class of the task calls otherwise: PEFT would use nothing."""
    config = {"model_type": "qwen2_vl", "architectures": ["Qwen2VLForConditionalGeneration"]}
    view = seen([f"language_model.{Q}"], UNDER, task, **config)
    assert view.loads_as == "AutoModel"
    rules = [defect.rule for defect in view.defects]
    assert rules == ([] if task in (None, "FEATURE_EXTRACTION") else ["task-at-odds"])
    whole = seen([f"model.language_model.{Q}"], UNDER, task, **config)
    assert (whole.loads_as, whole.defects) == (None, ())


def test_names_of_both_kinds_are_of_neither() -> None:
    """Half of it would find no place, whichever way it is loaded: the rest is missing or too
    much.
    """
    found = fit(seen([f"model.{Q}", Q], UNDER), {f"model.{Q}": (4, 8), Q: (4, 8)})
    assert {"tensor-unexpected", "tensor-missing"} <= {defect.rule for defect in found.defects}


def fit(view: heads.View, shapes: dict[str, Shape], **changes: Any) -> fits.Fit:
    config, defects = adapters.read_config(
        {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], **changes}
    )
    assert config is not None, defects
    return fits.fit(
        "x",
        config,
        [
            TensorInfo(f"base_model.model.{name}", "F32", shape, 0, 0)
            for name, shape in shapes.items()
        ],
        view,
    )


def test_a_head_of_labels_has_one_number_of_them() -> None:
    stem = "model.layers.0.self_attn.q_proj"
    plain: dict[str, Shape] = {f"{stem}.lora_A.weight": (4, 8), f"{stem}.lora_B.weight": (8, 4)}
    view = seen([f"model.{Q}"], UNDER, "TOKEN_CLS")
    saved = {"task_type": "TOKEN_CLS", "modules_to_save": ["classifier", "score"]}
    right = fit(view, {**plain, "score.weight": (7, 8), "score.bias": (7,)}, **saved)
    assert (right.defects, right.facts) == (
        [],
        {"loads_as": "AutoModelForTokenClassification", "labels": 7},
    )
    for weight, bias, rule in (
        ((7, 8), 6, "labels-differ"),
        ((7, 9), 7, "tensor-shape"),
        ((0, 8), 0, "tensor-shape"),
        ((70000, 8), 70000, "tensor-shape"),
    ):
        head: dict[str, Shape] = {"score.weight": weight, "score.bias": (bias,)}
        assert rule in {defect.rule for defect in fit(view, plain | head, **saved).defects}
    alone = fit(view, plain, task_type="TOKEN_CLS")
    assert [defect.rule for defect in alone.defects] == ["head-unsaved"] * 2


def test_experts_are_fused_as_transformers_loads_them() -> None:
    stem = "model.layers.0.block_sparse_moe"
    shapes: dict[str, Shape] = {f"{stem}.gate.weight": (3, 8)}
    for expert in range(3):
        shapes |= {f"{stem}.experts.{expert}.{name}.weight": (6, 8) for name in ("w1", "w3")}
        shapes[f"{stem}.experts.{expert}.w2.weight"] = (8, 6)
    mixtral = loaded_class("MixtralForCausalLM")
    assert mixtral is not None
    assert mixtral.loaded(shapes, whole=True, single_experts=False) == {
        "model.layers.0.mlp.gate.weight": (3, 8),
        "model.layers.0.mlp.experts.gate_up_proj": (3, 12, 8),
        "model.layers.0.mlp.experts.down_proj": (3, 8, 6),
    }
    llama = loaded_class("LlamaForCausalLM")
    assert llama is not None
    assert llama.loaded(shapes, whole=True, single_experts=False) == shapes
    rest = {name: shape for name, shape in shapes.items() if ".experts.1.w1." not in name}
    kept = mixtral.loaded(rest, whole=True, single_experts=False)
    assert "model.layers.0.mlp.experts.0.w1.weight" in kept


def test_gpt_neox_calls_its_head_otherwise_once_it_is_loaded() -> None:
    shapes: dict[str, Shape] = {"gpt_neox.embed_in.weight": (16, 8), "embed_out.weight": (16, 8)}
    for name in ("lm_head", "embed_out"):
        view = seen(
            [f"{name}.lora_A.weight"],
            shapes,
            "CAUSAL_LM",
            model_type="gpt_neox",
            tie_word_embeddings=False,
        )
        assert view.body.shapes.keys() == {"gpt_neox.embed_in.weight", "lm_head.weight"}


NAMES = st.sampled_from(
    [
        *BODY,
        *UNDER,
        "lm_head.weight",
        "score.weight",
        "model.layers.0.mlp.experts.0.w1.weight",
        "x",
        "model.layers.0.mlp.experts.gate_up_proj",
        "classifier.dense.weight",
        "model.wte.weight",
    ]
)
SIZES = st.lists(st.integers(LABELS, 9), max_size=4).map(tuple)
CHANGES = st.fixed_dictionaries(
    {"r": st.just(4), "lora_alpha": st.just(8)},
    optional={
        "task_type": st.sampled_from(
            [None, "CAUSAL_LM", "SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION"]
        ),
        "target_modules": st.lists(
            st.sampled_from(["q_proj", "embed_tokens", "lm_head", "score", "wte", "norm"]),
            min_size=1,
        ),
        "target_parameters": st.lists(
            st.sampled_from(["gate_up_proj", "down_proj", "q_proj.weight"]), min_size=1
        ),
        "modules_to_save": st.lists(st.sampled_from(["score", "classifier", "norm"])),
        "trainable_token_indices": st.sampled_from(
            [[1], {"embed_tokens": [3]}, {"tokens": [1]}, [200]]
        ),
        "exclude_modules": st.just(["layers.0.self_attn.q_proj"]),
        "use_dora": st.booleans(),
        "lora_bias": st.booleans(),
    },
)


@given(
    shapes=st.dictionaries(NAMES, SIZES),
    tensors=st.dictionaries(NAMES, SIZES, max_size=6),
    changes=CHANGES,
    kind=st.sampled_from(
        [*heads.BODIES, "t5", "gpt_oss", "qwen2_vl", "qwen3_5", "gemma3", "nemo_speechlm"]
    ),
    tied=st.booleans(),
    architecture=st.sampled_from(
        ["LlamaModel", "LlamaForCausalLM", "BertForSequenceClassification"]
    ),
)
def test_whatever_the_base_and_the_adapter_are_there_is_a_verdict(
    shapes: dict[str, Shape],
    tensors: dict[str, Shape],
    changes: dict[str, Any],
    kind: str,
    tied: bool,
    architecture: str,
) -> None:
    """Never an exception, and never a view of a head that neither the base nor the adapter
    brings.
    """
    config, _ = adapters.read_config({"peft_type": "LORA", "target_modules": [], **changes})
    if config is None:
        return
    named = [f"base_model.model.{name}" for name in tensors]
    view = heads.view(
        config.values,
        named,
        shapes,
        {
            "model_type": kind,
            "hidden_size": 8,
            "tie_word_embeddings": tied,
            "architectures": [architecture],
        },
    )
    infos = [
        TensorInfo(name, "F32", shape, 0, 0)
        for name, shape in zip(named, tensors.values(), strict=True)
    ]
    found = fits.fit("x", config, infos, view)
    if not found.defects:
        assert {f"base_model.model.{name}" for name in view.fresh} <= set(named)
