"""Evidence cannot be chosen by the submitter: pinned suites, every run counts, claims are shown."""

from __future__ import annotations

import threading
from dataclasses import replace
from importlib import resources
from typing import Any
from uuid import uuid4

import pytest

from registry.blobs.store import Blobs
from registry.commands import evals, policies, reviews, rollouts, use_cases, versions, work
from registry.db.store import Store
from registry.errors import Conflict, Invalid, NotFound, Refused
from registry.queries import evals as suites
from registry.queries import gates
from registry.queries import reviews as asked
from registry.queries import rollouts as serving
from registry.queries import use_cases as cases
from registry.rules.actors import SYSTEM
from registry.views.evals import VerdictView
from registry.views.reviews import ReviewView
from registry.views.use_cases import UseCaseView
from tests.build import (
    ADAPTER_META,
    World,
    a_dataset,
    a_world,
    adapter_files,
    approved,
    dataset_bytes,
    evaluate,
    install_policies,
    register,
    submit,
    train,
    vote,
)
from tests.db.around import refused

MOVES = {"largest": 0.5, "mean": 0.01, "prompts": 8, "positions": 100}


@pytest.fixture
def world(store: Store, blobs: Blobs, team: str) -> World:
    install_policies(store)
    return a_world(store, blobs, team)


def more(world: World, name: str = "suite", items: int = 50) -> str:
    """Another version of a suite, of other rows."""
    data = a_dataset(
        world.store,
        world.blobs,
        world.data_owner,
        world.team,
        f"rows{items}",
        dataset_bytes(items=items, train=7),
    )
    decoding = {"template": "plain", "max_new_tokens": 4}
    request = evals.SuiteRequest(f"{world.team}/{name}", data.ref, "test", "exact_match", decoding)
    made = evals.freeze(world.store, world.blobs, world.engineer.actor, request)
    return next(each.ref for each in suites.suites(world.store, SYSTEM) if each.id == made)


def change(world: World, reason: str = "It measures more.", **fields: Any) -> int:
    return use_cases.update(
        world.store,
        world.engineer.actor,
        use_cases.UseCaseUpdate(world.use_case, reason, **fields),
    )


def history(world: World) -> list[UseCaseView]:
    return cases.history(world.store, world.engineer.actor, world.use_case)


def gate(world: World, ref: str) -> VerdictView:
    proposal = gates.Proposal(ref, "production", world.use_case)
    return gates.check(world.store, world.blobs, world.engineer.actor, proposal)


def review(world: World, number: int) -> ReviewView:
    return asked.review(world.store, world.compliance.actor, number)


def ready(world: World) -> str:
    """A trained version that passes."""
    train(world)
    evaluate(world, world.base.ref, 5)
    evaluate(world, world.versions[-1], 50)
    return world.versions[-1]


def test_a_use_case_keeps_the_suite_version_it_was_made_with(world: World) -> None:
    assert history(world)[0].suite == f"{world.suite}@v1"  # named without a version
    ref = ready(world)
    before = gate(world, ref)
    assert more(world) == f"{world.suite}@v2"
    assert gate(world, ref) == before
    submit(world, ref)
    assert review(world, world.review).suite == f"{world.suite}@v1"


def test_a_change_voids_what_rested_on_the_use_case_and_leaves_what_serves(world: World) -> None:
    first = approved(world)
    actor = world.engineer.actor
    rollouts.start(
        world.store, actor, rollouts.Canary(first, "production", None, 500, "first traffic")
    )
    decided = world.review
    train(world, "second", seed=9)
    evaluate(world, world.versions[-1], 50)
    submit(world, world.versions[-1])
    opened = world.review
    vote(world, world.compliance)
    before = serving.channels(world.store, actor)

    assert change(world, suite=more(world)) == 2

    assert {review(world, number).state for number in (decided, opened)} == {"voided"}
    served = serving.channels(world.store, actor)
    assert [replace(each, acts=None) for each in served] == [
        replace(each, acts=None) for each in before
    ]
    with pytest.raises(Refused) as late:
        vote(world, world.risk)
    assert late.value.kind == "review-closed"
    with pytest.raises(Refused) as forward:
        rollouts.promote(
            world.store, actor, rollouts.Place(first, "production", None), "it goes well"
        )
    assert forward.value.kind == "not-approved"
    newest, oldest = history(world)
    assert (newest.version, newest.suite) == (2, f"{world.suite}@v2")
    assert (newest.reason, newest.changed_by) == ("It measures more.", actor.name)
    assert (oldest.version, oldest.suite, oldest.reason) == (1, f"{world.suite}@v1", None)
    # It is submitted again, on what the use case says now.
    submit(world, world.versions[-1])
    assert review(world, world.review).use_case_version == 2


