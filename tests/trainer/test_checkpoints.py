"""Full checkpoints as people make them: each can be evaluated, whatever base it names."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from registry.client import Countersign, NewVersion
from registry.errors import Invalid
from tests.trainer.live import Live
from trainer import model
from trainer.device import Device
from trainer.worker import Worker

META = {"purpose": "sorting", "licence": "Apache-2.0", "source": "Made by this test."}


def tuned(base: Path, folder: Path) -> None:
    """Every weight moved, as a full fine-tune does."""
    net = AutoModelForCausalLM.from_pretrained(base)
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in net.parameters():
            weight += 0.01 * torch.randn_like(weight)
    net.save_pretrained(folder)


def merged(base: Path, folder: Path) -> None:
    """An adapter merged into its base by PEFT."""
    net = AutoModelForCausalLM.from_pretrained(base)
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    peft.get_peft_model(net, config).merge_and_unload().save_pretrained(folder)


def halved(base: Path, folder: Path) -> None:
    """The base in bfloat16."""
    AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).save_pretrained(folder)


def int8(base: Path, folder: Path) -> None:
    """Every linear layer as compressed-tensors writes 8-bit weights: codes, a scale a channel."""
    tensors = load_file(base / "model.safetensors")
    for name in [name for name in tensors if "_proj." in name]:
        weight = tensors[name].float()
        scale = weight.abs().amax(1, keepdim=True) / 127.5
        tensors[name] = torch.clamp(torch.round(weight / scale), -128, 127).to(torch.int8)
        tensors[name.removesuffix("weight") + "weight_scale"] = scale
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((base / "config.json").read_text("utf-8"))
    weights = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"}
    config["quantization_config"] = {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "quantization_status": "compressed",
        "config_groups": {
            "group_0": {"targets": ["Linear"], "weights": weights, "format": "int-quantized"}
        },
        "ignore": ["lm_head"],
    }
    (folder / "config.json").write_text(json.dumps(config), "utf-8")


Make = Callable[[Path, Path], None]
BASE = "acme/tiny@v1"
SHAPES: dict[str, tuple[Make, str | None, str | None]] = {
    "tuned": (tuned, BASE, None),
    "int8": (int8, BASE, BASE),
    "merged": (merged, BASE, None),
    "halved": (halved, None, BASE),
    "alone": (tuned, None, None),
}
"""How a checkpoint is made, the base that it names, and what it is a quantisation of."""


@pytest.mark.parametrize(
    "shape",
    [
        name if name in ("tuned", "int8") else pytest.param(name, marks=pytest.mark.slow)
        for name in SHAPES
    ],
)
def test_every_checkpoint_is_evaluated(
    live: Live, nora: Countersign, base: Path, tmp_path: Path, shape: str
) -> None:
    make, its_base, original = SHAPES[shape]
    folder = tmp_path / shape
    make(base, folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (base / name).exists():
            shutil.copyfile(base / name, folder / name)
    new = NewVersion(f"acme/{shape}", its_base, "service", META, original)
    added = nora.add("checkpoint", folder, new)
    assert added.status == "registered", added
    suite = nora.freeze_suite(
        "acme/checks", "acme/letters@v1", "test", decoding={"max_new_tokens": 2}
    )
    run = nora.evaluate(added.ref, suite.ref)
    with Countersign(live.url, live.trainer) as registry, Worker(registry, tmp_path / "w") as work:
        work.run(0.1, once=True)
    ended = nora.eval_run(run.id)
    assert (ended.error, ended.state) == (None, "succeeded")


def test_weights_that_the_model_does_not_find_are_refused(
    base: Path, tmp_path: Path, cpu: Device
) -> None:
    """transformers draws them at random with a warning: nobody would know what was measured."""
    folder = shutil.copytree(base, tmp_path / "cut")
    tensors = load_file(base / "model.safetensors")
    tensors["unknown.weight"] = tensors.pop("model.layers.1.mlp.up_proj.weight")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(Invalid) as refusal:
        model.load_base(folder, cpu)
    assert refusal.value.kind == "weights-missing"
    assert "model.layers.1.mlp.up_proj.weight" in refusal.value.detail


def test_the_quantised_weights_are_those_of_the_base_to_8_bits(
    base: Path, tmp_path: Path, cpu: Device
) -> None:
    """The library that reads the format is installed with the trainer, and reads it right."""
    int8(base, tmp_path / "int8")
    whole, packed = model.load_base(base, cpu), model.load_base(tmp_path / "int8", cpu)
    ids = torch.tensor([[2, 5, 9, 11]])
    with torch.inference_mode():
        expected, actual = whole(ids).logits, packed(ids).logits
    assert torch.allclose(expected, actual, atol=0.05 * float(expected.abs().max()))
    assert not torch.equal(expected, actual)
