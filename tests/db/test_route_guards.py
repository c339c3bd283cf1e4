"""PostgreSQL refuses impossible routes: each invariant of a generation, tried around its rule by
raw SQL as the app role.
"""

from __future__ import annotations

import secrets
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from registry.blobs.store import Blobs
from registry.commands import rollouts, use_cases
from registry.db.store import Store
from registry.errors import Refused
from tests.build import a_world, approved
from tests.db.around import as_app, as_owner, audit, cause, refused, settle
from tests.db.conftest import Rows

FROZEN, ILLEGAL, UNFIT = "CS003", "CS002", "CS010"


# A generation that follows the open one of the production channel, which is closed at the same
# instant.
CLOSE = "update route_generation set valid_to = now() where id = %(generation2)s"


FOLLOW = (
    "insert into route_generation (id, channel_id, generation, kind, stable_version_id, "
    "candidate_version_id, weight_bp, "
    "salt, killed, rollout_id, actor_id, reason_commitment, valid_from, valid_to) values "
    "(%(new)s, %(channel)s, "
    "%(generation)s, 'promote', %(stable)s, %(candidate)s, %(weight)s, '', false, null, null, "
    "'x', now(), null)"
)


ROUTES: dict[str, tuple[dict[str, Any], str, str]] = {
    "an unapproved stable": ({"stable": "v1"}, "CS004", "has no approval"),
    "an unapproved candidate": ({"candidate": "v3", "weight": 100}, "CS004", "has no approval"),
    "a version approved elsewhere": ({"stable": "kept"}, "CS004", "has no approval"),
    "a draft": ({"stable": "draft"}, "CS004", "is draft"),
    "a recalled stable": ({"stable": "fallen"}, "CS004", "is recalled"),
    "a recalled candidate": ({"candidate": "fallen", "weight": 100}, "CS004", "is recalled"),
    "another line's version": ({"stable": "other"}, "CS004", "does not belong to the line"),
    "a generation left out": ({"stable": "v2", "generation": 4}, "CS005", "does not follow"),
    "a generation again": ({"stable": "v2", "generation": 2}, "CS005", "does not follow"),
    "a candidate without weight": ({"candidate": "v2"}, "ck_route_generation_candidate_weight", ""),
    "a weight without candidate": (
        {"stable": "v2", "weight": 1},
        "ck_route_generation_candidate_weight",
        "",
    ),
    "a weight beyond all": ({"candidate": "v2", "weight": 10001}, "ck_route_generation_weight", ""),
}


@pytest.mark.parametrize("what", ROUTES)
def test_no_route_names(store: Store, rows: Rows, what: str) -> None:
    given, refuser, words = ROUTES[what]
    new = uuid4()
    params = {"generation": 3, "stable": None, "candidate": None, "weight": 0, "new": new, **given}
    for arm in ("stable", "candidate"):
        params[arm] = params[arm] and rows.ids[params[arm]]
    keys = [("route_generation", new), ("route_generation", rows.ids["generation2"])]
    with as_app(store) as connection:
        audit(connection, *keys)
        connection.execute(CLOSE, rows.ids)
        with pytest.raises(psycopg.Error) as refusal:
            connection.execute(FOLLOW, {**rows.ids, **params})
            settle(connection)
    assert (cause(refusal.value), words in str(refusal.value)) == (refuser, True), refusal.value


def test_a_sound_generation_is_let_through(store: Store, rows: Rows) -> None:
    """The cases above fail for their own reason, and not because the statement could never
    succeed.
    """
    new = uuid4()
    with as_app(store) as connection:
        audit(connection, ("route_generation", new), ("route_generation", rows.ids["generation2"]))
        connection.execute(CLOSE, rows.ids)
        params = {
            "generation": 3,
            "stable": rows.ids["v2"],
            "candidate": None,
            "weight": 0,
            "new": new,
        }
        connection.execute(FOLLOW, {**rows.ids, **params})
        settle(connection)


