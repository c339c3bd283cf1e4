"""Reviews: whose vote they wait for, who is kept out, what a person would sign."""

from __future__ import annotations

import secrets
from dataclasses import replace

import pytest
from sqlalchemy import text

from registry.blobs.store import Blobs
from registry.commands import reviews
from registry.db.store import Store
from registry.errors import Forbidden, Invalid, NotFound
from registry.queries import reviews as asked
from registry.queries.pages import PageRequest
from registry.rules.actors import SYSTEM, Actor
from tests.build import World, a_person, a_world, approved, evaluate, submit, train, vote
from tests.queries.conftest import Statements


@pytest.fixture(scope="module")
def opened(store: Store, blobs: Blobs) -> World:
    """A review that waits for its first vote."""
    world = a_world(store, blobs, f"t{secrets.token_hex(4)}")
    train(world)
    evaluate(world, world.base.ref, 5)
    evaluate(world, world.versions[-1], 50)
    submit(world, world.versions[-1])
    return world


def _numbers(store: Store, actor: Actor, state: str | None) -> list[int]:
    found, cursor = [], None
    while True:
        page = asked.reviews(store, actor, PageRequest(cursor), state=state)
        found += [review.number for review in page.items]
        cursor = page.next
        if cursor is None:
            return found


def test_a_review_is_told_whole(store: Store, served: World) -> None:
    view = asked.review(store, served.engineer.actor, served.review)
    assert (view.version, view.environment, view.state) == (
        served.versions[-1],
        "production",
        "approved",
    )
    assert (view.use_case, view.note) == (served.use_case, "please")
    assert view.submitted_by == served.engineer.actor.name
    assert (view.approvals, view.approvals_needed) == (2, 2)
    assert [(one.account, one.team, one.verdict) for one in view.votes] == [
        (served.compliance.actor.name, "compliance", "approve"),
        (served.risk.actor.name, "risk", "approve"),
    ]
    assert view.votes[0].reason == "I have read the evidence."
    assert view.verdict.outcome == "pass"
    assert {rule.rule for rule in view.verdict.rules} == {"superiority", "contamination", "effect"}
    assert view.verdict.policy == view.policy
    assert view.evidence["subject"]["ref"] == served.versions[-1]


def test_whoever_made_submitted_or_fed_a_version_is_kept_out_by_name(
    store: Store, opened: World
) -> None:
    assert asked.review(store, opened.engineer.actor, opened.review).excluded == sorted(
        [
            f"{opened.engineer.actor.name}: submitted this version",
            f"{opened.data_owner.actor.name}: brought its training data",
            f"{opened.trainer.actor.name}: registered this version",
        ]
    )


def test_a_review_waits_only_for_those_who_may_still_vote(
    store: Store, blobs: Blobs, opened: World
) -> None:
    assert opened.review in _numbers(store, opened.risk.actor, "waiting")
    for actor in (opened.engineer.actor, opened.data_owner.actor, opened.trainer.actor, SYSTEM):
        assert opened.review not in _numbers(store, actor, "waiting")
    # The submitter may hold a reviewer's role too, and still is kept out.
    both = Actor(opened.engineer.id, "both", opened.risk.actor.grants)
    assert opened.review not in _numbers(store, both, "waiting")
    first = a_person(store, "reviewer", team="legal")
    assert opened.review in _numbers(store, first.actor, "waiting")
    vote(opened, first)
    assert opened.review not in _numbers(store, first.actor, "waiting")
    assert opened.review in _numbers(store, opened.risk.actor, "waiting")


def test_reviews_are_found_by_state_newest_first(
    store: Store, served: World, opened: World
) -> None:
    reviewer = served.risk.actor
    assert served.review in _numbers(store, reviewer, "decided")
    assert served.review in _numbers(store, reviewer, "approved")
    assert served.review not in _numbers(store, reviewer, "open")
    assert opened.review in _numbers(store, reviewer, "open")
    every = _numbers(store, reviewer, None)
    assert every == sorted(set(every), reverse=True)
    with pytest.raises(Invalid) as refused:
        asked.reviews(store, reviewer, state="pending")
    assert refused.value.kind == "bad-state"


def test_a_page_of_reviews_costs_the_same_whatever_its_length(
    store: Store, served: World, opened: World, statements: Statements
) -> None:
    world = replace(opened, versions=[])
    train(world, seed=40)
    withdrawn = submit(world, world.versions[-1])
    reviews.withdraw(store, world.engineer.actor, withdrawn, "the wrong data")
    submit(world, world.versions[-1])  # the newest review is an open one
    counts = []
    for limit in (1, 200):
        with statements() as sent:
            page = asked.reviews(store, served.risk.actor, PageRequest(limit=limit))
        counts.append(len(sent))
    assert withdrawn in [review.number for review in page.items]
    assert counts[0] == counts[1]


def test_a_page_ends_where_the_next_begins(store: Store, served: World, opened: World) -> None:
    page = asked.reviews(store, served.risk.actor, PageRequest(limit=1))
    assert page.next is not None
    assert (
        asked.reviews(store, served.risk.actor, PageRequest(page.next, 1)).items[0].number
        < page.items[0].number
    )


def test_a_draft_is_what_its_voter_signs(store: Store, served: World) -> None:
    decision = asked.draft(store, served.risk.actor, served.review).decision
    view = asked.review(store, served.risk.actor, served.review)
    assert decision["account"] == str(served.risk.id)
    assert decision["team"] == "risk"
    assert decision["evidence_root"] == view.evidence_root
    assert decision["version"] == view.version
    assert not {"verdict", "reason_commitment"} & set(decision)


def test_only_people_get_a_decision_to_sign(store: Store, served: World) -> None:
    for actor in (served.trainer.actor, SYSTEM):
        with pytest.raises(Forbidden) as refused:
            asked.draft(store, actor, served.review)
        assert refused.value.kind == "not-a-person"


def test_another_teams_review_answers_as_one_that_is_not_there(
    store: Store, served: World, stranger: Actor
) -> None:
    for number in (served.review, 0, -1, 2**40):
        with pytest.raises(NotFound, match=f"no review {number}"):
            asked.review(store, stranger, number)
    assert asked.reviews(store, stranger).items == []


def test_erased_texts_leave_everything_else_standing(fresh_store: Store, blobs: Blobs) -> None:
    world = a_world(fresh_store, blobs, "erased")
    approved(world)
    before = asked.review(fresh_store, world.risk.actor, world.review)
    with fresh_store.engine.begin() as connection:
        connection.execute(text("delete from personal where kind <> 'account'"))
    after = asked.review(fresh_store, world.risk.actor, world.review)
    assert after.note == "(erased)"
    assert [one.reason for one in after.votes] == ["(erased)", "(erased)"]
    assert [one.signature for one in after.votes] == [one.signature for one in before.votes]
