"""The states of a version: one enum, and what each state allows, by tables."""

from __future__ import annotations

import pytest

from registry.errors import Refused
from registry.rules import versions
from registry.rules.versions import State
from registry.verifier import NEXT_VERSION_STATES as STEPS
from registry.web import words

# Columns: usable, may start a rollout, may be deprecated (else the kind of the refusal).
TABLE = """
draft       .  .  is-draft
registered  x  x  x
deprecated  x  .  already-deprecated
recalled    .  .  recalled
deleted     .  .  already-deleted
"""
ROWS = [line.split() for line in TABLE.strip().splitlines()]


def test_the_table_has_every_state() -> None:
    assert [row[0] for row in ROWS] == [*State]
    assert set(versions.TRANSITIONS) == set(State)


@pytest.mark.parametrize(("state", "usable", "starts", "deprecated"), ROWS)
def test_what_a_state_allows(state: str, usable: str, starts: str, deprecated: str) -> None:
    assert versions.usable(state) is (usable == "x")
    assert versions.may_start(state) is (starts == "x")
    bars = versions.bars_deprecation(state, "acme/claims@v1")
    assert (bars.kind if bars else "x") == deprecated
    assert bars is None or ("acme/claims@v1" in bars.detail and bars.fix)


def test_only_a_deprecated_version_is_refused_for_being_deprecated() -> None:
    for state in State:
        if state is State.DEPRECATED:
            with pytest.raises(Refused, match="no new rollout of it may start") as refusal:
                versions.check_may_start(state, "acme/claims@v1")
            assert (refusal.value.kind, refusal.value.facts["subject"]) == (
                "deprecated",
                "acme/claims@v1",
            )
        else:
            versions.check_may_start(state, "acme/claims@v1")


def test_nothing_is_resurrected() -> None:
    """From each state onwards, no path leads back to it."""
    for state in State:
        reached, wave = set[State](), set(versions.TRANSITIONS[state])
        while wave - reached:
            reached |= wave
            wave = {after for one in wave for after in versions.TRANSITIONS[one]}
        assert state not in reached


def test_the_offline_verifier_knows_the_same_steps() -> None:
    """It imports nothing of ours. One entry may tell of birth and number together."""
    for state in State:
        assert {State(step) for step in STEPS[state]} == versions.TRANSITIONS[state]
    assert list(STEPS[None]) == [State.DRAFT, State.REGISTERED]


def test_every_state_has_a_look_of_its_own() -> None:
    assert {words.look(state).word.lower() for state in State} == set(State)
