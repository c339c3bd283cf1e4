"""The recipes of bitsandbytes: NF4 and FP4 in blocks, and LLM.int8() in rows.

A code must be a nearest one, up to the rounding in which libraries differ: CUDA multiplies by a
reciprocal where a CPU divides. Scales must be those of the base's numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from registry.artifacts.quantised.number_types import Floats, cast, dynamic_map
from registry.artifacts.quantised.pairs import (
    MAX_WIDTH,
    PIECE,
    Pair,
    Wrong,
    not_nearest,
    place,
)
from registry.documents.strict_json import loads

DIVISION_SLACK = 2e-6
"""How much farther than the nearest a code may be: the rounding of one float32 division."""


def four_bits(table: Floats) -> Callable[[Pair], Wrong]:
    """Check bitsandbytes' Linear4bit with a table of 16 values.

    Blocks are scaled by their largest number and stored as codes of 4 bits. The scales may be
    quantised too.
    """

    def check(pair: Pair) -> Wrong:
        info = pair.base.info
        state = loads(pair.whole("state").astype(np.uint8).tobytes())
        block = state["blocksize"]
        if (
            type(block) is not int
            or not 16 <= block <= 4096
            or block & (block - 1)
            or state["shape"] != list(info.shape)
        ):
            return "false", "its quant_state has another shape or an invalid block size"
        if state["dtype"] not in ("float16", "bfloat16", "float32"):
            return "false", f"its quant_state has the unknown type {state['dtype']}"
        if not np.allclose(pair.whole("quant_map"), table, atol=1e-6):
            return "false", "its quant_map is not that of its type"
        if pair.parts["weight"].info.elements != (info.elements + 1) // 2:
            return "false", "the number of its codes is not the number of the base's elements"
        scales = _NestedScales(pair, state) if "nested_absmax" in pair.parts else None
        stride = block * 256 * max(1, PIECE // (block * 256))
        for start in range(0, info.elements, stride):
            values = cast(pair.elements(pair.base, start, stride), state["dtype"])
            packed = pair.elements(pair.parts["weight"], start // 2, (len(values) + 1) // 2)
            codes = np.stack([packed >> 4, packed & 15], 1).reshape(-1)[: len(values)]
            blocks = np.zeros(-(-len(values) // block) * block, np.float32)
            blocks[: len(values)] = values
            largest = np.abs(blocks.reshape(-1, block)).max(1)
            scaled = blocks.reshape(-1, block) / np.where(largest == 0, 1, largest)[:, None]
            scaled = scaled.reshape(-1)[: len(values)]
            misses = not_nearest(scaled, codes, table, DIVISION_SLACK)
            if len(misses):
                element = place(info, start + int(misses[0]))
                return "false", f"{element} does not have the nearest code"
            first = start // block
            if scales is not None:
                if (wrong := scales.take(first, largest)) is not None:
                    return wrong
            else:
                stored = pair.elements(pair.parts["absmax"], first, len(largest))
                scale_misses = np.flatnonzero(np.abs(stored - largest) > 1e-6 * largest)
                if len(scale_misses):
                    number = first + int(scale_misses[0])
                    return "false", f"the scale of block {number} is not its largest number"
        return scales.end() if scales is not None else None

    return check


class _NestedScales:
    """Scales, less their mean, quantised to 8 bits in blocks of 256 (double quantisation)."""

    def __init__(self, pair: Pair, state: Mapping[str, Any]) -> None:
        self.pair, self.block = pair, state["nested_blocksize"]
        self.offset = np.float32(state["nested_offset"])
        self.total, self.count = 0.0, 0
        if self.block != 256:
            raise ValueError("the size of its nested blocks is not 256")
        self.map = dynamic_map()
        if not np.allclose(pair.whole("nested_quant_map"), self.map, atol=1e-6):
            raise ValueError("nested_quant_map is not the dynamic type's")

    def take(self, first: int, largest: Floats) -> Wrong:
        """Check the scales of some blocks, given the largest number of each block."""
        self.total += float(largest.astype(np.float64).sum())
        self.count += len(largest)
        codes = self.pair.elements(self.pair.parts["absmax"], first, len(largest))
        centred = largest - self.offset
        padded = np.zeros(-(-len(centred) // 256) * 256, np.float32)
        padded[: len(centred)] = centred
        maxima = np.abs(padded.reshape(-1, 256)).max(1)
        stored = self.pair.elements(self.pair.parts["nested_absmax"], first // 256, len(maxima))
        slack = 1e-5 * (np.abs(largest).max() + abs(self.offset))
        if len(scale_misses := np.flatnonzero(np.abs(stored - maxima) > slack)):
            number = first // 256 + int(scale_misses[0])
            return "false", f"the scale of scales {number} is not its largest number"
        scaled = padded.reshape(-1, 256) / np.where(stored == 0, 1, stored)[:, None]
        scaled = scaled.reshape(-1)[: len(centred)]
        if len(misses := not_nearest(scaled, codes, self.map, 1e-4)):
            number = first + int(misses[0])
            return "false", f"the scale of block {number} does not have the nearest code"
        return None

    def end(self) -> Wrong:
        """Check the mean, once every block was taken."""
        mean = self.total / max(self.count, 1)
        if abs(mean - float(self.offset)) <= 1e-4 * abs(mean):
            return None
        return "false", "nested_offset is not the scales' mean"


def eight_bits(pair: Pair) -> Wrong:
    """Check bitsandbytes' Linear8bitLt.

    Its rows, in half precision, are scaled so that their largest number becomes 127.
    """
    rows, width = pair.base.info.shape
    if width > MAX_WIDTH:
        return "unchecked", "its rows are too long"
    scales = pair.whole("scale")
    if len(scales) != rows:
        return "false", "the number of its scales is not the number of its rows"
    if "format" in pair.parts and pair.whole("format").any():
        return "unchecked", "its layout is for one kind of device"
    step = max(1, PIECE // width)
    for first in range(0, rows, step):
        start, count = first * width, step * width
        values = cast(pair.elements(pair.base, start, count), "F16").reshape(-1, width)
        codes = pair.elements(pair.parts["weight"], start, count)
        codes = codes.reshape(-1, width).astype(np.float32)
        largest, stored = np.abs(values).max(1), scales[first : first + step]
        if len(scale_misses := np.flatnonzero(np.abs(stored - largest) > 1e-6 * largest)):
            number = first + int(scale_misses[0])
            return "false", f"the scale of row {number} is not its largest number"
        exact = values * (127 / np.where(largest == 0, 1, largest))[:, None]
        if len(misses := np.flatnonzero(np.abs(codes - exact) > 0.5 + 1e-3)):
            element = place(pair.base.info, start + int(misses[0]))
            return "false", f"{element} does not have the nearest code"
    return None
