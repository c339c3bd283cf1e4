"""A full checkpoint passes everything that an adapter passes, against the base that it names."""

from __future__ import annotations

import json

from registry.blobs.store import Blobs
from registry.commands import rollouts, versions
from registry.db.store import Store
from registry.queries import rollouts as asked
from registry.views.rollouts import PromptForm
from tests.build import (
    ADAPTER_META,
    BASE_META,
    MODULE,
    a_world,
    evaluate,
    put,
    register,
    safetensors,
    submit,
    vote,
)


def test_a_checkpoint_goes_all_the_way_and_back(store: Store, blobs: Blobs) -> None:
    world = a_world(store, blobs, "whole")
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 8}
    shapes = {f"{MODULE}.weight": (8, 8), "model.norm.weight": (8,)}
    files = [
        put(blobs, "model.safetensors", safetensors(shapes, 5)),
        put(blobs, "config.json", json.dumps(config).encode()),
        put(blobs, "tokenizer.json", b'{"version":"1.0","model":{}}'),
    ]
    meta = BASE_META | ADAPTER_META | {"datasets": [world.dataset.ref]}
    draft = versions.Draft(
        "checkpoint", "whole/full", files, meta, base=world.base.ref, domain="legal"
    )
    added = register(store, blobs, world.engineer.actor, draft)
    assert added.status == "registered"
    evaluate(world, world.base.ref, 5)
    evaluate(world, added.ref, 50)
    submit(world, added.ref)
    vote(world, world.compliance)
    assert vote(world, world.risk) == "approved"
    engineer = world.engineer.actor
    canary = rollouts.start(
        store, engineer, rollouts.Canary(added.ref, "production", None, 500, "try")
    )
    assert (canary.stable, canary.candidate) == (world.base.ref, added.ref)
    [entry] = asked.routing(store, engineer, "production").entries
    assert entry.candidate is not None
    assert entry.candidate.kind == "checkpoint"
    # What was measured is what is served, and the base that stands beside it is asked alike.
    assert entry.candidate.prompt == PromptForm("plain", None) == entry.base.prompt
    place = rollouts.Place("whole/full", "production", None)
    assert rollouts.promote(store, engineer, place, "clean").stable == added.ref
    assert rollouts.roll_back(store, engineer, place, "it answers badly").stable == world.base.ref
    assert rollouts.promote(store, engineer, place, "it was not at fault").stable == added.ref
