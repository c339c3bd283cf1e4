"""TGI, read in its repository at v3.3.7 (commit db931fcf).

It loads some adapters without an error and serves something else than was trained. It has no limit
of ranks: it pads any rank (adapters/lora.py prepare_weights).
"""

from __future__ import annotations

from registry.rules.engines.rule import (
    ELSEWHERE,
    IN_PROCESS,
    ON_VLLM,
    SILENT,
    Engine,
    Facts,
    Rule,
    Setup,
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
        "gate_proj",
        "up_proj",
        "down_proj",
        "qkv_proj",
        "c_proj",
        "c_fc",
    ]
)
"""models/__init__.py, adapter_layers."""


def _some_layers(facts: Facts) -> str | None:
    if facts.get("layers") is None:
        return None
    return (
        "it tunes only some layers, and the engine leaves out a kind of module in all layers when "
        f"one layer lacks it: {SILENT}"
    )


def _quantised_base(setup: Setup) -> str | None:
    if setup.quantisation is None:
        return None
    return f"TGI looks for plain weights under an adapter; the base is {setup.quantisation}"


ENGINE = Engine(
    "tgi",
    builds=("3.3.7",),
    forbids=(
        Rule(
            "method",
            "server adapters/lora.py LoraConfig.load and map_weights_for_model",
            other_method("only LoRA's A and B weights are read"),
            ELSEWHERE,
        ),
        Rule(
            "dora",
            "server adapters/lora.py map_weights_for_model: magnitudes are read nowhere",
            has_variant("dora", f"DoRA's magnitudes are left out: {SILENT}"),
            ELSEWHERE,
        ),
        Rule(
            "patterns",
            "server adapters/lora.py prepare_weights: one rank and alpha for all",
            has_patterns,
            ON_VLLM,
        ),
        Rule(
            "bias",
            "server adapters/lora.py map_weights_for_model: biases are read nowhere",
            trains_bias(f"which are left out: {SILENT}"),
            ELSEWHERE,
        ),
        Rule(
            "modules-to-save",
            "server adapters/lora.py map_weights_for_model: only lora_A and lora_B",
            saves_modules(f"which are left out: {SILENT}"),
            ELSEWHERE,
        ),
        Rule(
            "targets",
            "server models/__init__.py adapter_layers",
            other_targets(TARGETS, f"which is left out: {SILENT}"),
            ON_VLLM,
        ),
        Rule(
            "layers",
            "server adapters/lora.py prepare_weights: None for the whole kind when one layer "
            "lacks it",
            _some_layers,
            ON_VLLM,
        ),
        IN_PROCESS,
    ),
    conditions=(
        Rule(
            "startup-only",
            "server models/__init__.py get_model_with_lora_adapters",
            lambda facts: "TGI loads adapters only when it starts",
            "Name it in LORA_ADAPTERS and start TGI again.",
        ),
    ),
    setups=(
        Rule(
            "quantised-base",
            # Packed weights may have no base_layer.linear.weight.
            "server adapters/lora.py prepare_weights: base_layer.linear.weight",
            _quantised_base,
            "Try it with this base before you rely on it, or serve it on the unquantised base.",
        ),
    ),
)
