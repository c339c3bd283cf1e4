"""The number types of weights, stored and quantised: their values, and how they are rounded."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.artifacts.weights.tensors import DTYPES

Floats = NDArray[Any]
"""Of single precision, unless a cast gives another type."""
NF4 = np.array(
    [
        -1.0,
        -0.6961928009986877,
        -0.5250730514526367,
        -0.39491748809814453,
        -0.28444138169288635,
        -0.18477343022823334,
        -0.09105003625154495,
        0.0,
        0.07958029955625534,
        0.16093020141124725,
        0.24611230194568634,
        0.33791524171829224,
        0.44070982933044434,
        0.5626170039176941,
        0.7229568362236023,
        1.0,
    ],
    np.float32,
)
"""NormalFloat, by code (Dettmers et al., QLoRA, arXiv 2305.14314, appendix E)."""
FP4 = np.array([0, 0.0625, 8, 12, 4, 6, 2, 3, 0, -0.0625, -8, -12, -4, -6, -2, -3], np.float32) / 12
"""The 4-bit float of bitsandbytes, by code."""


def dynamic_map() -> Floats:
    """The 256 values of bitsandbytes' signed dynamic type, in ascending order.

    See Dettmers, arXiv 1511.04561.
    """
    values = [0.0, 1.0]
    for exponent in range(7):
        edges = np.linspace(0.1, 1, 2**exponent + 1, dtype=np.float32)
        centres = (edges[:-1] + edges[1:]) / 2 * 10.0 ** (exponent - 6)
        values += [*centres, *-centres]
    return np.sort(np.array(values, np.float32))


def decoded(dtype: str, data: bytes) -> NDArray[Any]:
    """Decode little-endian bytes of a safetensors type; half-width floats become float32."""
    match dtype:
        case "BF16":
            return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
        case "F16":
            return np.frombuffer(data, "<f2").astype(np.float32)
        case "F8_E4M3":
            return E4M3[np.frombuffer(data, np.uint8)]
        case _:
            kind = {"F": "f", "I": "i", "U": "u", "B": "u"}[dtype[0]]
            return np.frombuffer(data, f"<{kind}{DTYPES[dtype]}")


def _e4m3() -> Floats:
    """Every F8_E4M3 value by its byte, NaN where there is none.

    See Micikevicius et al., arXiv 2209.05433.
    """
    byte = np.arange(256)
    exponent, fraction = byte >> 3 & 15, byte & 7
    size = np.where(
        exponent == 0, fraction / 8 * 2.0**-6, (1 + fraction / 8) * 2.0 ** (exponent - 7.0)
    )
    size[byte & 127 == 127] = np.nan
    return np.where(byte > 127, -size, size).astype(np.float32)


E4M3 = _e4m3()


def cast(values: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Round values to a type as torch does (to nearest, ties to even), as single precision.

    F64 stays double precision.
    """
    with np.errstate(over="ignore"):
        match dtype:
            case "BF16" | "bfloat16":
                bits = values.astype(np.float32).view(np.uint32)
                return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32)
            case "F16" | "float16":
                return values.astype(np.float16).astype(np.float32)
            case "F64":
                return values.astype(np.float64)
            case _:
                return values.astype(np.float32)
