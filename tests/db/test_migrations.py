"""Migrations: empty to head is the metadata, one line of dated steps, SQL that waits for no lock,
and no way back past evidence.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import CheckConstraint, NullPool, create_engine, inspect, make_url, text
from sqlalchemy.dialects.postgresql.base import ischema_names

from registry.db import migrate
from registry.db.table import Table, Xid8
from registry.errors import Conflict, Unavailable
from tests.checkout import repository
from tests.database import Databases

NOT_OURS = {
    "alembic_version",
    "transition",
}  # alembic's own, and the triggers' list of steps, which no code of ours reads
ONE_WAY = {"2026_11_30_initial"}  # the steps whose downgrade would destroy evidence


@pytest.fixture
def empty(databases: Databases) -> Iterator[str]:
    """The URL of a database in which nothing is."""
    name = f"empty_{threading.get_ident()}"
    yield databases.create(name)
    databases.drop(name)


def script() -> ScriptDirectory:
    return ScriptDirectory.from_config(migrate.config("postgresql+psycopg://"))


def offline() -> str:
    """The SQL of all migrations, as it is handed to those who run it by hand."""
    settings = migrate.config("postgresql+psycopg://")
    settings.output_buffer = io.StringIO()
    command.upgrade(settings, "head", sql=True)
    return settings.output_buffer.getvalue()


def test_a_migrated_database_is_the_metadata(database: str) -> None:
    ischema_names.setdefault("xid8", Xid8)  # SQLAlchemy's reflection does not know it
    engine = create_engine(database)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "compare_type": lambda _c, _i, _m, found, wanted: (
                    (isinstance(found, Xid8) != isinstance(wanted, Xid8)) or None
                ),
                "include_object": lambda _o, name, kind, *_: (
                    not (kind == "table" and name in NOT_OURS)
                ),
            },
        )
        assert compare_metadata(context, Table.metadata) == []
    engine.dispose()


def test_a_forgotten_column_would_be_seen(empty: str) -> None:
    migrate.upgrade(empty)
    ischema_names.setdefault("xid8", Xid8)
    engine = create_engine(empty)
    with engine.begin() as connection:
        connection.execute(text("alter table line drop column created_by"))
        connection.execute(text("drop index uq_rollout_active"))
        context = MigrationContext.configure(
            connection,
            opts={
                "include_object": lambda _o, name, kind, *_: (
                    not (kind == "table" and name in NOT_OURS)
                )
            },
        )
        assert {step[0] for step in compare_metadata(context, Table.metadata)} == {
            "add_column",
            "add_index",
        }
    engine.dispose()


def test_the_checks_are_those_of_the_metadata(database: str) -> None:
    """alembic compares no CHECKs: their names here, their words by the guards that are tried one by
    one.
    """
    engine = create_engine(database)
    with engine.connect() as connection:
        held = {
            name
            for table in Table.metadata.tables
            for name in (one["name"] for one in inspect(connection).get_check_constraints(table))
        }
    engine.dispose()
    wanted = {
        str(one.name)
        for table in Table.metadata.tables.values()
        for one in table.constraints
        if isinstance(one, CheckConstraint)
    }
    assert held == wanted


def test_the_steps_are_one_line_of_dated_names() -> None:
    steps = list(script().walk_revisions())
    assert len(script().get_heads()) == 1
    assert [step.down_revision for step in steps] == [*(step.revision for step in steps[1:]), None]
    for step in steps:
        assert Path(step.path).stem == step.revision
        assert re.fullmatch(r"\d{4}_\d{2}_\d{2}_[a-z0-9_]+", step.revision)


def test_steps_go_down_as_far_as_evidence_allows_and_up_again(empty: str) -> None:
    settings = migrate.config(empty)
    steps = [step.revision for step in reversed(list(script().walk_revisions()))]
    engine = create_engine(empty, poolclass=NullPool)
    tables: dict[str, list[str]] = {}
    for step in steps:
        command.upgrade(settings, step)
        tables[step] = sorted(inspect(engine).get_table_names())
    while steps[-1] not in ONE_WAY:
        command.downgrade(settings, steps[-2])
        steps.pop()
        assert migrate.current(empty) == steps[-1]
        assert sorted(inspect(engine).get_table_names()) == tables[steps[-1]]
    with pytest.raises(RuntimeError, match="cannot be undone"):
        command.downgrade(settings, steps[-2] if len(steps) > 1 else "base")
    assert migrate.current(empty) == steps[-1]
    assert sorted(inspect(engine).get_table_names()) == tables[steps[-1]]
    assert migrate.upgrade(empty) == list(tables)[-1] == migrate.current(empty)


def test_no_step_goes_back_past_evidence() -> None:
    for name in ONE_WAY:
        module = script().get_revision(name)
        assert module is not None
        with pytest.raises(RuntimeError, match="cannot be undone"):
            module.module.downgrade()


def test_every_step_waits_for_no_lock_and_runs_whole() -> None:
    whole = offline()
    parts = re.split(r"^-- Running upgrade ", whole, flags=re.MULTILINE)[1:]
    assert len(parts) == len(list(script().walk_revisions()))
    for part in parts:
        assert "SET LOCAL lock_timeout" in part, part[:80]
        assert "SET LOCAL statement_timeout" in part, part[:80]
        assert part.count("COMMIT;") == 1, part[:80]


def test_squawk_finds_nothing(tmp_path: Path) -> None:
    squawk = shutil.which("squawk", path=str(Path(sys.executable).parent)) or shutil.which("squawk")
    assert squawk is not None, "squawk-cli is in the dev group"
    sql = tmp_path / "migrations.sql"
    sql.write_text(offline())
    ended = subprocess.run(
        [squawk, "--config", str(repository() / ".squawk.toml"), str(sql)],
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout
    sql.write_text(
        "alter table line add column shade text not null; create index on line (domain);"
    )
    ended = subprocess.run(
        [squawk, "--config", str(repository() / ".squawk.toml"), str(sql)],
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 1
    assert "adding-required-field" in ended.stdout + ended.stderr


def test_the_sql_runs_by_hand_on_an_empty_database(empty: str) -> None:
    import psycopg

    sql = offline()
    with psycopg.connect(
        empty.replace("postgresql+psycopg", "postgresql"), autocommit=True
    ) as connection:
        connection.execute(sql)
    assert migrate.current(empty) == script().get_current_head()


def test_two_upgrades_at_once_are_one(empty: str) -> None:
    """In processes of their own, as two deployments are: alembic keeps its state in the process."""
    code = f"from registry.db import migrate; print(migrate.upgrade({empty!r}))"
    with ThreadPoolExecutor(3) as pool:
        ended = list(
            pool.map(
                lambda _: subprocess.run(
                    [sys.executable, "-c", code], capture_output=True, text=True, cwd=repository()
                ),
                range(3),
            )
        )
    assert [(one.returncode, one.stdout.strip()) for one in ended] == [
        (0, script().get_current_head())
    ] * 3, ended


def test_an_owner_who_may_not_make_roles_is_told_what_to_ask_for(empty: str) -> None:
    """And once a superuser has granted them, he needs no more: neither to make nor to hand on a
    role.
    """
    url = make_url(empty)
    limited = url.set(username=f"limited_{url.database}", password="x")
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:

        def run(statement: str) -> None:
            connection.execute(text(statement))

        run(f"create role {limited.username} login password 'x'")
        run(f'grant all on database "{url.database}" to {limited.username}')
        run(f"grant all on schema public to {limited.username}")
        try:
            with pytest.raises(Unavailable) as refusal:
                migrate.upgrade(limited.render_as_string(hide_password=False))
            assert refusal.value.kind == "database-role-missing"
            assert "countersign_app" in refusal.value.fix
            for group in ("countersign_app", "countersign_sequencer", "countersign_reader"):
                run(f"grant {group} to {limited.username}")
            head = migrate.upgrade(limited.render_as_string(hide_password=False))
            assert head == script().get_current_head()
        finally:
            with create_engine(limited, poolclass=NullPool).begin() as own:
                own.execute(text("drop schema procrastinate cascade"))
                own.execute(text("drop owned by current_user cascade"))
            run(f'revoke all on database "{url.database}" from {limited.username}')
            run(f"revoke all on schema public from {limited.username}")
            run(f"drop role {limited.username}")
    engine.dispose()


def test_a_newer_database_is_refused(empty: str) -> None:
    migrate.upgrade(empty)
    engine = create_engine(empty)
    with engine.begin() as connection:
        connection.execute(
            text("update alembic_version set version_num = '2031_01_01_flying_cars'")
        )
    engine.dispose()
    with pytest.raises(Conflict) as refusal:
        migrate.upgrade(empty)
    assert refusal.value.kind == "database-newer"
    assert "2031_01_01_flying_cars" in refusal.value.detail


def test_an_unreachable_database_is_away() -> None:
    with pytest.raises(Unavailable) as refusal:
        migrate.upgrade("postgresql+psycopg://nobody@127.0.0.1:1/none")
    assert refusal.value.kind == "database-away"
