"""What may be done to a channel: every situation x every act, and where a rollback goes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from registry.errors import RegistryError
from registry.rules.channels import (
    Act,
    Channel,
    Version,
    acts,
    check_canary,
    rollback_target,
    to_promote,
)

BASE = "t/base@v1"
V1 = Version("t/a@v1", 1, base=BASE, succeeded=True)
V2 = Version("t/a@v2", 2, base=BASE, succeeded=True)
V3 = Version("t/a@v3", 3, base=BASE)
NEW = Channel("t/a", "production", "production", versions=(V3,))
OPEN = replace(NEW, base=BASE, stable=BASE)

# Situation -> canary, promote, rollback: the versions each may take, else the kind of refusal.
# `promote` is written as what it does without a name, and what it may do by name.
SITUATIONS: dict[str, tuple[Channel, Any, Any, Any]] = {
    "nothing was ever started": (
        NEW,
        ["v3"],
        ("channel-unknown", []),
        "channel-unknown",
    ),
    "nothing was ever started, and the base may not serve": (
        replace(NEW, base_allowed=False),
        "not-servable",
        ("channel-unknown", []),
        "channel-unknown",
    ),
    "nothing was ever started, and nothing is approved": (
        replace(NEW, versions=()),
        "not-approved",
        ("channel-unknown", []),
        "channel-unknown",
    ),
    "a base model": (
        replace(NEW, kind="base", versions=()),
        "unfit-subject",
        ("channel-unknown", []),
        "channel-unknown",
    ),
    "the base serves": (OPEN, ["v3"], ("canary-first", []), "nothing-to-roll-back"),
    "the first canary": (
        replace(OPEN, candidate=V3.ref),
        "rollout-active",
        ("v3", ["v3"]),
        "base",
    ),
    "a canary whose approval ran out": (
        replace(OPEN, candidate=V3.ref, versions=(replace(V3, expired=True),)),
        "rollout-active",
        ("approval-expired", []),
        "base",
    ),
    "a canary whose approval is void": (
        replace(OPEN, candidate=V3.ref, versions=(replace(V3, approved=False),)),
        "rollout-active",
        ("not-approved", []),
        "base",
    ),
    "one promotion": (
        replace(OPEN, stable=V1.ref, versions=(V3, V1)),
        ["v3"],
        ("canary-first", []),
        "base",
    ),
    "two promotions and no rollback": (
        replace(OPEN, stable=V2.ref, versions=(V3, V1, V2)),
        ["v3", "v1"],
        ("canary-first", ["v1"]),
        "v1",
    ),
    "a rollback after two promotions": (
        replace(
            OPEN,
            stable=V1.ref,
            taken_off=V2.ref,
            versions=(V3, replace(V2, removed=True), V1),
        ),
        ["v3", "v2"],
        ("v2", ["v2"]),
        "base",
    ),
    "a canary beside a stable version": (
        replace(OPEN, stable=V1.ref, candidate=V3.ref, versions=(V3, V1)),
        "rollout-active",
        ("v3", ["v3"]),
        "v1",
    ),
    "a canary beside a stable version whose approval ran out": (
        replace(OPEN, stable=V1.ref, candidate=V3.ref, versions=(V3, replace(V1, expired=True))),
        "rollout-active",
        ("v3", ["v3"]),
        "v1",
    ),
    "stable, the base not allowed": (
        replace(OPEN, stable=V1.ref, base_allowed=False, versions=(V1,)),
        "not-approved",
        ("canary-first", []),
        "no-rollback-target",
    ),
    "killed": (
        replace(OPEN, stable=None, base_usable=False, versions=(replace(V1, state="recalled"),)),
        "not-approved",
        ("canary-first", []),
        "no-rollback-target",
    ),
    "killed, and the base is allowed again": (
        replace(OPEN, stable=None, versions=(V3,)),
        ["v3"],
        ("canary-first", []),
        "base",
    ),
}


def tag(ref: str | None) -> str | None:
    return "base" if ref == BASE else ref and ref.partition("@")[2]


def shown(act: Act) -> Any:
    return [tag(ref) for ref in act.versions] or (act.refusal and act.refusal.kind)


@pytest.mark.parametrize("name", SITUATIONS)
def test_every_situation_and_act(name: str) -> None:
    channel, canary, promote, rollback = SITUATIONS[name]
    possible = acts(channel)
    assert shown(possible.canary) == canary
    bare = possible.promote
    assert (tag(bare.default) or (bare.refusal and bare.refusal.kind)) == promote[0]
    assert [tag(ref) for ref in bare.versions] == promote[1]
    assert tag(possible.rollback.default) in (rollback, None)
    assert shown(possible.rollback) in ([rollback], rollback)
    for act in (possible.canary, possible.promote, possible.rollback):
        assert act.refusal is None or (act.refusal.detail and act.refusal.fix)
        assert bool(act.versions) or act.refusal is not None


@pytest.mark.parametrize(
    ("version", "kind"),
    [
        (replace(V3, state="recalled"), "recalled"),
        (replace(V3, approved=False), "not-approved"),
        (replace(V3, expired=True), "approval-expired"),
        (replace(V3, same_base=False), "another-base"),
    ],
)
def test_what_may_not_serve_neither_starts_nor_returns(version: Version, kind: str) -> None:
    with pytest.raises(RegistryError) as refusal:
        check_canary(replace(OPEN, versions=(version,)), version.ref)
    assert refusal.value.kind == kind
    stood = replace(version, succeeded=True)
    assert rollback_target(replace(OPEN, stable=V2.ref, versions=(stood, V2))) == BASE
    if kind != "another-base":  # no version of another base ever stood here
        with pytest.raises(RegistryError) as refusal:
            to_promote(replace(OPEN, versions=(stood,)), stood.ref)
        assert refusal.value.kind == kind


def test_an_approval_for_another_use_case_opens_nothing_here() -> None:
    """It neither starts, is promoted nor is offered; a rollback still finds what stood here."""
    version = replace(V3, same_use_case=False)
    served = replace(OPEN, use_case="t/case", versions=(version,))
    canary = replace(served, candidate=version.ref)
    stood = replace(version, succeeded=True)
    for rule, *args in (
        (check_canary, served, version.ref),
        (to_promote, canary),
        (to_promote, replace(served, versions=(stood,)), stood.ref),
    ):
        with pytest.raises(RegistryError) as refusal:
            rule(*args)
        assert refusal.value.kind == "another-use-case"
        assert "t/case" in refusal.value.detail
        assert "--channel" in refusal.value.fix
    offered = acts(served)
    assert (offered.canary.versions, offered.promote.versions) == ((), ())
    assert offered.canary.refusal is not None
    assert "t/case" in offered.canary.refusal.detail
    assert rollback_target(replace(served, stable=V2.ref, versions=(stood, V2))) == stood.ref


def test_a_canary_is_refused_by_name() -> None:
    served = replace(OPEN, stable=V1.ref, versions=(V1,))
    baseless = replace(NEW, versions=(replace(V3, base=None),))
    for channel, ref, kind in (
        (served, V1.ref, "serves-already"),
        (served, "t/a@v9", "not-approved"),
        (baseless, V3.ref, "unfit-subject"),
        (replace(NEW, kind="base"), BASE, "unfit-subject"),
    ):
        with pytest.raises(RegistryError) as refusal:
            check_canary(channel, ref)
        assert refusal.value.kind == kind


def test_another_version_than_the_canary_is_not_promoted() -> None:
    with pytest.raises(RegistryError) as refusal:
        to_promote(replace(OPEN, candidate=V3.ref, versions=(V3, V1)), V1.ref)
    assert refusal.value.kind == "another-canary"


@pytest.mark.parametrize(
    "fault",
    [
        {"succeeded": False},
        {"removed": True},
        {"approved": False},
        {"expired": True},
        {"state": "recalled"},
        {"same_base": False},
    ],
)
def test_an_unfit_stable_is_passed_over(fault: dict[str, Any]) -> None:
    unfit = replace(V2, **fault)
    leaving = replace(OPEN, stable="t/a@v4", versions=(V1, unfit))
    assert rollback_target(leaving) == V1.ref
    assert rollback_target(replace(leaving, versions=(unfit,))) == BASE


def test_a_rollback_goes_to_the_last_good_stable_and_never_stays() -> None:
    assert rollback_target(replace(OPEN, stable="t/a@v4", versions=(V1, V2))) == V2.ref
    assert rollback_target(replace(OPEN, stable=V2.ref, versions=(V1, V2))) == V1.ref
    # Beside a recalled stable, the candidate being taken off is no target, though it stood before.
    recalled = replace(V1, state="recalled")
    both = replace(OPEN, stable=V1.ref, candidate=V2.ref, versions=(V2, recalled))
    assert rollback_target(both) == BASE


@pytest.mark.parametrize(("usable", "allowed"), [(True, False), (False, True), (False, False)])
def test_nowhere_to_go_is_refused(usable: bool, allowed: bool) -> None:
    channel = replace(OPEN, stable=V1.ref, base_usable=usable, base_allowed=allowed, versions=(V1,))
    with pytest.raises(RegistryError) as refusal:
        rollback_target(channel)
    assert refusal.value.kind == "no-rollback-target"
    assert refusal.value.facts["considered"] == [V1.ref]
