"""Bundles: the same weights make the same bytes, and nothing of the machine is in them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save

from registry.documents import canonical
from registry.errors import BundleRejected
from tests.artifacts.bundle_files import LORA
from tests.trainer.conftest import short_recipe
from tests.trainer.peft_outputs import llama
from trainer import pack

WRITTEN = {
    **LORA,
    "target_modules": ["v_proj", "k_proj", "q_proj"],
    "inference_mode": False,
    "revision": "main",
    "base_model_name_or_path": "/srv/cache/folders/ab12",
}
WEIGHTS = save({"base_model.model.q_proj.lora_A.weight": torch.ones(2, 2)})
BASE = {"repository": "acme/tiny.v1", "commit": "c" * 40}


@pytest.fixture
def written(tmp_path: Path) -> Path:
    folder = tmp_path / "written"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(WEIGHTS)
    (folder / "adapter_config.json").write_text(json.dumps(WRITTEN))
    (folder / "optimizer.pt").write_bytes(b"a pickle")
    return folder


def test_only_what_the_weights_are_is_kept(written: Path, tmp_path: Path) -> None:
    made = pack.bundle(written, tmp_path / "made", **BASE, readme="# facts\n")
    assert sorted(path.name for path in made.iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    text = (made / "adapter_config.json").read_bytes()
    config = json.loads(text)
    assert config["target_modules"] == ["k_proj", "q_proj", "v_proj"]
    assert (config["base_model_name_or_path"], config["revision"]) == ("acme/tiny.v1", "c" * 40)
    assert config["inference_mode"] is True
    assert set(config) < set(WRITTEN)
    assert b"/srv/" not in text
    assert pack.clean_config(text, **BASE) == text == canonical.encode(config)


@pytest.mark.parametrize(
    "change", [{"a_key_of_tomorrow": 1}, {"peft_type": "LOHA"}, {"init_lora_weights": "pissa"}]
)
def test_what_the_registry_would_refuse_is_not_packed(
    written: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    (written / "adapter_config.json").write_text(json.dumps(WRITTEN | change))
    with pytest.raises(BundleRejected):
        pack.bundle(written, tmp_path / "made", **BASE, readme="")
    assert not (tmp_path / "made").exists()


def test_a_bundle_is_never_rewritten_and_a_torn_one_never_seen(
    written: Path, tmp_path: Path
) -> None:
    torn = tmp_path / ".made.part"
    torn.mkdir()
    (torn / "rest").write_text("of a killed process")
    made = pack.bundle(written, tmp_path / "made", **BASE, readme="first")
    pack.bundle(written, tmp_path / "made", **BASE, readme="second")
    assert (made / "README.md").read_text() == "first"
    assert not (made / "rest").exists()


def test_the_card_states_facts_and_the_recipe_it_can_be_checked_by() -> None:
    recipe = short_recipe(layers=[0, 1])
    origin = pack.Origin("a-run", "acme/letters", "acme/tiny@v1", "acme/rows@v1", recipe)
    text = pack.card(origin, "<user>{prompt}", 4, 321)
    for fact in (
        "`acme/tiny@v1`",
        "`acme/rows@v1`",
        "step 4 of 8",
        "321 tokens",
        "`a-run`",
        "## What the model sees",
        "```text\n<user>{prompt}\n```",
        "The recipe adds no system prompt.",
        "layers 0 to 1",
        canonical.digest(recipe.as_dict()),
    ):
        assert fact in text
    assert text.startswith("---\nbase_model: acme/tiny.v1\n")
    own = replace(origin, recipe=short_recipe(system="Answer in ``` one word."))
    assert "````text\nAnswer in ``` one word.\n````" in pack.card(own, "{prompt}", 4, 321)


@pytest.mark.filterwarnings("ignore:Model has:UserWarning")
def test_copies_of_the_base_that_peft_adds_are_left_out(tmp_path: Path) -> None:
    """They would be shown to reviewers as a high risk, and say nothing."""
    written = tmp_path / "written"
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj", "lm_head"])
    peft.get_peft_model(llama(), config).save_pretrained(written, save_embedding_layers=True)
    before = load_file(written / "adapter_model.safetensors")
    into = pack.bundle(
        written, tmp_path / "step-1", repository="acme/tiny.v1", commit="c" * 40, readme="card"
    )
    after = load_file(into / "adapter_model.safetensors")
    copies = {name for name in before if name.endswith(".base_layer.weight")}
    assert copies
    assert after.keys() == before.keys() - copies
    assert all(torch.equal(after[name], before[name]) for name in after)
