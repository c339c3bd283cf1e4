"""Every (state, state) pair of every table with states: PostgreSQL allows what the pure tables
allow, and nothing else.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import psycopg
import pytest

from registry.db import reviews, training_runs
from registry.db.rollouts import Rollout
from registry.db.store import Store
from registry.errors import Refused
from registry.rules import versions
from registry.rules.rollouts import TRANSITIONS, State
from tests.db.around import as_owner, plain_url

VERSION = tuple(state.value for state in versions.State)
STATES: dict[str, tuple[str, ...]] = {
    "version": VERSION,
    "dataset_version": VERSION,
    "review": reviews.STATES,
    "training_run": training_runs.STATES,
    "eval_run": training_runs.STATES,
    "rollout": tuple(State),
}
# As DOMAIN.md draws them; those of versions and rollouts are in rules.
DRAWN = {
    "version": {old.value: [*map(str, new)] for old, new in versions.TRANSITIONS.items()},
    "review": {
        "open": [
            "approved",
            "rejected",
            "changes_requested",
            "withdrawn",
            "expired",
            "voided",
        ],
        "approved": ["voided", "expired"],
    },
    "training_run": {
        "queued": ["running", "cancelled"],
        "running": ["succeeded", "failed", "cancelled", "queued"],
    },
}
DRAWN["dataset_version"], DRAWN["eval_run"] = DRAWN["version"], DRAWN["training_run"]
FIRST = {
    "version": "draft",
    "dataset_version": "draft",
    "review": "open",
    "training_run": "queued",
    "eval_run": "queued",
    "rollout": "pending",
}


def legal(table: str) -> set[tuple[str, str]]:
    """The steps the pure table allows; staying is no step."""
    if table == "rollout":
        return {(at.value, to.value) for at in State for to in TRANSITIONS[at] if at is not to}
    return {(old, new) for old, following in DRAWN[table].items() for new in following}


@pytest.mark.parametrize("table", STATES)
def test_every_pair(store: Store, table: str) -> None:
    """The trigger is put on a bare table of that name, so that no CHECK and no other trigger can
    speak in its place.
    """
    with as_owner(store) as connection:
        connection.execute("create schema scratch")
        connection.execute(f"create table scratch.{table} (id int primary key, state text)")
        for number, state in enumerate(STATES[table]):
            connection.execute(f"insert into scratch.{table} values (%s, %s)", (number, state))
        connection.execute(
            f"create trigger stepped before insert or update of state on scratch.{table} "
            "for each row execute function legal_transition()"
        )

        def goes(statement: str, *params: Any) -> bool:
            try:
                with connection.transaction(force_rollback=True):
                    connection.execute(statement, params)
            except psycopg.Error as refusal:
                if refusal.sqlstate == "CS002":
                    return False
                raise
            return True

        for (number, old), new in product(enumerate(STATES[table]), STATES[table]):
            allowed = old == new or (old, new) in legal(table)
            assert (
                goes(f"update scratch.{table} set state = %s where id = %s", new, number) == allowed
            ), (old, new)
        for new in STATES[table]:
            assert goes(f"insert into scratch.{table} values (99, %s)", new) == (
                new == FIRST[table]
            ), new


def test_the_table_of_steps_holds_nothing_else(store: Store) -> None:
    with psycopg.connect(plain_url(store)) as connection:
        held = set(
            connection.execute("select table_name, old_state, new_state from transition").fetchall()
        )
        triggers = connection.execute(
            "select c.relname from pg_trigger t join pg_class c on c.oid = t.tgrelid "
            "where t.tgname = 'stepped' and t.tgenabled = 'O'"
        ).fetchall()
    wanted = {(table, old, new) for table in STATES for old, new in legal(table)}
    assert held == wanted | {(table, "", first) for table, first in FIRST.items()}
    assert {name for (name,) in triggers} == set(STATES)


def test_a_rollout_is_assigned_no_state_that_the_table_does_not_have() -> None:
    """The rule speaks at the assignment, before PostgreSQL is asked."""
    for at, to in product(State, State):
        rollout = Rollout(state=at)
        if to in TRANSITIONS[at]:
            rollout.state = to
            assert rollout.state == to.value
        else:
            with pytest.raises(Refused) as refusal:
                rollout.state = to
            assert refusal.value.kind == "illegal-transition"
