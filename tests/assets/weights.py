"""Bad safetensors files: the 34 of the research, and more. Beside each, what the safetensors
library itself says.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
from typing import Any, Literal

from tests.assets.cases import WEIGHTS, Case, entry, packed, sound

EIGHT = bytes(8)
A = '"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
GOOD = f"{{{A}}}".encode()


def raw(text: str | bytes, data: bytes = EIGHT) -> bytes:
    return packed(None, data, raw=text.encode() if isinstance(text, str) else text)


def one(data: bytes = EIGHT, name: str = "a", **other: Any) -> bytes:
    return packed({name: entry(**other)}, data)


def archived() -> bytes:
    """A ZIP archive as torch.save writes one, stored and dated alike everywhere; its pickle is the
    empty one.
    """
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo("archive/data.pkl", (2026, 1, 1, 0, 0, 0)), b"\x80\x02}.")
    return held.getvalue()


def tensors(count: int, size: int) -> bytes:
    return packed(
        {f"t{n}": entry(n * size, (n + 1) * size, dtype="U8", shape=[size]) for n in range(count)},
        bytes(count * size),
    )


ZIP = archived()
HEADER = "header"
Row = tuple[bytes, list[tuple[str, str]], Literal["accepts", "refuses"]]
BAD: dict[str, Row] = {
    "nothing": (b"", [("too-short", HEADER)], "refuses"),
    "nine bytes": (bytes(9), [("too-short", HEADER)], "refuses"),
    "header of 100 MB claimed": (
        (100 << 20).to_bytes(8, "little") + GOOD + EIGHT,
        [("header-too-large", HEADER)],
        "refuses",
    ),
    "header beyond 4 MiB": (
        raw(GOOD.ljust((4 << 20) + 1)),
        [("header-too-large", HEADER)],
        "accepts",
    ),
    "header longer than the file": (
        (999).to_bytes(8, "little") + GOOD,
        [("header-truncated", HEADER)],
        "refuses",
    ),
    "header of the largest length": (
        b"\xff" * 8 + GOOD + EIGHT,
        [("header-too-large", HEADER)],
        "refuses",
    ),
    "blank before the brace": (raw(b" " + GOOD), [("header-start", HEADER)], "accepts"),
    "byte order mark before the brace": (
        raw(b"\xef\xbb\xbf" + GOOD),
        [("header-start", HEADER)],
        "refuses",
    ),
    "list": (raw("[1, 2]", b""), [("header-start", HEADER)], "refuses"),
    "no JSON": (raw("{]      ", b""), [("header-json", HEADER)], "refuses"),
    "JSON with something after it": (raw(GOOD + b" {}"), [("header-json", HEADER)], "refuses"),
    "comma too many": (raw(f"{{{A},}}"), [("header-json", HEADER)], "refuses"),
    "not UTF-8": (raw(b'{"\xff":1}', b""), [("header-json", HEADER)], "refuses"),
    "half of a character": (
        raw(GOOD.replace(b'"a"', b'"\\ud800"')),
        [("header-json", HEADER)],
        "refuses",
    ),
    "NaN in the header": (raw('{"a":NaN}', b""), [("header-json", HEADER)], "refuses"),
    "deep": (
        raw('{"a":' + "[" * 5000 + "]" * 5000 + "}", b""),
        [("header-json", HEADER)],
        "refuses",
    ),
    "long number": (
        raw(GOOD.replace(b"[2]", b"[" + b"9" * 5000 + b"]")),
        [("header-json", HEADER)],
        "refuses",
    ),
    "tensor twice": (raw(f"{{{A},{A}}}"), [("header-json", HEADER)], "accepts"),
    "field twice": (
        raw(GOOD.replace(b'{"dtype"', b'{"dtype":"F32","dtype"')),
        [("header-json", HEADER)],
        "refuses",
    ),
    "metadata key twice": (
        raw(f'{{"__metadata__":{{"k":"1","k":"2"}},{A}}}'),
        [("header-json", HEADER)],
        "accepts",
    ),
    "metadata twice": (
        raw(f'{{"__metadata__":{{}},"__metadata__":{{}},{A}}}'),
        [("header-json", HEADER)],
        "refuses",
    ),
    "no tensors": (packed({"__metadata__": {"k": "v"}}), [("no-tensors", HEADER)], "accepts"),
    "20,001 tensors": (tensors(20_001, 1), [("too-many-tensors", HEADER)], "accepts"),
    "50,000 tensors of no size": (
        packed({f"t{n}": entry(0, 0, shape=[0]) for n in range(50_000)}),
        [("too-many-tensors", HEADER)],
        "accepts",
    ),
    "metadata number": (
        packed({"__metadata__": {"k": 1}, "a": entry()}, EIGHT),
        [("metadata", "__metadata__")],
        "refuses",
    ),
    "metadata list": (
        packed({"__metadata__": [], "a": entry()}, EIGHT),
        [("metadata", "__metadata__")],
        "refuses",
    ),
    "metadata beyond 64 KiB": (
        packed({"__metadata__": {"k": "v" * 65536}, "a": entry()}, EIGHT),
        [("metadata-too-large", "__metadata__")],
        "accepts",
    ),
    "empty name": (one(name=""), [("tensor-name", "(empty name)")], "accepts"),
    "path as a name": (
        one(name="../../etc/passwd"),
        [("tensor-name", "../../etc/passwd")],
        "accepts",
    ),
    "NUL in a name": (one(name="a\0b"), [("tensor-name", "a\\x00b")], "accepts"),
    "name of 25 parts": (one(name="a" + ".b" * 24), [("tensor-name", "a" + ".b" * 24)], "accepts"),
    "line break in a name": (one(name="a\nb"), [("tensor-name", "a\\nb")], "accepts"),
    "change of direction in a name": (
        one(name="a\u202eb"),
        [("tensor-name", "a\\u202eb")],
        "accepts",
    ),
    "long name": (one(name="a" * 513), [("tensor-name", "a" * 120)], "accepts"),
    "unknown field": (one(extra=1), [("tensor-fields", "a")], "accepts"),
    "missing field": (
        packed({"a": {"dtype": "F32", "shape": [2]}}, EIGHT),
        [("tensor-fields", "a")],
        "refuses",
    ),
    "entry that is a text": (packed({"a": "F32"}, EIGHT), [("tensor-fields", "a")], "refuses"),
    "unknown type": (one(dtype="F31"), [("tensor-dtype", "a")], "refuses"),
    "type that is a list": (one(dtype=["F32"]), [("tensor-dtype", "a")], "refuses"),
    "dimension of zero": (
        one(b"", shape=[0], data_offsets=[0, 0]),
        [("tensor-empty", "a")],
        "accepts",
    ),
    "negative dimension": (one(shape=[-2]), [("tensor-shape", "a")], "refuses"),
    "dimension true": (one(shape=[True, 2]), [("tensor-shape", "a")], "refuses"),
    "dimension with a point": (one(shape=[2.0]), [("tensor-shape", "a")], "refuses"),
    "shape that overflows": (one(shape=[2**63, 2**63]), [("tensor-shape", "a")], "refuses"),
    "nine dimensions": (one(shape=[1] * 8 + [2]), [("tensor-shape", "a")], "accepts"),
    "offsets reversed": (one(data_offsets=[8, 0]), [("tensor-offsets", "a")], "refuses"),
    "three offsets": (one(data_offsets=[0, 4, 8]), [("tensor-offsets", "a")], "refuses"),
    "size against shape": (one(shape=[3]), [("tensor-size", "a")], "refuses"),
    "hole at the start": (one(bytes(12), data_offsets=[4, 12]), [("hole", "a")], "refuses"),
    "hole between": (
        packed({"a": entry(), "b": entry(9, 17)}, bytes(17)),
        [("hole", "b")],
        "refuses",
    ),
    "overlap": (
        packed({"a": entry(), "b": entry(4, 12)}, bytes(12)),
        [("overlap", "b")],
        "refuses",
    ),
    "same bytes for two": (
        packed({"a": entry(), "b": entry()}, EIGHT),
        [("overlap", "b")],
        "refuses",
    ),
    "bytes after the last tensor": (one(bytes(9)), [("trailing-bytes", "end")], "refuses"),
    "data cut off": (one(bytes(7)), [("data-truncated", "end")], "refuses"),
    "archive appended": (one(EIGHT + ZIP), [("trailing-bytes", "end")], "refuses"),
    "archive as the last tensor": (
        packed({"a": entry(0, len(ZIP), dtype="U8", shape=[len(ZIP)])}, ZIP),
        [("foreign-content", "end")],
        "accepts",
    ),
    "NaN": (one(struct.pack("<ff", 1.0, float("nan"))), [("non-finite", "a")], "accepts"),
    "infinity": (one(struct.pack("<ff", float("-inf"), 1.0)), [("non-finite", "a")], "accepts"),
    "many at once": (
        packed(
            {"a b": entry(dtype="X", shape=[-1]), "c": entry(extra=1), "d": entry(shape=[3])}, EIGHT
        ),
        [
            ("tensor-name", "a b"),
            ("tensor-dtype", "a b"),
            ("tensor-shape", "a b"),
            ("tensor-fields", "c"),
            ("tensor-size", "d"),
        ],
        "refuses",
    ),
}
GOOD_HEADERS: dict[str, bytes] = {
    "blanks after the header": raw(GOOD.ljust(256)),
    "header of 640 bytes, which starts like a pickle": raw(GOOD.ljust(0x0280)),
    "header of 35,615 bytes, which starts like gzip": raw(GOOD.ljust(0x8B1F)),
    "pretty JSON": raw(json.dumps({"a": entry()}, indent=2)),
    "names with escapes": raw(GOOD.replace(b'"a"', b'"\\u0061"')),
    "page in the metadata": packed(
        {"__metadata__": {"format": "<html><script>x</script>"}, "a": entry()}, EIGHT
    ),
    "tensors in another order": packed({"b": entry(8, 16), "a": entry()}, bytes(16)),
    "scalar": one(bytes(4), shape=[], data_offsets=[0, 4]),
}


def _case(
    content: bytes, found: list[tuple[str, str]], library: Literal["accepts", "refuses"]
) -> Case:
    defects = tuple((rule, WEIGHTS, where) for rule, where in found)
    return Case(
        "base", lambda: sound() | {WEIGHTS: content}, defects, library, large=len(content) > 100_000
    )


CASES = {f"weights: {name}": _case(*row) for name, row in BAD.items()} | {
    f"weights: {name}": _case(content, [], "accepts") for name, content in GOOD_HEADERS.items()
}
