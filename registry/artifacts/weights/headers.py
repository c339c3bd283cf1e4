"""Safetensors headers, read strictly.

The safetensors library silently accepts a tensor that occurs twice (the last one counts, so a
reviewer's tool and the loader may see different weights), unknown fields, 300,000 empty tensors and
names like `../../etc/passwd`. All of these are refused here.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from registry.artifacts.defects import Defects
from registry.artifacts.weights.tensors import DTYPES, File, Read, TensorInfo, fetch
from registry.documents.strict_json import Allowance, loads
from registry.errors import Defect, Invalid

MAX_HEADER_BYTES = 4 << 20
HEADER_COST = 3
"""Bytes of the allowance that each byte of a header takes."""
MAX_TENSORS = 20_000
MAX_METADATA_CHARACTERS = 64 << 10
MAX_HEADER_VALUES = 700_000
"""As `strict_json.Allowance` counts them; 20,000 tensors of eight dimensions have 460,000."""
MAX_RANK = 8
MAX_DIMENSION = 2**40
MAX_NAME_PARTS = 24
"""Limit on the dotted parts of a name: 1.5 times as many as the deepest known name has."""
NAME = re.compile(r"[A-Za-z0-9_.-]{1,512}")
ENTRY = re.compile(
    r'"([A-Za-z0-9_.-]{1,512})":\{"dtype":"([A-Z0-9_]+)",'
    r'"shape":\[((?:[1-9][0-9]{0,12}(?:,[1-9][0-9]{0,12}){0,7})?)\],'
    r'"data_offsets":\[(0|[1-9][0-9]{0,18}),(0|[1-9][0-9]{0,18})\]\}([,}])'
)
"""One tensor as the safetensors library writes it."""
ENTRY_FRAME_LENGTH = len('"":{"dtype":"","shape":[],"data_offsets":[,]},')
"""How many characters of an entry are outside of the groups of ENTRY, plus its last character."""
METADATA = '{"__metadata__":'
FIELDS = {"dtype", "shape", "data_offsets"}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key occurs twice")
    return table


UNIQUE_KEYS = json.JSONDecoder(object_pairs_hook=_unique)
"""Reads JSON objects whose keys all differ."""


@dataclass(frozen=True, slots=True)
class Header:
    """What one safetensors file declares; `tensors` counts only when there is no defect."""

    tensors: tuple[TensorInfo, ...]
    defects: Defects


def parse_header(file: File, read: Read, allowance: Allowance | None = None) -> Header:
    """Read one file's header and list everything that is wrong with it.

    Raises Unverified when the file's bytes are not there.
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
    tensors = _read_quickly(data, file.size)
    if tensors is None:
        tensors = _read_thoroughly(data, file.size, wrong)
    return Header(tensors, defects)


Wrong = Callable[..., None]


def _header_bytes(file: File, read: Read, allowance: Allowance, wrong: Wrong) -> bytes | None:
    if file.size < 10:
        wrong("header", "too-short", f"{file.size} bytes cannot hold a safetensors header")
        return None
    length = int.from_bytes(fetch(file, read, 0, 8), "little")
    if length > MAX_HEADER_BYTES:
        wrong(
            "header",
            "header-too-large",
            f"the header claims {length} bytes, but at most {MAX_HEADER_BYTES} are accepted",
        )
        return None
    if 8 + length > file.size:
        wrong(
            "header",
            "header-truncated",
            f"the header claims {length} bytes, but the whole file has {file.size}",
        )
        return None
    allowance.take(HEADER_COST * length)
    data = fetch(file, read, 8, length)
    if not data.startswith(b"{"):
        wrong("header", "header-start", f"the header starts with {data[:1]!r}, not with '{{'")
        return None
    # Count the tensors before parsing. Metadata may contain the word too, but only as often as fits
    # into its limit.
    if data.count(b'"data_offsets"') > MAX_TENSORS + MAX_METADATA_CHARACTERS // len(
        '"data_offsets"'
    ):
        _too_many(f"more than {MAX_TENSORS}", wrong)
        return None
    return data


def _too_many(count: str, wrong: Wrong) -> None:
    wrong(
        "header",
        "too-many-tensors",
        f"{count} tensors are declared, but at most {MAX_TENSORS} are accepted",
        "Split the weights into several files.",
    )


def _read_quickly(data: bytes, size: int) -> tuple[TensorInfo, ...] | None:
    """The tensors of a flawless header written as the safetensors library writes it; None in doubt.

    One pass over the text creates no objects except the result: 448 tensors take a millisecond. In
    doubt, `_read_thoroughly` decides. It accepts every form of JSON, names what is wrong, and finds
    the same tensors where nothing is.
    """
    try:
        text = data.decode("utf-8").rstrip(" ")
        start = 1
        if text.startswith(METADATA):
            if "\\" in text:
                return None
            metadata, start = UNIQUE_KEYS.raw_decode(text, len(METADATA))
            if _metadata_fault(metadata) or text[start] != ",":
                return None
            start += 1
        entries = ENTRY.findall(text, start)
    except (ValueError, IndexError, RecursionError):
        return None
    origin, end_offset, last_end = 8 + len(data), 0, "0"
    shapes: dict[tuple[str, str], tuple[tuple[int, ...], int]] = {}
    tensors, length = [], start
    for name, dtype, shape_text, begin, end, _ in entries:
        if (measured := shapes.get((dtype, shape_text))) is None:
            shape = tuple(map(int, shape_text.split(","))) if shape_text else ()
            if dtype not in DTYPES or max(shape, default=1) > MAX_DIMENSION:
                return None
            measured = shapes[dtype, shape_text] = shape, math.prod(shape) * DTYPES[dtype]
        shape, byte_count = measured
        begin_offset, end_offset = end_offset, end_offset + byte_count
        if begin != last_end or end != str(end_offset) or name.count(".") >= MAX_NAME_PARTS:
            return None
        last_end = end
        length += (
            ENTRY_FRAME_LENGTH + len(name) + len(dtype) + len(shape_text) + len(begin) + len(end)
        )
        tensors.append(
            tuple.__new__(
                TensorInfo, (name, dtype, shape, origin + begin_offset, origin + end_offset)
            )
        )
    # There is nothing before, between or after the entries, and every name occurs once.
    if not 0 < len(entries) <= MAX_TENSORS or length != len(text) or origin + end_offset != size:
        return None
    marks = [entry[-1] for entry in entries]
    if (
        marks[-1] != "}"
        or marks.count("}") != 1
        or len({info.name for info in tensors}) < len(entries)
    ):
        return None
    return tuple(tensors)


