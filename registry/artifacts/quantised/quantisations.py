"""A quantisation worked out again: does each tensor of a checkpoint hold what its recipe makes of
the base's?

Both are read in pieces, so memory does not grow with the model. A code must be a nearest one, up to
the rounding in which libraries differ (CUDA multiplies by a reciprocal where a CPU divides); scales
must be those of the base's numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.artifacts.bundles.files import read_bundle
from registry.artifacts.quantised.descents import (
    Descent,
    Placed,
    Step,
    TensorVerdict,
    conclude,
    placed,
    plan,
    text_verdicts,
)
from registry.artifacts.weights.tensors import DTYPES, File, Read, TensorInfo, fetch
from registry.documents.strict_json import loads
from registry.errors import Invalid, RegistryError

PIECE = 1 << 20
"""Elements read at once."""
MAX_STATE = 64 << 10
MAX_SCALES = 16 << 20
MAX_GRID = 4 << 20
MAX_WIDTH = 4 << 20
"""Elements of a quant_state, of all scales of a tensor, of those that lie over it as a grid, and of
one row: what is read at once stays small. Llama 70B in groups of 128 has 1.8 million over a matrix;
what has more is unchecked, and never false.
"""
Floats = NDArray[Any]
"""Of single precision, unless a cast says otherwise."""
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
"""NormalFloat (Dettmers et al., QLoRA, arXiv 2305.14314, appendix E)."""
FP4 = np.array([0, 0.0625, 8, 12, 4, 6, 2, 3, 0, -0.0625, -8, -12, -4, -6, -2, -3], np.float32) / 12
"""The 4-bit float of bitsandbytes, by code."""
TIE = 2e-6
"""How much further than the nearest a code may lie: the rounding of one division in single
precision.
"""
COARSE = 2.0**-7
"""Relative rounding of a scale kept in bfloat16, and of a division done in it."""
FAR = 0.5
"""Relative error past which a tensor is no quantisation of the other: calibrated 4-bit ones stay
near 0.1.
"""


def dynamic_map() -> Floats:
    """The 256 values of bitsandbytes' signed dynamic type (Dettmers, arXiv 1511.04561), in
    ascending order.
    """
    values = [0.0, 1.0]
    for exponent in range(7):
        edges = np.linspace(0.1, 1, 2**exponent + 1, dtype=np.float32)
        means = (edges[:-1] + edges[1:]) / 2 * 10.0 ** (exponent - 6)
        values += [*means, *-means]
    return np.sort(np.array(values, np.float32))


@dataclass(frozen=True, slots=True)
class _Both:
    """One tensor of the base beside what the checkpoint made of it."""

    base: Placed
    parts: Mapping[str, Placed]
    read: Read

    def elements(self, part: Placed, start: int, count: int) -> NDArray[Any]:
        """Elements of a tensor as they are stored; floats of half width as single precision."""
        info = part.info
        size = DTYPES[info.dtype]
        count = min(count, info.elements - start)
        return decoded(
            info.dtype, fetch(part.file, self.read, info.start + start * size, count * size)
        )

    def whole(self, name: str) -> NDArray[Any]:
        """A part read at once; only scales and tables are, and one that is too large for that is no
        such thing.
        """
        part = self.parts[name]
        if part.info.elements > (MAX_STATE if name == "state" else MAX_SCALES):
            raise ValueError(f"{part.info.name} is too large for what it is")
        return self.elements(part, 0, part.info.elements)


def decoded(dtype: str, data: bytes) -> NDArray[Any]:
    """Little-endian bytes of a safetensors type as numbers."""
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
    """Every F8_E4M3 by its byte (Micikevicius et al., arXiv 2209.05433); NaN where there is
    none.
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
    """Rounded to a type as torch rounds (to nearest, ties to even), and back to single
    precision.
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


def descend(child: Sequence[File], base: Sequence[File], read: Read) -> Descent:
    """The verdict on a checkpoint said to be a quantisation of a base; both are sound bundles.

    Raises what `read` raises when bytes are gone.
    """
    ours, theirs = read_bundle("checkpoint", child, read), read_bundle("base", base, read)
    if broken := [*ours.defects, *theirs.defects]:
        raise Invalid("bundle-unsound", f"{broken[0].file}: {broken[0].detail}")
    tensors = placed(theirs)
    planned = plan(tensors, placed(ours))
    verdicts = [*text_verdicts(theirs, ours), *planned.verdicts]
    verdicts += [judge(step, tensors[step.name], read) for step in planned.steps]
    return conclude(verdicts)


def judge(step: Step, base: Placed, read: Read) -> TensorVerdict:
    """One tensor by its recipe."""
    both = _Both(base, step.parts, read)
    try:
        wrong = RECIPES[step.recipe](both)
    except RegistryError as error:
        if error.kind in ("bytes-missing", "bytes-short"):
            raise
        wrong = ("false", error.detail)
    except (ValueError, IndexError, KeyError, TypeError) as error:
        wrong = ("false", f"its parts do not fit together ({str(error)[:100]})")
    if wrong is None:
        return TensorVerdict(step.name, step.recipe, "verified")
    outcome, detail = wrong
    return TensorVerdict(
        step.name, step.recipe, "false" if outcome == "false" else "unchecked", detail
    )


Wrong = tuple[str, str] | None


def _equal(both: _Both) -> Wrong:
    for start in range(0, both.base.info.elements, PIECE):
        ours, theirs = (
            both.elements(one, start, PIECE) for one in (both.parts["weight"], both.base)
        )
        differing = np.flatnonzero(ours.view(np.uint8) != theirs.view(np.uint8))
        if len(differing):
            at = start + int(differing[0]) * len(ours) // len(ours.view(np.uint8))
            return "false", f"{_place(both.base.info, at)} is not the base's"
    return None


def _cast(both: _Both) -> Wrong:
    dtype = both.parts["weight"].info.dtype
    for start in range(0, both.base.info.elements, PIECE):
        ours, theirs = (
            both.elements(both.parts["weight"], start, PIECE),
            both.elements(both.base, start, PIECE),
        )
        differing = np.flatnonzero(ours != cast(theirs, dtype))
        if len(differing):
            return (
                "false",
                f"{_place(both.base.info, start + int(differing[0]))} is not the base's, rounded "
                f"to {dtype}",
            )
    return None


def _place(info: TensorInfo, at: int) -> str:
    return (
        "the element "
        f"{[int(one) for one in np.unravel_index(at, info.shape)] if info.shape else []}"
    )


def _further(values: Floats, codes: NDArray[Any], table: Floats, slack: float) -> NDArray[np.intp]:
    """Where a code is not a nearest one of the table's."""
    ordered = np.sort(table)
    right = np.clip(np.searchsorted(ordered, values), 1, len(ordered) - 1)
    best = np.minimum(np.abs(values - ordered[right - 1]), np.abs(values - ordered[right]))
    return np.flatnonzero(np.abs(values - table[codes]) > best + slack)