def test_whatever_changes_of_a_use_case_makes_a_version(world: World) -> None:
    for number, fields in enumerate(
        (
            {"purpose": "something else"},
            {"owner": "somebody else"},
            {"risk_tier": "high"},
            {"details": {"people": "many"}},
        ),
        2,
    ):
        assert change(world, **fields) == number
    now = history(world)[0]
    assert (now.purpose, now.owner, now.risk_tier) == ("something else", "somebody else", "high")
    assert (now.suite, now.details) == (f"{world.suite}@v1", {"people": "many"})
    with pytest.raises(Conflict) as same:
        change(world, owner=" somebody else ")
    assert same.value.kind == "use-case-unchanged"
    with pytest.raises(NotFound):
        change(world, suite=f"{world.suite}@v9")
    for fields, kind in (
        ({"reason": "short"}, "reason-missing"),
        ({"risk_tier": "none"}, "bad-risk-tier"),
        ({"purpose": " "}, "use-case-incomplete"),
    ):
        with pytest.raises(Invalid) as wrong:
            change(world, **fields)
        assert wrong.value.kind == kind
    assert len(history(world)) == 5


def test_postgresql_keeps_reviews_off_older_versions_of_a_use_case(world: World) -> None:
    ref = ready(world)
    submit(world, ref)
    insert = (
        "insert into use_case_version select %(new)s, use_case_id, number + {}, purpose, "
        "owner, risk_tier, suite_version_id, details, 'x', created_by, now() "
        "from use_case_version where id = (select use_case_version_id from review where number = "
        "%(review)s)"
    )
    for step, words in ((1, "rests on an older version"), (2, "not the next one")):
        new = uuid4()
        params = {"review": world.review, "new": new}
        cause, message = refused(
            world.store, insert.format(step), params, ("use_case_version", new)
        )
        assert cause == "CS040"
        assert words in message
    change(world, owner="another")
    cause, message = refused(
        world.store,
        "insert into review (id, version_id, environment, use_case_version_id, policy_version_id, "
        "evidence, evidence_root, verdict, note_commitment, submitted_by, state, opened_at) select "
        "gen_random_uuid(), version_id, environment, use_case_version_id, policy_version_id, "
        "evidence, evidence_root, verdict, note_commitment, submitted_by, 'open', now() "
        "from review where number = %(review)s",
        {"review": world.review},
    )
    assert (cause, message) == ("CS040", "the use case has changed")


def test_all_runs_count_not_the_newest_alone(world: World) -> None:
    train(world)
    ref = world.versions[-1]
    evaluate(world, world.base.ref, 5)
    evaluate(world, ref, 3)
    evaluate(world, ref, 60)
    verdict = gate(world, ref)
    assert verdict.outcome == "inconclusive"
    assert "2 runs of the adapter disagree on 57 items" in verdict.rules[0].detail
    number = submit(world, ref)
    runs = review(world, number).evidence["runs"]
    assert [run["correct"] for run in runs["adapter"]["succeeded"]] == [3, 60]


def test_a_base_is_not_made_worse_by_one_bad_run(world: World) -> None:
    ref = ready(world)
    evaluate(world, world.base.ref, 55)
    assert gate(world, ref).outcome == "fail"
    evaluate(world, world.base.ref, 0)
    assert gate(world, ref).rules[0].numbers["base_correct"] == 55


def test_runs_that_did_not_end_well_are_counted(world: World) -> None:
    ref = ready(world)
    actor = world.trainer.actor
    for _ in range(2):
        run = evals.queue(world.store, world.blobs, world.engineer.actor, ref, world.suite)
        assert work.lease(world.store, actor, work.Worker("test worker"), 60) == (run, 1)
        work.fail(world.store, actor, run, 1, "I did not like what I saw")
    number = submit(world, ref)
    assert review(world, number).evidence["runs"]["adapter"]["failed"] == 2


def test_a_later_run_voids_the_reviews_whose_gate_it_changes(world: World) -> None:
    ref = approved(world)
    decided = world.review
    evaluate(world, ref, 49)  # one answer differs: the gate still passes
    evaluate(world, world.base.ref, 5)
    assert review(world, decided).state == "approved"
    train(world, "second", seed=9)
    second = world.versions[-1]
    evaluate(world, second, 50)
    opened = submit(world, second)
    evaluate(world, second, 3)
    assert review(world, opened).state == "voided"
    assert review(world, decided).state == "approved"
    evaluate(world, world.base.ref, 60)  # what all reviews on this base were compared with
    assert review(world, decided).state == "voided"


