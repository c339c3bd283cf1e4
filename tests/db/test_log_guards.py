"""PostgreSQL keeps what was written and the log of it: nothing governed is deleted, changed
without an event, or forged.
"""

from __future__ import annotations

import psycopg
import pytest

from registry.db.store import Store
from registry.db.table import Table
from tests.db.around import as_app, as_owner, audit, cause, plain_url, settle
from tests.db.conftest import Rows

FROZEN = "CS003"


def test_what_was_never_deleted_stays(store: Store, rows: Rows) -> None:
    for table in sorted(
        one.class_.__tablename__ for one in Table.registry.mappers if one.class_.governed
    ):
        statement = (
            f"delete from {table} where id::text = (select max(id::text) from {table} where 1=1)"
        )
        with as_app(store) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement)
    for table, key in (
        ("version", "v1"),
        ("vote", "vote"),
        ("route_generation", "generation1"),
        ("node", "v1"),
        ("policy_version", "policy"),
        ("version_file", "file"),
        ("signing_key", "key"),
    ):
        with as_owner(store) as connection, pytest.raises(psycopg.Error) as refusal:
            connection.execute(f"delete from {table} where id = %s", (rows.ids[key],))
        assert cause(refusal.value) == FROZEN


def test_every_governed_table_demands_an_event(store: Store, rows: Rows) -> None:
    governed = {one.class_.__tablename__ for one in Table.registry.mappers if one.class_.governed}
    with psycopg.connect(plain_url(store)) as connection:
        found = connection.execute(
            "select c.relname from pg_trigger t join pg_class c on c.oid = t.tgrelid where "
            "t.tgname = 'audited' "
            "and t.tgenabled = 'O' and t.tgdeferrable and t.tginitdeferred"
        ).fetchall()
    assert {name for (name,) in found} == governed


def test_an_event_of_the_past_covers_no_change(store: Store, rows: Rows) -> None:
    with as_app(store) as connection:
        (old,) = connection.execute(
            "select event_id from event_row where row_key = %s", (str(rows.ids["v1"]),)
        ).fetchone() or (None,)
        assert old is not None
        with pytest.raises(psycopg.errors.ForeignKeyViolation) as refusal:
            connection.execute(
                "insert into event_row (table_name, row_key, event_id) values ('version', 'x', %s)",
                (old,),
            )
            settle(connection)
    assert cause(refusal.value) == "fk_event_row_event_id_txid"


@pytest.mark.parametrize(
    "statement",
    [
        "insert into event_row (txid, table_name, row_key, event_id) values "
        "(pg_current_xact_id(), 'a', 'b', "
        "gen_random_uuid())",
        "insert into event (id, txid, at, action, subject, outcome, entry) values "
        "(gen_random_uuid(), '5', now(), 'a', 'b', "
        "'done', '')",
        "insert into event_pending values (1, gen_random_uuid())",
        "delete from event_pending",
        "update tree_head set note = 'x'",
        "insert into transition values ('version', 'recalled', 'registered')",
        "update personal set value = 'somebody else'",
    ],
)
def test_the_app_forges_nothing_of_the_log(store: Store, statement: str) -> None:
    with as_app(store) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(statement)


def test_what_was_signed_is_signed_once(store: Store) -> None:
    """The sequencer's own role may give a head its note, once, and nothing else of it."""
    head = (
        "insert into tree_head values (987654321, 'sha256:' || repeat('0', 64), '{}', null, now())"
    )
    url = plain_url(store)
    with psycopg.connect(url, options="-c role=countersign_sequencer") as connection:
        connection.execute(head)
        for statement in (
            "update tree_head set root = root",
            "delete from tree_head",
            "update leaf set seq = seq",
            "delete from event",
            "insert into event_row values ('1', 'a', 'b', gen_random_uuid())",
            "update version set state = state",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.transaction():
                connection.execute(statement)
        connection.execute("update tree_head set note = 'first' where size = 987654321")
        with pytest.raises(psycopg.Error) as refusal:
            connection.execute("update tree_head set note = 'second' where size = 987654321")
        connection.rollback()
    assert cause(refusal.value) == "CS008"


def test_the_reader_sees_no_secret(store: Store) -> None:
    with psycopg.connect(plain_url(store), options="-c role=countersign_reader") as connection:
        assert connection.execute("select count(*) > 0 from event").fetchone() == (True,)
        for table in ("token", "web_session", "personal"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.transaction():
                connection.execute(f"select * from {table}")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("insert into blob values ('x', 1)")


def test_every_event_waits_for_its_number(store: Store) -> None:
    with as_app(store) as connection:
        audit(connection)
        waiting = (
            "select count(*) from event e join event_pending p on p.event_id = e.id and "
            "p.place = e.place where e.txid = pg_current_xact_id()"
        )
        assert connection.execute(waiting).fetchone() == (1,)
