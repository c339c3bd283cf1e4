"""Commands on another team's things, and the loaders behind them: they are as if not there."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import replace
from uuid import uuid4

import pytest

from registry import db
from registry.blobs.store import Blobs
from registry.commands import (
    deletions,
    evals,
    holds,
    profiles,
    recalls,
    reviews,
    rollouts,
    tags,
    training_runs,
    use_cases,
    versions,
    work,
)
from registry.db import retention
from registry.db.store import Store
from registry.errors import NotFound
from registry.queries import gates
from registry.rules.actors import Actor, Grant, Role
from tests.build import (
    ADAPTER_META,
    RECIPE,
    World,
    a_person,
    a_world,
    adapter_files,
    approved,
    register,
)

GIVEN = {"ref", "name", "number", "run_id", "over"}
"""Parameters of loaders that hold what somebody gave."""
OF_NO_TEAM = {
    "accounts.by_name": "accounts are of no team; queries choose whom to name",
    "accounts.find": "the same",
    "channels.unopened": "by the line, which is loaded already",
    "retention.class_by_name": "retention classes are for all",
    "retention.find_class": "the same",
    "retention.in_force": "decides by names alone, after the team was checked",
    "reviews.decision": "writes down a review that is loaded already",
    "rollouts.channel": "by the line, which is loaded already",
    "rollouts.find_channel": "the same",
    "tombstones.refusal": "words about a thing that is loaded already",
    "versions.name_node": "renames a node that is loaded already",
    "versions.must_keep_outputs": "about a run that is loaded already",
    "versions.of_training_run": "the same",
}


def test_a_loader_by_what_somebody_gave_takes_a_session_that_knows_who_asks() -> None:
    loaders: dict[str, set[str]] = {"Session": set(), "Sighted": set()}
    for module in pkgutil.iter_modules(db.__path__):
        room = importlib.import_module(f"registry.db.{module.name}")
        for name, function in inspect.getmembers(room, inspect.isfunction):
            if function.__module__ != room.__name__ or name.startswith("_"):
                continue
            parameters = inspect.signature(function).parameters
            if GIVEN & parameters.keys() and "session" in parameters:
                loaders[parameters["session"].annotation].add(f"{module.name}.{name}")
    assert loaders["Session"] == OF_NO_TEAM.keys()
    sighted = {"versions.by_ref", "datasets.by_ref", "reviews.by_number", "use_cases.by_name"}
    assert sighted < loaders["Sighted"]


@pytest.fixture(scope="module")
def world(store: Store, blobs: Blobs) -> World:
    made = a_world(store, blobs, "sighted")
    ref = approved(made)
    rollouts.start(
        store, made.engineer.actor, rollouts.Canary(ref, "production", None, 500, "first traffic")
    )
    return made


def stranger(store: Store) -> Actor:
    """Somebody of another team with every role that does not see across teams."""
    roles = (Role.ENGINEER, Role.TRAINER)
    actor = a_person(store, "engineer", team="unsighted").actor
    return replace(actor, grants=frozenset(Grant(role, "unsighted") for role in roles))


def acts(world: World, actor: Actor, team: str, number: int) -> dict[str, Callable[[], object]]:
    """Every command that names a thing, on things of this team."""
    store, blobs = world.store, world.blobs
    ref, line = f"{team}/adapter@v2", f"{team}/adapter"
    suite, case, rows = f"{team}/suite", f"{team}/case", f"{team}/rows@v1"
    own = "unsighted/own"
    files = adapter_files(blobs, 900)

    def draft(**more: str) -> versions.Draft:
        kind = "checkpoint" if "quantised_of" in more else "adapter"
        return versions.Draft(kind, own, files, ADAPTER_META, **more)  # type: ignore[arg-type]

    return {
        "register on a base": lambda: register(store, blobs, actor, draft(base=f"{team}/tiny@v1")),
        "register a quantisation": lambda: register(
            store, blobs, actor, draft(quantised_of=f"{team}/tiny@v1")
        ),
        "submit": lambda: reviews.submit(
            store, blobs, actor, reviews.Submission(ref, "production", case, "please")
        ),
        "withdraw": lambda: reviews.withdraw(store, actor, number, "a mistake"),
        "vote": lambda: reviews.vote(
            store,
            actor,
            number,
            reviews.SignedVote({"verdict": "approve"}, "I have read it.", "00" * 16, "k", "s"),
        ),
        "canary": lambda: rollouts.start(
            store, actor, rollouts.Canary(ref, "production", None, 500, "traffic")
        ),
        "promote": lambda: rollouts.promote(
            store, actor, rollouts.Place(line, "production", None), "well"
        ),
        "roll back": lambda: rollouts.roll_back(
            store, actor, rollouts.Place(line, "production", None), "bad"
        ),
        "recall": lambda: recalls.recall(store, actor, ref, "unfit for use"),
        "recall rows": lambda: recalls.recall(store, actor, f"dataset:{rows}", "unfit for use"),
        "delete": lambda: deletions.delete(store, actor, ref, "not needed"),
        "tag": lambda: tags.put(store, actor, ref, "topic", "claims"),
        "profile": lambda: profiles.define(
            store, blobs, actor, profiles.ProfileRequest(ref, {"engine": "vllm", "build": "0.32.0"})
        ),
        "train on a base": lambda: training_runs.queue(
            store,
            world.blobs,
            actor,
            training_runs.TrainingRequest(
                own, f"{team}/tiny@v1", rows, RECIPE, "legal", ADAPTER_META
            ),
        ),
        "freeze rows": lambda: evals.freeze(
            store,
            blobs,
            actor,
            evals.SuiteRequest("unsighted/suite", rows, "test", "exact_match", {}),
        ),
        "evaluate": lambda: evals.queue(store, world.blobs, actor, ref, suite),
        "use case": lambda: use_cases.register(
            store,
            actor,
            use_cases.UseCaseRequest(
                "unsighted/case",
                purpose="test",
                owner="somebody",
                risk_tier="limited",
                suite=suite,
                details={},
            ),
        ),
    }


NAMES = (
    "register on a base",
    "register a quantisation",
    "submit",
    "withdraw",
    "vote",
    "canary",
    "promote",
    "roll back",
    "recall",
    "recall rows",
    "delete",
    "tag",
    "profile",
    "train on a base",
    "freeze rows",
    "evaluate",
    "use case",
)


@pytest.mark.parametrize("name", NAMES)
def test_another_teams_things_are_as_if_they_were_not(world: World, name: str) -> None:
    actor = stranger(world.store)
    kinds = []
    for team, number in ((world.team, world.review), ("nobodys", world.review + 100_000)):
        every = acts(world, actor, team, number)
        assert every.keys() == set(NAMES)
        with pytest.raises(NotFound) as refusal:
            every[name]()
        kinds.append(refusal.value.kind)
    assert kinds[0] == kinds[1]


def test_another_teams_work_is_as_if_it_were_not(world: World) -> None:
    actor = stranger(world.store)
    assert work.lease(world.store, actor, work.Worker("theirs"), 60) is None
    run = training_runs.queue(
        world.store,
        world.blobs,
        world.engineer.actor,
        training_runs.TrainingRequest(
            f"{world.team}/queued", world.base.ref, world.dataset.ref, RECIPE, "legal", ADAPTER_META
        ),
    )
    assert work.lease(world.store, actor, work.Worker("theirs"), 60) is None
    for known in (run, uuid4()):
        with pytest.raises(NotFound, match="no training run"):
            training_runs.cancel(world.store, actor, known)
        with pytest.raises(NotFound, match="no training run or eval run"):
            work.fail(world.store, actor, known, 1, "it cannot succeed")
        with pytest.raises(NotFound, match="no training run or eval run"):
            work.requeue(world.store, actor, known, 1, "shutting down")


def test_holds_are_seen_through_what_they_hold(world: World) -> None:
    hold = holds.place(
        world.store, world.compliance.actor, world.versions[0], "Matter S", "asked for"
    )
    with world.store.read(stranger(world.store)) as session, pytest.raises(NotFound):
        retention.hold_by_number(session, hold.number)
    with world.store.read(world.engineer.actor) as session:
        assert retention.hold_by_number(session, hold.number).number == hold.number


def test_a_gate_is_not_asked_about_another_teams_use_case(world: World) -> None:
    own = a_world(world.store, world.blobs, "judging")
    actor = own.engineer.actor
    gates.check(
        world.store,
        world.blobs,
        actor,
        gates.Proposal(own.base.ref, "production", own.use_case),
    )
    with pytest.raises(NotFound, match="no use case"):
        gates.check(
            world.store,
            world.blobs,
            actor,
            gates.Proposal(own.base.ref, "production", world.use_case),
        )
