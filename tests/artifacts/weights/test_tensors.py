"""The strict safetensors header and the tensor root; the safetensors library is the oracle where it
is strict.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize
from safetensors.numpy import load, save

from registry.artifacts.weights import headers, tensors
from registry.artifacts.weights.headers import parse_header
from registry.artifacts.weights.tensors import File, tensor_root, weigh_plain
from registry.errors import Invalid, Unverified


def safetensors(header: Any, data: bytes = b"", *, raw: bytes | None = None) -> bytes:
    """A safetensors file with any header at all, also one no library would write."""
    text = raw if raw is not None else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def stored(*contents: bytes) -> tuple[list[File], tensors.Read]:
    blobs = {hashlib.sha256(content).hexdigest(): content for content in contents}
    files = [
        File(f"f{i}.safetensors", hashlib.sha256(c).hexdigest(), len(c))
        for i, c in enumerate(contents)
    ]
    return files, lambda digest, start, length: blobs[digest][start : start + length]


def entry(begin: int = 0, end: int = 8, **other: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [2], "data_offsets": [begin, end]} | other


def rules_broken(content: bytes) -> list[str]:
    files, read = stored(content)
    return [defect.rule for defect in parse_header(files[0], read).defects]


EIGHT = bytes(8)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "uint8", "bool"])
def test_reads_what_the_safetensors_library_writes(dtype: str) -> None:
    arrays = {
        "x.weight": np.arange(12).reshape(3, 4).astype(dtype),
        "y": np.ones(5, dtype),
        "z": np.array(1, dtype),
    }
    content = save(arrays, metadata={"format": "pt"})
    files, read = stored(content)
    header = parse_header(files[0], read)
    assert not header.defects
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


def examined(content: bytes) -> tuple[tuple[tensors.TensorInfo, ...], list[str]]:
    """What the thorough reader says of a header that is there and begins as one: the quick one must
    say the same.
    """
    length = int.from_bytes(content[:8], "little")
    rules: list[str] = []
    infos = headers._read_thoroughly(
        content[8 : 8 + length], len(content), lambda where, rule, *_: rules.append(rule)
    )
    return infos, rules


names = st.text("ab.", max_size=3) | st.sampled_from(
    ["a\nb", "é", "\u202e", "__metadata__", "a" * 512, "a" * 513]
)
numbers = st.integers(-1, 9) | st.sampled_from([2**40, 2**40 + 1, 2**63, 2**64, 10**30])
entries = (
    st.fixed_dictionaries(
        {
            "dtype": st.sampled_from(["U8", "F16", "BF16", "F31", "u8", None]),
            "shape": st.lists(numbers, max_size=9),
            "data_offsets": st.lists(numbers, min_size=1, max_size=3),
        },
        optional={"x": st.none()},
    )
    | st.integers()
)
loose = st.dictionaries(names, entries, max_size=3)


@st.composite
def sound_headers(draw: st.DrawFn) -> tuple[dict[str, Any], int]:
    """A header with nothing wrong in it, and the bytes its tensors take."""
    table: dict[str, Any] = {}
    if draw(st.booleans()):
        table["__metadata__"] = draw(
            st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=2)
        )
    at = 0
    for name in draw(
        st.lists(st.text("abc_.-9", min_size=1, max_size=5), min_size=1, max_size=5, unique=True)
    ):
        shape = draw(st.lists(st.integers(1, 3), max_size=3))
        dtype = draw(st.sampled_from(sorted(tensors.DTYPES)))
        end = at + tensors.DTYPES[dtype] * int(np.prod(shape, dtype=int))
        table[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, end]}
        at = end
    return table, at


@settings(max_examples=300)
@given(
    loose,
    st.integers(0, 12),
    st.sampled_from([(",", ":"), (", ", ": ")]),
    st.sampled_from(["", " ", "  ", "\n", "x"]),
)
def test_both_readers_say_the_same_of_any_header(
    table: dict[str, Any], size: int, separators: tuple[str, str], after: str
) -> None:
    raw = (json.dumps(table, separators=separators) + after).encode()
    content = safetensors(None, bytes(size), raw=raw)
    files, read = stored(content)
    header = parse_header(files[0], read)
    infos, rules = examined(content)
    assert [defect.rule for defect in header.defects] == rules
    if not rules:
        assert header.tensors == infos


@settings(max_examples=200)
@given(sound_headers(), st.sampled_from([(",", ":"), (", ", ": ")]), st.integers(0, 9), st.data())
def test_a_sound_header_is_read_alike_and_one_changed_byte_is_refused_or_means_something(
    made: tuple[dict[str, Any], int], separators: tuple[str, str], blanks: int, data: st.DataObject
) -> None:
    table, size = made
    raw = json.dumps(table, separators=separators, ensure_ascii=False).encode() + b" " * blanks
    content = safetensors(None, bytes(size), raw=raw)
    files, read = stored(content)
    header = parse_header(files[0], read)
    assert not header.defects
    assert (header.tensors, []) == examined(content)
    assert {info.name: list(info.shape) for info in header.tensors} == {
        name: entry["shape"] for name, entry in table.items() if name != "__metadata__"
    }
    at, byte = data.draw(st.integers(0, 7 + len(raw))), data.draw(st.integers(0, 255))
    changed = content[:at] + bytes([byte]) + content[at + 1 :]
    files, read = stored(changed)
    found = parse_header(files[0], read)
    if not found.defects:
        assert examined(changed) == (found.tensors, [])
        deserialize(changed)  # and the library agrees that it is a file


def test_what_the_library_writes_takes_the_quick_way() -> None:
    content = save(
        {f"t{i}.weight": np.zeros((i + 1, 2), np.float16) for i in range(50)},
        metadata={"format": "pt"},
    )
    length = int.from_bytes(content[:8], "little")
    found = headers._read_quickly(content[8 : 8 + length], len(content))
    assert found is not None
    assert len(found) == 50


def test_missing_and_short_bytes_are_named() -> None:
    content = safetensors({"a": entry()}, EIGHT)
    (file,), read = stored(content)
    with pytest.raises(Unverified) as missing:
        parse_header(File("f", "0" * 64, 80), read)
    assert missing.value.kind == "bytes-missing"
    with pytest.raises(Unverified) as short:
        parse_header(File("f", file.sha256, file.size + 8), lambda d, s, n: read(d, s, n)[:4])
    assert short.value.kind == "bytes-short"
    for size, kind in (
        (file.size + 1, "bytes-short"),
        (file.size - 1, "bytes-more"),
        (0, "bytes-more"),
    ):
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
    with pytest.raises(Invalid, match="occurs more than once"):
        root_of(one, save({"a": np.zeros(2, np.float32)}))
