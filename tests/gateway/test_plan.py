"""Who may answer: held against every combination of route and engine."""

from __future__ import annotations

from itertools import product

import pytest

from registry.errors import Unavailable
from registry.gateway.plan import choose, side_of
from registry.views.rollouts import ArmView, RoutingEntry
from tests.gateway.door import BASE

V1 = ArmView("acme/claims@v1", "adapter", "sha256:1", "sha256:1", [])
V2 = ArmView("acme/claims@v2", "adapter", "sha256:2", "sha256:2", [])


def entry(
    *, stable: ArmView | None = V1, candidate: ArmView | None = V2, fallback: bool = True
) -> RoutingEntry:
    return RoutingEntry(
        "acme/claims", "production", 1, stable, candidate, 10_000, "salt", BASE, fallback, False
    )


def test_every_combination_of_what_is_held() -> None:
    for stable, candidate, fallback in product((V1, None), (V2, None), (True, False)):
        route = entry(stable=stable, candidate=candidate, fallback=fallback)
        wished = [v.ref for v in (candidate, stable) if v is not None] + (
            [BASE.ref] if fallback else []
        )
        for flags in product((True, False), repeat=3):
            held = {
                ref for ref, flag in zip((V2.ref, V1.ref, BASE.ref), flags, strict=True) if flag
            }
            want = [ref for ref in wished if ref in held]
            side = side_of(route, "user")
            if not want:
                with pytest.raises(Unavailable):
                    choose(route, side, lambda version, _, held=held: version.ref in held)
                continue
            plan = choose(route, side, lambda version, _, held=held: version.ref in held)
            assert [version.ref for version in plan.versions] == want
            assert plan.fallback == (want[0] != wished[0])


def test_a_unit_outside_the_share_never_sees_the_candidate() -> None:
    plan = choose(entry(), "stable", lambda *_: True)
    assert [version.ref for version in plan.versions] == [V1.ref, BASE.ref]
    assert side_of(entry(), None) == "stable"
    assert side_of(entry(candidate=None), "user") == "stable"


def test_the_base_is_not_named_twice() -> None:
    plan = choose(entry(stable=BASE, candidate=None), "stable", lambda *_: True)
    assert [version.ref for version in plan.versions] == [BASE.ref]
