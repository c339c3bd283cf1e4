"""What a recipe would adapt, against the names and the depth of a base."""

from __future__ import annotations

import pytest

from registry.artifacts.methods.anatomies import anatomy
from registry.artifacts.methods.plans import Plan, unfit
from registry.artifacts.methods.recipe_fits import depth_of

LLAMA = {
    "model.embed_tokens.weight": (64, 8),
    **{
        f"model.layers.{layer}.{name}.weight": (8, 8)
        for layer in range(4)
        for name in ("self_attn.q_proj", "self_attn.v_proj")
    },
    "model.layers.3.mlp.late_proj.weight": (8, 8),
    "model.norm.weight": (8,),
}


def said(targets: list[str], layers: tuple[int, int] | None, **config: object) -> dict[str, str]:
    body = anatomy(LLAMA, {"model_type": "llama", **config})
    return dict(unfit(Plan(targets, layers, 2, 4), body))


@pytest.mark.parametrize(
    ("targets", "layers", "key", "words"),
    [
        (["q_proj"], None, None, ""),
        (["q_proj", "late_proj"], None, None, ""),
        (["q_proj", "embed_tokens"], None, None, ""),
        (["q_proj"], (3, 3), None, ""),
        (["q_proj"], (0, 4), "layers", "layers 0 to 4, but the base has layers 0 to 3"),
        (["q_proj"], (0, 9), "layers", "0 to 9"),
        (["c_attn", "q_proj"], None, "targets", "no modules for LoRA named c_attn. It has"),
        (["norm"], None, "targets", "named norm"),
        (["late_proj"], (0, 2), "targets", "late_proj in layers 0 to 2. It has q_proj, v_proj"),
        (["embed_tokens"], (0, 2), "targets", "embed_tokens in layers 0 to 2"),
        (["layers"], None, "targets", "named layers"),
    ],
)
def test_a_plan_and_a_base(
    targets: list[str], layers: tuple[int, int] | None, key: str | None, words: str
) -> None:
    for config in ({}, {"num_hidden_layers": 4}, {"text_config": {"num_hidden_layers": 4}}):
        problems = said(targets, layers, **config)
        assert set(problems) == ({key} if key else set())
        assert words in problems.get(key or "", "")


def test_the_depth_that_config_json_says_counts() -> None:
    for config, depth in (({}, 4), ({"n_layer": 2}, 2), ({"text_config": {"num_layers": 3}}, 3)):
        assert depth_of(anatomy(LLAMA, config)) == depth


def test_a_base_without_layers() -> None:
    body = anatomy({"embed.weight": (4, 4)}, {})
    assert (
        "no layers. Leave layers out" in dict(unfit(Plan(["embed"], (0, 0), 2, 4), body))["layers"]
    )
