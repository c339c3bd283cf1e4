"""migrations/schema.sql is what the migrations make, and making it gives the same again."""

from __future__ import annotations

import re
import threading

import psycopg
import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import NullPool, create_engine, text

from registry.db import migrate
from tests.checkout import repository
from tests.database import Databases
from tests.schema.catalogue import read
from tests.schema.spelling import WIDTH, spelled, wrapped
from tests.schema.writing import NOUNS, nouns_of, schema

MIGRATIONS = repository() / "migrations"
WRITTEN = MIGRATIONS / "schema.sql"
JOBS = "-- background jobs"


def of(url: str) -> str:
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        return schema(connection)


def test_the_written_schema_is_what_the_migrations_make(database: str) -> None:
    """On any server, PostgreSQL 15 to 18: the text does not depend on the version."""
    assert WRITTEN.read_text(encoding="utf-8") == of(database), "run `make schema`"


def test_the_written_schema_makes_the_same_schema(databases: Databases, database: str) -> None:
    """So the text leaves nothing out that it would show, and its spelling changes no meaning."""
    name = f"written_{threading.get_ident()}"
    url = databases.create(name)
    try:
        plain = url.replace("postgresql+psycopg", "postgresql")
        with psycopg.connect(plain, autocommit=True) as connection:
            connection.execute("create schema procrastinate")
            connection.execute(WRITTEN.read_text(encoding="utf-8"))
        assert of(url).partition(JOBS)[0] == of(database).partition(JOBS)[0]
    finally:
        databases.drop(name)


@pytest.mark.parametrize(
    "change",
    [
        "alter table line alter column domain set default 'none'",
        "alter table line drop constraint ck_line_kind",
        "drop index uq_rollout_active",
        "drop trigger guarded on vote",
        "create or replace function one_keeper() returns void language sql as 'select'",
        "grant delete on vote to countersign_app",
        "revoke usage on schema public from countersign_reader",
        "delete from transition where table_name = 'review' and new_state = 'voided'",
        "grant execute on function search_rebuild() to public",
        "revoke select on procrastinate.procrastinate_jobs from countersign_app",
    ],
)
def test_any_change_of_the_schema_shows(database: str, change: str) -> None:
    engine = create_engine(database, poolclass=NullPool)
    with engine.connect() as connection:
        before = schema(connection)
        connection.execute(text(change))
        assert schema(connection) != before
        connection.rollback()
        assert schema(connection) == before


def test_a_table_of_no_noun_is_refused(database: str) -> None:
    engine = create_engine(database, poolclass=NullPool)
    with engine.connect() as connection:
        connection.execute(text("create table stray (id uuid)"))
        with pytest.raises(ValueError, match="stray"):
            nouns_of(read(connection))
        connection.rollback()


def test_the_initial_files_are_those_that_the_first_migration_runs() -> None:
    script = ScriptDirectory.from_config(migrate.config("postgresql+psycopg://"))
    first = script.get_revision(script.get_bases()[0])
    files = {path.stem for path in (MIGRATIONS / "initial").glob("*.sql")}
    assert files == {*first.module.NOUNS, "jobs"}
    assert set(NOUNS) - {"migrations"} <= files


def test_the_sql_files_are_short_and_narrow() -> None:
    for path in [*(MIGRATIONS / "initial").glob("*.sql"), WRITTEN]:
        lines = path.read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 500 or path == WRITTEN, path.name
        assert max(map(len, lines)) <= WIDTH, path.name


def test_spelling_keeps_literals_and_quoted_names() -> None:
    assert spelled("CHECK ((A ~ 'X = ANY (ARRAY['::text))") == "check (a ~ 'X = ANY (ARRAY[')"
    assert spelled("""line text COLLATE "C" NOT NULL""") == """line text collate "C" not null"""
    assert spelled("CHECK (((a >= 0) AND (b IS NULL)))") == "check (a >= 0 and b is null)"
    assert spelled("CHECK (((a IS NULL) = (b = 1)))") == "check ((a is null) = (b = 1))"


def test_a_long_literal_goes_on_in_the_next_line() -> None:
    literal = "'" + " ".join(["word"] * 30) + "'"
    broken = wrapped(f"    check (a = {literal})")
    assert max(map(len, broken.splitlines())) <= WIDTH
    assert " ".join(re.sub(r"'\n *'", "", broken).split()) == f"check (a = {literal})"
