"""Files whose names or sizes training left otherwise than PEFT saves them, and the fixes that the
refusals give: each is run as it is written, and then the adapter is accepted.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from registry.artifacts.bundles.judge import BaseFacts, base_facts
from registry.errors import Defect
from tests.artifacts.bundle_files import declared, look
from tests.trainer.peft_outputs import llama

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
COMMIT = "0123456789" * 4
PATTERNS = {"exclude_modules"}
"""Keys beside target_modules that may be patterns."""


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".md"}


def based(model: Any, folder: Path) -> BaseFacts:
    model.save_pretrained(folder)
    listed, read = declared(files(folder))
    return replace(base_facts(listed, read), repository="acme/tiny.v1", commit=COMMIT)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseFacts:
    return based(llama(), tmp_path_factory.mktemp("base"))


def train(folder: Path, model: Any = None, **config: Any) -> Any:
    """Save a LoRA adapter whose weights moved, and return the model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        settings = {"target_modules": ["q_proj", "v_proj"], "r": 2, "lora_alpha": 4, **config}
        model = peft.get_peft_model(
            model or llama(), peft.LoraConfig(task_type="CAUSAL_LM", **settings)
        )
        torch.manual_seed(3)
        with torch.no_grad():
            for weight in model.parameters():
                if weight.requires_grad:
                    weight.add_(torch.randn_like(weight) * 0.1)
        model.save_pretrained(folder)
    return model


def run_fix(defect: Defect, folder: Path) -> None:
    """Run the command of a fix in the adapter's folder, as a person would."""
    command = re.search(r"python -c \".+\"$", defect.fix)
    assert command is not None, defect.fix
    words = shlex.split(command[0])
    subprocess.run([sys.executable, *words[1:]], cwd=folder, check=True)


def _compiled(name: str) -> str:
    return name.replace("base_model.model.", "base_model.model._orig_mod.")


