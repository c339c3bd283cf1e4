"""Canonical JSON, strict JSON and the RFC 6962 root, each held against a foreign implementation or
known vectors.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.documents import canonical, json_streams, strict_json
from registry.errors import Invalid
from registry.proof.merkle import Frontier

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"]), max_size=5), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@settings(max_examples=400)
@given(values)
def test_canonical_is_rfc_8785(value: Any) -> None:
    assert canonical.encode(value, large_floats=True) == rfc8785.dumps(value)


@settings(max_examples=300)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_print_as_ecmascript_does(number: float) -> None:
    assert canonical.encode(number, large_floats=True) == rfc8785.dumps(number)
    assert float(canonical.encode(number, large_floats=True)) == number


@pytest.mark.parametrize(
    "value", [2**53, -(2**53), float("nan"), float("inf"), "\ud800", {"\udc00": 1}, {1, 2}]
)
def test_what_has_no_canonical_form_is_refused(value: Any) -> None:
    with pytest.raises(Invalid) as error:
        canonical.encode(value)
    assert error.value.kind == "not-canonical"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"\xff",
        b'\xef\xbb\xbf{"a":1}',
        b'{"a":1,"a":2}',
        b'[{"b":{"a":1,"a":1}}]',
        b"NaN",
        b"-Infinity",
        b"1e999",
        b"1" * 5000,
        b"[" * 33 + b"]" * 33,
        b"[" * 100_000,
        b'{"a":1} x',
    ],
)
def test_ambiguous_json_is_refused(text: bytes) -> None:
    with pytest.raises(Invalid) as error:
        strict_json.loads(text)
    assert error.value.kind == "bad-json"


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def read_by_pieces(data: bytes, size: int = json_streams.PIECE) -> str | dict[str, str]:
    """What the streamed reader says: the kinds of the outermost values, or that it refuses."""
    try:
        return json_streams.outline(pieces(data, size), strict_json.Allowance())
    except Invalid as error:
        return error.kind


def read_whole(data: bytes) -> str | dict[str, str]:
    try:
        value = strict_json.loads(data, halves=False)
    except Invalid as error:
        return error.kind
    if not isinstance(value, dict):
        return "bad-json"
    return {key: json_streams.KINDS.get(type(one), "null") for key, one in value.items()}


def documents_of(numbers: st.SearchStrategy[float]) -> st.SearchStrategy[Any]:
    texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
    return st.recursive(
        st.none() | st.booleans() | numbers | texts,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
        max_leaves=12,
    )


@settings(max_examples=200)
@given(documents_of(st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(-(2**53) + 1, 2**53 - 1)))
def test_what_was_written_canonically_is_read_as_it_was(value: Any) -> None:
    assert strict_json.loads(canonical.encode(value, large_floats=True)) == value


@settings(max_examples=300)
@given(
    st.dictionaries(st.text(max_size=4), values, max_size=6),
    st.integers(1, 64),
    st.sampled_from([None, 1]),
)
def test_both_readers_say_the_same_of_any_object(
    table: dict[str, Any], size: int, indent: int | None
) -> None:
    for ascii_only in (True, False):
        data = json.dumps(table, indent=indent, ensure_ascii=ascii_only).encode(
            "utf-8", "surrogatepass"
        )
        assert read_by_pieces(data, size) == read_whole(data)


@settings(max_examples=400)
@given(
    st.dictionaries(st.text('",:[]{}\\a', max_size=6), values, max_size=4),
    st.integers(1, 64),
    st.data(),
)
def test_both_readers_say_the_same_of_any_text(
    table: dict[str, Any], size: int, data: st.DataObject
) -> None:
    """One byte after another changed, cut out or doubled: either both refuse, or both read the
    same.
    """
    text = bytearray(json.dumps(table, ensure_ascii=False).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        text[at : at + data.draw(st.integers(0, 2))] = data.draw(
            st.sampled_from(
                [b"", b",", b'"', b"]", b"}", b"{", b"[", b"0", b"\\", b"\xff", b" ", b'"a":1,']
            )
        )
    assert read_by_pieces(bytes(text), size) == read_whole(bytes(text))


def many(count: int, width: int) -> dict[str, Any]:
    """Long enough that whole runs of elements are taken at once, with texts that look like
    structure.
    """
    odd = ['"', "],", "},", ",", "[", "{", "\\", "é", "\U0001f600"]
    return {
        "model": {
            "vocab": {f"{odd[n % len(odd)]}{n}": n for n in range(count)},
            "merges": [[f"{n}{odd[n % len(odd)]}", "x" * (n % width)] for n in range(count)],
            "nested": [[[{"a": [n, {"b": [odd[n % len(odd)]]}]}]] for n in range(count // 4)],
        },
        "charsmap": "A" * 300_000,
        "null": None,
        "flags": [True] * 9,
        "number": -1.5e3,
        "empty": {},
        "none": [],
    }


@pytest.mark.parametrize("size", [4099, json_streams.PIECE])
@pytest.mark.parametrize("indent", [None, 2])
def test_a_large_document_is_read_by_pieces_to_its_last_byte(size: int, indent: int | None) -> None:
    table = many(6000, 40)
    data = json.dumps(table, indent=indent, ensure_ascii=False).encode()
    kinds = {key: json_streams.KINDS.get(type(one), "null") for key, one in table.items()}
    assert json_streams.outline(pieces(data, size), strict_json.Allowance(10**6)) == kinds
    for wrong in (
        data[:-1],
        data + b"x",
        data.replace(b'"flags"', b'"flags",'),
        data.replace(b'"merges"', b'"vocab"'),
        data.replace(b"5999", b"599\xff"),
        data.replace(b'"b"', b'"a","a"'),
        data[: len(data) // 2],
    ):
        with pytest.raises(Invalid):
            json_streams.outline(pieces(wrong, size), strict_json.Allowance(10**6))


def test_a_key_that_stands_twice_far_apart_is_found() -> None:
    data = json.dumps({"model": {f"k{n}": n for n in range(50_000)}}).encode()
    with pytest.raises(Invalid, match="'k7' occurs more than once"):
        json_streams.outline(
            pieces(data[:-2] + b',"k7":0}}', json_streams.PIECE), strict_json.Allowance()
        )


def test_an_allowance_is_shared() -> None:
    allowance = strict_json.Allowance(10)
    strict_json.loads(b"[1,2,3]", allowance=allowance)
    strict_json.loads(b"[1,2,3]", allowance=allowance)
    with pytest.raises(Invalid, match="more than 10 values"):
        strict_json.loads(b"[1,2,3]", allowance=allowance)
    prompt = (
        b'"' + b"," * 400_000 + b'"'
    )  # where no limit is given, what people write is not counted
    assert len(strict_json.loads(prompt)) == 400_000
    with pytest.raises(Invalid, match="more than 300000 values"):
        strict_json.loads(prompt, values=strict_json.MAX_VALUES)


def test_depth_is_counted_exactly() -> None:
    assert strict_json.loads(b"[[[1]]]", depth=3) == [[[1]]]
    for text in (b"[[[[]]]]", b'[[[{"a":1}]]]'):
        with pytest.raises(Invalid, match="deeper than 3"):
            strict_json.loads(text, depth=3)


def test_root_is_rfc_6962() -> None:
    """Roots of the first n of the eight leaves used by Certificate Transparency's own test
    suite.
    """
    leaves = [
        bytes.fromhex(h)
        for h in (
            "",
            "00",
            "10",
            "2021",
            "3031",
            "40414243",
            "5051525354555657",
            "606162636465666768696a6b6c6d6e6f",
        )
    ]
    known = (
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    )
    assert Frontier().text() == "sha256:" + hashlib.sha256(b"").hexdigest()
    for count, root in enumerate(known, 1):
        assert Frontier(leaves[:count]).text() == f"sha256:{root}"
