"""What a verdict is made of: an engine with its rules, and the version and setup it judges.

A rule looks for one thing in an adapter's facts. The functions that build `sees` are shared,
because engines fail on the same things for different reasons.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

Outcome = Literal["yes", "no", "conditional"]
Facts = Mapping[str, Any]
LORA_METHODS = ("lora", "rslora", "dora")

ELSEWHERE = "Serve it with transformers, or merge it into a checkpoint and register that."
ON_VLLM = "Serve it with vLLM or transformers, or merge it into a checkpoint and register that."
SILENT = "the engine would load it without an error and answer wrongly"
TRY_MODEL = "Try it with this model before you rely on it."
TRY_BUILD = "Try it with this build before you rely on it."


@dataclass(frozen=True, slots=True)
class Subject:
    """The version that is judged."""

    kind: str
    state: str
    facts: Facts


@dataclass(frozen=True, slots=True)
class Setup:
    """How the engine runs, as far as that is known.

    Without a `build` the verdict is about the build that was read. `settings` are those of a
    running engine; `dtype` and `quantisation` are those of the profile.
    """

    build: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    dtype: str | None = None
    quantisation: str | None = None


@dataclass(frozen=True, slots=True)
class Reason:
    """A rule that forbids an engine or sets a condition: its name, why it applies, the fix."""

    rule: str
    detail: str
    fix: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether one engine can serve a version; `needs` are the settings it must be started with."""

    engine: str
    verdict: Outcome
    reasons: tuple[Reason, ...] = ()
    needs: Mapping[str, Any] = field(default_factory=dict)


Seen = TypeVar("Seen", Facts, Setup)


@dataclass(frozen=True, slots=True)
class Rule(Generic[Seen]):
    """One limit of an engine.

    `source` is the file, and the name in it, where the limit was read. `sees` says why the rule
    applies, or returns None when it does not.
    """

    name: str
    source: str
    sees: Callable[[Seen], str | None]
    fix: str


@dataclass(frozen=True, slots=True)
class Engine:
    """One engine, the builds whose source was read (the first is the default), and its rules.

    `forbids` and `conditions` look at an adapter's facts, `setups` at how the engine runs. `ranks`
    are the values its `max_lora_rank` accepts: empty for any value, None where the engine has no
    such setting. `needs` are other settings that an adapter requires.
    """

    name: str
    builds: tuple[str, ...]
    forbids: tuple[Rule[Facts], ...] = ()
    conditions: tuple[Rule[Facts], ...] = ()
    setups: tuple[Rule[Setup], ...] = ()
    ranks: tuple[int, ...] | None = None
    needs: Callable[[Facts], dict[str, Any]] = lambda facts: {}


def other_method(why: str) -> Callable[[Facts], str | None]:
    """The adapter's method is not of the LoRA family."""
    return lambda facts: (
        f"it is {facts['method']}, and {why}"
        if facts.get("method") not in (None, *LORA_METHODS)
        else None
    )


def has_variant(variant: str, why: str) -> Callable[[Facts], str | None]:
    """The adapter is of this variant of LoRA."""
    return lambda facts: (
        why if variant in str(facts.get("variant") or facts.get("method") or "") else None
    )


def trains_bias(why: str) -> Callable[[Facts], str | None]:
    """The adapter trains biases."""
    return lambda facts: (
        f"it trains biases ({facts['bias']}), {why}"
        if facts.get("bias") not in (None, "none")
        else None
    )


def saves_modules(
    why: str, accepted: tuple[str, ...] = (), max_accepted: int = 0
) -> Callable[[Facts], str | None]:
    """The adapter brings more whole modules than `max_accepted`, or others than `accepted`."""

    def sees(facts: Facts) -> str | None:
        brought = {*(facts.get("modules_to_save") or ()), *(facts.get("embeddings") or ())}
        brought |= {f"{facts['tokens']} tokens of its own"} if facts.get("tokens") else set()
        refused = sorted(brought if len(brought) > max_accepted else brought - set(accepted))
        return (
            f"it brings whole modules of its own ({', '.join(refused)}), {why}" if refused else None
        )

    return sees


def has_patterns(facts: Facts) -> str | None:
    """The adapter's modules have different ranks or alphas."""
    patterns = [key for key in ("rank_pattern", "alpha_pattern") if facts.get(key)]
    return (
        f"its modules differ in strength ({', '.join(patterns)}), which the engine does not read: "
        f"{SILENT}"
        if patterns
        else None
    )


def other_targets(known: frozenset[str], why: str) -> Callable[[Facts], str | None]:
    """The adapter tunes modules that are not among the known ones."""

    def sees(facts: Facts) -> str | None:
        unknown = sorted(set(facts.get("targets") or ()) - known)
        return f"it tunes {', '.join(unknown)}, {why}" if unknown else None

    return sees


def _in_process(facts: Facts) -> str | None:
    return (
        "PEFT cannot load it; only Countersign's own engine can, in-process"
        if facts.get("serving") == "in-process"
        else None
    )


IN_PROCESS: Rule[Facts] = Rule(
    "in-process",
    "trainer: our own module, in no engine",
    _in_process,
    "Serve it with Countersign's own engine, which profiles do not cover.",
)
"""The files of our own module (trainer.md), which neither an engine nor PEFT knows."""
