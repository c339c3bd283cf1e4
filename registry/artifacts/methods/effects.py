"""Whether an adapter changes anything: what its tensors add to its base, read from the weights.

Each method divides an adapter into parts (`Method.parts`), and says for each what would make it
idle. Zeros were counted while the weights were hashed, so most adapters are decided without another
read. Only when everything else is idle are the few tensors compared that replace some of the base.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from registry.artifacts.methods.anatomies import ends, is_tokens
from registry.artifacts.methods.loaded_names import PREFIX
from registry.artifacts.weights.tensors import File, Read, TensorInfo, fetch

MAX_COMPARED_BYTES = 1 << 30
"""Bytes of a base that are read to find out that an adapter does nothing; beyond it, it may."""
MAX_EXAMPLES = 5
BATCH = 1 << 20
"""Numbers compared at once."""
NORM_TOLERANCES = {"F32": 1e-4, "F16": 2e-3, "BF16": 1e-2}
"""How far a stored norm may be, relatively, from the base's, by the type that it is stored in."""

Floats = npt.NDArray[np.float32]
Stored = tuple[File, TensorInfo]
"""A tensor and the file that it is in."""


@dataclass(frozen=True, slots=True)
class Replaced:
    """A tensor that stands in the place of the base's, or of some rows of it."""

    name: str
    target: str
    rows: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Norms:
    """A vector that starts as the norms of the base's weight (DoRA)."""

    name: str
    target: str


@dataclass(frozen=True, slots=True)
class Ones:
    """A factor that starts at one, and then leaves what it scales as it is (IA3)."""

    name: str


@dataclass(frozen=True, slots=True)
class Part:
    """One thing that an adapter adapts.

    It is idle if all tensors of one of the groups in `zero` are zero (no group: no condition) and,
    where it is `compared` with the base, nothing differs. A part that is not `counted` is a copy
    that PEFT saves beside the adapter.
    """

    name: str
    zero: tuple[tuple[str, ...], ...] = ()
    compared: Replaced | Norms | Ones | None = None
    counted: bool = True

    def may_be_idle(self, zero: Collection[str]) -> bool:
        """Whether the zeros alone leave it possible that the part changes nothing."""
        if not self.zero:
            return self.compared is not None
        return any(all(name in zero for name in group) for group in self.zero)


def replaced(name: str, base_name: str, *, counted: bool = True) -> Part:
    """The part of a tensor that replaces a whole tensor of the base."""
    return Part(base_name, compared=Replaced(name, base_name), counted=counted)


@dataclass(frozen=True, slots=True)
class Effect:
    """How many parts an adapter has, and the names of those that change nothing."""

    parts: int
    idle: tuple[str, ...]

    @property
    def nothing(self) -> bool:
        """Whether no part changes anything."""
        return self.parts > 0 and len(self.idle) == self.parts

    def facts(self) -> dict[str, Any]:
        """The effect as a fact of a version."""
        return {
            "state": "none" if self.nothing else "weights",
            "parts": self.parts,
            "idle": len(self.idle),
            "idle_examples": list(self.idle[:MAX_EXAMPLES]),
        }

    def risks(self) -> list[str]:
        """What a reviewer should know of it."""
        if self.nothing:
            return [
                f"high: it changes nothing: all {self.parts} parts that it adapts are zero or the "
                "base's own, so it answers exactly as its base"
            ]
        if self.idle:
            return [
                f"low: {len(self.idle)} of the {self.parts} parts that it adapts are zero and "
                f"change nothing, such as {self.idle[0][:120]}"
            ]
        return []


def effect(
    parts: Sequence[Part],
    zero: Collection[str],
    own: Mapping[str, Stored],
    base: Mapping[str, Stored],
    read: Read,
) -> Effect:
    """The effect of an adapter whose tensors are `own`, those named in `zero` being all zeros.

    `base` has the tensors of the base. They are read only if every part may be idle, and at most
    up to MAX_COMPARED_BYTES.
    """
    counted = [part for part in parts if part.counted]
    idle = [part for part in parts if part.may_be_idle(zero)]
    if len(idle) == len(parts) and _all_equal(parts, own, base, read):
        return Effect(len(counted), tuple(part.name for part in counted))
    idle = [part for part in idle if part.compared is None]
    # Where everything else is idle, a copy is what changes something.
    total = len(parts) if len(idle) == len(counted) else len(counted)
    return Effect(total, tuple(part.name for part in idle))


