"""Safetensors headers read strictly, and the tensor root: one identity for weights, however sharded
or named.

The safetensors library accepts, silently, a tensor named twice (the last wins, so a reviewer's tool
and the loader may see different weights), unknown fields, 300,000 empty tensors and names like
`../../etc/passwd`. All that is refused.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

from registry.artifacts.defects import Defects
from registry.documents import canonical
from registry.documents.strict_json import Allowance, loads
from registry.errors import Defect, Invalid, NotFound, Unverified
from registry.proof.merkle import Frontier

MAX_HEADER = 4 << 20
HEADER_COST = 3  # bytes of texts that a byte of a header counts for
MAX_TENSORS = 20_000
MAX_METADATA = 64 << 10
MAX_HEADER_VALUES = 700_000
"""As documents.Allowance counts them; 20,000 tensors of eight dimensions have 460,000."""
MAX_RANK = 8
MAX_DIMENSION = 2**40
CHUNK = 4 << 20
MAX_PARTS = 24
"""Parts of a name between its dots: half as many again as the deepest name we know of has."""
NAME = re.compile(r"[A-Za-z0-9_.-]{1,512}")
ENTRY = re.compile(
    r'"([A-Za-z0-9_.-]{1,512})":\{"dtype":"([A-Z0-9_]+)","shape":\[((?:[1-9][0-9]{0,12}(?:,[1-9][0-9]{0,12}){0,7})?)\],'
    r'"data_offsets":\[(0|[1-9][0-9]{0,18}),(0|[1-9][0-9]{0,18})\]\}([,}])'
)
FIXED = len('"":{"dtype":"","shape":[],"data_offsets":[,]},')
"""One tensor as the safetensors library writes it, and how many characters of it stand outside of
the groups.
"""
METADATA = '{"__metadata__":'


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key stands twice")
    return table


ONCE = json.JSONDecoder(object_pairs_hook=_once)
FIELDS = {"dtype", "shape", "data_offsets"}
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
"""Bytes an element. Types of less than a byte are left out until something we serve needs them."""

Read = Callable[[str, int, int], bytes]
"""`read(sha256_hex, start, length)`: at most `length` bytes of that blob, fewer only at its end,
none past it.