def _four_bits(table: Floats) -> Callable[[_Both], Wrong]:
    """bitsandbytes' Linear4bit: blocks scaled by their largest number, codes of 4 bits, the scales
    maybe quantised too.
    """

    def check(both: _Both) -> Wrong:
        info = both.base.info
        state = loads(both.whole("state").astype(np.uint8).tobytes())
        block = state["blocksize"]
        if (
            type(block) is not int
            or not 16 <= block <= 4096
            or block & (block - 1)
            or state["shape"] != list(info.shape)
        ):
            return "false", "its quant_state speaks of another shape or of odd blocks"
        if state["dtype"] not in ("float16", "bfloat16", "float32"):
            return "false", f"its quant_state speaks of {state['dtype']}"
        if not np.allclose(both.whole("quant_map"), table, atol=1e-6):
            return "false", "its quant_map is not that of its type"
        if both.parts["weight"].info.elements != (info.elements + 1) // 2:
            return "false", "it holds another number of codes than the base has numbers"
        scales = _Nested(both, state) if "nested_absmax" in both.parts else None
        stride = block * 256 * max(1, PIECE // (block * 256))
        for start in range(0, info.elements, stride):
            values = cast(both.elements(both.base, start, stride), state["dtype"])
            packed = both.elements(both.parts["weight"], start // 2, (len(values) + 1) // 2)
            codes = np.stack([packed >> 4, packed & 15], 1).reshape(-1)[: len(values)]
            blocks = np.zeros(-(-len(values) // block) * block, np.float32)
            blocks[: len(values)] = values
            largest = np.abs(blocks.reshape(-1, block)).max(1)
            scaled = blocks.reshape(-1, block) / np.where(largest == 0, 1, largest)[:, None]
            far = _further(scaled.reshape(-1)[: len(values)], codes, table, TIE)
            if len(far):
                return "false", f"{_place(info, start + int(far[0]))} has not the nearest code"
            first = start // block
            if scales is not None:
                if (wrong := scales.take(first, largest)) is not None:
                    return wrong
            else:
                kept = both.elements(both.parts["absmax"], first, len(largest))
                off = np.flatnonzero(np.abs(kept - largest) > 1e-6 * largest)
                if len(off):
                    return (
                        "false",
                        f"the scale of block {first + int(off[0])} is not its largest number",
                    )
        return scales.end() if scales is not None else None

    return check


class _Nested:
    """Scales quantised to 8 bits in blocks of their own, less their mean (double quantisation)."""

    def __init__(self, both: _Both, state: Mapping[str, Any]) -> None:
        self.both, self.block = both, state["nested_blocksize"]
        self.offset = np.float32(state["nested_offset"])
        self.total, self.count = 0.0, 0
        if self.block != 256:
            raise ValueError("nested blocks of another size than 256")
        self.map = dynamic_map()
        if not np.allclose(both.whole("nested_quant_map"), self.map, atol=1e-6):
            raise ValueError("nested_quant_map is not the dynamic type's")

    def take(self, first: int, largest: Floats) -> Wrong:
        self.total += float(largest.astype(np.float64).sum())
        self.count += len(largest)
        codes = self.both.elements(self.both.parts["absmax"], first, len(largest))
        rest = largest - self.offset
        whole = np.zeros(-(-len(rest) // 256) * 256, np.float32)
        whole[: len(rest)] = rest
        tops = np.abs(whole.reshape(-1, 256)).max(1)
        kept = self.both.elements(self.both.parts["nested_absmax"], first // 256, len(tops))
        slack = 1e-5 * (np.abs(largest).max() + abs(self.offset))
        if len(off := np.flatnonzero(np.abs(kept - tops) > slack)):
            return (
                "false",
                f"the scale of scales {first // 256 + int(off[0])} is not its largest number",
            )
        scaled = (whole.reshape(-1, 256) / np.where(kept == 0, 1, kept)[:, None]).reshape(-1)[
            : len(rest)
        ]
        if len(far := _further(scaled, codes, self.map, 1e-4)):
            return "false", f"the scale of block {first + int(far[0])} has not the nearest code"
        return None

    def end(self) -> Wrong:
        mean = self.total / max(self.count, 1)
        return (
            None
            if abs(mean - float(self.offset)) <= 1e-4 * abs(mean)
            else ("false", "nested_offset is not the scales' mean")
        )


def _eight_bits(both: _Both) -> Wrong:
    """bitsandbytes' Linear8bitLt: each row of the weight in half precision, scaled by its largest
    number to 127.
    """
    rows, width = both.base.info.shape
    if width > MAX_WIDTH:
        return "unchecked", "its rows are too long"
    scales = both.whole("scale")
    if len(scales) != rows:
        return "false", "it has another number of scales than rows"
    if "format" in both.parts and both.whole("format").any():
        return "unchecked", "it is laid out for one kind of device"
    step = max(1, PIECE // width)
    for first in range(0, rows, step):
        values = cast(both.elements(both.base, first * width, step * width), "F16").reshape(
            -1, width
        )
        codes = (
            both.elements(both.parts["weight"], first * width, step * width)
            .reshape(-1, width)
            .astype(np.float32)
        )
        largest, kept = np.abs(values).max(1), scales[first : first + step]
        if len(off := np.flatnonzero(np.abs(kept - largest) > 1e-6 * largest)):
            return "false", f"the scale of row {first + int(off[0])} is not its largest number"
        exact = values * (127 / np.where(largest == 0, 1, largest))[:, None]
        if len(far := np.flatnonzero(np.abs(codes - exact) > 0.5 + 1e-3)):
            return (
                "false",
                f"{_place(both.base.info, first * width + int(far[0]))} has not the nearest code",
            )
    return None


class _Grid:
    """Scales of any grid over a matrix: one for all, one a row, one a group of columns, one a
    block.
    """

    def __init__(self, both: _Both) -> None:
        self.rows, self.width = both.base.info.shape
        kept, info = both.whole("scale").astype(np.float32), both.parts["scale"].info
        shape = (
            info.shape
            if len(info.shape) == 2
            else (len(kept), 1)
            if len(kept) == self.rows
            else (1, 1)
        )
        self.table = kept.reshape(shape)
        self.tall, self.wide = -(-self.rows // shape[0]), -(-self.width // shape[1])
        if info.name.endswith("_inv") and 1 not in shape:
            self.tall = self.wide = 128  # the last block of a row or a column may be smaller
        if (-(-self.rows // self.tall), -(-self.width // self.wide)) != tuple(shape):
            raise ValueError(
                "its scales are no grid over the matrix"
            )  # a finer one would be spread over all memory
        self.tops = np.zeros_like(self.table)

    def spread(self, first: int, last: int) -> Floats:
        """The scale of every number in some rows."""
        return np.repeat(self.table[np.arange(first, last) // self.tall], self.wide, 1)[
            :, : self.width
        ]

    def take(self, first: int, values: Floats) -> None:
        """Remember the largest number under each scale."""
        whole = np.zeros((len(values), self.table.shape[1] * self.wide), np.float32)
        whole[:, : self.width] = np.abs(values)
        largest = whole.reshape(len(values), -1, self.wide).max(2)
        np.maximum.at(self.tops, np.arange(first, first + len(values)) // self.tall, largest)


def _scaled(
    reach: float,
    off: Callable[[Floats, Floats], NDArray[np.bool_]],
    codes_of: Callable[[_Both, int, int, int], Floats],
) -> Callable[[_Both], Wrong]:
    """Round-to-nearest with a symmetric scale: `reach` is the number the largest of a group is
    scaled to.

    A calibrated method may choose other codes and scales: then it is not verified, and false only
    where the numbers are far from the base's.
    """

    def check(both: _Both) -> Wrong:
        if len(both.base.info.shape) != 2 or both.base.info.shape[1] > MAX_WIDTH:
            return "unchecked", "it is no matrix, or its rows are too long"
        if both.parts["scale"].info.elements > MAX_GRID:
            return "unchecked", "it has too many scales to be held at once"
        rows, width = both.base.info.shape
        grid = _Grid(both)
        wrong: Wrong = None
        error = total = 0.0
        step = max(1, PIECE // width)
        for first in range(0, rows, step):
            values = (
                both.elements(both.base, first * width, step * width)
                .reshape(-1, width)
                .astype(np.float32)
            )
            scales = grid.spread(first, first + len(values))
            codes = codes_of(both, first, len(values), width)
            grid.take(first, values)
            ideal = np.clip(values / np.where(scales == 0, 1, scales), -reach, reach)
            error += float(((codes * scales - values).astype(np.float64) ** 2).sum())
            total += float((values.astype(np.float64) ** 2).sum())
            if wrong is None and len(far := np.flatnonzero(off(codes, ideal))):
                wrong = (
                    "unchecked",
                    f"{_place(both.base.info, first * width + int(far[0]))} has not the nearest "
                    "code",
                )
        if not error <= FAR**2 * total:
            return (
                "false",
                "its numbers are far from the base's (relative error "
                f"{np.sqrt(error / max(total, 1e-30)):.2f})",
            )
        if (
            wrong is None
            and (
                (np.abs(grid.table * reach - grid.tops) > COARSE * grid.tops) & (grid.tops > 0)
            ).any()
        ):
            wrong = "unchecked", "a scale is not that of the largest number"
        return wrong

    return check


def _stored(both: _Both, first: int, rows: int, width: int) -> Floats:
    return (
        both.elements(both.parts["weight"], first * width, rows * width)
        .reshape(rows, width)
        .astype(np.float32)
    )


def _unpacked(both: _Both, first: int, rows: int, width: int) -> Floats:
    """Eight 4-bit codes in each 32-bit word, the lowest bits first, kept 8 above their value
    (compressed-tensors).
    """
    words = -(-width // 8)
    if both.parts["weight"].info.shape != (both.base.info.shape[0], words):
        raise ValueError("it holds another number of words than the matrix needs")
    packed = (
        both.elements(both.parts["weight"], first * words, rows * words)
        .view(np.uint32)
        .reshape(rows, words, 1)
    )
    return ((packed >> np.arange(0, 32, 4, dtype=np.uint32) & 15).astype(np.float32) - 8).reshape(
        rows, -1
    )[:, :width]


def _off_integer(codes: Floats, ideal: Floats) -> NDArray[np.bool_]:
    return np.asarray(np.abs(codes - ideal) > 0.5 + np.abs(ideal) * COARSE)


def _off_e4m3(codes: Floats, ideal: Floats) -> NDArray[np.bool_]:
    ordered = np.sort(E4M3[np.isfinite(E4M3)])
    right = np.clip(np.searchsorted(ordered, ideal), 1, len(ordered) - 1)
    best = np.minimum(np.abs(ideal - ordered[right - 1]), np.abs(ideal - ordered[right]))
    return np.asarray(np.abs(codes - ideal) > best + np.abs(ideal) * COARSE)


RECIPES: dict[str, Callable[[_Both], Wrong]] = {
    "equal": _equal,
    "cast": _cast,
    "bitsandbytes-nf4": _four_bits(NF4),
    "bitsandbytes-fp4": _four_bits(FP4),
    "bitsandbytes-int8": _eight_bits,
    "fp8": _scaled(448.0, _off_e4m3, _stored),
    "int8": _scaled(127.5, _off_integer, _stored),
    "packed-int4": _scaled(7.5, _off_integer, _unpacked),
}
