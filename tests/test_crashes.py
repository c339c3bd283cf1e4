"""A process killed at every step of an upload leaves nothing half visible, and another goes on from
what is left.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkout import repository
from tests.sampling import sampled

KILLS = [
    ("folder", "put", "before", 12),
    ("folder", "put", "after", 12),
    ("folder", "upload", "before", 20),
    ("folder", "upload", "after", 20),
    ("s3", "put", "after", 5),
    ("s3", "upload", "after", 15),
]


@pytest.mark.parametrize(
    ("where", "what", "when", "steps"), sampled(KILLS, [KILLS[0], KILLS[3], KILLS[4]])
)
def test_a_kill_at_any_step(
    request: pytest.FixtureRequest, tmp_path: Path, where: str, what: str, when: str, steps: int
) -> None:
    url = request.getfixturevalue("s3") if where == "s3" else str(tmp_path / "blobs")
    done = subprocess.run(
        [sys.executable, "-m", "tests.crashes", url, what, when],
        cwd=repository(),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) >= steps, "the fault points were not reached"