It raises NotFound (or KeyError, FileNotFoundError) for a digest it does not hold.
"""


@dataclass(frozen=True, slots=True)
class File:
    """One file as declared: its path in the bundle, the hex SHA-256 of its bytes, its size in
    bytes.
    """

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
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Header:
    """What one safetensors file declares; `tensors` is to be believed only when there is no
    defect.
    """

    tensors: tuple[TensorInfo, ...]
    defects: Defects


def _ask(file: File, read: Read, start: int, length: int) -> bytes:
    try:
        return read(file.sha256, start, length)
    except (NotFound, KeyError, FileNotFoundError):
        raise Unverified(
            "bytes-missing",
            f"the store holds no bytes with the digest sha256:{file.sha256}",
        ) from None


def fetch(file: File, read: Read, start: int, length: int) -> bytes:
    """Exactly these bytes of a file, or Unverified: `bytes-missing` (no such blob), `bytes-short`
    (it ends early).
    """
    data = _ask(file, read, start, length)
    if len(data) != length:
        raise Unverified(
            "bytes-short",
            f"{length} bytes were expected at byte {start}, but only {len(data)} are there",
        )
    return data


def check_extent(file: File, read: Read) -> None:
    """Raise Unverified unless the store holds these bytes, no fewer and no more than declared."""
    start = max(file.size - 1, 0)
    found = start + len(_ask(file, read, start, 2))
    if found != file.size:
        rule, words = ("bytes-more", "more") if found > file.size else ("bytes-short", "fewer")
        raise Unverified(
            rule,
            f"{file.size} bytes are declared, but the store holds {words}",
            "Declare the file's true size.",
        )


def chunks(file: File, read: Read, start: int, end: int) -> Iterator[bytes]:
    """The bytes from `start` to `end`, in pieces that fit in memory."""
    for at in range(start, end, CHUNK):
        yield fetch(file, read, at, min(CHUNK, end - at))


def parse_header(file: File, read: Read, allowance: Allowance | None = None) -> Header:
    """Read one file's header and say everything that is wrong with it; Unverified when its bytes
    are not there.
    """
    defects = Defects()

    def wrong(
        where: str, rule: str, detail: str, fix: str = "Write the file again with safetensors."
    ) -> None:
        defects.append(Defect(file.path, where, rule, detail, fix))

    allowance = allowance or Allowance(MAX_HEADER_VALUES)
    try:
        data = _header_bytes(file, read, allowance, wrong)
        if data is None:
            return Header((), defects)
        allowance.spend(data, MAX_HEADER_VALUES)
    except Invalid as error:
        wrong("header", "header-json", error.detail)
        return Header((), defects)
    sound = _sound(data, file.size)
    tensors = sound if sound is not None else _examined(data, file.size, wrong)
    return Header(tensors, defects)


Wrong = Callable[..., None]


def _header_bytes(file: File, read: Read, allowance: Allowance, wrong: Wrong) -> bytes | None:
    if file.size < 10:
        wrong("header", "too-short", f"{file.size} bytes cannot hold a safetensors header")
        return None
    length = int.from_bytes(fetch(file, read, 0, 8), "little")
    if length > MAX_HEADER:
        wrong(
            "header",
            "header-too-large",
            f"the header claims {length} bytes, at most {MAX_HEADER} are accepted",
        )
        return None
    if 8 + length > file.size:
        wrong(
            "header",
            "header-truncated",
            f"the header claims {length} bytes, the file has {file.size} in all",
        )
        return None
    allowance.take(HEADER_COST * length)
    data = fetch(file, read, 8, length)
    if not data.startswith(b"{"):
        wrong("header", "header-start", f"the header starts with {data[:1]!r}, not with '{{'")
        return None
    # Seen before they are parsed; metadata may hold the word, too, but no more often than it has
    # room for it.
    if data.count(b'"data_offsets"') > MAX_TENSORS + MAX_METADATA // len('"data_offsets"'):
        _too_many(f"more than {MAX_TENSORS}", wrong)
        return None
    return data


def _too_many(count: str, wrong: Wrong) -> None:
    wrong(
        "header",
        "too-many-tensors",
        f"{count} tensors are named, at most {MAX_TENSORS} are accepted",
        "Split the weights over several files.",
    )


def _sound(data: bytes, size: int) -> tuple[TensorInfo, ...] | None:
    """The tensors of a header written as the safetensors library writes it, with nothing wrong;
    None for any doubt.

    One pass over the text makes no objects but the answer: 448 tensors in a millisecond. Doubts are
    `_examined`, which takes every form of JSON, names what is wrong, and finds the same tensors
    where nothing is.
    """
    try:
        text = data.decode("utf-8").rstrip(" ")
        start = 1
        if text.startswith(METADATA):
            if "\\" in text:
                return None
            metadata, start = ONCE.raw_decode(text, len(METADATA))
            if _metadata_fault(metadata) or text[start] != ",":
                return None
            start += 1
        found = ENTRY.findall(text, start)
    except (ValueError, IndexError, RecursionError):
        return None
    origin, at, last = 8 + len(data), 0, "0"
    shapes: dict[tuple[str, str], tuple[tuple[int, ...], int]] = {}
    tensors, length = [], start
    for name, dtype, written, begin, end, _ in found:
        if (known := shapes.get((dtype, written))) is None:
            shape = tuple(map(int, written.split(","))) if written else ()
            if dtype not in DTYPES or max(shape, default=1) > MAX_DIMENSION:
                return None
            known = shapes[dtype, written] = shape, math.prod(shape) * DTYPES[dtype]
        shape, wanted = known
        before, at = at, at + wanted
        if begin != last or end != str(at) or name.count(".") >= MAX_PARTS:
            return None
        last = end
        length += FIXED + len(name) + len(dtype) + len(written) + len(begin) + len(end)
        tensors.append(
            tuple.__new__(TensorInfo, (name, dtype, shape, origin + before, origin + at))
        )
    # Nothing stood between the entries, before them or after them, and each name stands once.
    if not 0 < len(found) <= MAX_TENSORS or length != len(text) or origin + at != size:
        return None
    marks = [entry[-1] for entry in found]
    if (
        marks[-1] != "}"
        or marks.count("}") != 1
        or len({info.name for info in tensors}) < len(found)
    ):
        return None
    return tuple(tensors)


def _examined(data: bytes, size: int, wrong: Wrong) -> tuple[TensorInfo, ...]:
    """The same with a name for each fault; the tensors are of use only when there is none."""
    try:
        table = loads(data, depth=4, values=MAX_HEADER_VALUES, halves=False)
    except Invalid as error:
        wrong("header", "header-json", error.detail)
        return ()
    if not isinstance(table, dict):
        wrong("header", "header-json", "the header is no JSON object")
        return ()
    if fault := _metadata_fault(table.pop("__metadata__", {})):
        wrong("__metadata__", *fault)
    if not table:
        wrong(
            "header",
            "no-tensors",
            "the file holds no tensor at all",
            "Add the file that holds the weights.",
        )
    if len(table) > MAX_TENSORS:
        _too_many(str(len(table)), wrong)
        return ()
    origin = 8 + len(data)
    tensors = [
        info for name, entry in table.items() if (info := _tensor(name, entry, origin, wrong))
    ]
    if len(tensors) == len(table):  # with an entry unread, every gap it leaves would be told twice
        _check_coverage(sorted(tensors, key=lambda t: t.start), origin, size, wrong)
    return tuple(tensors)


def _metadata_fault(metadata: Any) -> tuple[str, ...]:
    if not isinstance(metadata, dict) or not all(
        isinstance(value, str) for value in metadata.values()
    ):
        return "metadata", "it must be an object of texts"
    if sum(len(key) + len(value) for key, value in metadata.items()) > MAX_METADATA:
        return (
            "metadata-too-large",
            f"it holds more than {MAX_METADATA} characters",
            "Keep long texts in README.md.",
        )
    return ()


def _ints(value: Any, low: int, high: int) -> bool:
    # bool is an int to Python, and JSON's true is not a number
    return isinstance(value, list) and all(
        type(item) is int and low <= item <= high for item in value
    )


def _tensor(name: str, entry: Any, origin: int, wrong: Wrong) -> TensorInfo | None:
    """One entry, or None when its place in the file cannot be known; every fault found is told."""
    where = name[:120] or "(empty name)"
    if not NAME.fullmatch(name):
        wrong(
            where,
            "tensor-name",
            f"the name {name[:80]!r} has other characters than letters, digits, '.', '_', '-'",
            "Rename the tensor.",
        )
    elif name.count(".") >= MAX_PARTS:
        wrong(
            where, "tensor-name", f"the name has more than {MAX_PARTS} parts", "Rename the tensor."
        )
    if not isinstance(entry, dict) or set(entry) != FIELDS:
        found = sorted(entry) if isinstance(entry, dict) else type(entry).__name__
        wrong(
            where, "tensor-fields", f"exactly {sorted(FIELDS)} are wanted, found {str(found)[:200]}"
        )
        return None
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    known = isinstance(dtype, str) and dtype in DTYPES
    shaped = _ints(shape, 1, MAX_DIMENSION) and len(shape) <= MAX_RANK
    placed = _ints(offsets, 0, 2**63) and len(offsets) == 2 and offsets[0] < offsets[1]
    if not known:
        wrong(
            where,
            "tensor-dtype",
            f"the type {str(dtype)[:40]!r} is not one of {', '.join(sorted(DTYPES))}",
        )
    if not shaped:
        wrong(
            where,
            "tensor-shape",
            f"the shape {str(shape)[:80]} is no list of at most {MAX_RANK} positive integers",
        )
    if not placed:
        wrong(
            where,
            "tensor-offsets",
            f"the offsets {str(offsets)[:80]} are no pair of a begin and a later end",
        )
    if not (known and shaped and placed):
        return None
    begin, end = offsets
    if (wanted := math.prod(shape) * DTYPES[dtype]) != end - begin:
        wrong(
            where,
            "tensor-size",
            f"{dtype} of shape {shape} takes {wanted} bytes, the offsets hold {end - begin}",
        )
    return TensorInfo(name, dtype, tuple(shape), origin + begin, origin + end)


def _check_coverage(ordered: Sequence[TensorInfo], origin: int, size: int, wrong: Wrong) -> None:
    """Every byte after the header belongs to exactly one tensor: nothing hides in a gap, an overlap
    or at the end.
    """
    if not ordered:
        return
    if ordered[0].start != origin:
        wrong(
            ordered[0].name,
            "hole",
            f"{ordered[0].start - origin} bytes before the first tensor belong to none",
        )
    for before, after in pairwise(ordered):
        if after.start < before.end:
            wrong(
                after.name,
                "overlap",
                f"it shares {before.end - after.start} bytes with {before.name}",
            )
        elif after.start > before.end:
            wrong(
                after.name,
                "hole",
                f"{after.start - before.end} bytes before it belong to no tensor",
            )
    last = max(info.end for info in ordered)
    if last < size:
        wrong("end", "trailing-bytes", f"{size - last} bytes after the last tensor belong to none")
    elif last > size:
        wrong("end", "data-truncated", f"the tensors end at byte {last}, the file at byte {size}")


@dataclass(frozen=True, slots=True)
class Weighed:
    """What one pass over a file's bytes says: its hex SHA-256, that of each tensor by name, who
    holds NaN or infinity.
    """

    sha256: str
    leaves: dict[str, str]
    nonfinite: tuple[str, ...]


Weigh = Callable[[File, Sequence[TensorInfo]], Weighed]
"""`weigh(file, tensors)` for a file whose header is sound: its tensors then cover every byte after
the header.
"""


def weigh_plain(read: Read) -> Weigh:
    """Weigh piece after piece on one thread: the default, and the reference that the fast one is
    tested against.
    """

    def weigh(file: File, tensors: Sequence[TensorInfo]) -> Weighed:
        whole, leaves, nonfinite = hashlib.sha256(), {}, []
        ordered = sorted(tensors, key=lambda info: info.start)
        for piece in chunks(file, read, 0, ordered[0].start if ordered else file.size):
            whole.update(piece)
        for info in ordered:
            content, finite = hashlib.sha256(), True
            for piece in chunks(file, read, info.start, info.end):
                whole.update(piece)
                content.update(piece)
                finite = finite and not holds_nonfinite(info.dtype, piece)
            leaves[info.name] = content.hexdigest()
            if not finite:
                nonfinite.append(info.name)
        return Weighed(whole.hexdigest(), leaves, tuple(nonfinite))

    return weigh


EXPONENTS = {"F64": (8, 0x7FF0), "F32": (4, 0x7F80), "BF16": (2, 0x7F80), "F16": (2, 0x7C00)}
"""Bytes an element, and the bits of its two highest bytes that are all set in NaN and the
infinities (IEEE 754).
"""


def holds_nonfinite(dtype: str, data: bytes) -> bool:
    """Is an element of these whole little-endian elements NaN or infinite? Integers never are.

    F8_E4M3 has no infinity and one NaN of either sign (0x7f, 0xff); F8_E5M2 is as the larger types
    (Micikevicius et al., FP8 Formats for Deep Learning, arXiv 2209.05433).
    """
    if dtype == "F8_E4M3":
        return b"\x7f" in data or b"\xff" in data
    if dtype == "F8_E5M2":
        return any(byte & 0x7C == 0x7C for byte in set(data))
    if dtype not in EXPONENTS:
        return False
    size, mask = EXPONENTS[dtype]
    high, low = mask >> 8, mask & 0xFF
    # Whole columns of bytes at once: a byte of ones where both halves of the exponent are full.
    full = [
        data[size - 1 :: size].translate(_full(high)),
        data[size - 2 :: size].translate(_full(low)),
    ]
    return bool(int.from_bytes(full[0], "little") & int.from_bytes(full[1], "little"))


def _full(mask: int) -> bytes:
    return bytes(1 if byte & mask == mask else 0 for byte in range(256))


def tensor_root(shards: Sequence[tuple[Sequence[TensorInfo], Weighed]]) -> str:
    """`sha256:<hex>`: RFC 6962 root over canonical {name, dtype, shape, sha256 of the bytes},
    sorted by name.

    File names, shard borders, order and metadata do not enter, so the same weights saved
    differently keep one identity. Raises Invalid when two shards name the same tensor.
    """
    named = sorted(
        ((info.name, info, weighed) for tensors, weighed in shards for info in tensors),
        key=lambda row: row[0],
    )
    if twice := repeated(name for name, _, _ in named):
        raise Invalid(
            "duplicate-tensor",
            f"The tensor {twice[0]} stands in more than one place.",
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
