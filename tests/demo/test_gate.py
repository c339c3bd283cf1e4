"""The gate decides: the same demo fails when the evaluation is left out, and when the adapter is no
better.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.checkout import repository
from tests.demo.drive import environment
from tests.ports import free_port

# It ends at the gate: MLflow and the engine, which take long to start, would have nothing to do.
FEW = "stage.EXTRAS = ('trainer',)"
# Two steps with next to no learning: the weights are an adapter's, the answers still the base's
# noise.
WORSE = "recipes.TINY.update(steps=2, publish_at=[1, 2], save_every=1, learning_rate=1e-9)"
WITHOUT = "demo.STEPS = tuple(step for step in demo.STEPS if step.__name__ != 'evaluation')"


def run(home: Path, *changes: str) -> subprocess.CompletedProcess[str]:
    program = "\n".join(
        [
            "import sys",
            "from trainer.demo import __main__ as demo",
            "from trainer.demo import recipes, stage",
            FEW,
            *changes,
            "sys.exit(demo.main())",
        ]
    )
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=repository(),
        env=environment(home, free_port()),
        text=True,
        capture_output=True,
        check=False,
        timeout=1200,
    )


def test_the_demo_fails_without_evaluation_and_with_a_worse_adapter(tmp_path: Path) -> None:
    blind = run(tmp_path, WORSE, WITHOUT)
    assert blind.returncode == 1, blind.stdout[-3000:]
    assert "is inconclusive" in blind.stderr or "inconclusive" in blind.stdout + blind.stderr
    assert "canary start" not in blind.stdout
    worse = run(tmp_path, WORSE)
    assert worse.returncode == 1, worse.stdout[-3000:]
    assert "exactly right" in worse.stdout
    assert "review approve" not in worse.stdout
    assert "canary start" not in worse.stdout
