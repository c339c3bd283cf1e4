"""A tensor of the base and its quantised form, read in pieces and compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.artifacts.quantised.descents import Placed
from registry.artifacts.quantised.number_types import Floats, decoded
from registry.artifacts.weights.tensors import DTYPES, Read, TensorInfo, fetch

PIECE = 1 << 20
"""Elements read at once."""
MAX_STATE = 64 << 10
"""Elements of a quant_state; this limit and the next ones keep small what is read at once."""
MAX_SCALES = 16 << 20
"""Elements of all scales of a tensor."""
MAX_GRID = 4 << 20
"""Scales that form a grid over a matrix.

Llama 70B in groups of 128 has 1.8 million for one matrix. A tensor with more is unchecked, never
false.
"""
MAX_WIDTH = 4 << 20
"""Elements of one row of a matrix; a tensor with longer rows is unchecked, never false."""
Wrong = tuple[str, str] | None
"""Why a tensor is not verified: `false` or `unchecked`, and the reason; None for a verified one."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One tensor of the base, and the parts that the checkpoint made of it."""

    base: Placed
    parts: Mapping[str, Placed]
    read: Read

    def elements(self, part: Placed, start: int, count: int) -> NDArray[Any]:
        """Elements of a tensor as they are stored; half-width floats as single precision."""
        info = part.info
        size = DTYPES[info.dtype]
        count = min(count, info.elements - start)
        return decoded(
            info.dtype, fetch(part.file, self.read, info.start + start * size, count * size)
        )

    def whole(self, name: str) -> NDArray[Any]:
        """A whole part; only scales and tables are read at once.

        Raises ValueError for a part that is too large to be one.
        """
        part = self.parts[name]
        if part.info.elements > (MAX_STATE if name == "state" else MAX_SCALES):
            raise ValueError(f"{part.info.name} is too large")
        return self.elements(part, 0, part.info.elements)


def place(info: TensorInfo, index: int) -> str:
    """The element at a flat index, for a message."""
    indices = [int(axis) for axis in np.unravel_index(index, info.shape)] if info.shape else []
    return f"the element {indices}"


def not_nearest(
    values: Floats, codes: NDArray[Any], table: Floats, slack: float
) -> NDArray[np.intp]:
    """The flat indices of the codes that are not a nearest one in the table.

    A code may be farther than the nearest by `slack`, for rounding.
    """
    ordered = np.sort(table)
    right = np.clip(np.searchsorted(ordered, values), 1, len(ordered) - 1)
    best = np.minimum(np.abs(values - ordered[right - 1]), np.abs(values - ordered[right]))
    return np.flatnonzero(np.abs(values - table[codes]) > best + slack)
