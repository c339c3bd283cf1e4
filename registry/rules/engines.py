"""Where a version can be served, and where not and why: one verdict per engine, from its facts
alone.

Every rule names the file of the engine's own source in which it was read, at the builds in
READ_BUILDS: vLLM from the wheels of both releases, SGLang from its wheel, TGI from its repository
at v3.3.7 (commit db931fcf), transformers with PEFT 0.21.2 as this repository pins and runs them.
For any other build a verdict is conditional at best. The worst case is not a refusal: SGLang and
TGI load some adapters without a word and serve something else than was trained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from registry.rules.versions import usable

Outcome = Literal["yes", "no", "conditional"]
Facts = Mapping[str, Any]
ENGINES = ("vllm", "sglang", "tgi", "transformers")

# The first is the one spoken of when nobody names a build.
READ_BUILDS: dict[str, tuple[str, ...]] = {
    "vllm": ("0.33.0", "0.32.0"),
    "sglang": ("0.5.23",),
    "tgi": ("3.3.7",),
    "transformers": ("5.23.0",),
}
# vLLM's --max-lora-rank takes these and nothing between: vllm/config/lora.py, MaxLoRARanks.
VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)

# SGLang: srt/utils/common.py, SUPPORTED_LORA_TARGET_MODULES. TGI: models/__init__.py,
# adapter_layers.
SGLANG_TARGETS = frozenset(
    {
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
    }
)
TGI_TARGETS = frozenset(
    {
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
    }
)


@dataclass(frozen=True, slots=True)
class Reason:
    """One rule that speaks against an engine, or sets a condition: which, why, and what would fix
    it.
    """

    rule: str
    detail: str
    fix: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one engine says to a version; `needs` are the settings it must be started with."""

    engine: str
    verdict: Outcome
    reasons: tuple[Reason, ...] = ()
    needs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rule:
    """What an engine cannot do: `sees` finds it in an adapter's facts, `source` is the file and
    name it was read in.
    """

    engine: str
    name: str
    source: str
    sees: Callable[[Facts], str | None]
    fix: str


ELSEWHERE = "Serve it with transformers, or merge it into a checkpoint and register that."
ON_VLLM = "Serve it with vLLM or transformers, or merge it into a checkpoint and register that."
IN_SILENCE = "it would be loaded without a word and answer wrongly"
TRY = "Try it with this model before you rely on it."


def _method(because: str) -> Callable[[Facts], str | None]:
    return lambda facts: (
        f"it is {facts['method']}, and {because}"
        if facts.get("method") not in (None, "lora", "rslora", "dora")
        else None
    )


def _variant(variant: str, because: str) -> Callable[[Facts], str | None]:
    return lambda facts: (
        because if variant in str(facts.get("variant") or facts.get("method") or "") else None
    )


def _bias(because: str) -> Callable[[Facts], str | None]:
    return lambda facts: (
        f"it trains biases ({facts['bias']}), {because}"
        if facts.get("bias") not in (None, "none")
        else None
    )


def _saved(
    because: str, spared: tuple[str, ...] = (), most: int = 0
) -> Callable[[Facts], str | None]:
    def sees(facts: Facts) -> str | None:
        brought = {*(facts.get("modules_to_save") or ()), *(facts.get("embeddings") or ())}
        brought |= {f"{facts['tokens']} tokens of its own"} if facts.get("tokens") else set()
        whole = sorted(brought if len(brought) > most else brought - set(spared))
        return (
            f"it brings whole modules of its own ({', '.join(whole)}), {because}" if whole else None
        )

    return sees


def _patterns(facts: Facts) -> str | None:
    has = [key for key in ("rank_pattern", "alpha_pattern") if facts.get(key)]
    return (
        f"its modules differ in strength ({', '.join(has)}), which is not read: {IN_SILENCE}"
        if has
        else None
    )


def _qkv(facts: Facts) -> str | None:
    targets = set(facts.get("targets") or ()) & {"q_proj", "k_proj", "v_proj"}
    if not targets or {"q_proj", "v_proj"} <= targets:
        return None
    return (
        f"of the attention it tunes {', '.join(sorted(targets))} alone, and q_proj and v_proj "
        "are needed together"
    )


