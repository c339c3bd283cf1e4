"""The one clever object: nothing unaudited commits, nothing writes in a query, nothing changes an
event.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import select, text

from registry.db.accounts import Account, Token, seal
from registry.db.audit import Event
from registry.db.store import Store
from registry.db.training_runs import Lease
from registry.db.versions import Line
from registry.errors import Fault, Forbidden, NotFound, Refused, Unauthenticated, Unavailable
from registry.rules.actions import Action
from registry.rules.actors import SYSTEM, Actor, Grant, Role
from tests.build import a_person


def a_line(team: str, name: str = "line") -> Line:
    return Line(id=uuid4(), kind="adapter", team=team, name=name, created_at=datetime.now(UTC))


def lines(store: Store, team: str) -> int:
    with store.read(SYSTEM) as session:
        return len(session.scalars(select(Line).where(Line.team == team)).all())


def events(store: Store, team: str) -> list[Event]:
    with store.read(SYSTEM) as session:
        return list(session.scalars(select(Event).where(Event.team == team).order_by(Event.place)))


def test_a_change_and_its_event_commit_together(store: Store, team: str) -> None:
    with store.write(SYSTEM, Action.VERSION_REGISTER, team) as tx:
        line = tx.add(a_line(team))
        tx.audit(line.ref, why="test")
    [event] = events(store, team)
    entry = json.loads(event.entry)
    assert (entry["action"], entry["outcome"], entry["facts"]) == (
        "version:register",
        "done",
        {"why": "test"},
    )
    [row] = entry["rows"]
    assert (row["table"], row["key"], row["op"]) == ("line", str(line.id), "put")
    assert row["row"]["name"] == "line"


def test_a_forgotten_audit_is_rolled_back(store: Store, team: str) -> None:
    with pytest.raises(Fault) as refusal, store.write(SYSTEM, Action.VERSION_REGISTER, team) as tx:
        tx.add(a_line(team))
    assert refusal.value.kind == "unaudited-write"
    assert lines(store, team) == 0


def test_what_is_unchanged_leaves_no_event_and_may_not_write(store: Store, team: str) -> None:
    with store.write(SYSTEM, Action.VERSION_REGISTER, team) as tx:
        tx.unchanged(f"{team}/x")
    with store.read(SYSTEM) as session:
        told = session.execute(
            text("select count(*) from event where subject = :ref"), {"ref": f"{team}/x"}
        )
        assert told.scalar_one() == 0
    with pytest.raises(Fault) as refusal, store.write(SYSTEM, Action.VERSION_REGISTER, team) as tx:
        tx.unchanged(tx.add(a_line(team)).ref)
    assert refusal.value.kind == "unaudited-write"
    assert lines(store, team) == 0


def test_a_change_through_upkeep_is_refused_by_postgresql(store: Store, team: str) -> None:
    with pytest.raises(Fault) as refusal, store.upkeep("a lie") as session:
        session.add(a_line(team))
    assert refusal.value.kind == "unaudited-write"
    assert lines(store, team) == 0


def test_an_unaudited_change_by_raw_sql_as_the_app_role_is_refused_at_commit(
    store: Store, team: str
) -> None:
    url = store.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, options="-c role=countersign_app") as connection:
        connection.execute(
            "insert into line (id, kind, team, name, created_at) values (%s, 'adapter', %s, 'x', "
            "now())",
            (uuid4(), team),
        )
        with pytest.raises(psycopg.Error) as refusal:
            connection.commit()
    assert refusal.value.sqlstate == "CS001"
    assert lines(store, team) == 0


def test_an_event_of_another_transaction_does_not_cover_a_change(store: Store, team: str) -> None:
    with store.write(SYSTEM, Action.VERSION_REGISTER, team) as tx:
        line = tx.add(a_line(team))
        account = tx.add(
            Account(
                id=uuid4(),
                kind="person",
                name_commitment=seal(tx.session, "note", team),
                created_at=tx.now,
            )
        )
        token = tx.add(
            Token(
                id=uuid4().hex[:12],
                account_id=account.id,
                secret_hash=f"sha256:{uuid4().hex * 2}",
                scopes=[],
                created_at=tx.now,
                expires_at=tx.now + timedelta(days=1),
            )
        )
        tx.audit(line.ref)
    url = store.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, options="-c role=countersign_app") as connection:
        connection.execute("update token set revoked_at = now() where id = %s", (token.id,))
        with pytest.raises(psycopg.Error) as refusal:
            connection.commit()
    assert refusal.value.sqlstate == "CS001"


@pytest.mark.parametrize("table", ["event", "event_row", "leaf"])
@pytest.mark.parametrize(
    "statement", ["update {} set {} = {}", "delete from {}", "truncate {} cascade"]
)
def test_the_log_is_append_only_even_for_its_owner(
    store: Store, database: str, table: str, statement: str
) -> None:
    column = {"event": "action", "event_row": "row_key", "leaf": "hash"}[table]
    url = database.replace("postgresql+psycopg", "postgresql")
    with psycopg.connect(url) as connection, pytest.raises(psycopg.Error) as refusal:
        connection.execute(statement.format(table, column, column))
    assert refusal.value.sqlstate == "CS008"


def test_the_app_role_has_no_right_to_update_or_delete_events(store: Store) -> None:
    url = store.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    for statement in (
        "update event set action = 'x'",
        "delete from event",
        "delete from leaf",
        "insert into leaf values (0, gen_random_uuid(), '')",
    ):
        with (
            psycopg.connect(url, options="-c role=countersign_app") as connection,
            pytest.raises(psycopg.errors.InsufficientPrivilege),
        ):
            connection.execute(statement)


def test_a_query_cannot_write(store: Store, team: str) -> None:
    with pytest.raises(Fault) as refusal, store.read(SYSTEM) as session:
        session.add(a_line(team))
        session.flush()
    assert refusal.value.kind == "write-in-query"


def test_a_missing_role_is_forbidden_and_recorded(store: Store, team: str) -> None:
    auditor = a_person(store, "auditor").actor
    with pytest.raises(Forbidden) as refusal, store.write(auditor, Action.VERSION_REGISTER, team):
        pytest.fail("the body must not run")
    assert "engineer" in refusal.value.detail
    [event] = events(store, team)
    assert (event.outcome, event.actor_id) == ("refused", auditor.account)
    assert json.loads(event.entry)["rows"] == []


def test_a_refusal_rolls_back_and_is_recorded(store: Store, team: str) -> None:
    with pytest.raises(Refused), store.write(SYSTEM, Action.VERSION_REGISTER, team) as tx:
        line = tx.add(a_line(team))
        tx.audit(line.ref)
        raise Refused("unfit-base", "No.", "Fix it.", subject="x/y")
    assert lines(store, team) == 0
    [event] = events(store, team)
    assert (event.outcome, event.subject) == ("refused", "x/y")


def test_wrong_input_leaves_no_event(store: Store, team: str) -> None:
    with pytest.raises(NotFound), store.write(SYSTEM, Action.VERSION_REGISTER, team) as tx:
        tx.get(Line, uuid4())
    assert events(store, team) == []


def test_another_teams_row_is_not_found(store: Store, team: str) -> None:
    engineer = a_person(store, "engineer", team="elsewhere").actor
    with pytest.raises(NotFound), store.write(engineer, Action.VERSION_REGISTER) as tx:
        tx.within(team)


def test_a_stale_sign_in_is_asked_to_be_fresh(store: Store) -> None:
    old = datetime.now(UTC) - timedelta(hours=13)
    actor = Actor(uuid4(), "old", frozenset({Grant(Role.ENGINEER, None)}), signed_in=old)
    with pytest.raises(Unauthenticated) as refusal, store.write(actor, Action.RECALL):
        pytest.fail("the body must not run")
    assert refusal.value.kind == "fresh-sign-in"


def test_personal_text_is_in_the_log_only_as_a_commitment(store: Store) -> None:
    with store.write(SYSTEM, Action.ACCOUNT_CREATE) as tx:
        name = f"ana-{uuid4().hex[:8]}"
        account = tx.add(
            Account(
                id=uuid4(),
                kind="person",
                name_commitment=seal(tx.session, "account", name),
                created_at=tx.now,
            )
        )
        tx.audit(f"account:{account.id}")
    with store.read(SYSTEM) as session:
        entry = session.scalars(
            select(Event.entry).where(Event.subject == f"account:{account.id}")
        ).one()
    assert name.encode() not in entry
    assert account.name_commitment.encode() in entry


def test_a_deferred_job_exists_only_if_the_transaction_commits(store: Store, team: str) -> None:
    def jobs() -> int:
        with store.read(SYSTEM) as session:
            return (
                session.scalar(
                    text(
                        "select count(*) from procrastinate.procrastinate_jobs where args ->> "
                        "'mark' = :mark"
                    ),
                    {"mark": team},
                )
                or 0
            )

    with pytest.raises(Refused), store.write(SYSTEM, Action.VERSION_REGISTER, team) as tx:
        tx.defer("requeue_lost", mark=team)
        raise Refused("frozen", "No.")
    assert jobs() == 0
    with store.write(SYSTEM, Action.VERSION_REGISTER, team) as tx:
        tx.defer("requeue_lost", mark=team)
        tx.audit("nothing")
    assert jobs() == 1


def test_upkeep_may_write_its_own_tables(store: Store) -> None:
    trainer = a_person(store, "trainer")
    key = uuid4()
    with store.upkeep("a lease") as session:
        session.add(
            Lease(
                id=key,
                worker="w",
                account_id=trainer.id,
                attempt=1,
                expires_at=datetime.now(UTC),
                progress={},
            )
        )
    with store.upkeep("the lease again") as session:
        session.delete(session.get_one(Lease, key))


def test_a_database_that_is_away_is_unavailable() -> None:
    from registry.db.store import open_engine

    away = Store(open_engine("postgresql+psycopg://nobody@127.0.0.1:1/none", "countersign_app"))
    with pytest.raises(Unavailable) as refusal, away.read(SYSTEM):
        pytest.fail("there is nothing to read")
    assert refusal.value.kind == "database-away"
    away.engine.dispose()
