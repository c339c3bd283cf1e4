"""The main job on the tiny base: unkilled, run twice, and killed in every step."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.checkout import repository
from tests.demo.drive import Demo, environment, registry, rows, settle
from tests.ports import free_port
from trainer.demo import __main__ as main
from trainer.demo import transcript

STEPS = 15
TRAINING, DELIVERY = {5}, {10, 11, 12, 13}


@pytest.fixture(scope="module")
def unkilled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A finished demo and what it left."""
    home = tmp_path_factory.mktemp("demo")
    demo = Demo(home, free_port())
    assert demo.run() == 0, demo.said()
    with registry(home, free_port()) as client:
        return home, rows(client)


def test_the_main_job_ends_with_what_it_promises(unkilled: tuple[Path, dict[str, Any]]) -> None:
    home, left = unkilled
    result = json.loads((home / "result.json").read_text())
    assert result["accuracy_adapter"]["low"] > result["accuracy_base"]["high"]
    assert result["arms"]["requests"] == result["arms"]["stable"] + result["arms"]["candidate"]
    recorded = {one["arm"]: one["requests"] for one in result["arms"]["records"]}
    assert sum(recorded.values()) == result["arms"]["requests"]
    assert [kind for _, kind, *_ in left["history"]] == ["canary", "promote", "rollback", "promote"]
    states = {ref: state for ref, state, *_ in left["versions"]}
    assert (states["legal/tiny-router@v1"], states["legal/tiny-router@v2"]) == (
        "recalled",
        "registered",
    )
    [review] = left["reviews"]
    assert review[2:] == ("approved", (("carla", "approve"), ("ravi", "approve")))
    assert result["log"]["votes"] == 2
    assert set(result["seconds"]) >= {"training", "canary", "proof"}
    assert set(result["transcript"]) == {"up", *(step.__name__ for step in main.STEPS)}
    assert "\nnora $ countersign promote legal/tiny-router" in transcript.page(result)


def test_a_second_run_finds_everything_there(unkilled: tuple[Path, dict[str, Any]]) -> None:
    home, left = unkilled
    again = Demo(home, free_port())
    assert again.run() == 0, again.said()
    found = [line for line in again.lines if line.strip().startswith("Found")]
    assert len(found) >= 9, again.said()
    # It only looks: no command but the export that proves the log is given again.
    given = [line.split(" $ ", 1)[1] for line in again.lines if " $ " in line]
    assert all(
        line.startswith(("countersign up", "countersign audit export", "countersign-verify"))
        for line in given
    )
    with registry(home, free_port()) as client:
        assert rows(client) == left


@pytest.mark.slow
def test_killed_in_every_step_it_ends_with_the_same_rows(
    unkilled: tuple[Path, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The first visit of a step ends by SIGKILL of the demo, the second meets SIGKILL of
    PostgreSQL; the third passes.

    MLflow and the engine take 10 and 6 s of CPU to start: they run beside where the steps of a run
    have a use for them.
    """
    home = tmp_path_factory.mktemp("storm")
    visits: dict[int, int] = {}
    killed: dict[str, set[int]] = {"demo": set(), "postgres": set()}

    def strike(demo: Demo, step: int) -> None:
        visits[step] = visits.get(step, 0) + 1
        if visits[step] == 1:
            settle(0.7)
            killed["demo"].add(step)
            demo.kill()
        elif visits[step] == 2:
            settle(0.3)
            if demo.kill_postgres():
                killed["postgres"].add(step)

    for _ in range(STEPS + 5):
        steps = {max(visits, default=0), max(visits, default=0) + 1}
        beside = [
            name for name, used in (("mlflow", TRAINING), ("engine", DELIVERY)) if steps & used
        ]
        demo = Demo(home, free_port(), strike, ("trainer", "gateway", *beside))
        status = demo.run()
        if status == 0:
            break
        assert status == -9, demo.said()
    else:
        pytest.fail(f"it never came through: {visits}\n{demo.said()}")
    assert killed["demo"] == set(range(1, STEPS + 1))
    # In the first step no database runs yet: the registry starts while the inputs are made.
    assert killed["postgres"] >= set(range(2, STEPS))
    with registry(home, free_port()) as client:
        assert rows(client) == unkilled[1]
    bare = {
        name: value for name, value in environment(home, 0).items() if not name.startswith("DEMO_")
    }
    doctor = subprocess.run(
        [sys.executable, "-m", "registry", "doctor", "--home", str(home / "registry"), "--json"],
        cwd=repository(),
        env=bare,
        capture_output=True,
        text=True,
        check=False,
    )
    assert doctor.returncode == 0, doctor.stdout + doctor.stderr
    assert json.loads(doctor.stdout)["ok"] is True