def _targets(known: frozenset[str], because: str) -> Callable[[Facts], str | None]:
    def sees(facts: Facts) -> str | None:
        strange = sorted(set(facts.get("targets") or ()) - known)
        return f"it tunes {', '.join(strange)}, {because}" if strange else None

    return sees


def _layers(facts: Facts) -> str | None:
    if facts.get("layers") is None:
        return None
    return (
        "it tunes some layers only, and a kind of module missing in one is left out in all: "
        f"{IN_SILENCE}"
    )


def _in_process(facts: Facts) -> str | None:
    return (
        "PEFT cannot load it; only our own engine can, in-process"
        if facts.get("serving") == "in-process"
        else None
    )


FORBIDS: tuple[Rule, ...] = (
    Rule(
        "vllm",
        "method",
        "vllm/lora/peft_helper.py from_dict; lora/utils.py parse_fine_tuned_lora_name",
        _method("only LoRA's rank, alpha and A and B tensors are read"),
        ELSEWHERE,
    ),
    Rule(
        "vllm",
        "dora",
        "vllm/lora/peft_helper.py _validate_features: use_dora",
        _variant("dora", "DoRA's magnitudes are not loaded"),
        ELSEWHERE,
    ),
    Rule(
        "vllm",
        "alora",
        "vllm/lora/peft_helper.py: no aLoRA",
        _variant("alora", "LoRA that waits for its invocation tokens is not supported"),
        ELSEWHERE,
    ),
    Rule(
        "vllm",
        "bias",
        "vllm/lora/peft_helper.py validate_legal: bias",
        _bias("and adapter biases are refused"),
        ELSEWHERE,
    ),
    Rule(
        "vllm",
        "modules-to-save",
        "vllm/lora/peft_helper.py _validate_features; lora/lora_model.py from_lora_tensors",
        _saved("and only one of classifier or score is taken", ("classifier", "score"), 1),
        ELSEWHERE,
    ),
    Rule(
        "sglang",
        "method",
        "srt/lora/lora.py LoRAAdapter: asserts peft_type LORA",
        _method("only LoRA is loaded"),
        ELSEWHERE,
    ),
    Rule(
        "sglang",
        "dora",
        "srt/lora/lora_manager.py validate_new_adapter: use_dora",
        _variant("dora", "DoRA's magnitudes are not loaded"),
        ELSEWHERE,
    ),
    Rule(
        "sglang",
        "rslora",
        "srt/lora/lora.py LoRAAdapter: scaling is alpha / r, use_rslora is read nowhere",
        _variant("rslora", f"rank-stabilised scaling is not read: {IN_SILENCE}"),
        ON_VLLM,
    ),
    Rule(
        "sglang",
        "patterns",
        "srt/lora/lora_config.py: rank_pattern and alpha_pattern are read nowhere",
        _patterns,
        ON_VLLM,
    ),
    Rule(
        "sglang",
        "bias",
        "srt/lora/layers.py: A and B are applied, an adapter's bias nowhere",
        _bias(f"which are left out: {IN_SILENCE}"),
        ELSEWHERE,
    ),
    Rule(
        "sglang",
        "modules-to-save",
        "srt/lora/lora.py _process_weight: skipped outside target_modules",
        _saved(f"which are left out: {IN_SILENCE}"),
        ELSEWHERE,
    ),
    Rule(
        "sglang",
        "attention-targets",
        "srt/lora/lora.py normalize_qkv_proj: takes q_proj and v_proj for given",
        _qkv,
        ON_VLLM,
    ),
    Rule(
        "tgi",
        "method",
        "server adapters/lora.py LoraConfig.load and map_weights_for_model",
        _method("only LoRA's A and B weights are looked for"),
        ELSEWHERE,
    ),
    Rule(
        "tgi",
        "dora",
        "server adapters/lora.py map_weights_for_model: magnitudes are looked for nowhere",
        _variant("dora", f"DoRA's magnitudes are left out: {IN_SILENCE}"),
        ELSEWHERE,
    ),
    Rule(
        "tgi",
        "patterns",
        "server adapters/lora.py prepare_weights: one rank and alpha for all",
        _patterns,
        ON_VLLM,
    ),
    Rule(
        "tgi",
        "bias",
        "server adapters/lora.py map_weights_for_model: biases are looked for nowhere",
        _bias(f"which are left out: {IN_SILENCE}"),
        ELSEWHERE,
    ),
    Rule(
        "tgi",
        "modules-to-save",
        "server adapters/lora.py map_weights_for_model: lora_A and lora_B alone",
        _saved(f"which are left out: {IN_SILENCE}"),
        ELSEWHERE,
    ),
    Rule(
        "tgi",
        "targets",
        "server models/__init__.py adapter_layers",
        _targets(TGI_TARGETS, f"which is left out: {IN_SILENCE}"),
        ON_VLLM,
    ),
    Rule(
        "tgi",
        "layers",
        "server adapters/lora.py prepare_weights: None for the whole kind when one layer lacks it",
        _layers,
        ON_VLLM,
    ),
    # Our own module (trainer.md): neither an engine nor PEFT knows its files.
    *(
        Rule(
            engine,
            "in-process",
            "trainer: our own module, in no engine",
            _in_process,
            "Serve it with Countersign's own engine, which is outside of profiles.",
        )
        for engine in ENGINES
    ),
)
CONDITIONS: tuple[Rule, ...] = (
    Rule(
        "vllm",
        "embeddings",
        "vllm/lora/utils.py get_supported_lora_modules: embedding_modules of the model's class",
        lambda facts: _targets(
            frozenset(facts.get("targets") or ()) - {"embed_tokens", "lm_head"},
            "which only some models' classes take",
        )(facts),
        TRY,
    ),
    Rule(
        "sglang",
        "targets",
        "srt/utils/common.py SUPPORTED_LORA_TARGET_MODULES",
        _targets(SGLANG_TARGETS, "which --lora-target-modules does not offer"),
        TRY,
    ),
    Rule(
        "tgi",
        "startup-only",
        "server models/__init__.py get_model_with_lora_adapters",
        lambda _: "TGI loads adapters only when it starts",
        "Name it in LORA_ADAPTERS and start TGI again.",
    ),
)


