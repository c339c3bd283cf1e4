"""Profiles: strict, all faults at once, and one document for every way of writing it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.documents import canonical
from registry.errors import Invalid
from registry.rules.engines import ENGINES
from registry.rules.profiles import BUILD, DTYPES, FIELDS, QUANTISATIONS, differences, parse

LEAST = {"engine": "vllm", "build": "0.32.0"}
A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def digest(**parts: Any) -> str:
    return canonical.digest(parse(LEAST | parts).document(A, B))


def test_every_fault_is_named_at_once() -> None:
    with pytest.raises(Invalid) as refused:
        parse(
            {
                "engine": "ollama",
                "color": 1,
                "dtype": [],
                "decoding": {"temperature": 3, "beams": 2, "top_p": True},
                "policy_checks": [A, A],
            }
        )
    assert refused.value.kind == "bad-profile"
    said = sorted(refused.value.facts["problems"])
    assert said == [
        "build",
        "color",
        "decoding.beams",
        "decoding.temperature",
        "decoding.top_p",
        "dtype",
        "engine",
        "policy_checks",
    ]


@pytest.mark.parametrize("raw", [None, [], "vllm", {}])
def test_what_is_no_profile(raw: Any) -> None:
    with pytest.raises(Invalid, match="profile"):
        parse(raw)


def test_a_change_of_any_part_is_another_profile() -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"engine": "sglang"},
        {"build": "0.32.1"},
        {"dtype": "float16"},
        {"quantisation": "fp8"},
        {"system_prompt": A},
        {"decoding": {"temperature": 0.5}},
        {"decoding": {"stop": ["a"]}},
        {"retrieval_index": A},
        {"policy_checks": [A]},
    ]
    found = {digest(**change) for change in changes}
    assert len(found) == len(changes)
    plain = parse(LEAST)
    assert (
        len(
            {
                canonical.digest(plain.document(*pair))
                for pair in ((A, B), (B, B), (A, A), (A, None))
            }
        )
        == 4
    )


def test_order_says_nothing() -> None:
    assert digest(policy_checks=[A, B]) == digest(policy_checks=[B, A])
    assert digest(decoding={"stop": ["x", "y"]}) == digest(decoding={"stop": ["y", "x"]})
    assert digest() == digest(dtype="bfloat16", decoding={})


PARTS = st.fixed_dictionaries(
    {
        "engine": st.sampled_from(ENGINES),
        "build": st.from_regex(BUILD, fullmatch=True),
        "dtype": st.sampled_from(DTYPES),
        "quantisation": st.sampled_from([None, *QUANTISATIONS]),
        "system_prompt": st.sampled_from([None, A, B]),
        "retrieval_index": st.sampled_from([None, A, B]),
        "policy_checks": st.lists(st.sampled_from([A, B]), unique=True),
        "decoding": st.fixed_dictionaries(
            {},
            optional={
                "temperature": st.floats(0, 2),
                "top_p": st.floats(0.0001, 1),
                "top_k": st.integers(1, 100_000),
                "repetition_penalty": st.floats(0.1, 2),
                "max_tokens": st.integers(1, 1_000_000),
                "seed": st.integers(0, 2**31 - 1),
                "stop": st.lists(st.text(min_size=1, max_size=5), max_size=3),
            },
        ),
    }
)
DOCUMENTS = st.tuples(PARTS, st.sampled_from([A, B]), st.sampled_from([A, B, None]))


@settings(max_examples=150, deadline=None)
@given(DOCUMENTS, DOCUMENTS)
def test_two_profiles_are_one_only_when_no_part_differs(one: Any, other: Any) -> None:
    """Over every field at once: the digests agree exactly when nothing is told to differ."""
    first, second = (parse(parts).document(version, base) for parts, version, base in (one, other))
    found = differences(first, second)
    assert (canonical.digest(first) == canonical.digest(second)) == (found == [])
    assert {each.part.partition(".")[0] for each in found} == {
        key for key in first if first[key] != second[key]
    }


@settings(max_examples=100, deadline=None)
@given(DOCUMENTS, st.sampled_from(sorted(FIELDS)), PARTS)
def test_changing_any_one_part_is_another_profile(
    one: Any, part: str, other: dict[str, Any]
) -> None:
    parts, version, base = one
    before, after = (
        parse(each).document(version, base) for each in (parts, parts | {part: other[part]})
    )
    assert (canonical.digest(before) != canonical.digest(after)) == (before[part] != after[part])


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([*FIELDS, "color", "decoding.x"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
            lambda of: (
                st.lists(of, max_size=3) | st.dictionaries(st.text(max_size=5), of, max_size=3)
            ),
            max_leaves=6,
        ),
    )
)
def test_whatever_is_no_profile_is_named_and_never_breaks(raw: dict[str, Any]) -> None:
    named: list[str] = []
    try:
        parse(raw)
    except Invalid as refusal:
        named = [refusal.kind, *refusal.facts["problems"]]
    assert named == [] or (named[0] == "bad-profile" and len(named) > 1)
