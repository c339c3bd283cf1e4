"""Tensors: how their bytes are read and weighed, and the tensor root.

The tensor root is one identity for weights, however they are sharded and named.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from registry.documents import canonical
from registry.errors import Invalid, NotFound, Unverified
from registry.proof.merkle import Frontier

CHUNK = 4 << 20
"""Bytes read at once."""
DTYPES = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E5M2": 1,
    "F8_E4M3": 1,
    "U16": 2,
    "I16": 2,
    "F16": 2,
    "BF16": 2,
    "U32": 4,
    "I32": 4,
    "F32": 4,
    "U64": 8,
    "I64": 8,
    "F64": 8,
}
"""Bytes of one element. Types of less than a byte are left out until something we serve needs them.
"""

Read = Callable[[str, int, int], bytes]
"""`read(sha256_hex, start, length)` returns at most `length` bytes of a blob.

It returns fewer only at the blob's end, and none past it. It raises NotFound (or KeyError,
FileNotFoundError) for a digest it does not hold.
"""


@dataclass(frozen=True, slots=True)
class File:
    """One file as declared: path in the bundle, hex SHA-256 and size in bytes."""

    path: str
    sha256: str
    size: int


class TensorInfo(NamedTuple):
    """One tensor; `start` and `end` are byte offsets in its file, not in the data section."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


def _read(file: File, read: Read, start: int, length: int) -> bytes:
    try:
        return read(file.sha256, start, length)
    except (NotFound, KeyError, FileNotFoundError):
        raise Unverified(
            "bytes-missing",
            f"the store holds no bytes with the digest sha256:{file.sha256}",
        ) from None


def fetch(file: File, read: Read, start: int, length: int) -> bytes:
    """Exactly these bytes of a file.

    Raises Unverified: `bytes-missing` when there is no such blob, `bytes-short` when it ends early.
    """
    data = _read(file, read, start, length)
    if len(data) != length:
        raise Unverified(
            "bytes-short",
            f"{length} bytes were expected at byte {start}, but only {len(data)} are there",
        )
    return data


def check_extent(file: File, read: Read) -> None:
    """Raise Unverified unless the store holds exactly as many bytes as declared."""
    start = max(file.size - 1, 0)
    size = start + len(_read(file, read, start, 2))
    if size != file.size:
        kind, amount = ("bytes-more", "more") if size > file.size else ("bytes-short", "fewer")
        raise Unverified(
            kind,
            f"{file.size} bytes are declared, but the store holds {amount}",
            "Declare the file's true size.",
        )


def chunks(file: File, read: Read, start: int, end: int) -> Iterator[bytes]:
    """The bytes from `start` to `end`, in pieces that fit in memory."""
    for at in range(start, end, CHUNK):
        yield fetch(file, read, at, min(CHUNK, end - at))


@dataclass(frozen=True, slots=True)
class Weighed:
    """The result of one pass over a file's bytes.

    It holds the file's hex SHA-256, that of each tensor by name, the names of the tensors that hold
    NaN or infinity, the names of those in which every number is zero, and the largest magnitude in
    each other tensor of floats (those of eight bits hold nothing large, and are left out).
    """

    sha256: str
    leaves: dict[str, str]
    nonfinite: tuple[str, ...] = ()
    zero: frozenset[str] = frozenset()
    largest: dict[str, float] = field(default_factory=dict)


Weigh = Callable[[File, Sequence[TensorInfo]], Weighed]
"""`weigh(file, tensors)` weighs a file whose header is sound.

Its tensors then cover every byte after the header.
"""


def weigh_plain(read: Read) -> Weigh:
    """Weigh on one thread: the default, and what tests compare the fast weigher with."""

    def weigh(file: File, tensors: Sequence[TensorInfo]) -> Weighed:
        whole, leaves, largest = hashlib.sha256(), {}, {}
        ordered = sorted(tensors, key=lambda info: info.start)
        for piece in chunks(file, read, 0, ordered[0].start if ordered else file.size):
            whole.update(piece)
        for info in ordered:
            content, bits = hashlib.sha256(), 0
            for piece in chunks(file, read, info.start, info.end):
                whole.update(piece)
                content.update(piece)
                bits = max(bits, largest_bits(info.dtype, piece))
            leaves[info.name], largest[info.name] = content.hexdigest(), bits
        return weighed(whole.hexdigest(), leaves, ordered, largest)

    return weigh


