"""Which engines can serve a version, and why not: one verdict per engine, from its facts alone.

Each engine has a file beside this one. Every rule names the file of the engine's own source in
which it was read, at the builds in READ_BUILDS. For any other build a verdict is conditional at
best. The worst case is not a refusal: SGLang and TGI load some adapters without an error and serve
something else than was trained.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from registry.rules.engines import sglang, tgi, transformers, vllm
from registry.rules.engines.rule import (
    LORA_METHODS,
    TRY_BUILD,
    TRY_MODEL,
    Engine,
    Facts,
    Outcome,
    Reason,
    Setup,
    Subject,
    Verdict,
)
from registry.rules.versions import usable

BY_NAME: dict[str, Engine] = {
    module.ENGINE.name: module.ENGINE for module in (vllm, sglang, tgi, transformers)
}
ENGINES = tuple(BY_NAME)
READ_BUILDS = {name: engine.builds for name, engine in BY_NAME.items()}
"""The builds whose source was read, by engine; the first is the default."""

READ_AGAIN = "Register the adapter again to have it read."
ANY_SETUP = Setup()
"""Nothing is known of how the engine runs."""


def judge(engine: str, subject: Subject, setup: Setup = ANY_SETUP) -> Verdict:
    """The verdict of one engine on a version.

    It is `no` with every rule that forbids, otherwise `conditional` where something was not read.
    """
    needs: dict[str, Any] = {}
    forbidden: list[Reason] = []
    unsure: list[Reason] = []
    if not usable(subject.state):
        forbidden.append(
            Reason(
                "state",
                f"it is {subject.state}",
                "Complete a draft; in place of a recalled version, serve another one.",
            )
        )
    if subject.kind == "adapter":
        forbidden += _limits(BY_NAME[engine], subject.facts, setup)
        unsure += _conditions(BY_NAME[engine], subject.facts, setup)
        needs = _needs(BY_NAME[engine], subject.facts)
    else:
        unsure.append(_unread_architecture(subject.facts))
    if setup.build is not None and setup.build not in READ_BUILDS[engine]:
        read = READ_BUILDS[engine]
        unsure.append(
            Reason(
                "build-unread",
                f"the source of {engine} {setup.build} was not read, only that of "
                f"{' and '.join(read)}",
                TRY_BUILD,
            )
        )
    outcome: Outcome = "no" if forbidden else "conditional" if unsure else "yes"
    return Verdict(engine, outcome, (*forbidden, *unsure), needs)


def _unread_architecture(facts: Facts) -> Reason:
    """A full model is never a plain yes.

    The architectures and quantisations that an engine supports were read for none of them.
    """
    architecture = facts.get("architecture") or "an architecture that was not recorded"
    quantisation = f" in {facts['quantisation']}" if facts.get("quantisation") else ""
    return Reason(
        "architecture-unread",
        f"nobody has tried whether this engine loads {architecture}{quantisation}",
        TRY_BUILD,
    )


def _limits(engine: Engine, facts: Facts, setup: Setup) -> Iterator[Reason]:
    """Why an engine cannot serve an adapter."""
    for rule in engine.forbids:
        if detail := rule.sees(facts):
            yield Reason(rule.name, detail, rule.fix)
    rank = _rank(engine, facts)
    if rank is None:
        return
    setting = _rank_setting(engine, rank)
    if setting is None:
        yield Reason(
            "rank-too-high",
            f"its rank {rank} is above {engine.ranks[-1] if engine.ranks else 0}, the largest that "
            f"{engine.name} accepts",
            "Train it with a lower rank.",
        )
        return
    current = setup.settings.get("max_lora_rank")
    if type(current) is int and current < rank:
        yield Reason(
            "rank-above-setting",
            f"its rank {rank} is above the engine's max_lora_rank {current}",
            f"Start the engine with max_lora_rank {setting}.",
        )


def _rank(engine: Engine, facts: Facts) -> int | None:
    """The highest rank of an adapter on an engine that limits ranks; None when there is none."""
    if engine.ranks is None or not _is_lora(facts):
        return None
    rank = facts.get("max_rank", facts.get("rank"))
    return rank if type(rank) is int else None


def _is_lora(facts: Facts) -> bool:
    return facts.get("method") in (None, *LORA_METHODS)


def _rank_setting(engine: Engine, rank: int) -> int | None:
    """The smallest `max_lora_rank` with room for a rank; None when all are smaller."""
    if not engine.ranks:
        return rank
    return next((accepted for accepted in engine.ranks if accepted >= rank), None)


def _needs(engine: Engine, facts: Facts) -> dict[str, Any]:
    """The settings an engine must be started with to serve an adapter."""
    rank = _rank(engine, facts)
    setting = None if rank is None else _rank_setting(engine, rank)
    ranks = {} if setting is None else {"max_lora_rank": setting}
    return ranks | engine.needs(facts)


def _conditions(engine: Engine, facts: Facts, setup: Setup) -> Iterator[Reason]:
    """On what conditions an engine can serve an adapter."""
    for rule in engine.conditions:
        if detail := rule.sees(facts):
            yield Reason(rule.name, detail, rule.fix)
    if engine.name != "transformers":
        yield from _unread(engine.name, facts)
    if not facts.get("method"):
        yield Reason("method-unknown", "its method was not recorded", READ_AGAIN)
    if engine.ranks is not None and _is_lora(facts) and _rank(engine, facts) is None:
        yield Reason("rank-unknown", "its rank was not recorded", READ_AGAIN)
    for condition in engine.setups:
        if detail := condition.sees(setup):
            yield Reason(condition.name, detail, condition.fix)


def _unread(engine: str, facts: Facts) -> Iterator[Reason]:
    """What an adapter may be that was read in no engine's source; at worst the base answers."""
    unread = {}
    if facts.get("names") == "older":
        unread["names"] = (
            "its tensors have names of an older transformers, which PEFT renames when it loads them"
        )
    if facts.get("loads_as") == "AutoModelForCausalLM" and facts.get("model_class"):
        unread["loads-as"] = (
            f"its tensors are named as {facts['model_class']} names them, the language model "
            "alone, which is not the class in the base's config.json"
        )
    if facts.get("loads_as") == "AutoModel":
        unread["loads-as"] = (
            "its tensors are named as AutoModel names them, without the name of a model with a head"
        )
    if facts.get("target_parameters"):
        unread["parameters"] = (
            f"it tunes single parameters ({', '.join(facts['target_parameters'])})"
        )
    if "alora" in str(facts.get("variant")) and engine != "vllm":
        unread["alora"] = "it waits for its invocation tokens"
    for rule, why in unread.items():
        yield Reason(rule, f"{why}; whether {engine} supports that was not read", TRY_MODEL)


__all__ = [
    "ANY_SETUP",
    "BY_NAME",
    "ENGINES",
    "READ_BUILDS",
    "Reason",
    "Setup",
    "Subject",
    "Verdict",
    "judge",
]
