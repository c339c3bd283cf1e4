"""Who answers a request: pure, so that an audit can ask again with the same route."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from registry.errors import Unavailable
from registry.rules.rollouts import Arm, arm
from registry.views.rollouts import ArmView, RoutingEntry


@dataclass(frozen=True, slots=True)
class Plan:
    """What may answer, in this order, and whether the first of them is a fall-back already."""

    versions: tuple[ArmView, ...]
    fallback: bool


def side_of(entry: RoutingEntry, unit: str | None) -> Arm:
    """The arm a unit belongs to; without a candidate everybody is stable."""
    return arm(entry.salt, unit, entry.weight_bp) if entry.candidate is not None else "stable"


def choose(entry: RoutingEntry, side: Arm, held: Callable[[ArmView, ArmView], bool]) -> Plan:
    """The plan for one arm; `held(version, base)` says whether the engine has it.

    Candidate, then stable, then the base where policy allows it: a version the engine lacks is
    passed over. Where a route names no stable, the base stands for it. Raises Unavailable
    `channel-killed` or `nothing-servable`.
    """
    name = f"{entry.model}@{entry.channel}"
    if entry.killed:
        raise Unavailable(
            "channel-killed",
            f"{name} has been switched off.",
            generation=entry.generation,
            retry_after=60,
        )
    wished = list(_wished(entry, side))
    servable = tuple(version for version in wished if held(version, entry.base))
    if not servable:
        names = ", ".join(version.ref for version in wished) or "no version at all"
        raise Unavailable(
            "nothing-servable",
            f"{name} should serve {names}, and the engine has none of it.",
            generation=entry.generation,
            retry_after=2,
        )
    return Plan(servable, servable[0] is not wished[0])


def _wished(entry: RoutingEntry, side: Arm) -> Iterator[ArmView]:
    if side == "candidate" and entry.candidate is not None:
        yield entry.candidate
    if entry.stable is not None:
        yield entry.stable
    if entry.fallback_to_base and (entry.stable is None or entry.stable.ref != entry.base.ref):
        yield entry.base