CHANGES: dict[str, tuple[Callable[[str], str], str]] = {
    "torch.compile": (_compiled, "torch.compile"),
    "torch.compile inside": (lambda name: name.replace(".self_attn", "._orig_mod.self_attn"), "_o"),
    "FSDP": (lambda name: name.replace(".self_attn", "._fsdp_wrapped_module.self_attn"), "FSDP"),
    "checkpointing": (
        lambda name: name.replace(".self_attn", "._checkpoint_wrapped_module.self_attn"),
        "activation checkpointing",
    ),
    "state_dict": (lambda name: name.replace(".weight", ".default.weight"), "default"),
    "DDP": (lambda name: f"module.{name}", "DistributedDataParallel"),
    "no prefix": (lambda name: name.removeprefix("base_model.model."), "lack the prefix"),
    "compiled state_dict of DDP": (
        lambda name: "module." + _compiled(name).replace(".weight", ".default.weight"),
        "torch.compile",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_names_of_wrapped_modules_are_one_defect_with_a_fix_that_works(
    change: str, base: BaseFacts, tmp_path: Path
) -> None:
    train(tmp_path)
    expected = load_file(tmp_path / WEIGHTS)
    rename, cause = CHANGES[change]
    save_file({rename(name): weight for name, weight in expected.items()}, tmp_path / WEIGHTS)
    [defect] = look("adapter", files(tmp_path), base).defects
    assert defect.rule == "tensor-wrapped"
    assert cause in defect.detail
    assert f"{len(expected)} of {len(expected)} tensors" in defect.detail
    run_fix(defect, tmp_path)
    assert look("adapter", files(tmp_path), base).defects == []
    assert load_file(tmp_path / WEIGHTS).keys() == expected.keys()


def test_other_wrong_names_are_not_called_wrapped(base: BaseFacts, tmp_path: Path) -> None:
    train(tmp_path)
    weights = load_file(tmp_path / WEIGHTS)
    renamed = {name.replace("self_attn", "attention"): weight for name, weight in weights.items()}
    save_file(renamed, tmp_path / WEIGHTS)
    rules = {defect.rule for defect in look("adapter", files(tmp_path), base).defects}
    assert rules == {"tensor-missing", "tensor-unexpected"}


@pytest.mark.parametrize("tokens", [56, 40])
@pytest.mark.parametrize(
    "config",
    [
        {},
        {"modules_to_save": ["embed_tokens", "lm_head"]},
        {"modules_to_save": ["embed_tokens"]},
        {"trainable_token_indices": [1, 2]},
        {"target_modules": ["q_proj", "embed_tokens"]},
    ],
    ids=["plain", "saved", "saved-embedding", "tokens", "adapted-embedding"],
)
def test_a_resized_vocabulary_is_one_defect_with_a_fix_that_works(
    tokens: int, config: dict[str, Any], base: BaseFacts, tmp_path: Path
) -> None:
    start, resized, folder, again = (tmp_path / name for name in ("start", "new", "out", "again"))
    llama().save_pretrained(start)
    grown = type(llama()).from_pretrained(start)
    grown.resize_token_embeddings(tokens)
    grown.save_pretrained(resized)
    grown.config.name_or_path = str(start)
    train(folder, grown, **config)
    wrong = look("adapter", files(folder), base).defects
    [defect] = [defect for defect in wrong if defect.rule == "vocabulary-resized"]
    assert ("8 tokens were added" if tokens > 48 else "8 rows were cut off") in defect.detail
    assert [other.rule for other in wrong if other is not defect] == []
    # The fix: the resized model is a base; the adapter is loaded on it and saved once more.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.PeftModel.from_pretrained(type(grown).from_pretrained(resized), folder)
        model.save_pretrained(again, save_embedding_layers=False)
    fresh = based(type(grown).from_pretrained(resized), tmp_path / "base")
    assert look("adapter", files(again), fresh).defects == []


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"modules_to_save": ["lm_head"]},
        {"bias": "lora_only"},
        {"use_dora": True},
        {"exclude_modules": r".*\.2\..*"},
    ],
    ids=["plain", "saved", "bias", "dora", "excluded"],
)
def test_a_pattern_of_targets_is_replaced_by_what_it_matched(
    config: dict[str, Any], base: BaseFacts, tmp_path: Path
) -> None:
    train(tmp_path, target_modules=r".*\.(0|2)\.self_attn\.(q|k)_proj", **config)
    wrong = look("adapter", files(tmp_path), base).defects
    assert {defect.where for defect in wrong} == {"target_modules", *(config.keys() & PATTERNS)}
    for defect in wrong:
        assert (defect.rule, defect.file) == ("config-value", CONFIG)
        run_fix(defect, tmp_path)
    assert look("adapter", files(tmp_path), base).defects == []


def test_patterns_of_ranks_are_replaced_by_what_they_matched(
    base: BaseFacts, tmp_path: Path
) -> None:
    train(
        tmp_path,
        rank_pattern={r".*\.0\..*": 3, "model.layers.[12].self_attn.v_proj": 5},
        alpha_pattern={r"^model.*\.q_proj": 6},
    )
    wrong = look("adapter", files(tmp_path), base).defects
    assert {defect.where for defect in wrong} == {"rank_pattern", "alpha_pattern"}
    for defect in wrong:
        run_fix(defect, tmp_path)
    assert look("adapter", files(tmp_path), base).defects == []
    ranks = json.loads((tmp_path / CONFIG).read_bytes())["rank_pattern"]
    assert ranks["model.layers.0.self_attn.v_proj"] == 3
    assert ranks["model.layers.2.self_attn.v_proj"] == 5


def test_tensors_that_zero_3_left_empty_are_named_with_their_cause(
    base: BaseFacts, tmp_path: Path
) -> None:
    train(tmp_path)
    weights = load_file(tmp_path / WEIGHTS)
    save_file({name: torch.empty(0) for name in weights}, tmp_path / WEIGHTS)
    wrong = look("adapter", files(tmp_path), base).defects
    assert {defect.rule for defect in wrong} == {"tensor-empty"}
    assert len(wrong) == len(weights)
    assert "ZeRO-3" in wrong[0].detail
    assert "zero_to_fp32.py" in wrong[0].fix