def _read_thoroughly(data: bytes, size: int, wrong: Wrong) -> tuple[TensorInfo, ...]:
    """Read any header and name each fault; the tensors count only when there is none."""
    try:
        table = loads(data, depth=4, values=MAX_HEADER_VALUES, halves=False)
    except Invalid as error:
        wrong("header", "header-json", error.detail)
        return ()
    if not isinstance(table, dict):
        wrong("header", "header-json", "the header is not a JSON object")
        return ()
    if fault := _metadata_fault(table.pop("__metadata__", {})):
        wrong("__metadata__", *fault)
    if not table:
        wrong(
            "header",
            "no-tensors",
            "the file holds no tensor",
            "Add the file that holds the weights.",
        )
    if len(table) > MAX_TENSORS:
        _too_many(str(len(table)), wrong)
        return ()
    origin = 8 + len(data)
    tensors = [
        info for name, entry in table.items() if (info := _tensor(name, entry, origin, wrong))
    ]
    if len(tensors) == len(table):  # the gap that an unread entry leaves would be a second defect
        _check_coverage(sorted(tensors, key=lambda info: info.start), origin, size, wrong)
    return tuple(tensors)


def _metadata_fault(metadata: Any) -> tuple[str, ...]:
    if not isinstance(metadata, dict) or not all(
        isinstance(value, str) for value in metadata.values()
    ):
        return "metadata", "it must be an object of texts"
    if sum(len(key) + len(value) for key, value in metadata.items()) > MAX_METADATA_CHARACTERS:
        return (
            "metadata-too-large",
            f"it holds more than {MAX_METADATA_CHARACTERS} characters",
            "Keep long texts in README.md.",
        )
    return ()


def _ints(value: Any, low: int, high: int) -> bool:
    # bool is an int in Python, but true is not a number in JSON.
    return isinstance(value, list) and all(
        type(item) is int and low <= item <= high for item in value
    )


def _tensor(name: str, entry: Any, origin: int, wrong: Wrong) -> TensorInfo | None:
    """One entry, or None when its place in the file is unknown; adds a defect for every fault."""
    where = name[:120] or "(empty name)"
    if not NAME.fullmatch(name):
        wrong(
            where,
            "tensor-name",
            f"the name {name[:80]!r} has characters other than letters, digits, '.', '_' and '-'",
            "Rename the tensor.",
        )
    elif name.count(".") >= MAX_NAME_PARTS:
        wrong(
            where,
            "tensor-name",
            f"the name has more than {MAX_NAME_PARTS} parts",
            "Rename the tensor.",
        )
    if not isinstance(entry, dict) or set(entry) != FIELDS:
        received = sorted(entry) if isinstance(entry, dict) else type(entry).__name__
        wrong(
            where,
            "tensor-fields",
            f"expected exactly {sorted(FIELDS)}, received {str(received)[:200]}",
        )
        return None
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    known = isinstance(dtype, str) and dtype in DTYPES
    shaped = _ints(shape, 1, MAX_DIMENSION) and len(shape) <= MAX_RANK
    placed = _ints(offsets, 0, 2**63) and len(offsets) == 2 and offsets[0] < offsets[1]
    if known and _ints(shape, 0, MAX_DIMENSION) and 0 in shape:
        wrong(
            where,
            "tensor-empty",
            f"it has the shape {str(shape)[:80]}, so it holds no number. DeepSpeed ZeRO-3 saves "
            "such tensors when the parts of a parameter are not gathered",
            "Save it again with stage3_gather_16bit_weights_on_model_save set to true, or gather "
            "the checkpoint with its zero_to_fp32.py.",
        )
        return None
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
            f"the shape {str(shape)[:80]} is not a list of at most {MAX_RANK} positive integers",
        )
    if not placed:
        wrong(
            where,
            "tensor-offsets",
            f"the offsets {str(offsets)[:80]} are not a start and a later end",
        )
    if not (known and shaped and placed):
        return None
    begin, end = offsets
    if (expected := math.prod(shape) * DTYPES[dtype]) != end - begin:
        wrong(
            where,
            "tensor-size",
            f"{dtype} of shape {shape} takes {expected} bytes, but the offsets span {end - begin}",
        )
    return TensorInfo(name, dtype, tuple(shape), origin + begin, origin + end)


def _check_coverage(ordered: Sequence[TensorInfo], origin: int, size: int, wrong: Wrong) -> None:
    """Check that every byte after the header belongs to exactly one tensor.

    Nothing can hide in a gap, in an overlap or at the end.
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
        wrong(
            "end",
            "data-truncated",
            f"the tensors end at byte {last}, but the file ends at byte {size}",
        )
