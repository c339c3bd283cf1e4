"""What serves: now, back then to the microsecond, and as a gateway needs it."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta

import pytest

from registry.blobs.store import Blobs
from registry.commands import recalls, rollouts
from registry.db.store import Store
from registry.errors import Invalid, NotFound
from registry.queries import rollouts as asked
from registry.queries import versions
from registry.rules.actors import Actor
from registry.views.rollouts import ChannelView
from tests.build import World, a_world, approved
from tests.queries.conftest import Statements


@pytest.fixture
def ready(store: Store, blobs: Blobs) -> World:
    """An approved version that nothing serves yet."""
    world = a_world(store, blobs, f"t{secrets.token_hex(4)}")
    approved(world)
    return world


def _channel(world: World) -> ChannelView:
    return asked.channel(
        world.store, world.engineer.actor, "production", f"{world.team}/adapter", "production"
    )


def test_a_channel_is_followed_from_canary_to_rollback(ready: World) -> None:
    store, actor, name, ref = (
        ready.store,
        ready.engineer.actor,
        f"{ready.team}/adapter",
        ready.versions[-1],
    )
    with pytest.raises(NotFound) as unknown:
        _channel(ready)
    assert unknown.value.kind == "channel-unknown"

    rollouts.start(store, actor, rollouts.Canary(ref, "production", None, 500, "first traffic"))
    canary = _channel(ready)
    assert (canary.stable, canary.candidate, canary.weight_bp) == (ready.base.ref, ref, 500)
    assert (canary.generation, canary.rollout_state, canary.review) == (1, "canary", ready.review)
    assert canary.use_case == ready.use_case
    assert canary.acts.rollback.default == ready.base.ref
    assert versions.version(store, actor, ready.base.ref).serves == ["production/production"]

    rollouts.promote(store, actor, rollouts.Place(name, "production", None), "it went well")
    promoted = _channel(ready)
    assert (promoted.stable, promoted.candidate, promoted.weight_bp) == (ref, None, 0)
    assert (promoted.rollout, promoted.acts.rollback.default, promoted.review) == (
        None,
        ready.base.ref,
        ready.review,
    )

    rollouts.roll_back(store, actor, rollouts.Place(name, "production", None), "complaints")
    back = _channel(ready)
    assert (back.stable, back.acts.rollback.default) == (ready.base.ref, None)

    story = asked.history(store, actor, name, "production")
    assert [
        (one.generation, one.version, one.candidate, one.kind, one.reason) for one in story
    ] == [
        (1, ready.base.ref, ref, "canary", "first traffic"),
        (2, ref, None, "promote", "it went well"),
        (3, ready.base.ref, None, "rollback", "complaints"),
    ]
    assert {one.actor for one in story} == {actor.name}
    assert [one.valid_to for one in story] == [story[1].valid_from, story[2].valid_from, None]


def test_the_past_is_answered_to_the_microsecond(ready: World) -> None:
    store, actor, name, ref = (
        ready.store,
        ready.engineer.actor,
        f"{ready.team}/adapter",
        ready.versions[-1],
    )
    rollouts.start(store, actor, rollouts.Canary(ref, "production", None, 500, "first traffic"))
    rollouts.promote(store, actor, rollouts.Place(name, "production", None), "it went well")
    first, second = asked.history(store, actor, name, "production")
    tick = timedelta(microseconds=1)

    def at(moment: datetime) -> list[tuple[int, str | None, str | None]]:
        found = asked.as_of(store, actor, moment, "production")
        return [(one.generation, one.version, one.candidate) for one in found]

    assert at(first.valid_from - tick) == []
    assert at(first.valid_from) == [(1, ready.base.ref, ref)]
    assert at(second.valid_from - tick) == [(1, ready.base.ref, ref)]
    assert at(second.valid_from) == [(2, ref, None)]
    assert asked.as_of(store, actor, datetime.now(UTC), "staging") == []
    now = asked.as_of(store, actor, datetime.now(UTC), "production")[0]
    assert (now.review, now.approved_by) == (
        ready.review,
        [ready.compliance.actor.name, ready.risk.actor.name],
    )
    with pytest.raises(Invalid) as refused:
        asked.as_of(store, actor, datetime(2026, 1, 1), "production")
    assert refused.value.kind == "bad-time"


def test_routing_holds_all_a_gateway_needs_and_its_tag_changes_with_it(ready: World) -> None:
    store, actor, name, ref = (
        ready.store,
        ready.engineer.actor,
        f"{ready.team}/adapter",
        ready.versions[-1],
    )
    empty = asked.routing(store, actor, "production")
    assert empty.entries == []
    rollouts.start(store, actor, rollouts.Canary(ref, "production", None, 500, "first traffic"))
    canary = asked.routing(store, actor, "production")
    assert asked.routing(store, actor, "production").etag == canary.etag
    (entry,) = canary.entries
    version = versions.version(store, actor, ref)
    assert entry.candidate is not None
    assert (entry.model, entry.channel, entry.weight_bp, entry.killed) == (
        name,
        "production",
        500,
        False,
    )
    assert (entry.candidate.ref, entry.candidate.kind) == (ref, "adapter")
    assert entry.candidate.digest == version.manifest_digest
    assert entry.candidate.tensor_root == version.tensor_root
    assert entry.candidate.files == version.files
    assert entry.stable == entry.base
    assert (entry.base.ref, entry.base.kind) == (ready.base.ref, "base")
    assert entry.fallback_to_base
    assert entry.salt
    rollouts.promote(store, actor, rollouts.Place(name, "production", None), "it went well")
    promoted = asked.routing(store, actor, "production")
    assert len({empty.etag, canary.etag, promoted.etag}) == 3


def test_a_recalled_base_kills_the_channel_and_is_no_fall_back(ready: World) -> None:
    store, actor = ready.store, ready.engineer.actor
    rollouts.start(
        store, actor, rollouts.Canary(ready.versions[-1], "production", None, 500, "first traffic")
    )
    recalls.recall(store, actor, ready.base.ref, "the licence was withdrawn")
    (entry,) = asked.routing(store, actor, "production").entries
    assert (entry.stable, entry.candidate, entry.killed, entry.fallback_to_base) == (
        None,
        None,
        True,
        False,
    )
    assert _channel(ready).acts.rollback.default is None
    assert versions.version(store, actor, ready.versions[-1]).serves == []


def test_a_version_rolled_back_from_is_not_gone_back_to(ready: World) -> None:
    store, actor, name = ready.store, ready.engineer.actor, f"{ready.team}/adapter"
    first = ready.versions[-1]
    rollouts.start(store, actor, rollouts.Canary(first, "production", None, 500, "first"))
    rollouts.promote(store, actor, rollouts.Place(name, "production", None), "good")
    second = approved(ready, seed=9)
    assert second != first
    rollouts.start(store, actor, rollouts.Canary(second, "production", None, 500, "second"))
    assert _channel(ready).acts.rollback.default == first
    rollouts.promote(store, actor, rollouts.Place(name, "production", None), "better")
    assert _channel(ready).acts.rollback.default == first
    rollouts.roll_back(store, actor, rollouts.Place(name, "production", None), "worse after all")
    third = _channel(ready)
    assert (third.stable, third.acts.rollback.default) == (first, ready.base.ref)


def test_other_teams_see_no_channel(store: Store, served: World, stranger: Actor) -> None:
    assert asked.channels(store, stranger) == []
    assert asked.as_of(store, stranger, datetime.now(UTC), "production") == []
    assert asked.routing(store, stranger, "production").entries == []
    for ask in (
        lambda: asked.channel(
            store, stranger, "production", f"{served.team}/adapter", "production"
        ),
        lambda: asked.history(store, stranger, f"{served.team}/adapter", "production"),
    ):
        with pytest.raises(NotFound) as hidden:
            ask()
        assert hidden.value.kind == "channel-unknown"


def test_an_unknown_environment_is_refused(store: Store, served: World) -> None:
    for ask in (
        lambda: asked.channels(store, served.engineer.actor, "prod"),
        lambda: asked.routing(store, served.engineer.actor, "prod"),
        lambda: asked.as_of(store, served.engineer.actor, datetime.now(UTC), "prod"),
        lambda: asked.history(store, served.engineer.actor, f"{served.team}/adapter", "prod"),
    ):
        with pytest.raises(Invalid) as refused:
            ask()
        assert refused.value.kind == "bad-environment"


def test_many_channels_cost_no_more_statements_than_one(
    store: Store, served: World, ready: World, statements: Statements
) -> None:
    rollouts.start(
        store,
        ready.engineer.actor,
        rollouts.Canary(ready.versions[-1], "production", None, 500, "first traffic"),
    )
    for ask in (
        lambda actor: asked.channels(store, actor, "production"),
        lambda actor: asked.routing(store, actor, "production").entries,
        lambda actor: asked.as_of(store, actor, datetime.now(UTC), "production"),
    ):
        with statements() as one:
            assert len(ask(ready.engineer.actor)) == 1
        with statements() as many:
            assert len(ask(ready.risk.actor)) > 1
        assert len(many) == len(one)
