"""Adapters that PEFT saved before any training are found to do nothing, by their weights and by
their logits; the same ones trained are not.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from registry.artifacts.bundles.judge import Inspected, base_facts, inspect
from registry.artifacts.methods import adapters
from registry.artifacts.weights.local_files import read_files
from registry.artifacts.weights.tensors import File
from registry.documents.canonical import sha256_hex
from tests.sampling import sampled
from tests.trainer import peft_outputs
from tests.trainer.peft_outputs import CASES, llama, logits
from trainer import bottleneck, model, probe

ALWAYS = {"prefix", "prefix-projected", "prompt", "prompt-conv1d"}
"""A prompt changes every answer, trained or not."""
CONVERTED = {"pissa", "pissa-rslora"}
"""Two halves that cancel each other until training: only a probe sees that."""
IDLE = sorted(CASES.keys() - ALWAYS - CONVERTED - {"adalora-pruned"})


def fresh(name: str, folder: Path) -> tuple[Any, Any]:
    """The adapter as PEFT saves it before training, the base saved beside it, and both logits."""
    case = CASES[name]()
    torch.manual_seed(7)
    base = case.make()
    base.save_pretrained(folder / "base")
    before = logits(base)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = peft.get_peft_model(base, case.config)
        wrapped.save_pretrained(folder / "adapter")
        return before, logits(wrapped)


def judged(folder: Path, adapter: str = "adapter") -> Inspected:
    """The registry's judgement on the adapter in a folder, on the base beside it."""
    places: dict[str, Path] = {}

    def files(inside: Path) -> list[File]:
        listed = []
        for path in sorted(path for path in inside.iterdir() if path.is_file()):
            digest = sha256_hex(path.read_bytes())
            places[digest] = path
            if path.name != "generation_config.json" or "base" in inside.parts:
                listed.append(File(path.name, digest, path.stat().st_size))
        return listed

    read = read_files(places.__getitem__)
    base = base_facts(files(folder / "base"), read)
    sent = [file for file in files(folder / adapter) if file.path != "README.md"]
    return inspect("adapter", sent, read, base=base, meta={"domain": "d", "purpose": "p"})


@pytest.mark.parametrize(
    "name", sampled(IDLE, ("adalora", "dora", "lora", "lora-embedding", "lora-modules", "norm"))
)
def test_what_peft_saves_before_training_does_nothing(name: str, tmp_path: Path) -> None:
    before, after = fresh(name, tmp_path)
    assert torch.allclose(before, after, atol=1e-6)
    view = judged(tmp_path)
    assert view.defects == []
    effect = view.facts["effect"]
    assert effect["state"] == "none" and effect["idle"] == effect["parts"] > 0
    assert any(risk.startswith("high: it changes nothing") for risk in view.facts["risks"])
    [finding] = view.findings
    assert (finding.field, finding.blocks) == ("effect", False)


@pytest.mark.parametrize("name", sampled(sorted(CASES), ("adalora-pruned", "dora", "pissa")))
def test_what_was_trained_does_something(name: str, tmp_path: Path) -> None:
    case = CASES[name]()
    case.make().save_pretrained(tmp_path / "base")
    peft_outputs.write(case, tmp_path / "adapter")
    view = judged(tmp_path)
    assert view.defects == [] and view.findings == []
    assert (view.facts["effect"]["state"], view.facts["effect"]["idle"]) == ("weights", 0)


@pytest.mark.parametrize("name", sorted(ALWAYS))
def test_a_prompt_always_does_something(name: str, tmp_path: Path) -> None:
    fresh(name, tmp_path)
    assert judged(tmp_path).facts["effect"]["state"] == "weights"


def rewrite(folder: Path, change: Any) -> None:
    path = folder / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def trained(name: str, folder: Path) -> None:
    case = CASES[name]()
    case.make().save_pretrained(folder / "base")
    peft_outputs.write(case, folder / "adapter")


