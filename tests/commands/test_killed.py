"""A process killed at every step of a registration, from its first byte to its row: nothing half is
ever to be seen.
"""

from __future__ import annotations

import secrets
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from registry.blobs.store import Blobs
from registry.commands import blobs as collecting
from registry.db.store import Store
from registry.queries.folds import rebuild
from registry.rules.actors import SYSTEM
from tests.build import a_base, a_person, install_classes
from tests.checkout import repository
from tests.sampling import sampled


@pytest.mark.parametrize("stride", sampled([40, 18], [40]))
def test_a_kill_at_any_step_of_a_registration(
    fresh_database: str, fresh_store: Store, tmp_path: Path, stride: int
) -> None:
    install_classes(fresh_store)
    blobs, team = Blobs(tmp_path / "blobs"), f"t{secrets.token_hex(4)}"
    engineer = a_person(fresh_store, "engineer", team=team)
    base = a_base(fresh_store, blobs, engineer, team)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.registering",
            fresh_database,
            str(tmp_path / "blobs"),
            str(engineer.id),
            team,
            base.ref,
            str(stride),
        ],
        cwd=repository(),
        capture_output=True,
        text=True,
        timeout=540,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    tried, steps, commits, folder = (int(one) for one in done.stdout.split())
    assert tried >= max(6, steps // stride)
    assert (steps >= 80, commits >= 3, folder >= 20) == (True,) * 3, done.stdout
    with fresh_store.read(SYSTEM) as session:
        assert rebuild(session).problems == []
        rows = (
            session.execute(text("select id from blob where collected_at is null")).scalars().all()
        )
    assert all(blobs.verify(one) for one in rows)
    collecting.collect(fresh_store, blobs, SYSTEM, timedelta(0))
    assert {digest for digest, _, _ in blobs.published()} == set(rows)
