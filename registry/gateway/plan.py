"""Who answers a request: pure functions, so that an audit can repeat the choice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from registry.errors import Unavailable
from registry.rules.rollouts import Arm, arm
from registry.views.rollouts import ArmView, RoutingEntry


@dataclass(frozen=True, slots=True)
class Plan:
    """The versions that may answer, in this order, and whether the first is already a fallback."""

    versions: tuple[ArmView, ...]
    fallback: bool


def side_of(entry: RoutingEntry, unit: str | None) -> Arm:
    """The arm a unit belongs to; without a candidate every unit is on the stable one."""
    return arm(entry.salt, unit, entry.weight_bp) if entry.candidate is not None else "stable"


def choose(entry: RoutingEntry, side: Arm, is_loaded: Callable[[ArmView, ArmView], bool]) -> Plan:
    """The plan for one arm; `is_loaded(version, base)` says whether the engine has a version.

    The order is candidate, stable, then the base where policy allows it. A version that the engine
    lacks is skipped. Where a route names no stable version, the base takes its place. Raises
    Unavailable `channel-killed` or `nothing-servable`.
    """
    name = f"{entry.model}@{entry.channel}"
    if entry.killed:
        raise Unavailable(
            "channel-killed",
            f"{name} has been switched off.",
            generation=entry.generation,
            retry_after=60,
        )
    preferred = list(_preferred(entry, side))
    servable = tuple(version for version in preferred if is_loaded(version, entry.base))
    if not servable:
        names = ", ".join(version.ref for version in preferred) or "no version at all"
        raise Unavailable(
            "nothing-servable",
            f"{name} should serve {names}, and the engine has none of these loaded.",
            generation=entry.generation,
            retry_after=2,
        )
    return Plan(servable, servable[0] is not preferred[0])


def _preferred(entry: RoutingEntry, side: Arm) -> Iterator[ArmView]:
    if side == "candidate" and entry.candidate is not None:
        yield entry.candidate
    if entry.stable is not None:
        yield entry.stable
    if entry.fallback_to_base and (entry.stable is None or entry.stable.ref != entry.base.ref):
        yield entry.base