def test_some_idle_modules_are_told_as_a_figure(tmp_path: Path) -> None:
    trained("lora", tmp_path)

    def idle(tensors: dict[str, Any]) -> None:
        tensors["base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"].zero_()
        tensors["base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight"].mul_(-0.0)

    rewrite(tmp_path, idle)
    view = judged(tmp_path)
    effect = view.facts["effect"]
    assert (effect["state"], effect["parts"], effect["idle"]) == ("weights", 6, 2)
    assert view.findings == []
    assert any(risk.startswith("low: 2 of the 6 parts") for risk in view.facts["risks"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_copies_of_the_base_in_another_type_do_nothing(dtype: Any, tmp_path: Path) -> None:
    fresh("lora-modules", tmp_path)
    rewrite(tmp_path, lambda t: t.update({name: each.to(dtype) for name, each in t.items()}))
    assert judged(tmp_path).facts["effect"]["state"] == "none"
    rewrite(tmp_path, lambda t: t["base_model.model.lm_head.weight"][3, 2].mul_(1.5))
    assert judged(tmp_path).facts["effect"]["state"] == "weights"


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("dora", "layers.1.self_attn.v_proj.lora_magnitude_vector"),
        ("lora-tokens", "model.embed_tokens.token_adapter.trainable_tokens_delta"),
        ("norm", "model.norm.ln_tuning_layers.weight"),
        ("lora-bias-all", "h.2.ln_1.bias"),
        ("lora-on-biases", "layers.2.self_attn.q_proj.lora_B.bias"),
        ("lora-embedding", "lm_head.base_layer.weight"),
    ],
)
def test_one_number_that_is_not_the_bases_does_something(
    name: str, tensor: str, tmp_path: Path
) -> None:
    fresh(name, tmp_path)

    def change(tensors: dict[str, Any]) -> None:
        [full] = [each for each in tensors if each.endswith(tensor)]
        tensors[full].view(-1)[0] += 0.5

    rewrite(tmp_path, change)
    assert judged(tmp_path).facts["effect"]["state"] == "weights"


def test_a_fresh_bottleneck_does_nothing(tmp_path: Path) -> None:
    net = llama()
    net.save_pretrained(tmp_path / "base")
    raw = {"peft_type": "BOTTLENECK", "target_modules": ["down_proj"], "bottleneck_size": 3}
    config, _ = adapters.read_config(raw)
    assert config is not None
    parts = bottleneck.attach(net, config, model.anatomy_of(net))
    bottleneck.save(parts, config, tmp_path / "adapter")
    assert judged(tmp_path).facts["effect"] == {
        "state": "none",
        "parts": 3,
        "idle": 3,
        "idle_examples": [f"model.layers.{layer}.mlp.down_proj" for layer in range(3)],
    }


class Words:
    """A tokenizer of one letter, one token."""

    eos_token_id = 1

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [ord(letter) % 48 for letter in text]}


class Question:
    def __init__(self, prompt: str) -> None:
        self.prompt = prompt


@pytest.mark.parametrize("name", ["lora", "norm", "prompt", "pissa"])
def test_the_probe_measures_what_the_adapter_moves(name: str, tmp_path: Path) -> None:
    items: Any = [
        Question(""),
        Question("ab"),
        *(Question(f"Question {n} of many") for n in range(20)),
    ]
    net = llama()
    before = probe.logits(net, Words(), items)
    assert len(before) == probe.PROMPTS and max(map(len, before)) <= probe.POSITIONS
    trained(name, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = model.adapted(net, tmp_path / "adapter")
    moved = probe.difference(before, probe.logits(loaded, Words(), items))
    assert moved["largest"] > moved["mean"] > 1e-4 and moved["prompts"] == probe.PROMPTS


def test_the_probe_of_an_untrained_adapter_is_exactly_zero(tmp_path: Path) -> None:
    items: Any = [Question("What is it?"), Question("")]
    fresh("lora", tmp_path)
    net = llama()
    before = probe.logits(net, Words(), items)
    loaded = model.adapted(net, tmp_path / "adapter")
    measured = probe.difference(before, probe.logits(loaded, Words(), items))
    assert (measured["largest"], measured["mean"], measured["prompts"]) == (0.0, 0.0, 2)
