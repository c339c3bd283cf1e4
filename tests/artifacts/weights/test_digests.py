"""The fast weigher says what the plain one says, and both what numpy says of each number."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.artifacts.weights import digests
from registry.artifacts.weights import tensors as rules
from registry.artifacts.weights.headers import parse_header
from registry.artifacts.weights.tensors import (
    DTYPES,
    INFINITE,
    File,
    TensorInfo,
    largest_bits,
    weigh_plain,
)
from registry.errors import Unverified
from tests.artifacts.weights.test_tensors import save, stored

FLOATS = ["BF16", "F16", "F32", "F64", "F8_E4M3", "F8_E5M2"]


def holds_nonfinite(dtype: str, data: bytes) -> bool:
    return dtype in INFINITE and largest_bits(dtype, data) >= INFINITE[dtype]


def of_bytes(dtype: str, data: bytes) -> tuple[File, list[TensorInfo], rules.Read]:
    """A file of a seven byte head and one tensor with these bytes; no header is parsed when
    weighing.
    """
    [file], read = stored(b"*" * 7 + data)
    return file, [TensorInfo("t", dtype, (len(data) // DTYPES[dtype],), 7, 7 + len(data))], read


@given(
    dtype=st.sampled_from(sorted(DTYPES)),
    data=st.binary(max_size=400),
    chunk=st.sampled_from([8, 16, 64, 4 << 20]),
)
def test_both_weighers_agree_on_any_bytes(dtype: str, data: bytes, chunk: int) -> None:
    size = DTYPES[dtype]
    file, infos, read = of_bytes(dtype, data[: len(data) // size * size])
    with pytest.MonkeyPatch.context() as patch:
        for module in (rules, digests):
            patch.setattr(module, "CHUNK", chunk)
        patch.setattr(rules, "BLOCK", 16)
        assert digests.weigh(read)(file, infos) == weigh_plain(read)(file, infos)


@pytest.mark.parametrize(
    ("dtype", "view"), [("F64", np.float64), ("F32", np.float32), ("F16", np.float16)]
)
def test_every_kind_of_bits_is_judged_as_numpy_judges_it(dtype: str, view: type) -> None:
    """All 65,536 upper halves, with the rest of the number empty and full."""
    size = DTYPES[dtype]
    for rest in (b"\0", b"\1", b"\xff"):
        tail = rest * (size - 2)
        for first in range(256):
            data = b"".join(tail + bytes((second, first)) for second in range(256))
            expected = not bool(np.isfinite(np.frombuffer(data, view)).all())
            assert holds_nonfinite(dtype, data) == expected, (first, rest)


def test_bfloat16_is_the_upper_half_of_a_float() -> None:
    for first in range(256):
        for second in range(256):
            data = bytes((second, first))
            expected = not bool(np.isfinite(np.frombuffer(b"\0\0" + data, np.float32))[0])
            assert holds_nonfinite("BF16", data) == expected


def test_eight_bit_floats() -> None:
    """E4M3: only 0x7f and 0xff are NaN, nothing is infinite. E5M2: exponent 31, as in IEEE 754."""
    for byte in range(256):
        one = bytes((byte,))
        assert holds_nonfinite("F8_E4M3", one) == (byte & 0x7F == 0x7F)
        assert holds_nonfinite("F8_E5M2", one) == (byte >> 2 & 31 == 31)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("place", ["first", "last", "before a piece ends", "after a piece ends"])
def test_one_bad_number_is_found_wherever_it_hides(dtype: str, place: str) -> None:
    size, chunk = DTYPES[dtype], digests.CHUNK
    data = bytearray(chunk + 1000 * size)
    at = {
        "first": 0,
        "last": len(data) - size,
        "before a piece ends": chunk - size,
        "after a piece ends": chunk,
    }[place]
    data[at : at + size] = b"\xff" * size
    file, infos, read = of_bytes(dtype, bytes(data))
    assert digests.weigh(read)(file, infos).nonfinite == ("t",)
    assert weigh_plain(read)(file, infos).nonfinite == ("t",)


def test_integers_of_any_bits_are_numbers() -> None:
    for dtype in sorted(DTYPES.keys() - set(FLOATS)):
        file, infos, read = of_bytes(dtype, b"\xff" * 64)
        assert digests.weigh(read)(file, infos).nonfinite == ()
        assert weigh_plain(read)(file, infos).nonfinite == ()


def test_a_real_file_is_weighed_whole() -> None:
    content = save(
        {
            "a": np.ones((3, 5), np.float32),
            "b": np.array([1.0, np.nan], np.float64),
            "c": np.arange(9),
        }
    )
    [file], read = stored(content)
    weighed = digests.weigh(read)(file, parse_header(file, read).tensors)
    assert weighed.sha256 == file.sha256
    assert set(weighed.leaves) == {"a", "b", "c"}
    assert weighed.nonfinite == ("b",)
    assert weighed.largest == {"a": 1.0}


def test_bytes_that_end_early_are_told_and_no_thread_stays() -> None:
    file, infos, read = of_bytes("F32", bytes(64))
    before = threading.active_count()
    short = [TensorInfo("t", "F32", (32,), 7, 7 + 128)]
    with pytest.raises(Unverified) as told:
        digests.weigh(read)(file, short)
    assert told.value.kind == "bytes-short"
    assert threading.active_count() == before
    assert infos


@given(
    dtype=st.sampled_from(["F64", "F32", "F16", "I32", "U8"]),
    zeros=st.integers(0, 600),
    tail=st.sampled_from([b"", bytes(7) + b"\x80", b"\x80" + bytes(7), b"\1" + bytes(7)]),
)
def test_tensors_of_zeros_are_those_that_numpy_finds(dtype: str, zeros: int, tail: bytes) -> None:
    data = bytes(8 * zeros) + tail
    if not data:
        return
    numpy = np.dtype({"F": "f", "I": "i", "U": "u"}[dtype[0]] + str(DTYPES[dtype])).newbyteorder(
        "<"
    )
    expected = not np.frombuffer(data, numpy).any()
    file, infos, read = of_bytes(dtype, data)
    with pytest.MonkeyPatch.context() as patch:
        for module in (rules, digests):
            patch.setattr(module, "CHUNK", 64)
        assert digests.weigh(read)(file, infos).zero == frozenset({"t"} if expected else ())
        assert weigh_plain(read)(file, infos).zero == frozenset({"t"} if expected else ())


NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}


@given(
    dtype=st.sampled_from([*sorted(NUMPY), "BF16"]),
    data=st.binary(min_size=8, max_size=400),
    chunk=st.sampled_from([8, 64, 4 << 20]),
)
def test_the_largest_magnitude_is_the_one_that_numpy_finds(
    dtype: str, data: bytes, chunk: int
) -> None:
    data = data[: len(data) // 8 * 8]
    file, infos, read = of_bytes(dtype, data)
    if dtype == "BF16":
        numbers = (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
    else:
        numbers = np.frombuffer(data, NUMPY[dtype])
    finite = bool(np.isfinite(numbers).all())
    expected = {"t": float(np.abs(numbers).max())} if finite and numbers.any() else {}
    with pytest.MonkeyPatch.context() as patch:
        for module in (rules, digests):
            patch.setattr(module, "CHUNK", chunk)
        patch.setattr(rules, "BLOCK", 16)
        for weigh in (digests.weigh, weigh_plain):
            weighed = weigh(read)(file, infos)
            assert weighed.largest == expected
            assert weighed.nonfinite == (() if finite else ("t",))


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
@pytest.mark.parametrize("at", [0, 1, -1])
def test_the_largest_number_is_seen_wherever_it_is(dtype: str, at: int) -> None:
    count = (digests.CHUNK + 4096) // DTYPES[dtype]
    kind = {"BF16": "<u2"}.get(dtype) or NUMPY[dtype]
    numbers = np.full(count, 0x3F80 if dtype == "BF16" else 1, kind)
    numbers[at] = 0xC680 if dtype == "BF16" else -16384  # the sign does not count
    file, infos, read = of_bytes(dtype, numbers.tobytes())
    for weigh in (digests.weigh, weigh_plain):
        assert weigh(read)(file, infos).largest == {"t": 16384.0}