def weighed(
    sha256: str,
    leaves: dict[str, str],
    tensors: Sequence[TensorInfo],
    largest: Mapping[str, int],
) -> Weighed:
    """What the digests and the `largest_bits` of each tensor say of a file."""
    return Weighed(
        sha256,
        leaves,
        tuple(
            info.name
            for info in tensors
            if info.dtype in INFINITE and largest[info.name] >= INFINITE[info.dtype]
        ),
        frozenset(info.name for info in tensors if largest[info.name] == 0),
        {
            info.name: _magnitude(info.dtype, largest[info.name])
            for info in tensors
            if info.dtype in LARGE and 0 < largest[info.name] < INFINITE[info.dtype]
        },
    )


INFINITE = {
    "F64": 0x7FF0 << 48,
    "F32": 0x7F80 << 16,
    "BF16": 0x7F80,
    "F16": 0x7C00,
    "F8_E5M2": 0x7C,
    "F8_E4M3": 0x7F,
}
"""The bits, without the sign, from which on a float is infinite or NaN.

Of two finite floats without their signs, the larger has the larger bits. See IEEE 754; E4M3 has no
infinity, and a single NaN.
"""
LARGE = {"F64": ("<d", 0), "F32": ("<f", 0), "BF16": ("<f", 16), "F16": ("<e", 0)}
"""The types that hold large numbers: how `struct` reads their bits, shifted by so many."""
BLOCK = 128 << 10
"""Bytes searched at once: they, and what is computed from them, fit in a core's own cache."""


def largest_bits(dtype: str, data: bytes) -> int:
    """The largest of these complete little-endian elements: its bits, without the sign of a float.

    This one number decides whether all are zero, and whether one is NaN or infinite.
    """
    size = DTYPES[dtype]
    elements = np.frombuffer(data, f"<u{size}")
    step = BLOCK // size
    if dtype not in INFINITE:
        return int(elements.max(initial=0))
    mask = elements.dtype.type((1 << (8 * size - 1)) - 1)
    bits = np.empty(min(step, len(elements)), elements.dtype)
    largest = 0
    for offset in range(0, len(elements), step):
        block = elements[offset : offset + step]
        largest = max(largest, int(np.bitwise_and(block, mask, out=bits[: len(block)]).max()))
    return largest


def _magnitude(dtype: str, bits: int) -> float:
    code, shift = LARGE[dtype]
    number: float = struct.unpack(code, (bits << shift).to_bytes(struct.calcsize(code), "little"))[
        0
    ]
    return number


def tensor_root(shards: Sequence[tuple[Sequence[TensorInfo], Weighed]]) -> str:
    """`sha256:<hex>`: the RFC 6962 root over canonical {name, dtype, shape, sha256 of the bytes}.

    The entries are sorted by name. File names, shard borders, order and metadata do not count, so
    the same weights saved differently keep one identity. Raises Invalid (`duplicate-tensor`) when
    two shards hold a tensor with the same name.
    """
    named = sorted(
        ((info.name, info, weighed) for tensors, weighed in shards for info in tensors),
        key=lambda row: row[0],
    )
    if duplicates := repeated(name for name, _, _ in named):
        raise Invalid(
            "duplicate-tensor",
            f"The tensor {duplicates[0]} occurs more than once.",
        )
    root = Frontier()
    for name, info, weighed in named:
        leaf = {
            "name": name,
            "dtype": info.dtype,
            "shape": list(info.shape),
            "sha256": weighed.leaves[name],
        }
        root.add(canonical.encode(leaf))
    return root.text()


def repeated(names: Iterator[str]) -> list[str]:
    """The names that occur more than once, sorted."""
    return sorted(name for name, count in Counter(names).items() if count > 1)
