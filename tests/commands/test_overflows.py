"""Weights too large for the type in use are registered, with a finding and a risk."""

from __future__ import annotations

import json

import numpy as np
from safetensors.numpy import load, save

from registry.blobs.store import Blobs
from registry.commands import versions
from registry.db.store import Store
from registry.queries import verification
from registry.queries import versions as asked
from registry.views.imports import LeftOut
from registry.views.versions import AddedView
from tests.build import (
    ADAPTER_META,
    BASE_META,
    MODULE,
    World,
    a_world,
    adapter_files,
    put,
    register,
    safetensors,
)


def large(world: World, added: AddedView) -> str:
    """The one finding of a version that is registered all the same, shown, and verified."""
    [finding] = [each for each in added.findings if each.field == "overflow"]
    assert added.status == "registered" and not finding.blocks
    view = asked.version(world.store, world.engineer.actor, added.ref)
    assert finding.detail in view.risks
    checked = verification.verify(world.store, world.blobs, world.engineer.actor, added.ref)
    assert checked.ok, checked.problems
    return finding.detail


def test_an_adapter_that_overflows_is_registered_and_says_so(
    store: Store, blobs: Blobs, team: str
) -> None:
    world = a_world(store, blobs, team)
    weights, config = adapter_files(blobs, seed=5)
    arrays = load(blobs.read(weights.sha256, 0, weights.size))
    name = sorted(arrays)[0]
    arrays[name] = np.full_like(arrays[name], 3e38)
    draft = versions.Draft(
        "adapter",
        f"{team}/large",
        [put(blobs, weights.path, save(arrays)), config],
        ADAPTER_META | {"domain": "legal"},
        world.base.ref,
        left_out=(LeftOut("value_head.bin", "left out as asked", 1024, asked=True),),
    )
    detail = large(world, register(store, blobs, world.engineer.actor, draft))
    assert name in detail and "3e+38" in detail and "float32" in detail


def test_a_base_that_overflows_and_a_checkpoint_with_its_weights(
    store: Store, blobs: Blobs, team: str
) -> None:
    world = a_world(store, blobs, team)
    shapes = {f"{MODULE}.weight": (8, 8), "model.norm.weight": (8,)}
    arrays = {name: array.copy() for name, array in load(safetensors(shapes, 6)).items()}
    arrays[f"{MODULE}.weight"][3, 3] = 70000
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 8,
        "dtype": "float16",
    }
    files = [
        put(blobs, "model.safetensors", save(arrays)),
        put(blobs, "config.json", json.dumps(config).encode()),
        put(blobs, "tokenizer.json", b'{"version":"1.0","model":{}}'),
    ]
    actor = world.engineer.actor
    base = register(store, blobs, actor, versions.Draft("base", f"{team}/half", files, BASE_META))
    assert "infinite in float16" in large(world, base)
    meta = BASE_META | ADAPTER_META
    draft = versions.Draft("checkpoint", f"{team}/copy", files, meta, base=base.ref)
    copy = register(store, blobs, actor, draft)
    assert large(world, copy) and {each.field for each in copy.findings} == {"overflow", "effect"}
