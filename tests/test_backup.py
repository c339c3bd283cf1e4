"""The backup and the restore of docs/production.md: its own lines, run on the real PostgreSQL, and
a registry that goes on from what was restored.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.app import open_blobs, open_sequencer, open_store
from registry.cli.operations import doctor
from registry.errors import Unverified
from registry.settings import Settings
from tests.build import a_world, approved
from tests.checkout import repository
from tests.cli.live import Live, live
from tests.database import Databases, Embedded


def lines(name: str) -> str:
    """The block of docs/production.md that this test runs."""
    page = (repository() / "docs" / "production.md").read_text(encoding="utf-8")
    [block] = re.findall(rf"<!-- test: {name} -->\n```sh\n(.*?)```", page, flags=re.DOTALL)
    return str(block)


def programs(databases: Databases) -> Path:
    """Where pg_dump of the server's own version lies."""
    if isinstance(databases, Embedded):
        return databases.cluster.quarters.programs()
    found = shutil.which("pg_dump")
    assert found, "pg_dump is missing: install postgresql-client"
    return Path(found).parent


def type_in(block: str, databases: Databases, database: str, home: Path, backup: Path) -> str:
    """Run a block as an administrator would; what it printed."""
    paths = [str(Path(sys.executable).parent), str(programs(databases)), os.environ["PATH"]]
    environ = os.environ | {
        "PATH": os.pathsep.join(paths),
        "HOME_DIR": str(home),
        "BACKUP": str(backup),
        "DATABASE": database.replace("postgresql+psycopg://", "postgresql://"),
        "COUNTERSIGN_DATABASE_URL": database,
    }
    done = subprocess.run(
        ["bash", "-eu", "-c", block], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def decide_something(registry: Live, settings: Settings) -> None:
    """A version with two signed votes, its events numbered and signed."""
    store, blobs = open_store(settings), open_blobs(settings)
    world = a_world(store, blobs, f"t{secrets.token_hex(4)}")
    approved(world)
    store.engine.dispose()
    registry.sequence()


@pytest.fixture
def empty_database(databases: Databases) -> Iterator[str]:
    """The URL of a database with nothing in it."""
    name = f"restored_{secrets.token_hex(4)}"
    yield databases.create(name)
    databases.drop(name)


def test_a_restored_backup_checks_out_and_goes_on(
    databases: Databases, fresh_database: str, empty_database: str, tmp_path: Path
) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    settings = Settings(home=before, database_url=fresh_database)
    with live(fresh_database, before) as registry:
        decide_something(registry, settings)
        type_in(lines("backup"), databases, fresh_database, before, tmp_path / "backup")
    said = type_in(lines("restore"), databases, empty_database, after, tmp_path / "backup")
    assert "valid" in said
    restored = Settings(home=after, database_url=empty_database)
    assert doctor(restored) == doctor(settings)
    with live(empty_database, after) as registry:
        decide_something(registry, restored)
    assert doctor(restored)["ok"]
    assert doctor(restored)["events"] > doctor(settings)["events"]


def test_an_older_database_beside_newer_tree_heads_is_not_continued(
    databases: Databases, fresh_database: str, empty_database: str, tmp_path: Path
) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    settings = Settings(home=before, database_url=fresh_database)
    with live(fresh_database, before) as registry:
        decide_something(registry, settings)
        type_in(lines("backup"), databases, fresh_database, before, tmp_path / "backup")
        decide_something(registry, settings)
    type_in(lines("restore"), databases, empty_database, after, tmp_path / "backup")
    shutil.copy(before / "private" / "tree-heads.log", after / "private" / "tree-heads.log")
    sequencer = open_sequencer(Settings(home=after, database_url=empty_database))
    with pytest.raises(Unverified, match="does not contain the log that was signed"):
        sequencer.guard()
    sequencer.store.engine.dispose()
