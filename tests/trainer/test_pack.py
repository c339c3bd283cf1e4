"""Bundles: the same weights make the same bytes, and nothing of the machine is in them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.trainer.conftest import short_recipe
from trainer import pack

WRITTEN = {
    "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8, "lora_dropout": 0.1, "bias": "none",
    "fan_in_fan_out": False, "init_lora_weights": True, "use_rslora": False, "use_dora": False,
    "layers_to_transform": None, "target_modules": ["v_proj", "k_proj", "q_proj"], "inference_mode": False,
    "base_model_name_or_path": "/srv/cache/folders/ab12", "revision": "main", "peft_version": "0.21.2",
    "auto_mapping": {"parent_library": "somewhere"}, "megatron_core": "megatron.core", "a_key_of_tomorrow": 1,
}  # fmt: skip


@pytest.fixture
def written(tmp_path: Path) -> Path:
    folder = tmp_path / "written"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    (folder / "adapter_config.json").write_text(json.dumps(WRITTEN))
    (folder / "optimizer.pt").write_bytes(b"a pickle")
    return folder


def test_only_what_the_weights_are_is_kept(written: Path, tmp_path: Path) -> None:
    made = pack.bundle(written, tmp_path / "made", base_ref="acme/tiny@v1", readme="# facts\n")
    assert sorted(path.name for path in made.iterdir()) == [
        "README.md", "adapter_config.json", "adapter_model.safetensors",
    ]  # fmt: skip
    text = (made / "adapter_config.json").read_text()
    config = json.loads(text)
    assert set(config) == {*pack.KEPT, "base_model_name_or_path", "revision", "inference_mode"}
    assert config["target_modules"] == ["k_proj", "q_proj", "v_proj"]
    assert (config["base_model_name_or_path"], config["revision"]) == ("acme/tiny@v1", None)
    assert text == json.dumps(config, indent=2, sort_keys=True) + "\n"


def test_a_bundle_is_never_rewritten_and_a_torn_one_never_seen(written: Path, tmp_path: Path) -> None:
    torn = tmp_path / ".made.part"
    torn.mkdir()
    (torn / "rest").write_text("of a killed process")
    made = pack.bundle(written, tmp_path / "made", base_ref="acme/tiny@v1", readme="first")
    pack.bundle(written, tmp_path / "made", base_ref="acme/tiny@v1", readme="second")
    assert (made / "README.md").read_text() == "first"
    assert not (made / "rest").exists()


def test_the_card_states_facts_and_the_recipe_it_can_be_checked_by() -> None:
    recipe = short_recipe(layers=[0, 1])
    text = pack.card("a-run", "acme/letters", "acme/tiny@v1", "acme/rows@v1", recipe, 4, 321)
    for fact in (
        "`acme/tiny@v1`",
        "`acme/rows@v1`",
        "step 4 of 8",
        "321 tokens",
        "`a-run`",
        "layers 0 to 1",
        recipe.digest(),
    ):
        assert fact in text
    assert text.startswith("---\nbase_model: acme/tiny@v1\n")
