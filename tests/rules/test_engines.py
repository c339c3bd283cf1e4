"""Every rule of every engine: what forbids, what conditions, and what an engine must be started
with.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from registry.rules.engines import BY_NAME, ENGINES, READ_BUILDS, Setup, Subject, Verdict, judge

PLAIN = {
    "method": "lora",
    "variant": "plain",
    "rank": 12,
    "targets": ["q_proj"],
    "modules_to_save": [],
    "bias": "none",
    "serving": "peft",
}


def asked(
    engine: str,
    state: str = "registered",
    kind: str = "adapter",
    build: str | None = None,
    settings: dict[str, Any] | None = None,
    **facts: Any,
) -> Verdict:
    return judge(
        engine, Subject(kind, state, PLAIN | facts), Setup(build=build, settings=settings or {})
    )


def rules(verdict: Verdict) -> set[str]:
    return {reason.rule for reason in verdict.reasons}


BOTH = {"sglang", "tgi"}
LORA_ONLY = {"vllm", "sglang", "tgi"}


def test_a_plain_adapter() -> None:
    assert asked("vllm") == Verdict("vllm", "yes", (), {"max_lora_rank": 16})
    sglang = asked("sglang", targets=["q_proj", "v_proj"])
    assert (sglang.verdict, rules(sglang)) == ("yes", set())
    assert sglang.needs == {"max_lora_rank": 12, "lora_target_modules": ["q_proj", "v_proj"]}
    assert rules(asked("tgi")) == {"startup-only"}
    assert asked("transformers").verdict == "yes"


@pytest.mark.parametrize(
    ("facts", "rule", "engines"),
    [
        ({"variant": "dora"}, "dora", LORA_ONLY),
        ({"variant": "dora+rslora"}, "dora", LORA_ONLY),
        ({"variant": "rslora"}, "rslora", {"sglang"}),
        ({"bias": "lora_only"}, "bias", LORA_ONLY),
        ({"modules_to_save": ["lm_head"]}, "modules-to-save", LORA_ONLY),
        ({"modules_to_save": ["score"]}, "modules-to-save", BOTH),
        ({"modules_to_save": ["score", "classifier"]}, "modules-to-save", LORA_ONLY),
        ({"bias": "lora_bias"}, "bias", LORA_ONLY),
        ({"tokens": 2}, "modules-to-save", LORA_ONLY),
        ({"embeddings": ["lm_head"]}, "modules-to-save", LORA_ONLY),
        ({"variant": "alora"}, "alora", {"vllm"}),
        ({"rank_pattern": {"q_proj": 4}}, "patterns", BOTH),
        ({"alpha_pattern": {"q_proj": 4}}, "patterns", BOTH),
        ({"targets": ["q_proj"]}, "attention-targets", {"sglang"}),
        ({"targets": ["k_proj", "v_proj"]}, "attention-targets", {"sglang"}),
        ({"targets": ["embed_tokens"]}, "targets", {"tgi"}),
        ({"layers": [0, 1]}, "layers", {"tgi"}),
        ({"method": "bottleneck", "serving": "in-process"}, "in-process", set(ENGINES)),
        ({"method": "adalora"}, "method", {"vllm", "sglang", "tgi"}),
        ({"method": "norm"}, "method", {"vllm", "sglang", "tgi"}),
        ({"rank": 513}, "rank-too-high", {"vllm"}),
        ({"max_rank": 513}, "rank-too-high", {"vllm"}),
    ],
)
def test_what_forbids(facts: dict[str, Any], rule: str, engines: set[str]) -> None:
    facts = {"targets": ["q_proj", "v_proj"]} | facts
    found = {
        one for one in ENGINES if any(reason.rule == rule for reason in asked(one, **facts).reasons)
    }
    assert {one for one in found if asked(one, **facts).verdict == "no"} == engines


@pytest.mark.parametrize(
    ("facts", "served"),
    [
        (
            {"method": "lora"},
            {"vllm": "yes", "sglang": "yes", "tgi": "conditional", "transformers": "yes"},
        ),
        (
            {"method": "lora", "variant": "rslora"},
            {"vllm": "yes", "sglang": "no", "tgi": "conditional", "transformers": "yes"},
        ),
        (
            {"method": "lora", "variant": "dora"},
            {"vllm": "no", "sglang": "no", "tgi": "no", "transformers": "yes"},
        ),
        *(
            (
                {"method": method, "rank": None},
                {"vllm": "no", "sglang": "no", "tgi": "no", "transformers": "yes"},
            )
            for method in ("adalora", "prefix", "prompt", "bias", "norm")
        ),
        ({"method": "bottleneck", "serving": "in-process"}, dict.fromkeys(ENGINES, "no")),
    ],
)
def test_every_method_has_its_verdicts(facts: dict[str, Any], served: dict[str, str]) -> None:
    facts = {"targets": ["q_proj", "v_proj"]} | facts
    assert {one: asked(one, **facts).verdict for one in ENGINES} == served
    for one in ENGINES:
        assert all(reason.detail and reason.fix for reason in asked(one, **facts).reasons)


def test_every_rule_says_where_it_was_read() -> None:
    for engine in BY_NAME.values():
        assert engine.forbids
        sources = [rule.source for rule in (*engine.forbids, *engine.conditions)]
        for source in (*sources, *(rule.source for rule in engine.setups)):
            assert re.search(r"\.py\b|trainer:", source), source
    assert set(READ_BUILDS) == set(ENGINES)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("state", ["draft", "recalled", "deleted"])
def test_what_is_not_in_force_is_served_nowhere(engine: str, state: str) -> None:
    assert asked(engine, state).verdict == "no"


def test_one_classifier_may_be_saved_whole() -> None:
    assert asked("vllm", modules_to_save=["score"]).verdict == "yes"


@pytest.mark.parametrize(
    ("rank", "needs"), [(1, 1), (2, 8), (8, 8), (9, 16), (257, 320), (512, 512)]
)
def test_vllm_takes_the_next_rank_it_knows(rank: int, needs: int) -> None:
    assert asked("vllm", rank=rank).needs["max_lora_rank"] == needs
    assert asked("vllm", rank=1, max_rank=rank).needs["max_lora_rank"] == needs


def test_a_running_engine_with_too_low_a_rank() -> None:
    assert rules(asked("vllm", settings={"max_lora_rank": 8})) == {"rank-above-setting"}
    assert asked("vllm", settings={"max_lora_rank": 16}).verdict == "yes"


def test_the_profile_s_own_parts_count() -> None:
    subject = Subject("adapter", "registered", PLAIN)
    assert rules(judge("vllm", subject, Setup(dtype="float32"))) == {"float32"}
    assert judge("vllm", subject, Setup(dtype="float16")).verdict == "yes"
    assert "quantised-base" in rules(judge("tgi", subject, Setup(quantisation="gptq")))


def test_what_was_not_read_is_said_and_not_guessed() -> None:
    assert asked("vllm", build="0.32.0").verdict == "yes"
    assert rules(asked("vllm", build="0.34.0")) == {"build-unread"}
    assert asked("vllm", build="0.34.0").verdict == "conditional"
    assert rules(asked("vllm", targets=["lm_head"])) == {"embeddings"}
    assert rules(asked("sglang", targets=["c_attn"])) == {"targets"}
    for facts, rule in (
        ({"loads_as": "AutoModel"}, "loads-as"),
        ({"target_parameters": ["down_proj"]}, "parameters"),
        ({"variant": "alora"}, "alora"),
    ):
        for engine in ("vllm", "sglang", "tgi"):
            assert rule in rules(asked(engine, targets=["q_proj", "v_proj"], **facts))
        assert asked("transformers", **facts).verdict == "yes"
    assert asked("transformers", loads_as="AutoModel").needs == {"loads_as": "AutoModel"}
    unread = judge("vllm", Subject("adapter", "registered", {}))
    assert (unread.verdict, rules(unread)) == ("conditional", {"method-unknown", "rank-unknown"})
    assert "architecture-unread" in rules(
        asked("vllm", kind="base", architecture="LlamaForCausalLM")
    )
