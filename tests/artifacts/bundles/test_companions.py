"""Which files beside an adapter may belong to it, and which every trainer leaves behind."""

from __future__ import annotations

import os
import subprocess

import pytest

from registry.artifacts.bundles.companions import (
    MAX_KEPT,
    companion,
    declared_before,
    facts,
    risks,
    undeclared,
)
from registry.artifacts.bundles.names import Kind
from registry.artifacts.defects import Defects
from registry.views.imports import LeftOut
from tests.artifacts.bundle_files import adapter_files, broken, look

COMPANIONS = (
    "value_head.safetensors",
    "value_head.bin",
    "v_head.pt",
    "Value_Head.BIN",
    "new_embeddings.safetensors",
    "trainable_tokens.safetensors",
    "non_lora_trainables.bin",
    "non_lora_trainables.safetensors",
    "non_lora_state_dict.bin",
    "mm_projector.bin",
    "multi_modal_projector.safetensors",
    "classifier.pt",
    "adapter_model-00002-of-00002.safetensors",
    "adapter_model_2.safetensors",
    "pytorch_model.bin",
    "pytorch_model-00001-of-00002.bin",
    "model.safetensors",
    "something_else.safetensors",
    "extra.pt",
    "2_Dense/model.safetensors",
    "vision_tower/weights.bin",
    "loss_head.safetensors",
    "dataset_embeddings.bin",
    "scaler_embed.bin",
    "scheduler_mlp.safetensors",
    "optimizer_value_head.pt",
    "value_head_model_states.pt",
    "original/value_head.safetensors",
    "ref/v-head.bin",
    ".x/value_head.safetensors",
    "checkpoint-5/value_head.safetensors",
    "optimizer_heads/weights.bin",
    "tmp1/extra.safetensors",
    "value_head.gguf",
    "value_head.onnx",
    "value_head.bin.gz",
    "extra.pdparams",
)
LEFTOVERS = (
    "optimizer.pt",
    "optimizer.bin",
    "scheduler.pt",
    "scaler.pt",
    "rng_state.pth",
    "rng_state_3.pth",
    "rank0-of-8-optimizer.pt",
    "optimizer_1.bin",
    "sampler_1.bin",
    "dl_state_dict_1.bin",
    "custom_checkpoint_0.pkl",
    "pytorch_model_fsdp_0_rank1.bin",
    "pytorch_model_fsdp_0/__0_0.distcp",
    "fp16_zero_pp_rank_0_mp_rank_00_optim_states.pt",
    "layer_00-model_00-model_states.pt",
    "layer_0_expert_1_mp_rank_00_model_states.pt",
    "expp_rank_0_mp_rank_00_optim_states.pt",
    "ggml-adapter-model.gguf",
    "random_states_0.pkl",
    "training_args.bin",
    "trainer_state.json",
    "args.json",
    "additional_config.json",
    "zero_to_fp32.py",
    "latest",
    "adapter_model.bin",
    "adapter_model.safetensors.index.json",
    "pytorch_model_fsdp.bin",
    "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt",
    "zero_pp_rank_0_mp_rank_00_model_states.pt",
    "recipe_state.pt",
    "events.out.tfevents.1",
    "README.md",
    "1_Pooling/config.json",
    "global_step20/mp_rank_00_model_states.pt",
    "checkpoint-20/adapter_model.safetensors",
    "reference/adapter_model.safetensors",
    "predictions.npy",
)


@pytest.mark.parametrize("path", COMPANIONS)
def test_weights_beside_an_adapter_may_belong_to_it(path: str) -> None:
    assert companion("adapter", path)
    [defect] = undeclared("adapter", [LeftOut(path, "", 4)])
    assert (defect.file, defect.rule) == (path, "companion-weights")
    assert "cannot be registered as an adapter" in defect.fix
    assert defect.fix.endswith(f"import it again with --leave-out {path.partition('/')[0]}")
    assert undeclared("adapter", [LeftOut(path, "", 4, asked=True)]) == []


