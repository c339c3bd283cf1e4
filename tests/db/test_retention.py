"""Going around the rules of keeping: PostgreSQL itself refuses, and its dates are those of the
rule.
"""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import text

from registry.blobs.store import Blobs
from registry.commands import deletions, holds, quotas, retention, versions
from registry.db import blobs as bytes_table
from registry.db import retention as table
from registry.db.store import Store
from registry.rules import retention as rules
from registry.rules.actors import SYSTEM
from registry.rules.quotas import Limits
from tests.build import (
    ADAPTER_META,
    DATA_META,
    World,
    a_base,
    a_person,
    a_world,
    adapter_files,
    approved,
    dataset_bytes,
    put,
    register,
    register_rows,
)
from tests.db.around import as_app, as_owner, audit, cause, refused, settle

SEAL = "sha256:" + "0" * 64
STONE = (
    "insert into tombstone (id, how, was, reason_commitment, at) values (%(id)s, %(how)s, "
    f"%(was)s, '{SEAL}', "
    "now())"
)


@pytest.fixture(scope="module")
def kept(store: Store, blobs: Blobs) -> World:
    """A world of a team under `short`, with a version that serves, and one that nothing needs."""
    team = f"t{secrets.token_hex(4)}"
    retention.assign(store, a_person(store, "admin").actor, team, "short", "for a test")
    world = a_world(store, blobs, team)
    approved(world)
    return world


def node(store: Store, ref: str) -> Any:
    with store.read(SYSTEM) as session:
        return session.execute(
            text("select id from node where ref = :ref"), {"ref": ref}
        ).scalar_one()


def add(world: World, seed: int, name: str = "loose") -> str:
    draft = versions.Draft(
        "adapter",
        f"{world.team}/{name}",
        adapter_files(world.blobs, seed),
        {**ADAPTER_META, "domain": "legal"},
        world.base.ref,
    )
    return register(world.store, world.blobs, world.engineer.actor, draft).ref


def bury(
    store: Store, which: Any, how: str = "deleted", was: str = "registered"
) -> tuple[str, str]:
    return refused(store, STONE, {"id": which, "how": how, "was": was}, ("tombstone", which))


def test_no_tombstone_over_what_is_held_kept_or_needed(
    store: Store, blobs: Blobs, kept: World
) -> None:
    # needed
    assert bury(store, node(store, kept.base.ref))[0] == "CS023"
    assert bury(store, node(store, f"dataset:{kept.dataset.ref}"))[0] == "CS023"
    # kept: a line under the class that holds where nothing else was said
    team = f"t{secrets.token_hex(4)}"
    engineer = a_person(store, "engineer", team=team)
    standard = a_base(store, blobs, engineer, team)
    assert bury(store, node(store, standard.ref))[0] == "CS022"
    # held, by a hold on itself, on what stands on it, and on its line
    ref = add(kept, 900)
    hold = holds.place(store, kept.compliance.actor, ref, "Matter 1", "because")
    for which in (ref, kept.base.ref):
        said = bury(store, node(store, which))
        assert said == (
            "CS021",
            f"hold {hold.number} covers {node(store, which)}, so it cannot be deleted",
        )
    holds.lift(store, kept.risk.actor, hold.number, "done")
    # not as it stands
    assert bury(store, node(store, ref), was="recalled")[0] == "CS002"
    assert bury(store, node(store, ref), how="discarded")[0] == "CS002"
    assert bury(store, uuid4())[0] == "CS002"
    # a tombstone alone is not enough, and a state alone neither
    assert bury(store, node(store, ref)) == (
        "CS002",
        f"{node(store, ref)} has a tombstone, but is still registered or approved",
    )
    state = "update version set state = 'deleted' where id = %(id)s"
    which = node(store, ref)
    assert refused(store, state, {"id": which}, ("version", which)) == (
        "CS002",
        f"{which} has no tombstone",
    )


