"""Recipes that round to nearest with a grid of scales over a matrix: FP8, INT8 and packed INT4."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from registry.artifacts.quantised.number_types import E4M3, Floats
from registry.artifacts.quantised.pairs import MAX_GRID, MAX_WIDTH, PIECE, Pair, Wrong, place

BFLOAT16_ROUNDING = 2.0**-7
"""Relative rounding of a scale stored in bfloat16, and of a division in that type."""
MAX_RELATIVE_ERROR = 0.5
"""Relative error past which one tensor is no quantisation of another.

Calibrated 4-bit ones stay near 0.1.
"""


class _Grid:
    """The scales of a matrix: one for all, or one per row, group of columns or block."""

    def __init__(self, pair: Pair) -> None:
        self.rows, self.width = pair.base.info.shape
        scales, info = pair.whole("scale").astype(np.float32), pair.parts["scale"].info
        shape = (
            info.shape
            if len(info.shape) == 2
            else (len(scales), 1)
            if len(scales) == self.rows
            else (1, 1)
        )
        self.table = scales.reshape(shape)
        self.block_height, self.block_width = -(-self.rows // shape[0]), -(-self.width // shape[1])
        if info.name.endswith("_inv") and 1 not in shape:
            # The last block of a row or a column may be smaller.
            self.block_height = self.block_width = 128
        if (-(-self.rows // self.block_height), -(-self.width // self.block_width)) != tuple(shape):
            # A finer grid would be spread over all memory.
            raise ValueError("its scales are not a grid over the matrix")
        self.maxima = np.zeros_like(self.table)

    def spread(self, first: int, last: int) -> Floats:
        """The scale of every number in some rows, an array of (rows, width)."""
        scales = self.table[np.arange(first, last) // self.block_height]
        return np.repeat(scales, self.block_width, 1)[:, : self.width]

    def take(self, first: int, values: Floats) -> None:
        """Remember the largest number under each scale."""
        padded = np.zeros((len(values), self.table.shape[1] * self.block_width), np.float32)
        padded[:, : self.width] = np.abs(values)
        largest = padded.reshape(len(values), -1, self.block_width).max(2)
        grid_rows = np.arange(first, first + len(values)) // self.block_height
        np.maximum.at(self.maxima, grid_rows, largest)


def scaled(
    reach: float,
    off: Callable[[Floats, Floats], NDArray[np.bool_]],
    codes_of: Callable[[Pair, int, int, int], Floats],
) -> Callable[[Pair], Wrong]:
    """Check rounding to nearest with a symmetric scale.

    `reach` is the number to which the largest number of a group is scaled. `off` says which codes
    are not the nearest to the ideal values. `codes_of` reads the codes of some rows: pair, first
    row, rows, width.

    A calibrated method may choose other codes and scales. Such a tensor is not verified; it is
    false only where its numbers are far from the base's.
    """

    def check(pair: Pair) -> Wrong:
        if len(pair.base.info.shape) != 2 or pair.base.info.shape[1] > MAX_WIDTH:
            return "unchecked", "it is not a matrix, or its rows are too long"
        if pair.parts["scale"].info.elements > MAX_GRID:
            return "unchecked", "it has too many scales to be read at once"
        rows, width = pair.base.info.shape
        grid = _Grid(pair)
        wrong: Wrong = None
        squared_error = squared_total = 0.0
        step = max(1, PIECE // width)
        for first in range(0, rows, step):
            values = pair.elements(pair.base, first * width, step * width)
            values = values.reshape(-1, width).astype(np.float32)
            scales = grid.spread(first, first + len(values))
            codes = codes_of(pair, first, len(values), width)
            grid.take(first, values)
            ideal = np.clip(values / np.where(scales == 0, 1, scales), -reach, reach)
            squared_error += float(((codes * scales - values).astype(np.float64) ** 2).sum())
            squared_total += float((values.astype(np.float64) ** 2).sum())
            if wrong is None and len(misses := np.flatnonzero(off(codes, ideal))):
                index = first * width + int(misses[0])
                element = place(pair.base.info, index)
                wrong = "unchecked", f"{element} does not have the nearest code"
        if not squared_error <= MAX_RELATIVE_ERROR**2 * squared_total:
            relative = np.sqrt(squared_error / max(squared_total, 1e-30))
            return "false", f"its numbers are far from the base's (relative error {relative:.2f})"
        is_off = np.abs(grid.table * reach - grid.maxima) > BFLOAT16_ROUNDING * grid.maxima
        if wrong is None and (is_off & (grid.maxima > 0)).any():
            wrong = "unchecked", "a scale is not that of the largest number"
        return wrong

    return check


def stored_codes(pair: Pair, first: int, rows: int, width: int) -> Floats:
    """Codes that are stored one by one, as (rows, width)."""
    codes = pair.elements(pair.parts["weight"], first * width, rows * width)
    return codes.reshape(rows, width).astype(np.float32)


def unpacked_codes(pair: Pair, first: int, rows: int, width: int) -> Floats:
    """Codes packed as compressed-tensors does, as (rows, width).

    Each 32-bit word holds eight 4-bit codes, the lowest bits first, stored 8 above their value.
    """
    words = -(-width // 8)
    if pair.parts["weight"].info.shape != (pair.base.info.shape[0], words):
        raise ValueError("the number of its words is not what the matrix needs")
    packed = pair.elements(pair.parts["weight"], first * words, rows * words)
    packed = packed.view(np.uint32).reshape(rows, words, 1)
    codes = (packed >> np.arange(0, 32, 4, dtype=np.uint32) & 15).astype(np.float32) - 8
    return codes.reshape(rows, -1)[:, :width]


def off_integer(codes: Floats, ideal: Floats) -> NDArray[np.bool_]:
    """Which codes are not the nearest integer, up to rounding."""
    return np.asarray(np.abs(codes - ideal) > 0.5 + np.abs(ideal) * BFLOAT16_ROUNDING)


def off_e4m3(codes: Floats, ideal: Floats) -> NDArray[np.bool_]:
    """Which codes are not the nearest F8_E4M3 value, up to rounding."""
    ordered = np.sort(E4M3[np.isfinite(E4M3)])
    right = np.clip(np.searchsorted(ordered, ideal), 1, len(ordered) - 1)
    best = np.minimum(np.abs(ideal - ordered[right - 1]), np.abs(ideal - ordered[right]))
    return np.asarray(np.abs(codes - ideal) > best + np.abs(ideal) * BFLOAT16_ROUNDING)
