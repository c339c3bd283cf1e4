"""Quantised bases: what is asked at registering, and adapters that were trained on one (QLoRA)."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from registry.artifacts.quantised.number_types import NF4
from registry.blobs.store import Blobs
from registry.commands import recalls, versions
from registry.db import quantisations
from registry.db import versions as rows
from registry.db.store import Store
from registry.errors import BundleRejected
from registry.queries import verification
from registry.queries import versions as asked
from registry.rules import refs
from registry.rules.actors import SYSTEM
from registry.views.versions import AddedView
from tests.build import (
    BASE_META,
    MODULE,
    World,
    a_base,
    a_person,
    a_world,
    adapter_files,
    put,
    register,
)
from tests.commands.test_descents import base_bytes, checkpoint
from tests.commands.test_drafts import WHOLE, parents

BITS = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}


@pytest.fixture(scope="module")
def world(store: Store, blobs: Blobs) -> World:
    return a_world(store, blobs, "qlora")


def in_four_bits(weights: bytes) -> bytes:
    """The weights as bitsandbytes saves them in NF4, for matrices of one block."""
    tensors: dict[str, Any] = {}
    for name, values in load(weights).items():
        if values.ndim < 2:
            tensors[name] = values
            continue
        flat = values.astype(np.float32).reshape(-1, 64)
        largest = np.abs(flat).max(1)
        scaled = flat / np.where(largest == 0, 1, largest)[:, None]
        codes = np.abs(scaled.reshape(-1)[:, None] - NF4).argmin(1).astype(np.uint8)
        state = {
            "quant_type": "nf4",
            "blocksize": 64,
            "dtype": "float32",
            "shape": list(values.shape),
        }
        tensors |= {
            name: (codes[0::2] << 4 | codes[1::2]).reshape(-1, 1),
            f"{name}.absmax": largest,
            f"{name}.quant_map": NF4,
            f"{name}.quant_state.bitsandbytes__nf4": np.frombuffer(
                json.dumps(state).encode(), np.uint8
            ),
        }
    return save(tensors)


def four_bit(world: World, name: str) -> AddedView:
    """A quantisation of the base, verified from the bytes."""
    weights = in_four_bits(base_bytes(world)["model.safetensors"])
    return checkpoint(world, weights, name, world.base.ref, quantization_config=BITS)


def claimed(world: World, name: str) -> AddedView:
    """A quantisation of the base that cannot be recomputed: GPTQ."""
    tensors = load(base_bytes(world)["model.safetensors"])
    del tensors[f"{MODULE}.weight"]
    parts = {"qweight": np.ones((1, 8), np.int32), "scales": np.ones((1, 8), np.float16)}
    packed = tensors | {f"{MODULE}.{part}": value for part, value in parts.items()}
    settings = {"quant_method": "gptq", "bits": 4}
    return checkpoint(world, save(packed), name, world.base.ref, quantization_config=settings)


def adapter(world: World, name: str, base: str, seed: int, meta: Any = None, **keys: Any) -> Any:
    weights, config = adapter_files(world.blobs, seed)
    document = json.loads(world.blobs.read(config.sha256, 0, config.size)) | keys
    files = [weights, put(world.blobs, config.path, json.dumps(document).encode())]
    draft = versions.Draft("adapter", f"{world.team}/{name}", files, WHOLE | (meta or {}), base)
    return register(world.store, world.blobs, world.engineer.actor, draft)


def test_a_quantised_base_waits_for_a_word_on_its_original(world: World) -> None:
    originals = base_bytes(world)
    config = json.loads(originals["config.json"]) | {"quantization_config": BITS}
    made = originals | {
        "model.safetensors": in_four_bits(originals["model.safetensors"]),
        "config.json": json.dumps(config).encode(),
    }
    files = [put(world.blobs, path, data) for path, data in made.items()]

    def add(meta: dict[str, Any]) -> AddedView:
        draft = versions.Draft("base", f"{world.team}/only-4bit", files, BASE_META | meta)
        return register(world.store, world.blobs, world.engineer.actor, draft)

    waiting = add({})
    assert waiting.status == "draft"
    [finding] = waiting.findings
    assert finding.field == "quantised_only"
    assert "checkpoint add DIR --quantised-of" in finding.fix
    assert add({"quantised_only": "yes"}).status == "draft"
    registered = add({"quantised_only": True})
    assert registered.status == "registered"
    # Its adapters are judged by the shapes of the weights before they were packed.
    assert adapter(world, "on-4bit-only", registered.ref, 70).status == "registered"


def test_an_adapter_of_a_verified_quantisation_belongs_to_the_original(world: World) -> None:
    quantised = four_bit(world, "tiny-4bit")
    assert parents(world, quantised.ref) == [("quantised_from", world.base.ref, "verified")]
    line = f"{world.team}/tiny-4bit"
    root = asked.version(world.store, world.engineer.actor, quantised.ref).base_root
    forms: list[tuple[str, dict[str, Any], Any]] = [
        (world.base.ref, {"base_model_name_or_path": line}, None),
        (world.base.ref, {"base_model_name_or_path": f"{line}.v1"}, None),
        (world.base.ref, {"base_model_name_or_path": f"{line}@v1"}, None),
        (
            world.base.ref,
            {"base_model_name_or_path": line, "revision": refs.commit(quantised.digest)},
            None,
        ),
        (quantised.ref, {"base_model_name_or_path": "out/4bit"}, None),
        (world.base.ref, {}, {"base_root": root}),
    ]
    for number, (base, keys, meta) in enumerate(forms):
        added = adapter(world, f"qlora-{number}", base, 30 + number, meta, **keys)
        assert added.status == "registered", number
        assert sorted(parents(world, added.ref)) == [
            ("adapts", world.base.ref, "verified"),
            ("derived_from", quantised.ref, "claimed"),
        ], number
        version = asked.version(world.store, world.engineer.actor, added.ref)
        assert version.facts["trained_on"] == {"ref": quantised.ref, "grade": "claimed"}
        checked = verification.verify(world.store, world.blobs, world.engineer.actor, added.ref)
        assert checked.ok, checked.problems


def test_of_two_equal_quantisations_the_named_one_is_kept(world: World) -> None:
    twins = [four_bit(world, f"twin-{letter}") for letter in "ab"]
    for number, twin in enumerate(twins):
        added = adapter(world, f"of-twin-{number}", twin.ref, 60 + number)
        assert ("derived_from", twin.ref, "claimed") in parents(world, added.ref)


def test_the_original_of_a_quantisation_keeps_to_the_teams_that_one_sees(world: World) -> None:
    quantised = four_bit(world, "tiny-4bit-seen")
    version = asked.version(world.store, world.engineer.actor, quantised.ref).id
    stranger = a_person(world.store, "engineer", team="elsewhere")
    with world.store.read(world.engineer.actor) as session:
        original = quantisations.original_of(session, version)
    assert original == asked.version(world.store, world.engineer.actor, world.base.ref).id
    with world.store.read(stranger.actor) as session:
        assert quantisations.original_of(session, version) is None


def test_a_claimed_quantisation_is_no_way_to_the_original(world: World) -> None:
    quantised = claimed(world, "tiny-gptq")
    names = {"base_model_name_or_path": f"{world.team}/tiny-gptq.v1"}
    with pytest.raises(BundleRejected) as refused:
        adapter(world, "of-gptq", world.base.ref, 50, **names)
    [defect] = refused.value.defects
    assert (defect.rule, "only claimed" in defect.detail) == ("base-mismatch", True)
    assert f"--base {quantised.ref}" in defect.fix
    root = asked.version(world.store, world.engineer.actor, quantised.ref).base_root
    with pytest.raises(BundleRejected):
        adapter(world, "of-gptq-root", world.base.ref, 51, {"base_root": root})
    # What the message says works.
    added = adapter(world, "of-gptq", quantised.ref, 50, **names)
    assert parents(world, added.ref) == [("adapts", quantised.ref, "verified")]


def test_a_quantisation_of_another_base_is_no_way_in(world: World) -> None:
    other = a_base(world.store, world.blobs, world.engineer, world.team, "other", seed=9)
    with world.store.read(SYSTEM) as session:
        version = rows.by_ref(session, other.ref)[0]
        [weights] = [
            world.blobs.read(sha256, 0, size)
            for path, sha256, size in rows.files(session, version.id)
            if path == "model.safetensors"
        ]
    checkpoint(world, in_four_bits(weights), "other-4bit", other.ref, quantization_config=BITS)
    with pytest.raises(BundleRejected) as refused:
        adapter(
            world,
            "of-another",
            world.base.ref,
            52,
            base_model_name_or_path=f"{world.team}/other-4bit",
        )
    assert [defect.rule for defect in refused.value.defects] == ["base-mismatch"]


def test_an_adapter_falls_with_the_quantisation_it_was_trained_on(
    store: Store, blobs: Blobs, team: str
) -> None:
    world = a_world(store, blobs, team)
    quantised = four_bit(world, "tiny-4bit")
    added = adapter(world, "qlora", quantised.ref, 53)
    recalls.recall(store, world.engineer.actor, quantised.ref, "Its codes came from elsewhere.")
    assert asked.version(store, world.engineer.actor, added.ref).state == "recalled"