def test_what_was_deleted_stays_deleted(store: Store, kept: World) -> None:
    ref = add(kept, 901)
    deletions.delete(store, kept.engineer.actor, ref, "gone")
    which = node(store, ref)
    for statement, table_name, expected in (
        ("update version set state = 'registered' where id = %(id)s", "version", "CS002"),
        ("update version set number = 77 where id = %(id)s", "version", "CS003"),
        ("delete from version where id = %(id)s", "version", ("CS003", "42501")),
        ("delete from tombstone where id = %(id)s", "tombstone", ("CS003", "42501")),
        ("update tombstone set how = 'expired' where id = %(id)s", "tombstone", ("CS003", "42501")),
        (
            "insert into version_file (id, version_id, path, blob_id) select gen_random_uuid(), "
            "%(id)s, 'x', id from blob "
            "limit 1",
            "version_file",
            "CS003",
        ),
    ):
        assert refused(store, statement, {"id": which}, (table_name, which))[0] in expected
    run = (
        "insert into eval_run (id, subject_id, suite_version_id, state, attempt, created_at) "
        "select %(new)s, %(id)s, "
        "id, 'queued', 0, now() from eval_suite_version limit 1"
    )
    said = refused(store, run, {"id": which, "new": uuid4()}, ("eval_run", which))
    assert said == ("CS010", f"{which} was deleted")


def test_holds_are_lifted_by_another_reviewer_only_and_once(store: Store, kept: World) -> None:
    ref = add(kept, 902)
    number = holds.place(store, kept.compliance.actor, ref, "Matter 2", "because").number
    with store.read(SYSTEM) as session:
        which = session.execute(
            text("select id from legal_hold where number = :n"), {"n": number}
        ).scalar_one()
    lift = (
        f"update legal_hold set lifted_at = now(), lift_reason_commitment = '{SEAL}', lifted_by = "
        "%(who)s "
        "where id = %(id)s"
    )
    row = ("legal_hold", which)
    assert (
        refused(store, lift, {"id": which, "who": kept.compliance.id}, row)[0]
        == "ck_legal_hold_four_eyes"
    )
    assert refused(store, lift, {"id": which, "who": kept.engineer.id}, row)[0] == "CS021"
    for change in (
        "node_id = null, line_id = (select id from line limit 1)",
        "placed_by = %(who)s",
        "case_commitment = 'x'",
    ):
        assert (
            refused(
                store,
                f"update legal_hold set {change} where id = %(id)s",
                {"id": which, "who": kept.risk.id},
                row,
            )[0]
            == "CS003"
        )
    assert (
        refused(store, "delete from legal_hold where id = %(id)s", {"id": which}, row)[0] == "42501"
    )
    holds.lift(store, kept.risk.actor, number, "settled")
    again = (
        "update legal_hold set lifted_at = null, lifted_by = null, lift_reason_commitment = "
        "null where id = %(id)s"
    )
    assert refused(store, again, {"id": which}, row)[0] in ("CS003", "CS021")


def test_classes_are_frozen_and_only_administrators_shorten(store: Store, kept: World) -> None:
    with store.read(SYSTEM) as session:
        ids = {
            row.name: row.id
            for row in session.execute(text("select name, id from retention_class"))
        }
    assert (
        refused(
            store,
            "update retention_class set keep_days = 1 where id = %(id)s",
            {"id": ids["standard"]},
            ("retention_class", ids["standard"]),
        )[0]
        == "42501"
    )
    assert (
        refused(
            store,
            "update retention_class set keep_days = 1 where id = %(id)s",
            {"id": ids["standard"]},
            ("retention_class", ids["standard"]),
            as_who=as_owner,
        )[0]
        == "CS003"
    )
    new = uuid4()
    setting = (
        "insert into retention_setting (id, team, kind, name, class_id, reason_commitment, "
        "set_by, set_at) values "
        f"(%(new)s, %(team)s, 'line', 'x', %(class)s, '{SEAL}', %(who)s, now())"
    )
    params = {
        "new": new,
        "team": f"t{secrets.token_hex(4)}",
        "class": ids["short"],
        "who": kept.engineer.id,
    }
    assert refused(store, setting, params, ("retention_setting", new))[0] == "CS026"