def test_a_run_on_another_suite_voids_nothing(world: World) -> None:
    ref = approved(world)
    evaluate(replace(world, suite=more(world)), ref, 0)
    assert review(world, world.review).state == "approved"


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_run_that_measures_no_effect_voids_reviews_on_any_suite(
    world: World, elsewhere: bool
) -> None:
    ref = approved(world)
    decided = world.review
    opened = submit(world, ref, "staging")
    other = replace(world, suite=more(world)) if elsewhere else world
    evaluate(other, ref, 50, MOVES)
    assert review(world, decided).state == "approved"
    evaluate(other, ref, 50, MOVES | {"largest": 0, "mean": 0})
    assert gate(world, ref).outcome == "fail"
    assert {review(world, number).state for number in (decided, opened)} == {"voided"}


def test_a_review_does_not_open_past_an_effect_that_was_measured_meanwhile(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = ready(world)
    evaluate(world, ref, 60, MOVES)
    submit(world, ref, "dev")  # evidence that names what was measured
    other = replace(world, suite=more(world))
    judged = reviews.gates.judge

    def slowly(*given: Any) -> Any:
        """Judge, and let a run on another suite end before the review is written."""
        verdict = judged(*given)
        monkeypatch.undo()
        evaluate(other, ref, 0, MOVES | {"largest": 0, "mean": 0})
        return verdict

    monkeypatch.setattr(reviews.gates, "judge", slowly)
    with pytest.raises(Conflict) as late:
        submit(world, ref)
    assert late.value.kind == "outdated-evidence"


def test_a_review_does_not_open_past_a_run_that_ended_meanwhile(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = ready(world)
    judged = reviews.gates.judge

    def slowly(*given: Any) -> Any:
        """Judge, and let a run end before the review is written."""
        verdict = judged(*given)
        monkeypatch.undo()
        evaluate(world, ref, 0)
        return verdict

    monkeypatch.setattr(reviews.gates, "judge", slowly)
    with pytest.raises(Conflict) as late:
        submit(world, ref)
    assert late.value.kind == "outdated-evidence"


def test_a_submission_and_a_change_at_once_leave_no_review_on_the_old_text(world: World) -> None:
    ref = ready(world)
    start, errors = threading.Barrier(2), list[BaseException]()

    def at_once(act: Any) -> None:
        start.wait()
        try:
            act()
        except Conflict as error:
            errors.append(error)

    threads = [
        threading.Thread(target=at_once, args=(act,))
        for act in (lambda: submit(world, ref), lambda: change(world, owner="another"))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if world.review:
        opened = review(world, world.review)
        assert (opened.use_case_version, opened.state) in {(1, "voided"), (2, "open")}
    else:
        assert [error.kind for error in errors] == ["outdated-evidence"]


def claiming(world: World) -> str:
    """A version trained elsewhere, on data that its uploader names; evaluated."""
    meta = {**ADAPTER_META, "datasets": [world.dataset.ref]}
    added = register(
        world.store,
        world.blobs,
        world.engineer.actor,
        versions.Draft(
            "adapter",
            f"{world.team}/outside",
            adapter_files(world.blobs, 77),
            meta,
            world.base.ref,
            "legal",
        ),
    )
    evaluate(world, world.base.ref, 5)
    evaluate(world, added.ref, 60)
    return added.ref


def test_a_claim_is_shown_as_a_claim(world: World) -> None:
    ref = claiming(world)
    verdict = gate(world, ref)
    assert verdict.outcome == "pass"
    (contamination,) = (rule for rule in verdict.rules if rule.rule == "contamination")
    assert "claimed by its uploader; nobody observed it" in contamination.detail
    view = review(world, submit(world, ref))
    assert [data["lineage"] for data in view.evidence["datasets"]] == ["claimed"]
    train(world)
    evaluate(world, world.versions[-1], 50)
    observed = gate(world, world.versions[-1])
    (contamination,) = (rule for rule in observed.rules if rule.rule == "contamination")
    assert contamination.numbers["lineage"] == "observed"


def test_a_policy_can_require_that_training_was_observed(
    world: World, fresh_store: Store, blobs: Blobs
) -> None:
    world = a_world(fresh_store, blobs, world.team)
    install_policies(fresh_store)
    ref = claiming(world)
    train(world)
    evaluate(world, world.versions[-1], 60)
    text = resources.files("registry").joinpath("policies/production.yaml").read_text("utf-8")
    policies.publish(
        fresh_store, SYSTEM, text.replace("    exact: 0\n", "    exact: 0\n    lineage: observed\n")
    )
    assert gate(world, world.versions[-1]).outcome == "pass"
    verdict = gate(world, ref)
    assert verdict.outcome == "inconclusive"
    assert any("The policy requires observed lineage." in rule.detail for rule in verdict.rules)
