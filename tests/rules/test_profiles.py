"""Profiles: strict, all faults at once, and one document for every way of writing it."""

from __future__ import annotations

from typing import Any

import pytest

from registry.errors import Invalid
from registry.proof import canonical
from registry.rules.profiles import parse

LEAST = {"engine": "vllm", "build": "0.32.0"}
A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def digest(**parts: Any) -> str:
    return canonical.digest(parse(LEAST | parts).document(A, B))


def test_every_fault_is_named_at_once() -> None:
    with pytest.raises(Invalid) as refused:
        parse({"engine": "ollama", "color": 1, "dtype": [], "decoding": {"temperature": 3, "beams": 2, "top_p": True},
               "policy_checks": [A, A]})  # fmt: skip
    assert refused.value.kind == "bad-profile"
    said = [problem.partition(":")[0] for problem in refused.value.facts["problems"]]
    assert sorted(said) == ["build", "color", "decoding.beams", "decoding.temperature", "decoding.top_p", "dtype",
                            "engine", "policy_checks"]  # fmt: skip


@pytest.mark.parametrize("raw", [None, [], "vllm", {}])
def test_what_is_no_profile(raw: Any) -> None:
    with pytest.raises(Invalid, match="profile"):
        parse(raw)


def test_a_change_of_any_part_is_another_profile() -> None:
    changes: list[dict[str, Any]] = [
        {}, {"engine": "sglang"}, {"build": "0.32.1"}, {"dtype": "float16"}, {"quantisation": "fp8"},
        {"system_prompt": A}, {"decoding": {"temperature": 0.5}}, {"decoding": {"stop": ["a"]}},
        {"retrieval_index": A}, {"policy_checks": [A]},
    ]  # fmt: skip
    found = {digest(**change) for change in changes}
    assert len(found) == len(changes)
    plain = parse(LEAST)
    assert len({canonical.digest(plain.document(*pair)) for pair in ((A, B), (B, B), (A, A), (A, None))}) == 4


def test_order_says_nothing() -> None:
    assert digest(policy_checks=[A, B]) == digest(policy_checks=[B, A])
    assert digest(decoding={"stop": ["x", "y"]}) == digest(decoding={"stop": ["y", "x"]})
    assert digest() == digest(dtype="bfloat16", decoding={})
