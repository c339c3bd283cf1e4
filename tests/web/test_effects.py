"""A reviewer sees what does nothing, and what was left out of a version."""

from __future__ import annotations

import json

import numpy as np
from safetensors.numpy import load, save

from registry.commands import versions
from registry.views.imports import LeftOut
from tests.build import ADAPTER_META, a_world, adapter_files, put, register, submit
from tests.web.conftest import Console


def test_idle_weights_and_companions_are_on_both_pages(console: Console, team: str) -> None:
    world = a_world(console.store, console.blobs, team)
    weights, config = adapter_files(world.blobs, seed=5)
    arrays = load(world.blobs.read(weights.sha256, 0, weights.size))
    idle = {name: np.zeros_like(a) if "lora_B" in name else a for name, a in arrays.items()}
    left_out = (
        LeftOut("value_head.<b>.bin", "left out as asked", 7, asked=True),
        LeftOut("optimizer.pt", "the optimiser's state", 2048),
        LeftOut("value_head.bin", "left out as asked", 1024, asked=True),
    )
    draft = versions.Draft(
        "adapter",
        f"{team}/idle",
        [put(world.blobs, weights.path, save(idle)), config],
        ADAPTER_META | {"domain": "legal"},
        world.base.ref,
        left_out=left_out,
    )
    added = register(world.store, world.blobs, world.engineer.actor, draft)
    assert json.dumps([finding.field for finding in added.findings]) == '["effect"]'
    submit(world, added.ref)
    with console.signed_in(world.compliance) as client:
        page = client.get(f"/adapters/{team}/idle/v/1").text
        review = client.get(f"/reviews/{world.review}").text
    for text in (page, review):
        assert "It changes nothing: all 1 parts" in text or "High: it changes nothing" in text
        assert "value_head.bin" in text and "value head of a reward model" in text
        assert "<b>.bin" not in text
    assert "0 of 1 changed" in page and "optimizer.pt" in page
    assert "Changes its base" in review and "Nothing of it left out" in review
