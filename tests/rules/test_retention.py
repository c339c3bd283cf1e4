"""Every state against every act, and the arithmetic of keeping."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import Invalid, Refused
from registry.rules import quotas
from registry.rules.quotas import Limits, Usage
from registry.rules.retention import (
    BUILT_IN,
    NEED_FIXES,
    NEED_TEXTS,
    STANDARD,
    Need,
    Standing,
    Terms,
    check_case,
    check_change,
    check_delete,
    check_discard,
    check_lift,
    check_terms,
    kept_until,
    shortens,
)

NOW = datetime(2026, 11, 25, tzinfo=UTC)
MAKER = uuid4()
STATES = ("draft", "registered", "deprecated", "recalled", "deleted")


def told(call: object, *arguments: object, **more: object) -> str | None:
    try:
        call(*arguments, **more)
    except Refused as refusal:
        return refusal.kind if refusal.fix and refusal.facts["subject"] else "says too little"
    return None


# What stands in the way, in the order in which a person hears of it.
@pytest.mark.parametrize(
    ("state", "held", "kept", "needed"), list(product(STATES, *[(False, True)] * 3))
)
def test_what_may_be_deleted(state: str, held: bool, kept: bool, needed: bool) -> None:
    standing = Standing(
        "a/b@v1",
        state,
        deleted=state == "deleted",
        holds=(7,) if held else (),
        kept_until=NOW + timedelta(days=1) if kept else NOW,
        needs=(Need("serves", "a/b in production"),) if needed else (),
    )
    expected = (
        "already-deleted"
        if state == "deleted"
        else "is-draft"
        if state == "draft"
        else "held"
        if held
        else "kept"
        if kept
        else "needed"
        if needed
        else None
    )
    assert told(check_delete, standing, NOW) == expected


@pytest.mark.parametrize(
    ("state", "held", "mine", "service"), list(product(STATES, *[(False, True)] * 3))
)
def test_what_may_be_discarded(state: str, held: bool, mine: bool, service: bool) -> None:
    standing = Standing(
        "a/b@draft-1", state, deleted=state == "deleted", holds=(7,) if held else ()
    )
    expected = (
        "already-deleted"
        if state == "deleted"
        else "not-draft"
        if state != "draft"
        else "not-yours"
        if not (mine or service)
        else "held"
        if held
        else None
    )
    actor = MAKER if mine else uuid4()
    assert (
        told(check_discard, standing, maker=MAKER, maker_is_service=service, actor=actor)
        == expected
    )


@pytest.mark.parametrize(("lifted", "same"), list(product(*[(False, True)] * 2)))
def test_who_may_lift(lifted: bool, same: bool) -> None:
    expected = "already-lifted" if lifted else "four-eyes" if same else None
    assert told(check_lift, 3, MAKER, MAKER if same else uuid4(), lifted=lifted) == expected


def test_every_need_has_its_words() -> None:
    assert set(NEED_TEXTS) == set(NEED_FIXES)
    for why in NEED_TEXTS:
        with pytest.raises(Refused, match="cannot be deleted") as refusal:
            check_delete(Standing("a/b@v1", "registered", needs=(Need(why, "it"),) * 12), NOW)
        assert "and 2 more" in refusal.value.detail


def test_the_built_in_classes_are_sound() -> None:
    assert [check_terms(one) for one in BUILT_IN] == list(BUILT_IN)
    assert {one.name for one in BUILT_IN} == {"short", STANDARD, "medical-6y", "technical-10y"}
    assert {one.name: one.keep_days for one in BUILT_IN}["medical-6y"] >= 6 * 365 + 2
    assert {one.name: one.keep_days for one in BUILT_IN}["technical-10y"] >= 10 * 365 + 3


@pytest.mark.parametrize(
    "terms",
    [
        Terms("Not a name", 1),
        Terms("x", -1),
        Terms("x", 36501),
        Terms("x", 1, draft_days=0),
        Terms("x", 1, "birth"),
        Terms("x", 1, after="burn"),
    ],
)
def test_terms_that_cannot_be(terms: Terms) -> None:
    with pytest.raises(Invalid):
        check_terms(terms)


days = st.integers(0, 4000)
some_terms = st.builds(Terms, st.just("t"), days, st.sampled_from(["registration", "service"]))


@given(st.lists(some_terms, min_size=1, max_size=5), some_terms, st.none() | days)
def test_no_later_class_shortens(terms: list[Terms], later: Terms, served: int | None) -> None:
    last = None if served is None else NOW + timedelta(days=served)
    before = kept_until(NOW, last, terms)
    assert before >= NOW
    assert kept_until(NOW, last, [*terms, later]) >= before
    if last is not None:
        assert kept_until(NOW, last, terms) >= kept_until(NOW, None, terms)


@given(some_terms, some_terms)
def test_only_an_administrator_shortens(present: Terms, wanted: Terms) -> None:
    assert told(check_change, present, wanted, administrator=True, subject="a/b") is None
    refused = told(check_change, present, wanted, administrator=False, subject="a/b")
    assert refused == ("shorter-retention" if shortens(present, wanted) else None)
    if not shortens(present, wanted):
        for served in (None, NOW + timedelta(days=9)):
            assert kept_until(NOW, served, [wanted]) >= kept_until(NOW, served, [present])


@pytest.mark.parametrize(
    ("name", "ok"),
    [("Matter 5512", True), (" x ", True), ("", False), ("a\nb", False), ("x" * 201, False)],
)
def test_a_case_has_a_name(name: str, ok: bool) -> None:
    if ok:
        assert check_case(name) == name.strip()
    else:
        with pytest.raises(Invalid):
            check_case(name)


@pytest.mark.parametrize(
    ("limits", "used", "ok"),
    [
        (Limits(), Usage(2**60, 10**9), True),
        (Limits(10, 2), Usage(10, 2), True),
        (Limits(10, None), Usage(11, 2), False),
        (Limits(None, 2), Usage(0, 3), False),
        (Limits(0, 0), Usage(0, 0), True),
    ],
)
def test_what_fits(limits: Limits, used: Usage, ok: bool) -> None:
    if ok:
        quotas.check_fits("acme", limits, used)
        return
    with pytest.raises(Refused, match="team acme would use") as refusal:
        quotas.check_fits("acme", limits, used)
    assert refusal.value.kind == "quota-exceeded"
    assert refusal.value.facts["used_versions"] == used.versions


def test_limits_that_cannot_be() -> None:
    for team, limits in (
        ("Not a team", Limits()),
        ("acme", Limits(-1)),
        ("acme", Limits(None, -1)),
    ):
        with pytest.raises(Invalid):
            quotas.check_limits(team, limits)
