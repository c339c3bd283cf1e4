"""The console never shows a claimed descent without saying that it is one."""

from __future__ import annotations

import numpy as np
from safetensors.numpy import load, save

from tests.build import MODULE, a_world
from tests.commands.test_descents import base_bytes, checkpoint, lowered
from tests.web.conftest import Console


def test_a_descent_is_shown_as_what_it_is(console: Console, team: str) -> None:
    world = a_world(console.store, console.blobs, team)
    checkpoint(world, lowered(world), "half", world.base.ref)
    arrays = load(base_bytes(world)["model.safetensors"])
    del arrays[f"{MODULE}.weight"]
    checkpoint(
        world,
        save(arrays | {f"{MODULE}.qweight": np.ones((1, 8), np.int32)}),
        "gptq",
        world.base.ref,
    )
    with console.signed_in(world.engineer) as client:
        verified = client.get(f"/checkpoints/{team}/half/v/1").text
        claimed = client.get(f"/checkpoints/{team}/gptq/v/1").text
    assert "every tensor is exactly what its recipe produces" in verified
    assert "2 by cast" in verified
    assert "Its maker says that it is a quantisation of" in claimed
    assert "Claimed" in claimed
