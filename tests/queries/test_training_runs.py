"""Training runs and eval runs: progress while they run, meters and outputs when they are done."""

from __future__ import annotations

from uuid import uuid4

import pytest

from registry.blobs.store import Blobs
from registry.commands import training_runs, work
from registry.db.store import Store
from registry.errors import Invalid, NotFound
from registry.queries import evals, use_cases
from registry.queries import training_runs as asked
from registry.rules.actors import Actor
from tests.build import ADAPTER_META, RECIPE, World, a_world


def test_a_finished_training_run_tells_its_meters_and_outputs(store: Store, served: World) -> None:
    (view,) = asked.training_runs(store, served.engineer.actor, adapter=f"{served.team}/adapter")
    assert view == asked.training_run(store, served.engineer.actor, view.id)
    assert (view.state, view.attempt, view.progress) == ("succeeded", 1, {})
    assert view.outputs == served.versions
    assert view.meters == {"seconds": 1.5, "steps": 4}
    assert view.environment == {"torch": "none"}
    assert view.mlflow_url is None
    assert (view.base, view.dataset) == (served.base.ref, served.dataset.ref)
    assert (view.requested_by, view.trainer) == (
        served.engineer.actor.name,
        served.trainer.actor.name,
    )


def test_a_running_one_tells_how_far_it_is(store: Store, blobs: Blobs, team: str) -> None:
    world = a_world(store, blobs, team)
    run = training_runs.queue(
        store,
        world.blobs,
        world.engineer.actor,
        training_runs.TrainingRequest(
            f"{team}/slow", world.base.ref, world.dataset.ref, RECIPE, "legal", ADAPTER_META
        ),
    )
    (queued,) = asked.training_runs(store, world.engineer.actor, state="queued")
    assert (queued.id, queued.progress, queued.trainer) == (run, {}, None)
    assert work.lease(store, world.trainer.actor, work.Worker("test worker"), 60) == (run, 1)
    work.beat(store, world.trainer.actor, run, work.Heartbeat(1, {"step": 3, "loss": 0.5}, 60))
    view = asked.training_run(store, world.engineer.actor, run)
    assert (view.state, view.progress) == ("running", {"step": 3, "loss": 0.5})
    assert view.trainer == world.trainer.actor.name
    assert asked.training_runs(store, world.engineer.actor, state="succeeded") == []


def test_eval_runs_tell_their_numbers(store: Store, served: World) -> None:
    ref = served.versions[-1]
    (view,) = evals.eval_runs(store, served.engineer.actor, subject=ref)
    assert view == evals.eval_run(store, served.engineer.actor, view.id)
    assert (view.subject, view.suite, view.state) == (ref, f"{served.suite}@v1", "succeeded")
    (metric,) = view.metrics
    assert (metric.name, metric.value, metric.n) == ("exact_match", 50 / 60, 60)
    assert metric.ci_low < metric.value < metric.ci_high
    assert len(evals.eval_runs(store, served.engineer.actor)) == 2
    assert len(evals.eval_runs(store, served.engineer.actor, limit=1)) == 1
    assert len(evals.eval_runs(store, served.engineer.actor, state="succeeded", limit=1)) == 1
    assert evals.eval_runs(store, served.engineer.actor, state="queued") == []


def test_suites_and_use_cases_are_told_whole(store: Store, served: World) -> None:
    (suite,) = evals.suites(store, served.engineer.actor)
    assert (suite.ref, suite.dataset, suite.items) == (f"{served.suite}@v1", served.dataset.ref, 60)
    (case,) = use_cases.use_cases(store, served.engineer.actor)
    assert (case.name, case.version, case.risk_tier) == (served.use_case, 1, "limited")
    assert case.suite == f"{served.suite}@v1"
    assert evals.suite(store, served.engineer.actor, served.suite) == suite
    assert evals.suite(store, served.engineer.actor, suite.ref) == suite
    assert use_cases.use_case(store, served.engineer.actor, served.use_case) == case


def test_another_teams_runs_are_not_there(store: Store, served: World, stranger: Actor) -> None:
    assert asked.training_runs(store, stranger) == []
    assert evals.eval_runs(store, stranger) == []
    assert evals.suites(store, stranger) == []
    assert use_cases.use_cases(store, stranger) == []
    with pytest.raises(NotFound):
        evals.suite(store, stranger, served.suite)
    with pytest.raises(NotFound):
        use_cases.use_case(store, stranger, served.use_case)
    training = asked.training_runs(store, served.engineer.actor)[0].id
    evaluation = evals.eval_runs(store, served.engineer.actor)[0].id
    for ask, run in ((asked.training_run, training), (evals.eval_run, evaluation)):
        for asked_for in (run, uuid4()):
            with pytest.raises(NotFound, match=f"run {asked_for}"):
                ask(store, stranger, asked_for)


def test_an_unknown_state_is_refused(store: Store, served: World) -> None:
    for runs in (evals.eval_runs, asked.training_runs):
        with pytest.raises(Invalid) as refused:
            runs(store, served.engineer.actor, state="done")
        assert refused.value.kind == "bad-state"