def test_named_bytes_are_not_collected_and_collected_bytes_not_named(
    store: Store, blobs: Blobs, kept: World
) -> None:
    ref = add(kept, 903)
    with store.read(SYSTEM) as session:
        digest = session.execute(
            text(
                "select blob_id from version_file f join node n on n.id = f.version_id where "
                "n.ref = :ref and path like '%safetensors'"
            ),
            {"ref": ref},
        ).scalar_one()
    collect = "update blob set collected_at = now() where id = %(id)s"
    assert refused(store, collect, {"id": digest}, ("blob", digest)) == (
        "CS025",
        f"the bytes {digest} are named by a row",
    )
    for table_name, column in bytes_table.namers():
        with store.read(SYSTEM) as session:
            held = session.execute(
                text(f"select {column} from {table_name} n where {column} is not null limit 1")
            ).scalar()
        if held is not None:
            assert refused(store, collect, {"id": held}, ("blob", held))[0] == "CS025", table_name
    deletions.delete(store, kept.engineer.actor, ref, "gone")
    hold = holds.place(store, kept.compliance.actor, ref, "Matter 3", "keep its bytes")
    assert refused(store, collect, {"id": digest}, ("blob", digest))[0] == "CS025"
    holds.lift(store, kept.risk.actor, hold.number, "done")
    with as_app(store) as connection:
        audit(connection, ("blob", digest), ("version_file", "x"))
        connection.execute(collect, {"id": digest})
        settle(connection)
        draft = kept.versions[0]
        with pytest.raises(psycopg.Error) as said:
            connection.execute(
                "insert into version_file (id, version_id, path, blob_id) values (%s, %s, 'x', %s)",
                (uuid4(), node(store, draft), digest),
            )
        assert cause(said.value) in ("CS025", "CS003")


def test_every_table_that_names_bytes_is_guarded(store: Store) -> None:
    """A foreign key to blob without its trigger, or one that the metadata does not know, is found
    here.
    """
    with store.read(SYSTEM) as session:
        keys = {
            (row.holder, row.field)
            for row in session.execute(
                text(
                    "select k.conrelid::regclass::text as holder, a.attname as field from "
                    "pg_constraint k join pg_attribute a "
                    "on a.attrelid = k.conrelid and a.attnum = k.conkey[1] where k.contype = 'f' "
                    "and k.confrelid = 'blob'::regclass"
                )
            )
        }
        guarded = {
            (row.holder, row.field)
            for row in session.execute(
                text(
                    "select tgrelid::regclass::text as holder, encode(tgargs, 'escape') as field "
                    "from pg_trigger "
                    "where tgname in ('present', 'present_prompts')"
                )
            )
        }
    assert keys == set(bytes_table.namers())
    assert {(holder, field.replace("\\000", "")) for holder, field in guarded} == keys


def test_a_new_table_that_names_bytes_counts_at_once(store: Store, kept: World) -> None:
    ref = add(kept, 904)
    deletions.delete(store, kept.engineer.actor, ref, "gone")
    with as_owner(store) as connection:
        row = connection.execute(
            "select blob_id from version_file f join node n on n.id = f.version_id where n.ref = "
            "%s "
            "and path like '%%safetensors'",
            (ref,),
        ).fetchone()
        assert row is not None
        named = "select blob_is_named(%s)"
        assert connection.execute(named, row).fetchone() == (False,)
        connection.execute(
            "create table later (id int primary key, bytes text references blob (id))"
        )
        assert connection.execute(named, row).fetchone() == (False,)
        connection.execute("insert into later values (1, %s)", row)
        assert connection.execute(named, row).fetchone() == (True,)


