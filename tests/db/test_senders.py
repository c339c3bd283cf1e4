"""Going around the rule of whose bytes are named: PostgreSQL itself refuses what another team's
rows alone name.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from sqlalchemy import text

from registry.blobs.store import Blobs
from registry.commands import versions
from registry.db import blobs as bytes_table
from registry.db import senders
from registry.db.store import Store
from registry.errors import Unverified
from registry.rules.actors import SYSTEM
from tests.build import ADAPTER_META, World, a_person, a_world, adapter_files, register, sent, train
from tests.db.around import App, as_app, cause, settle


@pytest.fixture(scope="module")
def two(store: Store, blobs: Blobs) -> list[World]:
    made = [a_world(store, blobs, f"t{secrets.token_hex(4)}") for _ in range(2)]
    for world in made:
        train(world, seed=secrets.randbelow(1 << 30))
    return made


def a_secret(world: World) -> str:
    """Bytes that one version of a team names, and nothing else."""
    files = adapter_files(world.blobs, secrets.randbelow(1 << 30))
    draft = versions.Draft(
        "adapter", f"{world.team}/secret", files, {**ADAPTER_META, "domain": "x"}, world.base.ref
    )
    register(world.store, world.blobs, world.engineer.actor, draft)
    return files[0].sha256


def signed(connection: App, account: UUID | None, table: str, key: Any) -> None:
    """The event of somebody's own act, as `Store.write` records it."""
    event = uuid4()
    connection.execute(
        "insert into event (id, at, actor_id, action, subject, outcome, entry) "
        "values (%s, now(), %s, 'version:register', 'x', 'done', %s)",
        (event, account, b"{}"),
    )
    connection.execute(
        "insert into event_row (table_name, row_key, event_id) values (%s, %s, %s)",
        (table, str(key), event),
    )


def named(
    world: World, account: UUID | None, blob: str, *, first: Callable[[App], None] = lambda _: None
) -> str:
    """Name bytes in a draft's row by raw SQL, as that account's act; what PostgreSQL says to it."""
    with world.store.read(SYSTEM) as session:
        (line,) = session.execute(
            text("select id from line where team = :team and kind = 'adapter' limit 1"),
            {"team": world.team},
        ).one()
    version, row = uuid4(), uuid4()
    with as_app(world.store) as connection:
        first(connection)
        connection.execute(
            "insert into node (id, kind, team, ref) values (%s, 'adapter', %s, %s)",
            (version, world.team, f"{world.team}/around@draft-{version.hex[:8]}"),
        )
        connection.execute(
            "insert into version (id, line_id, state, manifest_digest, meta, facts, created_by, "
            "created_at) "
            "values (%s, %s, 'draft', %s, '{}', '{}', %s, now())",
            (version, line, f"sha256:{secrets.token_hex(32)}", account),
        )
        connection.execute(
            "insert into version_file (id, version_id, path, blob_id) values (%s, %s, 'f', %s)",
            (row, version, blob),
        )
        signed(connection, account, "version_file", row)
        for table in ("node", "version"):
            signed(connection, account, table, version)
        try:
            settle(connection)
        except psycopg.Error as refusal:
            return cause(refusal)
        return "done"


def test_a_digest_alone_is_refused_at_commit(two: list[World]) -> None:
    victim, thief = two
    blob = a_secret(victim)
    assert named(thief, thief.engineer.id, blob) == "CS025"
    assert named(thief, thief.trainer.id, blob) == "CS025"
    assert named(victim, victim.data_owner.id, blob) == "done"
    sent(thief.store, thief.engineer.actor, blob)
    assert named(thief, thief.engineer.id, blob) == "done"
    assert named(thief, thief.trainer.id, blob) == "CS025"


def test_a_part_is_no_proof_and_two_own_rows_are_no_alibi(two: list[World]) -> None:
    victim, thief = two
    blob, who = a_secret(victim), thief.engineer
    begun = "insert into blob_sender (id, account_id, whole, at) values (%s, %s, false, now())"
    assert (
        named(thief, who.id, blob, first=lambda one: one.execute(begun, (blob, who.id)) and None)
        == "CS025"
    )
    files = adapter_files(thief.blobs, secrets.randbelow(1 << 30))
    draft = versions.Draft("adapter", f"{thief.team}/own", files, {}, thief.base.ref)
    ref = register(thief.store, thief.blobs, who.actor, draft).ref
    with as_app(thief.store) as connection:
        rows = connection.execute(
            "select f.id, f.version_id from version_file f join node n on n.id = f.version_id "
            "where n.ref = %s",
            (ref,),
        ).fetchall()
        assert len(rows) == 2
        for row, _ in rows:
            connection.execute("update version_file set blob_id = %s where id = %s", (blob, row))
            signed(connection, who.id, "version_file", row)
        with pytest.raises(psycopg.Error) as refusal:
            settle(connection)
        assert cause(refusal.value) == "CS025"


def test_who_sees_the_team_and_the_registry_itself_pass(two: list[World], store: Store) -> None:
    victim, thief = two
    blob = a_secret(victim)
    assert named(thief, a_person(store, "reviewer", team="elsewhere").id, blob) == "done"
    assert named(thief, a_person(store, "engineer", team=victim.team).id, blob) == "done"
    assert named(thief, a_person(store, "engineer").id, blob) == "done"
    assert named(thief, None, blob) == "done"


def test_every_table_that_names_bytes_asks_whose_they_are(store: Store) -> None:
    """A foreign key to blob without its guard, or that `teams_naming` or the rule's own query
    leaves out, is found here.
    """
    with store.read(SYSTEM) as session:
        guarded = {
            (row.holder, row.field.replace("\\000", ""))
            for row in session.execute(
                text(
                    "select tgrelid::regclass::text as holder, encode(tgargs, 'escape') as field "
                    "from pg_trigger "
                    "where tgname in ('own_bytes', 'own_prompts') and tgdeferrable "
                    "and tginitdeferred"
                )
            )
        }
        source = session.execute(
            text("select prosrc from pg_proc where proname = 'teams_naming'")
        ).scalar_one()
    assert guarded == set(bytes_table.namers())
    for told in (source, str(senders.STRANGE)):
        for table, column in bytes_table.namers():
            assert f"from {table} " in told, table
            assert f".{column} = " in told, column


def test_the_question_reads_no_table_whole(two: list[World]) -> None:
    """With sequential scans made dear, every table is reached by an index: it costs the same among
    a million rows.
    """
    with two[0].store.read(SYSTEM) as session:
        session.execute(text("set local enable_seqscan = off"))
        given = {
            "digests": [secrets.token_hex(32)],
            "account": uuid4(),
            "everywhere": False,
            "teams": ["x"],
            "all_answers": False,
            "answers": ["x"],
            "reviews": False,
        }
        plan = session.execute(text(f"explain {senders.STRANGE}"), given).scalars().all()
    assert [line for line in plan if "Seq Scan" in line] == []


def test_the_rule_s_own_no_comes_first(two: list[World]) -> None:
    victim, thief = two
    files = adapter_files(victim.blobs, secrets.randbelow(1 << 30))
    register(
        victim.store,
        victim.blobs,
        victim.engineer.actor,
        versions.Draft(
            "adapter",
            f"{victim.team}/secret",
            files,
            {**ADAPTER_META, "domain": "x"},
            victim.base.ref,
        ),
    )
    with pytest.raises(Unverified):
        versions.register(
            thief.store,
            thief.blobs,
            thief.engineer.actor,
            versions.Draft("adapter", f"{thief.team}/own", files, {}, thief.base.ref),
        )
