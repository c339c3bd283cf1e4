"""Where a version can be served, and where not and why: one verdict per engine, from its facts alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Outcome = Literal["yes", "no", "conditional"]
ENGINES = ("vllm", "sglang", "tgi", "transformers")

# The one build of each engine whose rules were read (hub_and_serving.md, section 2). Of SGLang and TGI source was
# read at no named release: for them, and for every other build, a verdict can only be conditional.
READ_BUILDS: dict[str, tuple[str, ...]] = {"vllm": ("0.32.0",), "sglang": (), "tgi": (), "transformers": ()}

# vLLM's --max-lora-rank takes these and nothing between (design brief; not read again here).
VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)


@dataclass(frozen=True, slots=True)
class Reason:
    """One rule that speaks against an engine, or sets a condition: which, why, and what would mend it."""

    rule: str
    detail: str
    mend: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one engine says to a version; `needs` are the settings it must be started with."""

    engine: str
    verdict: Outcome
    reasons: tuple[Reason, ...] = ()
    needs: Mapping[str, Any] = field(default_factory=dict)


Facts = Mapping[str, Any]
LORA_ONLY = ("vllm", "sglang", "tgi")
ELSEWHERE = "Serve it with transformers, or merge it into a checkpoint and register that."


def _dora(facts: Facts) -> str | None:
    return "DoRA's magnitudes are not loaded" if "dora" in str(facts.get("variant") or "") else None


def _bias(facts: Facts) -> str | None:
    return f"it trains biases ({facts['bias']})" if facts.get("bias") not in (None, "none") else None


def _patterned(facts: Facts) -> str | None:
    keys = [key for key in ("rank_pattern", "alpha_pattern") if facts.get(key)]
    return f"its modules differ by {' and '.join(keys)}, but all would be scaled alike" if keys else None


def _saved(facts: Facts) -> str | None:
    whole = sorted(set(facts.get("modules_to_save") or ()) - {"classifier", "score"})
    return f"it brings whole modules of its own: {', '.join(whole)}" if whole else None


def _method(facts: Facts) -> str | None:
    method = facts.get("method")
    return f"it is {method}, and only LoRA is loaded" if method not in (None, "lora", "rslora", "dora") else None


def _in_process(facts: Facts) -> str | None:
    return "PEFT cannot load it; only our own engine can, in-process" if facts.get("serving") == "in-process" else None


# Rule -> (the engines it holds for, what it sees in an adapter's facts, the mend).
FORBIDS: dict[str, tuple[tuple[str, ...], Callable[[Facts], str | None], str]] = {
    # Read: vLLM 0.32 lora/peft_helper.py loads plain and rank-stabilised LoRA. Assumed of SGLang and TGI.
    "method": (LORA_ONLY, _method, ELSEWHERE),
    # Read: vLLM 0.32 peft_helper.py refuses DoRA and lora_bias. Assumed of SGLang and TGI.
    "dora": (LORA_ONLY, _dora, ELSEWHERE),
    "bias": (LORA_ONLY, _bias, ELSEWHERE),
    # Read: vLLM 0.32 refuses modules_to_save except classifier and score. Assumed of SGLang and TGI.
    "modules-to-save": (LORA_ONLY, _saved, ELSEWHERE),
    # Read at 02143692: vLLM's peft_helper.py drops keys it does not know, and scales every module by one alpha and r.
    "patterns": (LORA_ONLY, _patterned, ELSEWHERE),
    # Our own module (trainer.md): neither an engine nor PEFT knows its files.
    "in-process": (ENGINES, _in_process, "Serve it with Countersign's own engine, which is outside of profiles."),
}


def _rank(engine: str, facts: Facts, settings: Mapping[str, Any], needs: dict[str, Any]) -> list[Reason]:
    rank = facts.get("max_rank", facts.get("rank"))  # the highest of any module is what needs room
    if engine == "transformers":
        return []
    if type(rank) is not int:
        return [Reason("rank-unknown", "its rank was not recorded", "Register the adapter again to have it read.")]
    allowed = next((one for one in VLLM_RANKS if one >= rank), None) if engine == "vllm" else rank
    if allowed is None:
        return [Reason("rank-too-high", f"its rank {rank} is above {VLLM_RANKS[-1]}, the largest vLLM takes",
                       "Train it with a lower rank.")]  # fmt: skip
    # Research: vLLM answers 500, not 4xx, for a rank above its setting; SGLang fixes both settings at start.
    needs["max_lora_rank"] = allowed
    given = settings.get("max_lora_rank")
    if type(given) is int and given < rank:
        return [Reason("rank-above-setting", f"its rank {rank} is above the engine's max_lora_rank {given}",
                       f"Start the engine with max_lora_rank {allowed}.")]  # fmt: skip
    return []


def judge(
    engine: str, *, kind: str, state: str, facts: Facts, build: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Verdict:  # fmt: skip
    """The verdict of one engine: `no` with every rule that forbids, else `conditional` where something is unread.

    Without a build it speaks of the one that was read. `settings` are those of a running engine, where known.
    """
    needs: dict[str, Any] = {}
    no: list[Reason] = []
    unsure: list[Reason] = []
    if state not in ("registered", "deprecated"):
        no.append(Reason("state", f"it is {state}", "Complete a draft; of what was recalled, serve another version."))
    if kind == "adapter":
        for rule, (engines, sees, mend) in FORBIDS.items():
            if engine in engines and (why := sees(facts)):
                no.append(Reason(rule, why, mend))
        if not facts.get("method"):
            unsure.append(Reason("method-unknown", "its method was not recorded",
                                 "Register the adapter again to have it read."))  # fmt: skip
        for reason in _rank(engine, facts, settings or {}, needs) if facts.get("method") in (
            None, "lora", "rslora", "dora") else []:  # fmt: skip
            (unsure if reason.rule == "rank-unknown" else no).append(reason)
        if engine == "sglang":
            needs["lora_target_modules"] = list(facts.get("targets") or ())
        if engine == "tgi":
            # Research: TGI loads adapters at start only, LORA_ADAPTERS=id@revision.
            unsure.append(Reason("startup-only", "TGI loads adapters only when it starts",
                                 "Name it in LORA_ADAPTERS and start TGI again."))  # fmt: skip
    else:
        # No table of the architectures and quantisations of any engine was read, so a full model is never a plain yes.
        what = facts.get("architecture") or "an architecture that was not recorded"
        kept = facts.get("quantisation")
        unsure.append(Reason("architecture-unread", f"whether it loads {what}{f' in {kept}' if kept else ''} "
                             "was not read from its source", "Try it with this build before you rely on it."))  # fmt: skip
    if (build or next(iter(READ_BUILDS[engine]), None)) not in READ_BUILDS[engine]:
        unsure.append(Reason("build-unread", f"the rules of {engine} {build or '(any build)'} were not read",
                             "Try it with this build before you rely on it."))  # fmt: skip
    outcome: Outcome = "no" if no else "conditional" if unsure else "yes"
    return Verdict(engine, outcome, (*no, *unsure), needs)