def _unread(engine: str, facts: Facts) -> list[Reason]:
    """What an adapter may be that no engine's source was read for; the worst outcome is that the
    base answers.
    """
    found = {}
    if facts.get("loads_as") == "AutoModel":
        found["loads-as"] = (
            "its tensors are named as AutoModel names them, without the name of a model with a head"
        )
    if facts.get("target_parameters"):
        found["parameters"] = (
            f"it tunes parameters by themselves ({', '.join(facts['target_parameters'])})"
        )
    if "alora" in str(facts.get("variant")) and engine != "vllm":
        found["alora"] = "it waits for its invocation tokens"
    return [
        Reason(rule, f"{why}; whether {engine} takes that was not read", TRY)
        for rule, why in found.items()
    ]


def _rank(
    engine: str, facts: Facts, settings: Mapping[str, Any], needs: dict[str, Any]
) -> list[Reason]:
    # vLLM validates the highest of rank and rank_pattern (peft_helper.py validate_legal), SGLang r
    # (mem_pool.py can_support), TGI none: it pads any rank (adapters/lora.py prepare_weights).
    if engine in ("transformers", "tgi"):
        return []
    rank = facts.get("max_rank", facts.get("rank"))
    if type(rank) is not int:
        return [
            Reason(
                "rank-unknown",
                "its rank was not recorded",
                "Register the adapter again to have it read.",
            )
        ]
    allowed = next((one for one in VLLM_RANKS if one >= rank), None) if engine == "vllm" else rank
    if allowed is None:
        return [
            Reason(
                "rank-too-high",
                f"its rank {rank} is above {VLLM_RANKS[-1]}, the largest vLLM takes",
                "Train it with a lower rank.",
            )
        ]
    needs["max_lora_rank"] = allowed
    given = settings.get("max_lora_rank")
    if type(given) is int and given < rank:
        return [
            Reason(
                "rank-above-setting",
                f"its rank {rank} is above the engine's max_lora_rank {given}",
                f"Start the engine with max_lora_rank {allowed}.",
            )
        ]
    return []


