"""Adapters that PEFT itself made, and what each engine is told of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from registry.blobs.store import Blobs
from registry.commands import profiles, versions
from registry.db.store import Store
from registry.errors import Refused
from registry.queries import profiles as asked
from tests.build import ADAPTER_META, BASE_META, Person, a_person, put, register


def tuned(base: Path, folder: Path, **options: bool) -> Path:
    """An adapter of both attention projections, one step away from its start, as `save_pretrained`
    leaves it.
    """
    torch.manual_seed(0)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base),
        LoraConfig(
            task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], **options
        ),
    )
    tokens = torch.arange(3, 11).unsqueeze(0)
    model(input_ids=tokens, labels=tokens).loss.backward()
    torch.optim.SGD((one for one in model.parameters() if one.requires_grad), lr=0.1).step()
    model.save_pretrained(folder)
    return folder


def registered(
    store: Store, blobs: Blobs, engineer: Person, team: str, folder: Path, name: str
) -> str:
    files = [
        put(blobs, path, (folder / path).read_bytes())
        for path in ("adapter_config.json", "adapter_model.safetensors")
    ]
    draft = versions.Draft(
        "adapter", f"{team}/{name}", files, ADAPTER_META, f"{team}/tiny@v1", "legal"
    )
    added = register(store, blobs, engineer.actor, draft)
    assert added.status == "registered", added
    return added.ref


def test_an_engine_that_would_serve_something_else_is_refused(
    store: Store, blobs: Blobs, team: str, base: Path, tmp_path: Path
) -> None:
    engineer = a_person(store, "engineer", team=team)
    files = [
        put(blobs, path.name, path.read_bytes())
        for path in sorted(base.iterdir())
        if path.name != "README.md"
    ]
    register(store, blobs, engineer.actor, versions.Draft("base", f"{team}/tiny", files, BASE_META))
    plain, dora, stabilised = (
        registered(store, blobs, engineer, team, tuned(base, tmp_path / name, **options), name)
        for name, options in (
            ("plain", {}),
            ("dora", {"use_dora": True}),
            ("stabilised", {"use_rslora": True}),
        )
    )

    def define(ref: str, engine: str, build: str) -> str:
        return profiles.define(
            store,
            blobs,
            engineer.actor,
            profiles.ProfileRequest(ref, {"engine": engine, "build": build}),
        ).status

    for ref, engine, build, rule in (
        (dora, "vllm", "0.33.0", "DoRA's magnitudes are not loaded"),
        (dora, "sglang", "0.5.23", "DoRA"),
        (dora, "tgi", "3.3.7", "left out"),
        (stabilised, "sglang", "0.5.23", "rank-stabilised scaling is not read"),
    ):
        with pytest.raises(Refused, match=rule) as refusal:
            define(ref, engine, build)
        assert refusal.value.kind == "engine-unfit"
        assert refusal.value.fix
    for ref, engine, build in (
        (dora, "transformers", "5.23.0"),
        (stabilised, "vllm", "0.33.0"),
        (stabilised, "transformers", "5.23.0"),
        (plain, "vllm", "0.33.0"),
        (plain, "sglang", "0.5.23"),
        (plain, "tgi", "3.3.7"),
        (plain, "transformers", "5.23.0"),
    ):
        assert define(ref, engine, build) == "defined"
    assert {one.engine: one.verdict for one in asked.engines(store, engineer.actor, plain)} == {
        "vllm": "yes",
        "sglang": "yes",
        "tgi": "conditional",
        "transformers": "yes",
    }
