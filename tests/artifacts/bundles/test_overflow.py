"""Numbers that are finite in the file and too large for the type in which the model computes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from registry.artifacts.bundles import overflows
from registry.artifacts.bundles.judge import BaseFacts, Inspected, base_facts
from registry.artifacts.quantised.number_types import cast
from tests.artifacts.bundle_files import (
    CONFIG,
    Files,
    adapter_files,
    base_arrays,
    base_files,
    broken,
    declared,
    look,
    lora_arrays,
)

PLACE = "model.layers.1.self_attn.v_proj.weight"
A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
META = {"licence": "x", "source": "x", "purpose": "x", "domain": "d"}
Arrays = dict[str, np.ndarray[Any, Any]]


def files(number: float, stored: Any = np.float32, **config: Any) -> Files:
    """A base with this number in one place."""
    arrays = {name: array.astype(stored) for name, array in base_arrays().items()}
    arrays[PLACE][2, 3] = number
    return base_files() | {
        "config.json": json.dumps(CONFIG | config).encode(),
        "model.safetensors": save(arrays, metadata={"format": "pt"}),
    }


def risky(judged: Inspected) -> str | None:
    """The detail of the finding, which is also kept as a risk; it refuses and blocks nothing."""
    assert judged.defects == []
    large = [risk for risk in judged.facts.get("risks", []) if "too large" in risk]
    assert [(each.field, each.detail, each.blocks) for each in judged.findings] == [
        ("overflow", risk, False) for risk in large
    ]
    assert len(large) <= 1
    return large[0] if large else None


CASES = [
    ("bfloat16", np.float32, 3e38, "products overflow in bfloat16"),
    ("float16", np.float32, 3e38, "infinite in float16"),
    ("float32", np.float32, 3e38, "products overflow in float32"),
    ("float32", np.float32, -3e38, "products overflow in float32"),
    ("bfloat16", np.float32, 3.4e38, "infinite in bfloat16"),
    ("bfloat16", np.float32, 3.39e38, "products overflow in bfloat16"),
    ("float32", np.float64, 1e300, "infinite in float32"),
    ("float32", np.float64, 3e38, "products overflow in float32"),
    ("float16", np.float64, 65520, "infinite in float16"),
    ("float64", np.float64, 1e300, "products overflow in float64"),
    ("bfloat16", np.float32, 1e19, "products overflow in bfloat16"),
    ("float16", np.float32, 70000, "infinite in float16"),
    ("float16", np.float32, 65520, "infinite in float16"),
    ("float16", np.float32, 65519, None),
    ("float16", np.float32, 65504, None),
    ("float16", np.float16, 65504, None),
    ("bfloat16", np.float32, 70000, None),
    ("float32", np.float64, 70000, None),
    ("bfloat16", np.float32, 9e18, None),
]


@pytest.mark.parametrize("kind", ["base", "checkpoint"])
@pytest.mark.parametrize(("dtype", "stored", "number", "expected"), CASES)
def test_numbers_are_compared_with_what_the_type_in_use_holds(
    kind: Any, dtype: str, stored: Any, number: float, expected: str | None
) -> None:
    risk = risky(look(kind, files(number, stored, dtype=dtype), **META))
    if expected is None:
        assert risk is None
    else:
        assert risk is not None and PLACE in risk and dtype in risk
        assert expected in risk and risk.startswith("high: 1 tensor holds")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_the_limits_are_those_of_the_types(dtype: str) -> None:
    limit = overflows.INFINITE_FROM[dtype]
    # A double becomes a bfloat16 by way of single precision.
    step = np.float32 if dtype == "bfloat16" else np.float64
    largest = np.nextafter(step(limit), step(0))
    assert np.isinf(cast(np.array([limit]), dtype)).all()
    assert np.isfinite(cast(np.array([largest]), dtype)).all()


def test_weights_stored_as_bfloat16() -> None:
    arrays = base_arrays()
    arrays[PLACE][2, 3] = -70144
    halves = {name: (array.view("<u4") >> 16).astype("<u2") for name, array in arrays.items()}
    content = save(halves).replace(b'"U16"', b'"BF16"')
    length = int.from_bytes(content[:8], "little") + len(halves)
    weights = {"model.safetensors": length.to_bytes(8, "little") + content[8:]}
    risk = risky(look("base", files(0, dtype="float16") | weights, **META))
    assert f"{PLACE} (70144)" in (risk or "")
    assert risky(look("base", files(0, dtype="bfloat16") | weights, **META)) is None


@pytest.mark.parametrize(
    "config",
    [
        {"torch_dtype": "float16"},
        {"dtype": "torch.float16"},
        {"dtype": "half"},
        {"text_config": {"dtype": "float16"}},
        {"text_config": {"torch_dtype": "float16"}},
        {"dtype": "float16", "torch_dtype": "bfloat16"},
        {"dtype": "float16", "text_config": {"dtype": "bfloat16"}},
        {"dtype": None, "torch_dtype": "float16"},
    ],
)
def test_the_type_in_use_is_the_one_that_the_config_names(config: dict[str, Any]) -> None:
    assert "float16" in (risky(look("base", files(70000, **config), **META)) or "")


@pytest.mark.parametrize("config", [{}, {"dtype": "auto"}, {"dtype": 7}, {"text_config": []}])
def test_without_a_type_it_is_the_stored_one(config: dict[str, Any]) -> None:
    assert risky(look("base", files(70000, **config), **META)) is None
    assert "float32" in (risky(look("base", files(3e38, **config), **META)) or "")
    double = risky(look("base", files(1e300, np.float64, **config), **META))
    assert "too large for float64" in (double or "")
    # Most weights are half: the whole model is loaded so, and with it the one that is not.
    arrays = {name: array.astype(np.float16) for name, array in base_arrays().items()}
    arrays["model.layers.0.input_layernorm.weight"] = np.full(8, 70000, np.float32)
    mixed = files(0, **config) | {"model.safetensors": save(arrays)}
    assert "infinite in float16" in (risky(look("base", mixed, **META)) or "")


def test_nan_and_infinity_are_still_refused() -> None:
    for number in (np.nan, np.inf, -np.inf):
        judged = look("base", files(number, dtype="float16"), **META)
        assert broken(judged) == [("model.safetensors", "non-finite")]
        assert judged.findings == []


def test_the_first_tensors_are_named_and_all_are_counted() -> None:
    arrays = {name: np.full_like(array, 70000) for name, array in base_arrays().items()}
    arrays[PLACE][0, 0] = 80000
    judged = look("base", files(0, dtype="float16") | {"model.safetensors": save(arrays)}, **META)
    risk = risky(judged) or ""
    assert risk.startswith("high: 7 tensors hold")
    assert f"computes: {PLACE} (80000), " in risk and "and 4 more" in risk
    assert "The largest is 80000" in risk
    assert len(risk) < 600


def test_the_way_out_works() -> None:
    judged = look("base", files(70000, dtype="float16"), **META)
    assert '"dtype": "bfloat16" into config.json' in judged.findings[0].fix
    assert risky(look("base", files(70000, dtype="bfloat16"), **META)) is None
    assert "diverged" in look("base", files(3e38), **META).findings[0].fix


def bound(number: float, **config: Any) -> tuple[BaseFacts, Arrays]:
    listed, read = declared(files(0, **config))
    arrays = lora_arrays()
    arrays[A][1, 2] = number
    return base_facts(listed, read), arrays


@pytest.mark.parametrize(
    ("config", "number", "expected"),
    [
        ({"dtype": "float16"}, 70000, "infinite in float16"),
        ({"torch_dtype": "bfloat16"}, 70000, None),
        ({"torch_dtype": "bfloat16"}, 3e38, "products overflow in bfloat16"),
        ({}, 3e38, "products overflow in float32"),
        ({}, 70000, None),
    ],
)
def test_an_adapter_computes_in_the_type_of_its_base(
    config: dict[str, Any], number: float, expected: str | None
) -> None:
    base, arrays = bound(number, **config)
    judged = look("adapter", adapter_files(arrays), base, **META)
    risk = risky(judged)
    if expected is None:
        assert risk is None
    else:
        assert risk is not None and A in risk and expected in risk
    if number == 70000 and expected:
        assert "the config.json of its base" in judged.findings[0].fix


def test_an_adapter_on_a_base_that_names_no_type_computes_in_the_stored_one() -> None:
    listed, read = declared(files(0, np.float16))
    _, arrays = bound(70000)
    judged = look("adapter", adapter_files(arrays), base_facts(listed, read), **META)
    assert "infinite in float16" in (risky(judged) or "")


def test_an_adapter_without_a_base_is_judged_by_its_own_type() -> None:
    _, arrays = bound(3e38)
    judged = look("adapter", adapter_files(arrays), **META)
    assert [each.field for each in judged.findings] == ["base", "overflow"]
    assert "float32" in judged.facts["risks"][0]
