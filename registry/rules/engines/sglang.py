"""SGLang, read in its wheel. It loads some adapters without an error and serves something else."""

from __future__ import annotations

from registry.rules.engines.rule import (
    ELSEWHERE,
    IN_PROCESS,
    ON_VLLM,
    SILENT,
    TRY_MODEL,
    Engine,
    Facts,
    Rule,
    has_patterns,
    has_variant,
    other_method,
    other_targets,
    saves_modules,
    trains_bias,
)

TARGETS = frozenset(
    [
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "q_a_proj",
        "kv_a_proj_with_mqa",
        "q_b_proj",
        "kv_b_proj",
        "wq_b",
        "wk",
        "weights_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
        "qkv_proj",
        "gate_up_proj",
        "embed_tokens",
        "lm_head",
        "qkvr",
        "wo_ud",
    ]
)
"""srt/utils/common.py, SUPPORTED_LORA_TARGET_MODULES."""


def _half_attention(facts: Facts) -> str | None:
    targets = set(facts.get("targets") or ()) & {"q_proj", "k_proj", "v_proj"}
    if not targets or {"q_proj", "v_proj"} <= targets:
        return None
    return (
        f"of the attention it tunes only {', '.join(sorted(targets))}, and the engine needs q_proj "
        "and v_proj together"
    )


ENGINE = Engine(
    "sglang",
    builds=("0.5.23",),
    forbids=(
        Rule(
            "method",
            "srt/lora/lora.py LoRAAdapter: asserts peft_type LORA",
            other_method("only LoRA is loaded"),
            ELSEWHERE,
        ),
        Rule(
            "dora",
            "srt/lora/lora_manager.py validate_new_adapter: use_dora",
            has_variant("dora", "DoRA's magnitudes are not loaded"),
            ELSEWHERE,
        ),
        Rule(
            "rslora",
            "srt/lora/lora.py LoRAAdapter: scaling is alpha / r, use_rslora is read nowhere",
            has_variant("rslora", f"rank-stabilised scaling is not read: {SILENT}"),
            ON_VLLM,
        ),
        Rule(
            "patterns",
            "srt/lora/lora_config.py: rank_pattern and alpha_pattern are read nowhere",
            has_patterns,
            ON_VLLM,
        ),
        Rule(
            "bias",
            "srt/lora/layers.py: A and B are applied, an adapter's bias nowhere",
            trains_bias(f"which are left out: {SILENT}"),
            ELSEWHERE,
        ),
        Rule(
            "modules-to-save",
            "srt/lora/lora.py _process_weight: skipped outside target_modules",
            saves_modules(f"which are left out: {SILENT}"),
            ELSEWHERE,
        ),
        Rule(
            "attention-targets",
            "srt/lora/lora.py normalize_qkv_proj: assumes q_proj and v_proj",
            _half_attention,
            ON_VLLM,
        ),
        IN_PROCESS,
    ),
    conditions=(
        Rule(
            "targets",
            "srt/utils/common.py SUPPORTED_LORA_TARGET_MODULES",
            other_targets(TARGETS, "which --lora-target-modules does not offer"),
            TRY_MODEL,
        ),
    ),
    # max_lora_rank accepts any rank and is compared with r (mem_pool.py can_support).
    ranks=(),
    needs=lambda facts: {"lora_target_modules": list(facts.get("targets") or ())},
)
