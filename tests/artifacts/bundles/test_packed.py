"""Packed weights are read as the weights they stand for, or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from registry.artifacts.bundles.files import read_bundle
from registry.artifacts.bundles.packed import logical_shapes
from tests.artifacts.bundle_files import CONFIG, declared

LIBRARY = Path(__file__).parents[1] / "quantised" / "files"
MATRIX = "model.layers.0.self_attn.q_proj"
WEIGHT = f"{MATRIX}.weight"


def shapes(weights: bytes, **settings: Any) -> dict[str, tuple[int, ...]]:
    config = json.dumps(CONFIG | {"quantization_config": settings}).encode()
    listed, read = declared({"model.safetensors": weights, "config.json": config})
    bundle = read_bundle("base", listed, read)
    assert not bundle.defects
    return logical_shapes(bundle)


@pytest.mark.parametrize("path", sorted(LIBRARY.glob("*.safetensors")), ids=lambda path: path.stem)
def test_what_real_libraries_wrote_has_the_shape_of_the_original(path: Path) -> None:
    original = {WEIGHT: (24, 64), "model.norm.weight": (8,)}
    assert shapes(path.read_bytes(), quant_method="bitsandbytes") == original


def words(*shape: int) -> np.ndarray[Any, Any]:
    return np.zeros(shape, np.int32)


def halves(*shape: int) -> np.ndarray[Any, Any]:
    return np.zeros(shape, np.float16)


GPTQ = {"qweight": words(8, 24), "qzeros": words(4, 3), "scales": halves(4, 24), "g_idx": words(64)}
AWQ = {"qweight": words(64, 3), "qzeros": words(4, 3), "scales": halves(4, 24)}
GEMV = {"qweight": words(24, 8), "qzeros": words(24, 1), "scales": halves(24, 4)}
LAYOUTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "GPTQ": (GPTQ, {"quant_method": "gptq", "bits": 4}),
    "GPTQ of 8 bits": (GPTQ | {"qweight": words(16, 24)}, {"quant_method": "gptq", "bits": 8}),
    "GPTQ of 3 bits": (GPTQ | {"qweight": words(6, 24)}, {"quant_method": "gptq", "bits": 3}),
    "AWQ": (AWQ, {"quant_method": "awq", "bits": 4, "version": "gemm"}),
    "AWQ, transposed": (GEMV, {"quant_method": "awq", "bits": 4, "version": "gemv"}),
    "NVFP4": (
        {"weight_packed": np.zeros((24, 32), np.uint8), "weight_global_scale": halves(1)},
        {"quant_method": "compressed-tensors"},
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_each_layout_has_the_shape_of_the_original(name: str) -> None:
    parts, settings = LAYOUTS[name]
    tensors = {f"{MATRIX}.{part}": value for part, value in parts.items()}
    if name == "GPTQ of 3 bits":
        with_rest = tensors | {f"{MATRIX}.g_idx": words(64)}
        assert shapes(save(with_rest), **settings) == {WEIGHT: (24, 64)}
    assert shapes(save(tensors), **settings) == {WEIGHT: (24, 64)}


UNKNOWN: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "bytes without a state": ({"weight": np.zeros((768, 1), np.uint8)}, {"quant_method": "hqq"}),
    "GPTQ without bits": (GPTQ, {"quant_method": "gptq"}),
    "GPTQ of other scales": (GPTQ | {"scales": halves(4, 23)}, {"quant_method": "gptq", "bits": 4}),
    "a state of another size": (
        {
            "weight": np.zeros((768, 1), np.uint8),
            "weight.quant_state.bitsandbytes__nf4": np.frombuffer(b'{"shape":[24,640]}', np.uint8),
        },
        {"quant_method": "bitsandbytes"},
    ),
    "a state that is no JSON": (
        {
            "weight": np.zeros((768, 1), np.uint8),
            "weight.quant_state.bitsandbytes__nf4": np.zeros(9, np.uint8),
        },
        {"quant_method": "bitsandbytes"},
    ),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_packed_in_an_unknown_way_is_no_module(name: str) -> None:
    parts, settings = UNKNOWN[name]
    tensors = {f"{MATRIX}.{part}": value for part, value in parts.items()}
    assert shapes(save(tensors | {"model.norm.weight": halves(8)}), **settings) == {
        "model.norm.weight": (8,)
    }


def test_gpt_oss_s_experts_are_read_as_they_are_loaded() -> None:
    stem = "model.layers.0.mlp.experts.gate_up_proj"
    tensors = {
        f"{stem}_blocks": np.zeros((4, 128, 2, 16), np.uint8),
        f"{stem}_scales": np.zeros((4, 128, 2), np.uint8),
        f"{stem}_bias": halves(4, 128),
    }
    assert shapes(save(tensors), quant_method="mxfp4") == {
        stem: (4, 64, 128),
        f"{stem}_bias": (4, 128),
    }
