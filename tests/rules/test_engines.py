"""Every rule of every engine: what forbids, what conditions, and what an engine must be started with."""

from __future__ import annotations

from typing import Any

import pytest

from registry.rules.engines import ENGINES, Verdict, judge

PLAIN = {"method": "lora", "variant": "plain", "rank": 12, "targets": ["q_proj"], "modules_to_save": [],
         "bias": "none", "serving": "peft"}  # fmt: skip


def asked(engine: str, state: str = "registered", kind: str = "adapter", build: str | None = None,
          settings: dict[str, Any] | None = None, **facts: Any) -> Verdict:  # fmt: skip
    return judge(engine, kind=kind, state=state, facts=PLAIN | facts, build=build, settings=settings)


def rules(verdict: Verdict) -> set[str]:
    return {reason.rule for reason in verdict.reasons}


def test_a_plain_adapter() -> None:
    assert asked("vllm") == Verdict("vllm", "yes", (), {"max_lora_rank": 16})
    sglang = asked("sglang")
    assert (sglang.verdict, rules(sglang)) == ("conditional", {"build-unread"})
    assert sglang.needs == {"max_lora_rank": 12, "lora_target_modules": ["q_proj"]}
    assert rules(asked("tgi")) == {"startup-only", "build-unread"}
    assert asked("transformers").verdict == "conditional"


@pytest.mark.parametrize(("facts", "rule", "engines"), [
    ({"variant": "dora"}, "dora", {"vllm", "sglang", "tgi"}),
    ({"variant": "dora+rslora"}, "dora", {"vllm", "sglang", "tgi"}),
    ({"bias": "lora_only"}, "bias", {"vllm", "sglang", "tgi"}),
    ({"modules_to_save": ["lm_head"]}, "modules-to-save", {"vllm", "sglang", "tgi"}),
    ({"method": "prefix", "rank": None}, "method", {"vllm", "sglang", "tgi"}),
    ({"method": "bottleneck", "serving": "in-process"}, "in-process", set(ENGINES)),
    ({"method": "adalora"}, "method", {"vllm", "sglang", "tgi"}),
    ({"method": "norm"}, "method", {"vllm", "sglang", "tgi"}),
    ({"rank_pattern": {"v_proj": 4}}, "patterns", {"vllm", "sglang", "tgi"}),
    ({"alpha_pattern": {"v_proj": 4}}, "patterns", {"vllm", "sglang", "tgi"}),
    ({"rank": 513}, "rank-too-high", {"vllm"}),
    ({"max_rank": 513}, "rank-too-high", {"vllm"}),
])  # fmt: skip
def test_what_forbids(facts: dict[str, Any], rule: str, engines: set[str]) -> None:
    assert {one for one in ENGINES if rule in rules(asked(one, **facts))} == engines
    assert {one for one in ENGINES if asked(one, **facts).verdict == "no"} == engines


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("state", ["draft", "recalled", "deleted"])
def test_what_is_not_in_force_is_served_nowhere(engine: str, state: str) -> None:
    assert asked(engine, state).verdict == "no"


def test_classifiers_may_be_saved_whole() -> None:
    assert asked("vllm", modules_to_save=["score", "classifier"]).verdict == "yes"


@pytest.mark.parametrize(("rank", "needs"), [(1, 8), (8, 8), (9, 16), (257, 320), (512, 512)])
def test_vllm_takes_the_next_rank_it_knows(rank: int, needs: int) -> None:
    assert asked("vllm", rank=rank).needs["max_lora_rank"] == needs


def test_a_running_engine_with_too_low_a_rank() -> None:
    assert rules(asked("vllm", settings={"max_lora_rank": 8})) == {"rank-above-setting"}
    assert asked("vllm", settings={"max_lora_rank": 16}).verdict == "yes"


def test_what_was_not_read_is_said_and_not_guessed() -> None:
    assert rules(asked("vllm", build="0.33.0")) == {"build-unread"}
    assert asked("vllm", build="0.33.0").verdict == "conditional"
    unread = judge("vllm", kind="adapter", state="registered", facts={})
    assert (unread.verdict, rules(unread)) == ("conditional", {"method-unknown", "rank-unknown"})
    assert "architecture-unread" in rules(asked("vllm", kind="base", architecture="LlamaForCausalLM"))