def _all_equal(
    parts: Sequence[Part], own: Mapping[str, Stored], base: Mapping[str, Stored], read: Read
) -> bool:
    left = MAX_COMPARED_BYTES
    for part in parts:
        if part.compared is None:
            continue
        if part.compared.name not in own:
            return False
        if isinstance(part.compared, Ones):
            if not all(
                bool((values == 1).all()) for values in _floats(own[part.compared.name], read)
            ):
                return False
            continue
        target = _of_base(part.compared.target, base)
        if target is None:
            return False
        left -= target[1].end - target[1].start
        if left < 0 or not _equal(part.compared, own[part.compared.name], target, read):
            return False
    return True


def _of_base(name: str, base: Mapping[str, Stored]) -> Stored | None:
    """The tensor of the base that a loaded model has under this name.

    Files may leave out an outer name, and a tied head.
    """
    for ending in ends(name):
        if ending in base:
            return base[ending]
    outer = [full for full in base if full.endswith(f".{name}")]
    if name == "lm_head.weight" and not outer:
        outer = [full for full in base if is_tokens(full.removesuffix(".weight"))]
    return base[outer[0]] if len(outer) == 1 else None


def _equal(compared: Replaced | Norms, own: Stored, target: Stored, read: Read) -> bool:
    if not {own[1].dtype, target[1].dtype} <= READERS.keys():
        return False
    if isinstance(compared, Norms):
        return _norms_equal(own, target, read)
    if compared.rows is None:
        return own[1].elements == target[1].elements and all(
            _same(ours, theirs, own[1].dtype)
            for ours, theirs in zip(_floats(own, read), _floats(target, read), strict=True)
        )
    width = target[1].shape[-1]
    values = np.concatenate(list(_floats(own, read))).reshape(-1, width)
    return len(values) == len(compared.rows) and all(
        (row + 1) * width <= target[1].elements
        and _same(ours, _some(target, read, row * width, width), own[1].dtype)
        for ours, row in zip(values, compared.rows, strict=True)
    )


def _same(own: Floats, base: Floats, dtype: str) -> bool:
    """Whether numbers are the base's, rounded to the type in which they were stored."""
    return bool(np.array_equal(own, ROUNDED[dtype](base)))


def _norms_equal(own: Stored, target: Stored, read: Read) -> bool:
    """Whether a vector holds the norms of a matrix' rows, or of its columns."""
    vector = np.concatenate(list(_floats(own, read)))
    if len(target[1].shape) != 2:
        return False
    height, width = target[1].shape
    rows, columns = np.zeros(height, np.float64), np.zeros(width, np.float64)
    step = max(BATCH // width, 1)
    for first in range(0, height, step):
        last = min(first + step, height)
        squares = np.square(_some(target, read, first * width, (last - first) * width), dtype="f8")
        squares = squares.reshape(-1, width)
        rows[first:last] = squares.sum(1)
        columns += squares.sum(0)
    tolerance = NORM_TOLERANCES.get(own[1].dtype, 1e-4)
    return any(
        len(norms) == len(vector) and bool(np.allclose(vector, np.sqrt(norms), tolerance, 1e-9))
        for norms in (rows, columns)
    )


def _floats(stored: Stored, read: Read) -> Iterator[Floats]:
    """The numbers of a tensor, BATCH at a time."""
    count = stored[1].elements
    for first in range(0, count, BATCH):
        yield _some(stored, read, first, min(BATCH, count - first))


def _some(stored: Stored, read: Read, first: int, count: int) -> Floats:
    file, info = stored
    size = (info.end - info.start) // info.elements
    return READERS[info.dtype](fetch(file, read, info.start + first * size, count * size))


def _bfloat16(data: bytes) -> Floats:
    return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")


def _to_bfloat16(values: Floats) -> Floats:
    """Round to the nearest bfloat16, and to the even one between two."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)


READERS: dict[str, Callable[[bytes], Floats]] = {
    "F32": lambda data: np.frombuffer(data, "<f4"),
    "F16": lambda data: np.frombuffer(data, "<f2").astype("<f4"),
    "BF16": _bfloat16,
}
ROUNDED: dict[str, Callable[[Floats], Floats]] = {
    "F32": lambda values: values,
    "F16": lambda values: values.astype("<f2").astype("<f4"),
    "BF16": _to_bfloat16,
}


def others(names: Collection[str], known: Collection[str]) -> list[Part]:
    """The parts of the tensors that replace the base's own: whole modules, biases and copies."""
    parts = []
    for name in sorted(set(names) - set(known)):
        base_name = name.removeprefix(PREFIX).replace(".base_layer.", ".")
        is_copy = name.endswith(".base_layer.weight")
        parts.append(replaced(name, base_name, counted=not is_copy))
    return parts
