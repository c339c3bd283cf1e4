"""Tensors: how their bytes are read and weighed, and the tensor root.

The tensor root is one identity for weights, however they are sharded and named.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

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
    NaN or infinity, and the names of those in which every number is zero.
    """

    sha256: str
    leaves: dict[str, str]
    nonfinite: tuple[str, ...]
    zero: frozenset[str] = frozenset()


Weigh = Callable[[File, Sequence[TensorInfo]], Weighed]
"""`weigh(file, tensors)` weighs a file whose header is sound.

Its tensors then cover every byte after the header.
"""


def weigh_plain(read: Read) -> Weigh:
    """Weigh on one thread: the default, and what tests compare the fast weigher with."""

    def weigh(file: File, tensors: Sequence[TensorInfo]) -> Weighed:
        whole, leaves, nonfinite, zero = hashlib.sha256(), {}, [], set()
        ordered = sorted(tensors, key=lambda info: info.start)
        for piece in chunks(file, read, 0, ordered[0].start if ordered else file.size):
            whole.update(piece)
        for info in ordered:
            content, finite, is_zero = hashlib.sha256(), True, True
            for piece in chunks(file, read, info.start, info.end):
                whole.update(piece)
                content.update(piece)
                finite = finite and not holds_nonfinite(info.dtype, piece)
                is_zero = is_zero and holds_only_zeros(info.dtype, piece)
            leaves[info.name] = content.hexdigest()
            if not finite:
                nonfinite.append(info.name)
            if is_zero:
                zero.add(info.name)
        return Weighed(whole.hexdigest(), leaves, tuple(nonfinite), frozenset(zero))

    return weigh


EXPONENTS = {"F64": (8, 0x7FF0), "F32": (4, 0x7F80), "BF16": (2, 0x7F80), "F16": (2, 0x7C00)}
"""Bytes of one element, and the bits of its two highest bytes that NaN and the infinities set.

See IEEE 754.
"""


def holds_nonfinite(dtype: str, data: bytes) -> bool:
    """Whether one of these complete little-endian elements is NaN or infinite.

    Integers never are.
    """
    if dtype == "F8_E4M3":
        return b"\x7f" in data or b"\xff" in data
    if dtype == "F8_E5M2":
        return any(byte & 0x7C == 0x7C for byte in set(data))
    if dtype not in EXPONENTS:
        return False
    size, mask = EXPONENTS[dtype]
    high, low = mask >> 8, mask & 0xFF
    # Look at whole columns of bytes at once: a byte is 1 where all bits of its half of the exponent
    # are set.
    full = [
        data[size - 1 :: size].translate(_full(high)),
        data[size - 2 :: size].translate(_full(low)),
    ]
    return bool(int.from_bytes(full[0], "little") & int.from_bytes(full[1], "little"))


SIGNED = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E5M2": 1, "F8_E4M3": 1}
"""Bytes of one element of the types that have a negative zero, whose highest bit alone is set."""


def holds_only_zeros(dtype: str, data: bytes) -> bool:
    """Whether every one of these complete little-endian elements is zero, negative or not."""
    size = SIGNED.get(dtype)
    zeros = b"\0" if size is None else b"\0\x80"
    # The beginning decides for nearly every trained tensor, and is all that is looked at then.
    if data[:1024].strip(zeros):
        return False
    if data == bytes(len(data)):
        return True
    if size is None or data.strip(zeros):
        return False
    return all(not data[place::size].strip(b"\0") for place in range(size - 1))


def _full(mask: int) -> bytes:
    return bytes(1 if byte & mask == mask else 0 for byte in range(256))


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
