"""The strict safetensors header and the tensor root; the safetensors library is the oracle where it is strict."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.numpy import load, save

from registry.errors import Invalid, Unverified
from registry.rules import tensors
from registry.rules.tensors import File, parse_header, tensor_root, weigh_plain


def safetensors(header: Any, data: bytes = b"", *, raw: bytes | None = None) -> bytes:
    """A safetensors file with any header at all, also one no library would write."""
    text = raw if raw is not None else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def stored(*contents: bytes) -> tuple[list[File], tensors.Read]:
    blobs = {hashlib.sha256(content).hexdigest(): content for content in contents}
    files = [File(f"f{i}.safetensors", hashlib.sha256(c).hexdigest(), len(c)) for i, c in enumerate(contents)]
    return files, lambda digest, start, length: blobs[digest][start : start + length]


def entry(begin: int = 0, end: int = 8, **other: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [2], "data_offsets": [begin, end]} | other


def rules_broken(content: bytes) -> list[str]:
    files, read = stored(content)
    return [defect.rule for defect in parse_header(files[0], read).defects]


EIGHT = bytes(8)
TWICE = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
FIELD_TWICE = b'{"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
META_TWICE = b'{"__metadata__":{"k":"1","k":"2"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
GOOD = json.dumps({"a": entry()}).encode()

BAD: dict[str, tuple[bytes, list[str]]] = {
    "nothing": (b"", ["too-short"]),
    "nine bytes": (bytes(9), ["too-short"]),
    "header beyond 4 MiB": (((4 << 20) + 1).to_bytes(8, "little") + b"{}" + EIGHT, ["header-too-large"]),
    "header longer than the file": ((999).to_bytes(8, "little") + b"{}", ["header-truncated"]),
    "blank before the brace": (safetensors(None, EIGHT, raw=b" " + GOOD), ["header-start"]),
    "a list": (safetensors(None, raw=b"[1, 2]"), ["header-start"]),
    "no JSON": (safetensors(None, raw=b"{]      "), ["header-json"]),
    "not UTF-8": (safetensors(None, raw=b'{"\xff":1}'), ["header-json"]),
    "NaN": (safetensors(None, raw=b'{"a":NaN}'), ["header-json"]),
    "too deep": (safetensors(None, raw=b'{"a":' * 5000 + b"1" + b"}" * 5000), ["header-json"]),
    "tensor twice": (safetensors(None, EIGHT, raw=TWICE), ["header-json"]),
    "field twice": (safetensors(None, EIGHT, raw=FIELD_TWICE), ["header-json"]),
    "metadata key twice": (safetensors(None, EIGHT, raw=META_TWICE), ["header-json"]),
    "no tensors": (safetensors({"__metadata__": {"k": "v"}}), ["no-tensors"]),
    "too many tensors": (
        safetensors({str(i): entry(i, i + 1, dtype="U8", shape=[1]) for i in range(20_001)}, bytes(20_001)),
        ["too-many-tensors"],
    ),
    "metadata number": (safetensors({"__metadata__": {"k": 1}, "a": entry()}, EIGHT), ["metadata"]),
    "metadata list": (safetensors({"__metadata__": [], "a": entry()}, EIGHT), ["metadata"]),
    "metadata large": (
        safetensors({"__metadata__": {"k": "v" * 65536}, "a": entry()}, EIGHT), ["metadata-too-large"]
    ),
    "empty name": (safetensors({"": entry()}, EIGHT), ["tensor-name"]),
    "path name": (safetensors({"../../etc/passwd": entry()}, EIGHT), ["tensor-name"]),
    "NUL in name": (safetensors({"a\0b": entry()}, EIGHT), ["tensor-name"]),
    "right-to-left name": (safetensors({"a\u202eb": entry()}, EIGHT), ["tensor-name"]),
    "long name": (safetensors({"a" * 513: entry()}, EIGHT), ["tensor-name"]),
    "unknown field": (safetensors({"a": entry(extra=1)}, EIGHT), ["tensor-fields"]),
    "missing field": (safetensors({"a": {"dtype": "F32", "shape": [2]}}, EIGHT), ["tensor-fields"]),
    "entry is a text": (safetensors({"a": "F32"}, EIGHT), ["tensor-fields"]),
    "unknown type": (safetensors({"a": entry(dtype="F31")}, EIGHT), ["tensor-dtype"]),
    "type is a list": (safetensors({"a": entry(dtype=["F32"])}, EIGHT), ["tensor-dtype"]),
    "zero dimension": (safetensors({"a": entry(shape=[0])}, EIGHT), ["tensor-shape"]),
    "negative dimension": (safetensors({"a": entry(shape=[-2])}, EIGHT), ["tensor-shape"]),
    "dimension true": (safetensors({"a": entry(shape=[True, 2])}, EIGHT), ["tensor-shape"]),
    "dimension with a point": (safetensors({"a": entry(shape=[2.0])}, EIGHT), ["tensor-shape"]),
    "overflowing shape": (safetensors({"a": entry(shape=[2**63, 2**63])}, EIGHT), ["tensor-shape"]),
    "nine dimensions": (safetensors({"a": entry(shape=[1] * 8 + [2])}, EIGHT), ["tensor-shape"]),
    "offsets reversed": (safetensors({"a": entry(8, 0)}, EIGHT), ["tensor-offsets"]),
    "offsets empty": (safetensors({"a": entry(0, 0)}, EIGHT), ["tensor-offsets"]),
    "three offsets": (safetensors({"a": entry(data_offsets=[0, 4, 8])}, EIGHT), ["tensor-offsets"]),
    "size against shape": (safetensors({"a": entry(shape=[3])}, EIGHT), ["tensor-size"]),
    "hole at the start": (safetensors({"a": entry(4, 12)}, bytes(12)), ["hole"]),
    "hole between": (safetensors({"a": entry(), "b": entry(9, 17)}, bytes(17)), ["hole"]),
    "overlap": (safetensors({"a": entry(), "b": entry(4, 12)}, bytes(12)), ["overlap"]),
    "same bytes": (safetensors({"a": entry(), "b": entry()}, EIGHT), ["overlap"]),
    "trailing bytes": (safetensors({"a": entry()}, bytes(9)), ["trailing-bytes"]),
    "data cut off": (safetensors({"a": entry()}, bytes(7)), ["data-truncated"]),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_each_bad_header_is_refused_by_its_rule(name: str) -> None:
    content, expected = BAD[name]
    assert rules_broken(content) == expected


def test_every_defect_is_listed_not_only_the_first() -> None:
    content = safetensors({"a b": entry(dtype="X", shape=[-1]), "c": entry(extra=1), "d": entry(shape=[3])}, EIGHT)
    assert rules_broken(content) == ["tensor-name", "tensor-dtype", "tensor-shape", "tensor-fields", "tensor-size"]


def test_what_the_library_accepts_silently_is_refused_here() -> None:
    """If safetensors ever refuses these itself, this test says that the rule has company."""
    for name in ("unknown field", "path name", "tensor twice", "metadata key twice", "blank before the brace"):
        content, _ = BAD[name]
        load(content)
        assert rules_broken(content), name


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "uint8", "bool"])
def test_reads_what_the_safetensors_library_writes(dtype: str) -> None:
    arrays = {"x.weight": np.arange(12).reshape(3, 4).astype(dtype), "y": np.ones(5, dtype), "z": np.array(1, dtype)}
    content = save(arrays, metadata={"format": "pt"})
    files, read = stored(content)
    header = parse_header(files[0], read)
    assert header.defects == ()
    assert {t.name: t.shape for t in header.tensors} == {"x.weight": (3, 4), "y": (5,), "z": ()}
    for info in header.tensors:
        assert content[info.start : info.end] == arrays[info.name].tobytes()


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_no_header_is_accepted_that_the_library_refuses(raw: bytes) -> None:
    content = safetensors(None, EIGHT, raw=raw)
    try:
        load(content)
    except SafetensorError:
        assert rules_broken(content)


def test_missing_and_short_bytes_are_named() -> None:
    content = safetensors({"a": entry()}, EIGHT)
    (file,), read = stored(content)
    with pytest.raises(Unverified) as missing:
        parse_header(File("f", "0" * 64, 80), read)
    assert missing.value.kind == "bytes-missing"
    with pytest.raises(Unverified) as short:
        parse_header(File("f", file.sha256, file.size + 8), lambda d, s, n: read(d, s, n)[:4])
    assert short.value.kind == "bytes-short"
    for size, kind in ((file.size + 1, "bytes-short"), (file.size - 1, "bytes-more"), (0, "bytes-more")):
        with pytest.raises(Unverified) as wrong:
            tensors.check_extent(File("f", file.sha256, size), read)
        assert wrong.value.kind == kind
    tensors.check_extent(file, read)


def root_of(*contents: bytes) -> str:
    files, read = stored(*contents)
    weigh = weigh_plain(read)
    headers = [(file, parse_header(file, read).tensors) for file in files]
    return tensor_root([(infos, weigh(file, infos)) for file, infos in headers])


def test_tensor_root_by_hand() -> None:
    """The leaf format of the brief, hashed here without any of our code."""
    content = save({"b": np.ones(2, np.float32), "a": np.zeros((1, 2), np.float32)})

    def leaf(name: str, shape: str, data: bytes) -> bytes:
        sha = hashlib.sha256(data).hexdigest()
        text = f'{{"dtype":"F32","name":"{name}","sha256":"{sha}","shape":{shape}}}'
        return hashlib.sha256(b"\0" + text.encode()).digest()

    a = leaf("a", "[1,2]", np.zeros(2, np.float32).tobytes())
    b = leaf("b", "[2]", np.ones(2, np.float32).tobytes())
    assert root_of(content) == "sha256:" + hashlib.sha256(b"\1" + a + b).hexdigest()


def test_tensor_root_does_not_see_shards_order_or_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    one = {f"t{i}": np.arange(i + 1, dtype=np.float32) for i in range(7)}
    whole = root_of(save(one, metadata={"format": "pt"}))
    shards = [save({k: v for k, v in one.items() if int(k[1]) % 2 == part}) for part in (0, 1)]
    assert root_of(*shards) == whole == root_of(*reversed(shards))
    monkeypatch.setattr(tensors, "CHUNK", 8)
    assert root_of(save(one)) == whole


@pytest.mark.parametrize("change", ["bytes", "shape", "name", "dtype"])
def test_tensor_root_sees_every_change(change: str) -> None:
    changes: dict[str, dict[str, np.ndarray[Any, Any]]] = {
        "bytes": {"a": np.array([1.0, 3.0], np.float32)},
        "shape": {"a": np.array([[1.0, 2.0]], np.float32)},
        "name": {"b": np.array([1.0, 2.0], np.float32)},
        "dtype": {"a": np.array([1.0, 2.0], np.float32).view(np.int32)},
    }
    assert root_of(save(changes[change])) != root_of(save({"a": np.array([1.0, 2.0], np.float32)}))


def test_a_tensor_in_two_shards_has_no_root() -> None:
    one = save({"a": np.ones(2, np.float32)})
    with pytest.raises(Invalid, match="more than one place"):
        root_of(one, save({"a": np.zeros(2, np.float32)}))
