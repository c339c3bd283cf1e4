"""Who may do what, as a literal table: a change of the rights is a change of this file too."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product
from uuid import UUID

import pytest

from registry.errors import Forbidden, Invalid, Unauthenticated
from registry.rules.actions import STEP_UP, Action
from registry.rules.actors import (
    FRESH,
    PERMISSIONS,
    READERS,
    SYSTEM,
    Actor,
    Grant,
    Matter,
    Role,
    allowed,
    may_read,
    parse_roles,
    require,
    require_reader,
)

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)

# Columns: admin, engineer, reviewer, auditor, trainer, gateway.
TABLE = """
account:create     x . . . . .
token:create       x . . . . .
token:revoke       x . . . . .
key:enroll         x x x x x x
use-case:register  . x x . . .
use-case:update    . x x . . .
policy:publish     x . . . . .
version:register   . x . . x .
dataset:register   . x . . . .
profile:define     . x . . . .
suite:freeze       . x x . . .
training:queue     . x . . . .
eval:queue         . x x . . .
work:lease         . . . . x .
work:requeue       . . . . x .
work:reclaim       . . . . . .
work:fail          . . . . x .
work:cancel        . x . . . .
training:finish    . . . . x .
eval:finish        . . . . x .
review:submit      . x . . . .
review:vote        . . x . . .
review:withdraw    . x . . . .
review:expire      . . . . . .
rollout:start      . x . . . .
rollout:promote    . x . . . .
channel:roll-back  . x . . . .
version:recall     . x x . . .
version:deprecate  . x . . . .
tag:set            . x . . . .
retention:define   x . . . . .
retention:assign   x x . . . .
hold:place         x . x . . .
hold:lift          . . x . . .
version:delete     . x . . . .
draft:discard      . x . . . .
draft:expire       . . . . . .
blob:collect       x . . . . .
quota:set          x . . . . .
"""
# Who reads what seeing a team does not show by itself, in the same columns.
READING = """
keeping            x x x x . .
case               x . x x . .
quota              x x x x . .
collection         x . . x . .
log                x . x x . .
"""
COLUMNS = (Role.ADMIN, Role.ENGINEER, Role.REVIEWER, Role.AUDITOR, Role.TRAINER, Role.GATEWAY)
EXPECTED = {
    (role, action): mark == "x"
    for action, *marks in (line.split() for line in TABLE.split("\n") if line)
    for role, mark in zip(COLUMNS, marks, strict=True)
}
READS = {
    (role, Matter[matter.upper()]): mark == "x"
    for matter, *marks in (line.split() for line in READING.split("\n") if line)
    for role, mark in zip(COLUMNS, marks, strict=True)
}


def actor(*grants: tuple[Role, str | None], signed_in: datetime | None = NOW) -> Actor:
    held = frozenset(Grant(role, team) for role, team in grants)
    return Actor(account=UUID(int=1), name="ada", grants=held, signed_in=signed_in)


def test_the_table_names_every_role_and_action() -> None:
    assert set(EXPECTED) == set(product(map(str, Role), map(str, Action)))
    assert set(PERMISSIONS) == set(Action)


@pytest.mark.parametrize(("role", "action"), list(product(Role, Action)))
@pytest.mark.parametrize("held_in", ["legal", None])
def test_each_role_may_do_exactly_its_row(role: Role, action: Action, held_in: str | None) -> None:
    assert allowed(actor((role, held_in)), action, "legal") is EXPECTED[role, action]
    assert allowed(actor((role, held_in)), action, None) is EXPECTED[role, action]


def test_each_role_reads_exactly_its_row() -> None:
    assert set(READS) == set(product(Role, Matter))
    assert set(READERS) == set(Matter)
    for (role, matter), expected in READS.items():
        someone = actor((role, "legal"))
        assert may_read(someone, matter) is expected, (role, matter)
        if not expected:
            with pytest.raises(Forbidden, match="may not read") as told:
                require_reader(someone, matter)
            assert told.value.kind == "role-missing"
            assert not may_read(actor(), matter)
    assert all(may_read(SYSTEM, matter) for matter in Matter)


@pytest.mark.parametrize(("role", "action"), list(product(Role, Action)))
def test_another_team_is_closed_to_all_but_those_who_act_across(role: Role, action: Action) -> None:
    across = role in {Role.ADMIN, Role.REVIEWER, Role.AUDITOR}
    assert allowed(actor((role, "legal")), action, "retail") is (EXPECTED[role, action] and across)


def test_rights_do_not_mix_between_teams() -> None:
    """Engineer of one team and trainer of another is neither in the other's place."""
    both = actor((Role.ENGINEER, "legal"), (Role.TRAINER, "retail"))
    assert allowed(both, Action.REVIEW_SUBMIT, "legal")
    assert not allowed(both, Action.REVIEW_SUBMIT, "retail")
    assert allowed(both, Action.WORK_LEASE, "retail")
    assert not allowed(both, Action.WORK_LEASE, "legal")


