"""Adapters on bases whose files have other names than the loaded models: genuine ones, by what they
do to the logits.
"""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from registry.artifacts.bundles.judge import BaseFacts, base_facts
from registry.artifacts.methods import loaded_names
from registry.artifacts.methods.loaded_names import GENERATORS, PREFIX
from tests.artifacts.bundle_files import Files, declared, look
from tests.sampling import sampled
from tests.trainer import tiny_models as tiny

WEIGHTS = "adapter_model.safetensors"
TOWERS = ("vision", "visual", "audio", "image", "lm_head", "encoder")
USUAL = ("q_proj", "v_proj", "query_key_value", "qkv_proj", "o_proj", "in_proj", "out_proj")


def listed() -> list[tuple[str, str]]:
    """Every type and automatic class that writes text, of which the mapping renames anything."""
    types, classes = loaded_names.table()["types"], loaded_names.table()["classes"]
    pairs = []
    for kind, row in types.items():
        autos = {name: auto for auto, name in reversed(row.items()) if auto in GENERATORS}
        if any(key != "legacy" for name in autos for _, key in classes[name]["rules"]):
            pairs += [(kind, auto) for auto in autos.values()]
    return sorted(pairs)


FAMILIES = [
    ("qwen2_vl", "AutoModelForImageTextToText"),
    ("qwen2_5_vl", "AutoModelForImageTextToText"),
    ("gemma3", "AutoModelForCausalLM"),
    ("llava", "AutoModelForImageTextToText"),
    ("mistral3", "AutoModelForImageTextToText"),
    ("qwen3_5", "AutoModelForCausalLM"),
]


def files_of(folder: Path) -> Files:
    return {
        file.name: file.read_bytes()
        for file in folder.iterdir()
        if file.suffix in (".json", ".safetensors") and file.name != "generation_config.json"
    }


class Trained:
    """A base as it was saved, and an adapter that PEFT wrote for it through one class."""

    def __init__(self, kind: str, auto: str, folder: Path) -> None:
        self.auto, self.base, self.adapter = auto, folder / "base", folder / "adapter"
        row = loaded_names.table()["types"][kind]
        saved_as = next(name for name in ("AutoModelForImageTextToText", auto) if name in row)
        tiny.saved(kind, saved_as, self.base)
        self.facts: BaseFacts = base_facts(*declared(files_of(self.base)))
        model = tiny.loaded(auto, self.base)
        self.loaded = loaded_names.loaded_class(type(model).__name__)
        self.plain = tiny.logits(model)
        linear = [
            name
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear) and not any(part in name for part in TOWERS)
        ]
        lasts = {name.rpartition(".")[2] for name in linear}
        targets = [name for name in USUAL if name in lasts][:2] or sorted(lasts)[:1]
        config = peft.LoraConfig(
            r=4,
            lora_alpha=64,
            target_modules=[name for name in linear if name.rpartition(".")[2] in targets],
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wrapped = peft.get_peft_model(model, config)
            with torch.no_grad():
                for name, weight in wrapped.named_parameters():
                    if "lora_B" in name:
                        weight.normal_(0, 0.3)
            wrapped.save_pretrained(self.adapter)

    def effect(self, auto: str | None = None, folder: Path | None = None) -> float:
        """The largest change of any logit by the adapter."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = tiny.loaded(auto or self.auto, self.base)
            adapted = peft.PeftModel.from_pretrained(model, folder or self.adapter).eval()
            return float((tiny.logits(adapted) - self.plain).abs().max())

    def renamed(self, folder: Path) -> bool:
        """The same adapter under the names of the base's file; False where they are no others."""
        assert self.loaded is not None
        file_names = {here: name for name, here in self.loaded.placed(self.facts.shapes).items()}

        def older(module: str) -> str:
            return file_names.get(f"{module}.weight", f"{module}.weight").removesuffix(".weight")

        tensors = load_file(self.adapter / WEIGHTS)
        names = {}
        for name in tensors:
            module, _, last = name.removeprefix(PREFIX).partition(".lora_")
            names[name] = f"{PREFIX}{older(module)}.lora_{last}"
        shutil.copytree(self.adapter, folder)
        save_file({names[name]: tensor for name, tensor in tensors.items()}, folder / WEIGHTS)
        return any(name != other for name, other in names.items())


CANNOT: dict[tuple[str, str], str] = {}
"""Types that cannot be made tiny by changing sizes, or that answer to more than text."""


@pytest.mark.parametrize(
    ("kind", "auto"), sampled([pair for pair in listed() if pair not in CANNOT], FAMILIES)
)
def test_what_moves_the_logits_is_accepted_and_what_does_not_is_refused(
    kind: str, auto: str, tmp_path: Path
) -> None:
    trained = Trained(kind, auto, tmp_path)
    assert trained.effect() > 0
    inspected = look("adapter", files_of(trained.adapter), trained.facts)
    assert inspected.defects == []
    assert trained.effect(inspected.facts.get("loads_as")) > 0
    if not trained.renamed(tmp_path / "older"):
        return
    older = look("adapter", files_of(tmp_path / "older"), trained.facts)
    assert bool(older.defects) == (trained.effect(folder=tmp_path / "older") == 0)
    if not older.defects:
        assert older.facts["names"] == "older"
