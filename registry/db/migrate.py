"""Bring a database to the schema of this code."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError, OperationalError

from registry.db.refusals import named
from registry.errors import Conflict, RegistryError, Unavailable

MIGRATIONS = (Path(__file__).parents[2] / "migrations", Path(__file__).parents[1] / "migrations")
"""The folder of the migrations: beside the package in a checkout, inside it in a wheel."""


def config(url: str) -> Config:
    """Alembic's configuration for one database."""
    folder = next(folder for folder in MIGRATIONS if (folder / "env.py").is_file())
    settings = Config()
    settings.set_main_option("script_location", str(folder).replace("%", "%%"))
    settings.attributes["url"] = url
    return settings


def upgrade(url: str) -> str:
    """Run every missing migration, and return the revision afterwards.

    Raises Conflict `database-newer` when the database has migrations this code does not know,
    Unavailable when it cannot be reached.
    """
    settings = config(url)
    script = ScriptDirectory.from_config(settings)
    head = script.get_current_head() or ""
    present = current(url)
    known = {revision.revision for revision in script.walk_revisions()}
    if present is not None and present not in known:
        raise Conflict(
            "database-newer",
            f"The database is at {present}, which this version of Countersign does not know.",
        )
    if present != head:
        try:
            command.upgrade(settings, "head")
        except DBAPIError as error:
            raise _named(error) from error
    return head


def _named(error: DBAPIError) -> RegistryError:
    """The error of a migration; one that a migration itself raises has its own fix as a hint."""
    diagnosis = getattr(error.orig, "diag", None)
    if diagnosis is not None and diagnosis.sqlstate == "P0001" and diagnosis.message_hint:
        message = str(diagnosis.message_primary).capitalize()
        return Unavailable("database-role-missing", f"{message}.", diagnosis.message_hint)
    return named(error)


def current(url: str) -> str | None:
    """The database's revision; None when it is empty."""
    engine = create_engine(url, connect_args={"connect_timeout": 5})
    try:
        with engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()
    except OperationalError as error:
        raise Unavailable(
            "database-away",
            "The database cannot be reached.",
            "Check COUNTERSIGN_DATABASE_URL, and that PostgreSQL runs.",
        ) from error
    finally:
        engine.dispose()