def test_an_approval_for_another_use_case_opens_no_route(store: Store, blobs: Blobs) -> None:
    """Neither the rule nor PostgreSQL lets it on the channel; on a channel of its own it serves."""
    world = a_world(store, blobs, f"t{secrets.token_hex(4)}")
    actor, line = world.engineer.actor, f"{world.team}/adapter"
    first = approved(world)
    rollouts.start(store, actor, rollouts.Canary(first, "production", None, 500, ""))
    rollouts.promote(store, actor, rollouts.Place(line, "production", None), "")
    world.use_case = f"{world.team}/second"
    use_cases.register(
        store,
        actor,
        use_cases.UseCaseRequest(
            world.use_case, "another", "somebody", "minimal", world.suite, details={}
        ),
    )
    second = approved(world, seed=40)
    with pytest.raises(Refused) as refusal:
        rollouts.start(store, actor, rollouts.Canary(second, "production", None, 500, ""))
    assert refusal.value.kind == "another-use-case"

    rows = Rows(world)
    rows.find("second", "select id from node where ref = :ref", ref=second)
    rows.find("review", "select id from review where number = :number", number=world.review)
    rows.find(
        "channel",
        "select c.id from channel c join line l on l.id = c.line_id where l.team = :team",
        team=world.team,
    )
    rows.find(
        "generation2",
        "select id from route_generation where channel_id = :channel and generation = 2",
    )
    arms = (
        {"stable": rows.ids["second"], "candidate": None, "weight": 0},
        {"stable": None, "candidate": rows.ids["second"], "weight": 100},
    )
    for kind in ("promote", "rollback"):
        for arm in arms:
            new = uuid4()
            keys = [("route_generation", new), ("route_generation", rows.ids["generation2"])]
            with as_app(store) as connection:
                audit(connection, *keys)
                connection.execute(CLOSE, rows.ids)
                with pytest.raises(psycopg.Error) as stopped:
                    connection.execute(
                        FOLLOW.replace("'promote'", f"'{kind}'"),
                        {**rows.ids, **arm, "new": new, "generation": 3},
                    )
            assert cause(stopped.value) == "CS011", (kind, arm)
    rollout = uuid4()
    got, message = refused(
        store,
        "insert into rollout (id, channel_id, version_id, review_id, state, weight_bp, started_at)"
        " values (%(new)s, %(channel)s, %(second)s, %(review)s, 'pending', 0, now())",
        {**rows.ids, "new": rollout},
        ("rollout", rollout),
    )
    assert (got, "another use case" in message) == ("CS011", True)

    own = rollouts.start(store, actor, rollouts.Canary(second, "production", "second", 500, ""))
    assert own.candidate == second


def test_a_generation_beside_an_open_one_is_refused(store: Store, rows: Rows) -> None:
    params = {
        "generation": 3,
        "stable": rows.ids["v2"],
        "candidate": None,
        "weight": 0,
        "new": uuid4(),
    }
    got, said = refused(store, FOLLOW, {**rows.ids, **params}, ("route_generation", params["new"]))
    assert (got, "does not begin where" in said) == ("CS005", True)


@pytest.mark.parametrize(
    ("range_", "index"),
    [
        ("now(), null", "ex_route_generation_range"),
        ("now() - interval '1 second', now() + interval '1 second'", "ex_route_generation_range"),
        ("now() + interval '2 seconds', now() + interval '1 second'", "ck_route_generation_range"),
    ],
)
def test_ranges_of_a_channel_never_overlap_even_without_triggers(
    store: Store, rows: Rows, range_: str, index: str
) -> None:
    statement = FOLLOW.replace("now(), null", range_)
    params = {
        **rows.ids,
        "generation": 3,
        "stable": rows.ids["v2"],
        "candidate": None,
        "weight": 0,
        "new": uuid4(),
    }
    with as_owner(store) as connection:
        connection.execute("alter table route_generation disable trigger user")
        with pytest.raises(psycopg.Error) as refusal:
            connection.execute(statement, params)
    assert cause(refusal.value) == index


def test_one_range_is_open_even_without_the_other_guards(store: Store, rows: Rows) -> None:
    params = {
        **rows.ids,
        "generation": 3,
        "stable": rows.ids["v2"],
        "candidate": None,
        "weight": 0,
        "new": uuid4(),
    }
    with as_owner(store) as connection:
        connection.execute("alter table route_generation disable trigger user")
        connection.execute("alter table route_generation drop constraint ex_route_generation_range")
        with pytest.raises(psycopg.errors.UniqueViolation) as refusal:
            connection.execute(FOLLOW, params)
    assert cause(refusal.value) == "uq_route_generation_open"


def test_a_number_is_used_once_even_without_triggers(store: Store, rows: Rows) -> None:
    with as_owner(store) as connection:
        connection.execute("alter table version disable trigger user")
        with pytest.raises(psycopg.errors.UniqueViolation) as refusal:
            connection.execute(
                "update version set number = 1, state = 'registered' where id = %(draft)s", rows.ids
            )
    assert cause(refusal.value) == "uq_version_line_id_number"


def test_the_base_stands_only_where_the_policy_allows_it(store: Store, rows: Rows) -> None:
    policy, channel, generation = uuid4(), uuid4(), uuid4()
    params = {**rows.ids, "p": policy, "c": channel, "new": generation}
    with as_app(store) as connection:
        audit(
            connection,
            ("policy_version", policy),
            ("channel", channel),
            ("route_generation", generation),
        )
        place = (
            "insert into channel values (%(c)s, %(line)s, 'dev', 'dev', %(use_case)s, "
            "%(base)s, now())"
        )
        connection.execute(place, params)
        route = FOLLOW.replace("%(channel)s", "%(c)s")
        stands = {"generation": 1, "stable": rows.ids["base"], "candidate": None, "weight": 0}
        with connection.transaction(force_rollback=True):
            connection.execute(route, {**params, **stands})
        connection.execute(
            "insert into policy_version select %(p)s, environment, number + 1, digest, rules || "
            "'{\"fallback_to_base\": false}', text, null, now() from policy_version where "
            "environment = 'dev' "
            "order by number desc limit 1",
            params,
        )
        with pytest.raises(psycopg.Error) as refusal:
            connection.execute(route, {**params, **stands})
    assert (cause(refusal.value), "does not allow the base" in str(refusal.value)) == (
        "CS004",
        True,
    )