@pytest.mark.parametrize(
    "name",
    [
        "a value_head",
        "it's.$(date).`x`",
        "-v",
        "*",
        "value\u202ehead\\n'",
        "a\tb\nc",
        "\xa0",
        "w" * 251,
        "\U0001f600\x1b",
    ],
)
def test_a_shell_reads_the_name_to_leave_out_as_it_is(name: str) -> None:
    defects = Defects()
    defects.extend(undeclared("adapter", [LeftOut(f"{name}/model.safetensors", "", 4)]))
    [defect] = defects
    assert defect.fix.isprintable()
    word = defect.fix.rpartition("--leave-out ")[2]
    printed = subprocess.run(
        ["bash", "-c", f"printf %s {word}"],
        env=os.environ | {"LC_ALL": "C.UTF-8"},
        capture_output=True,
        check=True,
        timeout=10,
    )
    assert printed.stdout.decode() == name


@pytest.mark.parametrize("path", LEFTOVERS)
def test_what_trainers_leave_behind_does_not_block(path: str) -> None:
    assert companion("adapter", path) is None


def test_other_forms_of_full_weights_are_no_companions_but_a_head_is() -> None:
    for path in ("pytorch_model.bin", "consolidated.safetensors", "tf_model.h5"):
        assert companion("base", path) is None and companion("checkpoint", path) is None
    assert companion("checkpoint", "value_head.safetensors")


@pytest.mark.parametrize("kind", ["base", "checkpoint"])
@pytest.mark.parametrize(
    "path",
    [
        "adapter_model.safetensors",
        "Adapter-Model-00001-of-00002.safetensors",
        "adapter_model.bin",
        "adapter_config.json",
        "value_head-00001-of-00001.safetensors",
        "Value-Head.bin",
        "v\u0430lue_head.safetensors",
        "2_Dense/model.safetensors",
        "query_0_Dense/pytorch_model.bin",
        "value_head/model.safetensors",
        "loss_head.safetensors",
    ],
)
def test_beside_full_weights_an_adapter_a_head_or_a_module_counts(kind: Kind, path: str) -> None:
    [defect] = undeclared(kind, [LeftOut(path, "", 4)])
    assert (defect.file, defect.rule) == (path, "companion-weights")
    adapter = "adapter" in path.casefold()
    assert ("register it as an adapter of these weights" in defect.fix) == adapter
    assert ("no form for it is accepted yet" in defect.fix) == (not adapter)
    assert "merge_and_unload" not in defect.fix
    assert "import it again with --leave-out " in defect.fix


@pytest.mark.parametrize(
    "path",
    [
        "model.gguf",
        "onnx/model.onnx",
        "original/consolidated.00.pth",
        "lora/adapter_config.json",
        "1_Pooling/config.json",
        "modules.json",
    ],
)
def test_other_forms_and_folders_beside_full_weights_do_not_block(path: str) -> None:
    assert companion("base", path) is None and companion("checkpoint", path) is None


def test_sent_as_it_is_a_companion_is_refused_by_its_name() -> None:
    files = adapter_files() | {"value_head.bin": b"\x80\x04", "optimizer.pt": b"\x80\x04"}
    assert set(broken(look("adapter", files))) == {
        ("value_head.bin", "companion-weights"),
        ("optimizer.pt", "file-not-allowed"),
    }


def test_what_is_kept_is_bounded_and_companions_come_first() -> None:
    files = [LeftOut(f"a{number:03}.txt", "why", 1) for number in range(MAX_KEPT + 5)]
    kept = facts("adapter", [*files, LeftOut("value_head.bin", "x\u202e" * 300, 9, asked=True)])
    assert len(kept["left_out"]) == MAX_KEPT and kept["left_out_more"] == 6
    first = kept["left_out"][0]
    assert (first["path"], first["size"]) == ("value_head.bin", 9)
    assert first["why"].isprintable() and len(first["why"]) <= 200
    assert risks(kept) == [
        "high: it was registered without value_head.bin, which may hold the value head of a reward "
        "model or of PPO"
    ]
    assert facts("adapter", []) == {} and risks({}) == []


def test_a_draft_that_is_added_again_still_lacks_what_it_lacked() -> None:
    earlier = facts("adapter", [LeftOut("value_head.bin", "asked", 9, asked=True)])
    now = declared_before(earlier, {"risks": ["low: x"]})
    assert [entry["path"] for entry in now["left_out"]] == ["value_head.bin"]
    assert len(now["risks"]) == 2 and declared_before(earlier, now) == now
    assert declared_before({}, {"a": 1}) == {"a": 1}