def _adapter(
    engine: str,
    facts: Facts,
    settings: Mapping[str, Any],
    dtype: str | None,
    quantisation: str | None,
    needs: dict[str, Any],
) -> tuple[list[Reason], list[Reason]]:
    """Why an engine cannot serve an adapter, and on what conditions it can."""
    no, unsure = (
        [
            Reason(rule.name, why, rule.fix)
            for rule in rules
            if rule.engine == engine and (why := rule.sees(facts))
        ]
        for rules in (FORBIDS, CONDITIONS)
    )
    if engine != "transformers":
        unsure += _unread(engine, facts)
    if not facts.get("method"):
        unsure.append(
            Reason(
                "method-unknown",
                "its method was not recorded",
                "Register the adapter again to have it read.",
            )
        )
    if facts.get("method") in (None, "lora", "rslora", "dora"):
        for reason in _rank(engine, facts, settings, needs):
            (unsure if reason.rule == "rank-unknown" else no).append(reason)
    if engine == "transformers" and facts.get("loads_as"):
        needs["loads_as"] = facts["loads_as"]
    if engine == "sglang":
        needs["lora_target_modules"] = list(facts.get("targets") or ())
    # vllm/config/lora.py LoRADType; lora/ops/triton_ops/lora_shrink_op.py asserts it on GPUs,
    # torch_ops does not.
    if engine == "vllm" and dtype == "float32":
        unsure.append(
            Reason(
                "float32",
                "vLLM's LoRA kernels for GPUs take float16 and bfloat16 only",
                "Take bfloat16, or serve it on a CPU.",
            )
        )
    # server adapters/lora.py prepare_weights reads base_layer.linear.weight, which packed weights
    # may not have.
    if engine == "tgi" and quantisation is not None:
        unsure.append(
            Reason(
                "quantised-base",
                f"TGI looks for plain weights under an adapter; the base is {quantisation}",
                "Try it with this base before you rely on it, or serve it on the unquantised one.",
            )
        )
    return no, unsure


def judge(
    engine: str,
    *,
    kind: str,
    state: str,
    facts: Facts,
    build: str | None = None,
    settings: Mapping[str, Any] | None = None,
    dtype: str | None = None,
    quantisation: str | None = None,
) -> Verdict:
    """The verdict of one engine: `no` with every rule that forbids, else `conditional` where
    something is unread.

    Without a build it speaks of the one that was read. `settings` are those of a running engine,
    where known; `dtype` and `quantisation` those of the profile asked for.
    """
    needs: dict[str, Any] = {}
    no: list[Reason] = []
    unsure: list[Reason] = []
    if not usable(state):
        no.append(
            Reason(
                "state",
                f"it is {state}",
                "Complete a draft; of what was recalled, serve another version.",
            )
        )
    if kind == "adapter":
        forbidden, conditions = _adapter(engine, facts, settings or {}, dtype, quantisation, needs)
        no += forbidden
        unsure += conditions
    else:
        # No table of the architectures and quantisations of any engine was read, so a full model is
        # never a plain yes.
        what = facts.get("architecture") or "an architecture that was not recorded"
        kept = facts.get("quantisation")
        unsure.append(
            Reason(
                "architecture-unread",
                f"whether it loads {what}{f' in {kept}' if kept else ''} "
                "was not read from its source",
                "Try it with this build before you rely on it.",
            )
        )
    if build is not None and build not in READ_BUILDS[engine]:
        unsure.append(
            Reason(
                "build-unread",
                f"the rules of {engine} {build} were not read "
                f"({', '.join(READ_BUILDS[engine])} was)",
                "Try it with this build before you rely on it.",
            )
        )
    outcome: Outcome = "no" if no else "conditional" if unsure else "yes"
    return Verdict(engine, outcome, (*no, *unsure), needs)
