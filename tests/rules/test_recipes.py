"""Recipes: what is read, what is filled in, and every way to be wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
import rfc8785

from registry.artifacts.methods import configs
from registry.documents import canonical
from registry.errors import Invalid
from registry.rules.recipes import FIELDS, parse

SHORT: dict[str, Any] = {"steps": 36, "batch_size": 8, "learning_rate": 1e-3}


def test_defaults_are_decided_before_the_digest() -> None:
    recipe = parse(SHORT)
    assert recipe.publish_at == (36,)
    assert recipe.save_every == 3
    assert recipe.alpha == 2 * recipe.rank
    assert set(recipe.as_dict()) == set(FIELDS)
    assert recipe == parse(recipe.as_dict())


def test_a_written_recipe_reads_back_equal() -> None:
    recipe = parse(
        SHORT
        | {
            "layers": [15, 29],
            "publish_at": [18, 36],
            "targets": ["v_proj", "q_proj"],
            "sample": 64,
        }
    )
    assert recipe.targets == ("q_proj", "v_proj")
    assert parse(json.loads(json.dumps(recipe.as_dict()))) == recipe


def test_the_order_of_targets_is_no_difference_and_a_number_is_one_number() -> None:
    one = parse(SHORT | {"targets": ["v_proj", "q_proj"], "dropout": 0})
    other = parse(SHORT | {"targets": ["q_proj", "v_proj"], "dropout": 0.0})
    assert one == other


def test_the_digest_is_that_of_the_canonical_json() -> None:
    document = parse(SHORT).as_dict()
    assert (
        canonical.digest(parse(SHORT).as_dict())
        == f"sha256:{canonical.sha256_hex(rfc8785.dumps(document))}"
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("method", "qlora"),
        ("rank", 0),
        ("rank", 513),
        ("rank", 8.0),
        ("rank", True),
        ("alpha", 0),
        ("dropout", 1.0),
        ("dropout", -0.1),
        ("dropout", "0"),
        ("targets", "q_proj"),
        ("targets", []),
        ("targets", ["(a+)+b"]),
        ("targets", ["q_proj", "q_proj"]),
        ("layers", [3]),
        ("layers", [5, 3]),
        ("layers", [-1, 3]),
        ("layers", 3),
        ("steps", 0),
        ("steps", "36"),
        ("batch_size", 0),
        ("learning_rate", 0),
        ("learning_rate", float("nan")),
        ("learning_rate", 1.0),
        ("warmup_steps", 36),
        ("warmup_steps", -1),
        ("max_length", 7),
        ("seed", -1),
        ("seed", 2**32),
        ("template", "alpaca"),
        ("dtype", "float16"),
        ("publish_at", []),
        ("publish_at", [18]),
        ("publish_at", [36, 18]),
        ("publish_at", [18, 18, 36]),
        ("publish_at", [0, 36]),
        ("save_every", 0),
        ("sample", 0),
        ("sample", 7),
        ("optimizer", "adamw"),
    ],
)
def test_a_wrong_key_is_named(key: str, value: Any) -> None:
    with pytest.raises(Invalid) as refusal:
        parse(SHORT | {key: value})
    assert refusal.value.kind == "bad-recipe"
    assert list(refusal.value.facts["problems"]) == [key]
    assert key in refusal.value.detail


def test_everything_wrong_is_said_at_once() -> None:
    with pytest.raises(Invalid) as refusal:
        parse({"steps": 0, "rank": "8", "epochs": 3, "learning_rate": 1e-3, "layers": [9, 2]})
    assert set(refusal.value.facts["problems"]) == {
        "steps",
        "rank",
        "epochs",
        "batch_size",
        "layers",
    }


@pytest.mark.parametrize("key", ["steps", "batch_size", "learning_rate"])
def test_what_only_the_author_can_know_has_no_default(key: str) -> None:
    with pytest.raises(Invalid) as refusal:
        parse({name: value for name, value in SHORT.items() if name != key})
    assert set(refusal.value.facts["problems"]) == {key}


def test_no_recipe_makes_an_adapter_that_the_registry_refuses_for_its_rank() -> None:
    assert parse(SHORT | {"rank": configs.MAX_RANK}).rank == configs.MAX_RANK