def test_recalled_bytes_get_no_new_row(store: Store, kept: World) -> None:
    from registry.commands import recalls

    ref = add(kept, 905)
    recalls.recall(store, kept.engineer.actor, ref, "unfit for use")
    new = uuid4()
    with store.read(SYSTEM) as session:
        old = session.execute(
            text("select * from version v join node n on n.id = v.id where n.ref = :ref"),
            {"ref": ref},
        ).one()
    with as_app(store) as connection:
        audit(connection, ("version", new), ("node", new))
        connection.execute(
            "insert into node (id, kind, team, ref) values (%s, 'adapter', %s, %s)",
            (new, kept.team, f"{kept.team}/loose@draft-{new.hex[:8]}"),
        )
        with pytest.raises(psycopg.Error) as said:
            connection.execute(
                "insert into version (id, line_id, state, manifest_digest, tensor_root, meta, "
                "facts, created_at) "
                "values (%s, %s, 'draft', %s, %s, '{}', '{}', now())",
                (new, old.line_id, old.manifest_digest, old.tensor_root),
            )
        assert cause(said.value) == "CS010"


def test_a_quota_holds_around_the_rule(store: Store, blobs: Blobs, team: str) -> None:
    engineer = a_person(store, "engineer", team=team)
    quotas.put(store, a_person(store, "admin").actor, team, Limits(None, 1), "a small team")
    first = a_base(store, blobs, engineer, team)
    new = uuid4()
    with as_app(store) as connection, pytest.raises(psycopg.Error) as said:
        audit(connection, ("version", new), ("node", new))
        connection.execute(
            "insert into node (id, kind, team, ref) values (%s, 'base', %s, %s)",
            (new, team, f"{team}/tiny@draft-{new.hex[:8]}"),
        )
        connection.execute(
            "insert into version (id, line_id, state, manifest_digest, meta, facts, created_at) "
            "select %s, line_id, 'draft', %s, '{}', '{}', now() from version v join node n on "
            "n.id = v.id where n.ref = %s",
            (new, "sha256:" + "1" * 64, first.ref),
        )
        settle(connection)
    assert cause(said.value) == "CS024"
    assert refused(
        store,
        "update quota set max_versions = 99 where team = %(team)s",
        {"team": team},
        ("quota", "x"),
    )[0] in ("42501", "CS003")


def test_the_dates_are_those_of_the_rule(store: Store, blobs: Blobs, kept: World) -> None:
    """PostgreSQL's `kept_until` and the rule's, over what served and what did not, under one class
    and under many.
    """
    from registry.commands import rollouts

    admin = a_person(store, "admin").actor
    classes = [
        rules.Terms(f"d{days}-{secrets.token_hex(3)}", days, counted)
        for days, counted in ((3, "service"), (1, "registration"), (2, "service"))
    ]
    for one in classes:
        retention.define(store, admin, one, "for a test")
    served, never = kept.versions[-1], add(kept, 906, "dated")
    rollouts.start(store, kept.engineer.actor, rollouts.Canary(served, "production", None, 500, ""))
    rollouts.roll_back(
        store,
        kept.engineer.actor,
        rollouts.Place(f"{kept.team}/adapter", "production", None),
        "enough",
    )
    for one in classes:
        for name in ("adapter", "dated"):
            retention.assign(store, admin, f"{kept.team}/{name}", one.name, "for a test")
    data = put(blobs, "rows.jsonl", dataset_bytes(train=61))
    added = register_rows(
        store,
        blobs,
        kept.data_owner.actor,
        f"{kept.team}/dated-rows",
        data.sha256,
        data.size,
        DATA_META,
    )
    retention.assign(store, admin, f"dataset:{kept.team}/dated-rows", classes[0].name, "for a test")
    for ref in (served, never, f"dataset:{added.ref}"):
        with store.read(SYSTEM) as session:
            which = session.execute(
                text("select id from node where ref = :ref"), {"ref": ref}
            ).scalar_one()
            terms, since, last = table.terms_of(session, which)
            said = session.execute(text("select kept_until(:id)"), {"id": which}).scalar_one()
        assert since is not None
        assert {one.name for one in terms} >= {classes[0].name, "short"}
        assert (last is not None) == (ref == served)
        assert said == rules.kept_until(since, last, terms)
        assert said - (last or since) == timedelta(days=3)