@pytest.mark.parametrize("action", Action)
def test_nobody_without_a_role_may_do_anything(action: Action) -> None:
    assert not allowed(actor(), action, "legal")
    assert not allowed(actor(), action, None)
    with pytest.raises(Forbidden):
        require(actor(), action, None, NOW)


def test_nobody_both_makes_and_approves_by_one_role() -> None:
    makers = {
        Action.VERSION_REGISTER,
        Action.TRAINING_QUEUE,
        Action.REVIEW_SUBMIT,
        Action.DATASET_REGISTER,
    }
    for role in Role:
        acts = {action for action in Action if role in PERMISSIONS[action]}
        assert not (Action.REVIEW_VOTE in acts and acts & makers)
    assert PERMISSIONS[Action.REVIEW_VOTE] == {Role.REVIEWER}


def test_the_refusal_names_the_act_the_team_and_the_roles() -> None:
    with pytest.raises(Forbidden) as error:
        require(actor((Role.AUDITOR, None)), Action.RECALL, "legal", NOW)
    assert error.value.kind == "role-missing"
    assert error.value.facts == {
        "action": "version:recall",
        "team": "legal",
        "roles": ["engineer", "reviewer"],
    }
    for word in ("ada", "version:recall", "legal", "engineer or reviewer"):
        assert word in error.value.detail
    with pytest.raises(Forbidden, match="the registry itself"):
        require(actor((Role.ADMIN, None)), Action.REVIEW_EXPIRE, None, NOW)


@pytest.mark.parametrize("action", Action)
def test_step_up_acts_ask_for_a_fresh_sign_in_and_others_do_not(action: Action) -> None:
    fresh_wanted = action.value in {
        "review:vote",
        "rollout:promote",
        "version:recall",
        "version:deprecate",
        "hold:lift",
        "version:delete",
    }
    assert (action in STEP_UP) is fresh_wanted
    if not PERMISSIONS[action]:
        return
    grant = (min(PERMISSIONS[action]), None)
    for signed_in in (NOW, NOW - FRESH):
        require(actor(grant, signed_in=signed_in), action, "legal", NOW)
    for stale in (NOW - FRESH - timedelta(microseconds=1), None):
        if fresh_wanted:
            with pytest.raises(Unauthenticated) as error:
                require(actor(grant, signed_in=stale), action, "legal", NOW)
            assert error.value.kind == "fresh-sign-in"
            assert error.value.fix
        else:
            require(actor(grant, signed_in=stale), action, "legal", NOW)


def test_fresh_means_twelve_hours() -> None:
    assert timedelta(hours=12) == FRESH


def test_a_missing_role_is_told_before_a_stale_sign_in() -> None:
    with pytest.raises(Forbidden):
        require(actor((Role.ENGINEER, "legal"), signed_in=None), Action.REVIEW_VOTE, "legal", NOW)


def test_who_sees_what() -> None:
    engineer = actor((Role.ENGINEER, "legal"))
    assert engineer.teams() == frozenset({"legal"})
    assert engineer.sees("legal")
    assert engineer.sees(None)
    assert not engineer.sees("retail")
    across = [actor((role, "risk")) for role in (Role.ADMIN, Role.AUDITOR, Role.REVIEWER)]
    for everywhere in (*across, actor((Role.ENGINEER, None)), SYSTEM):
        assert everywhere.teams() is None
        assert everywhere.sees("retail")
    assert actor().teams() == frozenset()
    assert not actor().sees("legal")


def test_services_and_people() -> None:
    assert actor((Role.TRAINER, "legal"), (Role.GATEWAY, None)).is_service
    assert not actor((Role.TRAINER, "legal"), (Role.ENGINEER, "legal")).is_service
    assert not actor().is_service
    assert SYSTEM.is_system
    assert not actor((Role.ADMIN, None)).is_system
    assert actor((Role.ADMIN, None)).holds(Role.ADMIN)
    assert not actor((Role.ADMIN, None)).holds(Role.REVIEWER)


@pytest.mark.parametrize(
    ("names", "kind"),
    [([], "bad-role"), (["root"], "bad-role"), (["engineer", "trainer"], "mixed-roles")],
)
def test_roles_that_one_account_cannot_hold(names: list[str], kind: str) -> None:
    with pytest.raises(Invalid) as error:
        parse_roles(names)
    assert error.value.kind == kind


def test_roles_by_name() -> None:
    assert parse_roles(["reviewer", "admin", "reviewer"]) == [Role.REVIEWER, Role.ADMIN]
    assert parse_roles(["trainer"]) == [Role.TRAINER]
