"""vLLM, read in the wheels of both releases."""

from __future__ import annotations

from registry.rules.engines.rule import (
    ELSEWHERE,
    IN_PROCESS,
    TRY_MODEL,
    Engine,
    Facts,
    Rule,
    Setup,
    has_variant,
    other_method,
    saves_modules,
    trains_bias,
)

EMBEDDINGS = frozenset({"embed_tokens", "lm_head"})


def _tunes_embeddings(facts: Facts) -> str | None:
    tuned = sorted(EMBEDDINGS & set(facts.get("targets") or ()))
    return f"it tunes {', '.join(tuned)}, which only some models' classes accept" if tuned else None


def _float32(setup: Setup) -> str | None:
    return (
        "vLLM's LoRA kernels for GPUs accept only float16 and bfloat16"
        if setup.dtype == "float32"
        else None
    )


ENGINE = Engine(
    "vllm",
    builds=("0.33.0", "0.32.0"),
    forbids=(
        Rule(
            "method",
            "vllm/lora/peft_helper.py from_dict; lora/utils.py parse_fine_tuned_lora_name",
            other_method("only LoRA's rank, alpha and A and B tensors are read"),
            ELSEWHERE,
        ),
        Rule(
            "dora",
            "vllm/lora/peft_helper.py _validate_features: use_dora",
            has_variant("dora", "DoRA's magnitudes are not loaded"),
            ELSEWHERE,
        ),
        Rule(
            "alora",
            "vllm/lora/peft_helper.py: no aLoRA",
            has_variant("alora", "LoRA that waits for its invocation tokens is not supported"),
            ELSEWHERE,
        ),
        Rule(
            "bias",
            "vllm/lora/peft_helper.py validate_legal: bias",
            trains_bias("and adapter biases are refused"),
            ELSEWHERE,
        ),
        Rule(
            "modules-to-save",
            "vllm/lora/peft_helper.py _validate_features; lora/lora_model.py from_lora_tensors",
            saves_modules(
                "and only one of classifier or score is accepted", ("classifier", "score"), 1
            ),
            ELSEWHERE,
        ),
        IN_PROCESS,
    ),
    conditions=(
        Rule(
            "embeddings",
            "vllm/lora/utils.py get_supported_lora_modules: embedding_modules of the model's class",
            _tunes_embeddings,
            TRY_MODEL,
        ),
    ),
    setups=(
        Rule(
            "float32",
            # The kernel asserts it on GPUs; torch_ops, which CPUs use, does not.
            "vllm/config/lora.py LoRADType; lora/ops/triton_ops/lora_shrink_op.py",
            _float32,
            "Use bfloat16, or serve it on a CPU.",
        ),
    ),
    # --max-lora-rank accepts these and nothing between (vllm/config/lora.py, MaxLoRARanks). It is
    # compared with the highest of rank and rank_pattern (peft_helper.py validate_legal).
    ranks=(1, 8, 16, 32, 64, 128, 256, 320, 512),
)
