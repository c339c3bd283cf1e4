from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from registry.documents import canonical
from registry.errors import Invalid

SAFE = 2**53 - 1


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ({"b": 1, "a": [None, True, False]}, b'{"a":[null,true,false],"b":1}'),
        (
            {"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\x80": 6, "\xf6": 7},
            '{"\\r":2,"1":4,"\x80":6,"\xf6":7,"\u20ac":1,"\U0001f600":5,"\ufb33":3}'.encode(),
        ),
        (
            [333333333.33333329, 1e30, 4.50, 2e-3, 1e-27],
            b"[333333333.3333333,1e+30,4.5,0.002,1e-27]",
        ),
        ([0.0, -0.0, 1e21, 9e15, 1.0, 5e-324], b"[0,0,1e+21,9000000000000000,1,5e-324]"),
        ([SAFE, -SAFE], b"[9007199254740991,-9007199254740991]"),
        ('\u20ac$\x0f\nA\'B"\\\\"/', b'"\xe2\x82\xac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"'),
    ],
)
def test_the_form_of_rfc_8785(value: Any, written: bytes) -> None:
    assert canonical.encode(value) == written


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        -float("inf"),
        SAFE + 1,
        -SAFE - 1,
        10**400,
        1e16,
        -1e20,
        "\ud800",
        {1: 2},
        {"a": b"x"},
        {1},
    ],
)
def test_what_has_no_canonical_form_is_refused_by_name(value: Any) -> None:
    with pytest.raises(Invalid) as refusal:
        canonical.encode(value)
    assert refusal.value.kind == "not-canonical"
    assert refusal.value.fix


def test_nesting_beyond_reason_is_refused_by_name() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(Invalid, match="deeply"):
        canonical.encode(deep)
    while deep:  # taken apart by hand: the interpreter would free it recursively
        deep = deep.pop()


def test_a_digest_names_its_algorithm() -> None:
    assert (
        canonical.digest({})
        == "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    )


JSON = some.recursive(
    some.none()
    | some.booleans()
    | some.integers(-SAFE, SAFE)
    | some.floats(allow_nan=False, allow_infinity=False).filter(
        lambda one: not SAFE < abs(one) < 1e21
    )
    | some.text(),
    lambda children: some.lists(children) | some.dictionaries(some.text(), children),
)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(JSON)
def test_what_is_read_back_is_written_the_same(value: Any) -> None:
    assert canonical.encode(json.loads(canonical.encode(value))) == canonical.encode(value)
