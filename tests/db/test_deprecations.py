"""Deprecations around the rule: PostgreSQL refuses a state without its reason, a reason without its
state, the way back, and every new rollout.
"""

from __future__ import annotations

import secrets
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text

from registry.blobs.store import Blobs
from registry.commands import deprecations, recalls, rollouts, versions
from registry.db.store import Store
from registry.rules.actors import SYSTEM
from tests.build import World, a_world, adapter_files, approved, register, train
from tests.db.around import as_app, audit, refused, settle

STATE = "update version set state = 'deprecated' where id = %(id)s"
REASON = "insert into deprecation (id, reason_commitment, at) values (%(id)s, 'sha256:x', now())"
ROLLOUT = (
    "insert into rollout select %(new)s, c.id, r.version_id, r.id, 'pending', 0, null, null, "
    "now(), null from channel c, review r where c.line_id = (select line_id from version where "
    "id = r.version_id) and c.environment = r.environment and c.name = 'beside' "
    "and r.version_id = %(id)s and r.state = 'approved'"
)


@pytest.fixture(scope="module")
def world(store: Store, blobs: Blobs) -> World:
    """Its first approved version is deprecated while it serves in production; another is not."""
    made = a_world(store, blobs, f"t{secrets.token_hex(4)}")
    engineer, name = made.engineer.actor, f"{made.team}/adapter"
    old = approved(made)
    for channel in (None, "beside"):
        rollouts.start(store, engineer, rollouts.Canary(old, "production", channel, 500, ""))
        rollouts.promote(store, engineer, rollouts.Place(name, "production", channel), "")
    deprecations.deprecate(store, engineer, old, "The next one is better.")
    return made


def node(store: Store, ref: str) -> Any:
    with store.read(SYSTEM) as session:
        return session.execute(
            text("select id from node where ref = :ref"), {"ref": ref}
        ).scalar_one()


def test_a_state_needs_its_reason_and_a_reason_its_state(store: Store, world: World) -> None:
    train(world, seed=70)
    which = node(store, world.versions[-1])
    rows = [("version", which), ("deprecation", which)]
    assert refused(store, STATE, {"id": which}, *rows) == (
        "CS002",
        f"{which} has no deprecation, which contains the reason",
    )
    assert refused(store, REASON, {"id": which}, *rows) == (
        "CS002",
        f"{which} has a deprecation, but is still registered",
    )
    dataset = node(store, f"dataset:{world.dataset.ref}")
    statement = STATE.replace("version", "dataset_version")
    assert refused(store, statement, {"id": dataset}, ("dataset_version", dataset))[0] == "CS002"
    with as_app(store) as connection:  # both together are let through
        audit(connection, *rows)
        connection.execute(REASON, {"id": which})
        connection.execute(STATE, {"id": which})
        settle(connection)


def test_only_what_is_registered_is_deprecated(store: Store, blobs: Blobs, world: World) -> None:
    engineer = world.engineer.actor
    draft = versions.Draft(
        "adapter", f"{world.team}/adapter", adapter_files(blobs, 71), {}, world.base.ref
    )
    drafted = register(store, blobs, engineer, draft).ref
    train(world, "unfit", seed=72)
    recalls.recall(store, engineer, world.versions[-1], "unfit for use")
    for ref, state in ((drafted, "draft"), (world.versions[-1], "recalled")):
        which = node(store, ref)
        assert refused(store, REASON, {"id": which}, ("deprecation", which)) == (
            "CS002",
            f"{which} cannot be deprecated because it is {state}",
        )


def test_a_deprecation_stays(store: Store, world: World) -> None:
    which = node(store, f"{world.team}/adapter@v2")
    for statement, table, refuser in (
        ("update version set state = 'registered' where id = %(id)s", "version", ("CS002",)),
        ("update deprecation set at = now() where id = %(id)s", "deprecation", ("CS003", "42501")),
        ("delete from deprecation where id = %(id)s", "deprecation", ("CS003", "42501")),
    ):
        assert refused(store, statement, {"id": which}, (table, which))[0] in refuser


def test_no_rollout_and_no_candidate_is_deprecated(store: Store, world: World) -> None:
    which, new = node(store, f"{world.team}/adapter@v2"), uuid4()
    assert refused(store, ROLLOUT, {"id": which, "new": new}, ("rollout", new)) == (
        "CS004",
        f"version {which} is deprecated: no new rollout of it may start",
    )
    with store.read(SYSTEM) as session:
        serving = session.execute(
            text(
                "select g.id from route_generation g join channel c on c.id = g.channel_id "
                "where g.stable_version_id = :id and g.valid_to is null and c.name = 'beside'"
            ),
            {"id": which},
        ).scalar_one()
    statement = (
        "with closed as (update route_generation set valid_to = now() where id = %(open)s "
        "returning channel_id, generation, valid_to) "
        "select channel_id, generation, valid_to from closed"
    )
    with as_app(store) as connection:
        audit(connection, ("route_generation", new), ("route_generation", serving))
        row = connection.execute(statement, {"open": serving}).fetchone()
        assert row is not None
        follow = (
            "insert into route_generation (id, channel_id, generation, kind, stable_version_id, "
            "candidate_version_id, weight_bp, salt, killed, reason_commitment, valid_from) values "
            "(%(new)s, %(channel)s, %(number)s, %(kind)s, %(stable)s, %(candidate)s, %(weight)s, "
            "'', false, 'x', %(at)s)"
        )
        params = {"new": new, "channel": row[0], "number": row[1] + 1, "at": row[2]}
        stays = {"kind": "rollback", "stable": which, "candidate": None, "weight": 0}
        with connection.transaction(force_rollback=True):  # what serves stays
            connection.execute(follow, {**params, **stays})
            settle(connection)
        begins = {"kind": "canary", "stable": None, "candidate": which, "weight": 100}
        with pytest.raises(Exception, match="is deprecated: it cannot become a candidate"):
            connection.execute(follow, {**params, **begins})


@pytest.mark.parametrize("name", ["claims.v3", "claims.v1.v999999999"])
def test_no_line_is_named_like_a_version_of_another(store: Store, world: World, name: str) -> None:
    statement = (
        "insert into line (id, kind, team, name, created_at) values "
        "(%(id)s, 'adapter', %(team)s, %(name)s, now())"
    )
    which = uuid4()
    params = {"id": which, "team": world.team, "name": name}
    assert refused(store, statement, params, ("line", which))[0] == "ck_line_name"
    with as_app(store) as connection:
        audit(connection, ("line", which))
        connection.execute(statement, {**params, "name": name.replace(".v", "-v")})
        settle(connection)
