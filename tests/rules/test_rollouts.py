"""Rollout rules: every (state, state) pair, sticky buckets, shares and reasons."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import Invalid, Refused
from registry.rules.rollouts import (
    FULL_BP,
    TERMINAL,
    TRANSITIONS,
    State,
    advance,
    arm,
    bucket,
    check_reason,
    check_share,
)

# Written out by hand, apart from the table under test: what each living state may become.
ENDS = {"aborted", "rolled_back", "expired", "superseded"}
LEGAL = {
    "pending": {"shadowing", "canary"} | ENDS,
    "shadowing": {"canary"} | ENDS,
    "canary": {"canary", "paused", "inconclusive", "promoting"} | ENDS,
    "paused": {"canary"} | ENDS,
    "inconclusive": {"canary", "promoting"} | ENDS,
    "promoting": {"succeeded"} | ENDS,
    "aborted": {"aborted"},
}


@pytest.mark.parametrize("to", list(State))
@pytest.mark.parametrize("state", list(State))
def test_every_state_and_state(state: State, to: State) -> None:
    legal = LEGAL.get(state.value, set())
    if to.value in legal:
        assert advance(state, to) is to
        return
    with pytest.raises(Refused) as refusal:
        advance(state, to)
    assert refusal.value.kind == "illegal-transition"
    assert refusal.value.fix
    assert refusal.value.facts == {
        "state": state.value,
        "to": to.value,
        "legal": sorted(legal),
    }


def test_terminal_states_are_the_ones_without_a_way_on() -> None:
    assert {state for state in State if not TRANSITIONS[state] - {state}} == TERMINAL


def test_bucket_is_the_published_formula() -> None:
    head = hashlib.sha256(b"salt-1" + b"unit-7").digest()
    number = head[0] << 24 | head[1] << 16 | head[2] << 8 | head[3]
    assert bucket("salt-1", "unit-7") == number * 10000 // 2**32


def test_bucket_is_uniform() -> None:
    """Chi-square over 20 bins of 20,000 units: 19 degrees of freedom, 43.8 is the 0.1 % point;
    inputs are fixed.
    """
    bins = [0] * 20
    for unit in range(20_000):
        bins[bucket("rollout", f"user-{unit}") // 500] += 1
    assert sum((seen - 1000) ** 2 / 1000 for seen in bins) < 43.8


def test_share_is_met_within_tolerance() -> None:
    """5 % of 20,000 is 1,000 with standard deviation 31; four of them are allowed."""
    chosen = sum(arm("another", f"user-{unit}", 500) == "candidate" for unit in range(20_000))
    assert abs(chosen - 1000) < 124


@given(st.text(), st.text(), st.integers(0, FULL_BP), st.integers(0, FULL_BP))
def test_raising_the_weight_only_adds_units(salt: str, unit: str, one: int, other: int) -> None:
    low, high = sorted((one, other))
    if arm(salt, unit, low) == "candidate":
        assert arm(salt, unit, high) == "candidate"


@given(st.text(), st.text(), st.integers(0, FULL_BP))
def test_arms_are_deterministic_and_bounded(salt: str, unit: str, weight: int) -> None:
    assert 0 <= bucket(salt, unit) < FULL_BP
    assert arm(salt, unit, weight) == arm(salt, unit, weight)
    assert arm(salt, unit, 0) == "stable"
    assert arm(salt, unit, FULL_BP) == "candidate"
    assert arm(salt, None, weight) == "stable"


def test_a_lone_surrogate_is_a_unit_like_any_other() -> None:
    assert 0 <= bucket("s", "\ud800") < FULL_BP


def test_another_salt_draws_other_units() -> None:
    units = [f"user-{unit}" for unit in range(2_000)]
    first = {unit for unit in units if arm("a", unit, 1000) == "candidate"}
    second = {unit for unit in units if arm("b", unit, 1000) == "candidate"}
    assert len(first & second) < len(first) / 2


@pytest.mark.parametrize("share", [1, 500, FULL_BP])
def test_shares_that_serve(share: int) -> None:
    assert check_share(share) == share


@pytest.mark.parametrize("share", [0, -1, FULL_BP + 1])
def test_shares_that_do_not(share: int) -> None:
    with pytest.raises(Invalid) as refusal:
        check_share(share)
    assert refusal.value.kind == "bad-share"


def test_a_reason_has_words() -> None:
    assert check_reason("  too many complaints \n") == "too many complaints"


@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
def test_an_empty_reason_is_refused(text: str) -> None:
    with pytest.raises(Invalid) as refusal:
        check_reason(text)
    assert refusal.value.kind == "reason-missing"
