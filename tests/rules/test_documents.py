"""Canonical JSON, strict JSON and the RFC 6962 root, each held against a foreign implementation or known vectors."""

from __future__ import annotations

import ast
import hashlib
import sys
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.errors import Invalid
from registry.rules import documents

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=400)
@given(values)
def test_canonical_is_rfc_8785(value: Any) -> None:
    assert documents.canonical(value) == rfc8785.dumps(value)


@settings(max_examples=300)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_print_as_ecmascript_does(number: float) -> None:
    assert documents.canonical(number) == rfc8785.dumps(number)
    assert float(documents.canonical(number)) == number


@pytest.mark.parametrize("value", [2**53, -(2**53), float("nan"), float("inf"), "\ud800", {"\udc00": 1}, {1, 2}])
def test_what_has_no_canonical_form_is_refused(value: Any) -> None:
    with pytest.raises(Invalid) as error:
        documents.canonical(value)
    assert error.value.kind == "not-canonical"


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"\xff", b'\xef\xbb\xbf{"a":1}', b'{"a":1,"a":2}', b'[{"b":{"a":1,"a":1}}]', b"NaN", b"-Infinity",
     b"1e999", b"1" * 5000, b"[" * 33 + b"]" * 33, b"[" * 100_000, b'{"a":1} x'],
)  # fmt: skip
def test_ambiguous_json_is_refused(text: bytes) -> None:
    with pytest.raises(Invalid) as error:
        documents.loads(text)
    assert error.value.kind == "bad-json"


def test_depth_is_counted_exactly() -> None:
    assert documents.loads(b"[[[1]]]", depth=3) == [[[1]]]
    for text in (b"[[[[]]]]", b'[[[{"a":1}]]]'):
        with pytest.raises(Invalid, match="deeper than 3"):
            documents.loads(text, depth=3)


def test_root_is_rfc_6962() -> None:
    """Roots of the first n of the eight leaves used by Certificate Transparency's own test suite."""
    leaves = [bytes.fromhex(h) for h in (
        "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
    )]  # fmt: skip
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
    assert documents.Root().text() == "sha256:" + hashlib.sha256(b"").hexdigest()
    for count, root in enumerate(known, 1):
        assert documents.Root(leaves[:count]).text() == f"sha256:{root}"


def test_rules_import_only_the_standard_library_and_each_other() -> None:
    folder = Path(documents.__file__).parent
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                top = name.split(".")[0]
                assert top in sys.stdlib_module_names or name == "registry.errors" or name.startswith("registry.rules")
