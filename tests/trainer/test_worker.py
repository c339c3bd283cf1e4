"""The worker against the real registry: what it registers and reports, and everything that may go
wrong under it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from registry.artifacts.bundles import judge
from registry.artifacts.datasets.rows import Item
from registry.client import Countersign, NewTrainingRun, NewVersion
from registry.errors import Conflict, Invalid
from registry.views.training_runs import TrainingRunView
from tests.gateway.served import until
from tests.trainer.live import Live
from trainer.demo import inputs, recipes
from trainer.worker import Worker

SHORT: dict[str, Any] = {
    "steps": 12,
    "batch_size": 4,
    "learning_rate": 1e-2,
    "max_length": 48,
    "rank": 4,
    "publish_at": [6, 12],
    "save_every": 1,
    "dropout": 0.1,
}
LONG = {**SHORT, "steps": 4000, "publish_at": [4000]}


@pytest.fixture
def work_dir(tmp_path: Path) -> Path:
    return tmp_path / "work"


@pytest.fixture
def worker(live: Live, work_dir: Path) -> Iterator[Worker]:
    with Countersign(live.url, live.trainer) as registry, Worker(registry, work_dir) as made:
        yield made


def queue(nora: Countersign, adapter: str, recipe: dict[str, Any]) -> TrainingRunView:
    return nora.train(
        NewTrainingRun(
            f"acme/{adapter}",
            "acme/tiny@v1",
            "acme/letters@v1",
            recipe,
            "service",
            {"purpose": "sorting"},
        )
    )


def weights(nora: Countersign, ref: str) -> str:
    [found] = [
        file.sha256 for file in nora.version(ref).files if file.path == "adapter_model.safetensors"
    ]
    return found


def process(live: Live, work_dir: Path) -> subprocess.Popen[bytes]:
    """The worker as one starts it on another machine: a URL and a token, nothing else."""
    given = {
        **os.environ,
        "COUNTERSIGN_URL": live.url,
        "COUNTERSIGN_TOKEN": live.trainer,
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "trainer", "worker", "--once", "--work-dir", str(work_dir)],
        env=given,
    )


@pytest.fixture(scope="module")
def unbroken(
    live: Live, nora: Countersign, tmp_path_factory: pytest.TempPathFactory
) -> TrainingRunView:
    """One training run that nothing happened to."""
    run = queue(nora, "calm", SHORT)
    folder = tmp_path_factory.mktemp("calm")
    with Countersign(live.url, live.trainer) as registry, Worker(registry, folder) as worker:
        worker.run(0.1, once=True)
    return nora.training_run(run.id)


def test_what_was_asked_is_trained_registered_and_reported(
    nora: Countersign, unbroken: TrainingRunView
) -> None:
    assert unbroken.error is None
    assert unbroken.state == "succeeded"
    assert unbroken.outputs == ["acme/calm@v1", "acme/calm@v2"]
    assert unbroken.meters["steps"] == 12
    assert unbroken.meters["loss_last"] < unbroken.meters["loss_first"]
    assert unbroken.environment["dtype_reason"]
    assert unbroken.mlflow_url is None
    version = nora.version("acme/calm@v2")
    assert version.base == "acme/tiny@v1"
    assert version.training_run == unbroken.id
    assert version.meta["purpose"] == "sorting"
    parents = {(edge.relation, edge.grade) for edge in nora.lineage("acme/calm@v2").edges}
    assert ("tuned_on", "observed") in parents


def test_a_worker_that_trains_gets_the_train_rows_alone(
    nora: Countersign, worker: Worker, work_dir: Path, tiny: Path
) -> None:
    """Nothing that it fetched has a row of the test split, which suites are made of."""
    run = queue(nora, "apart", SHORT)
    worker.run(0.1, once=True)
    assert nora.training_run(run.id).error is None
    assert nora.training_run(run.id).state == "succeeded"
    lines = inputs.tiny_dataset(tiny).read_bytes().splitlines(keepends=True)
    train = [line for line in lines if json.loads(line).get("split", "train") == "train"]
    fetched = [path.read_bytes() for path in (work_dir / "cache" / "blobs").iterdir()]
    assert b"".join(train) in fetched
    others = [line for line in lines if line not in train]
    assert others
    assert not [line for line in others if any(line.strip() in data for data in fetched)]


@pytest.mark.slow
def test_the_same_recipe_once_more_makes_versions_of_its_own_with_the_same_weights(
    nora: Countersign, unbroken: TrainingRunView, worker: Worker
) -> None:
    run = queue(nora, "calm", SHORT)
    worker.run(0.1, once=True)
    again = nora.training_run(run.id)
    assert again.error is None
    assert again.outputs == ["acme/calm@v3", "acme/calm@v4"]
    for first, second in zip(unbroken.outputs, again.outputs, strict=True):
        assert nora.version(first).tensor_root == nora.version(second).tensor_root


@pytest.mark.slow
def test_a_frozen_suite_shows_the_gain(
    nora: Countersign, worker: Worker, items: tuple[Item, ...], work_dir: Path
) -> None:
    """The tiny demo's training and its two eval runs; the registry recounts every answer before it
    believes them.
    """
    queue(nora, "letters", recipes.TINY)
    worker.run(0.1, once=True)
    nora.freeze_suite(
        "acme/letters-test", "acme/letters@v1", "test", decoding={"max_new_tokens": 4}
    )
    for subject in ("acme/tiny@v1", "acme/letters@v2"):
        nora.evaluate(subject, "acme/letters-test@v1")
    worker.run(0.1, once=True)
    found = {}
    for subject in ("acme/tiny@v1", "acme/letters@v2"):
        runs = nora.eval_runs(subject)
        [run] = [run for run in runs if run.suite == "acme/letters-test@v1"]
        assert run.error is None
        [found[subject]] = run.metrics
    base, adapter = found.values()
    assert adapter.n == len(items) >= 60
    assert adapter.ci_low > base.ci_high + 0.5
    effect = nora.version("acme/letters@v2").effect
    assert effect is not None and effect.measured is not None
    assert (effect.state, effect.idle, effect.measured.prompts) == ("measured", 0, 8)
    assert effect.measured.largest > 0.1
    assert list((work_dir / "runs").iterdir()) == []


def test_the_key_is_the_workers_own_and_enrolled_once(
    live: Live, worker: Worker, work_dir: Path
) -> None:
    path = work_dir / "signing-key.pem"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with Countersign(live.url, live.trainer) as registry:
        before = registry.me().keys
        with pytest.raises(Conflict) as refusal:
            Worker(registry, work_dir)
        assert refusal.value.kind == "work-dir-taken"
        assert registry.me().keys == before


def test_a_worker_that_is_killed_is_replaced_and_nothing_is_lost(
    live: Live, nora: Countersign, unbroken: TrainingRunView, work_dir: Path
) -> None:
    """SIGKILL after the first version was registered; the next process in the same work folder
    takes the lease back before it ends, and goes on from the save point.
    """
    for _ in range(
        20
    ):  # it may be done before it is hit: a worker killed before its report is what matters here
        run = queue(nora, "stormy", SHORT)
        first = process(live, work_dir)
        # `until` calls it here, in the same turn of the loop.
        until(
            lambda run=run, first=first: (
                nora.training_run(run.id).outputs or first.poll() is not None
            )
        )
        first.kill()
        first.wait()
        if nora.training_run(run.id).state != "succeeded":
            break
    assert process(live, work_dir).wait(300) == 0
    after = nora.training_run(run.id)
    assert after.state == "succeeded"
    assert after.attempt == 2
    assert [weights(nora, ref) for ref in after.outputs] == [
        weights(nora, ref) for ref in unbroken.outputs
    ]


@pytest.mark.slow
def test_the_registry_may_be_away_while_it_trains_and_when_it_reports(
    live: Live,
    nora: Countersign,
    unbroken: TrainingRunView,
    worker: Worker,
    work_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stopped once training runs, back only when the last step is packed; the run still ends with
    the same weights.
    """
    monkeypatch.setattr("registry.client.transport.PATIENCE", 0.5)
    run = queue(nora, "patient", SHORT)
    working = threading.Thread(target=worker.run, args=(0.1,), kwargs={"once": True})
    working.start()
    folder = work_dir / "runs" / str(run.id)
    until(lambda: (folder / "progress.jsonl").exists())
    live.down()
    until(lambda: (folder / "outcome.json").exists())
    live.up()
    working.join(300)
    after = nora.training_run(run.id)
    assert (after.state, after.attempt) == ("succeeded", 1)
    assert weights(nora, after.outputs[-1]) == weights(nora, unbroken.outputs[-1])


def test_cancelled_training_stops_and_leaves_nothing(
    nora: Countersign, worker: Worker, work_dir: Path
) -> None:
    run = queue(nora, "unwanted", LONG)
    working = threading.Thread(target=worker.run, args=(0.1,), kwargs={"once": True})
    working.start()
    until(lambda: "loss" in nora.training_run(run.id).progress)
    nora.cancel_training(run.id)
    working.join(300)
    assert not working.is_alive()
    assert nora.training_run(run.id).state == "cancelled"
    assert list((work_dir / "runs").iterdir()) == []


@pytest.mark.slow
def test_a_worker_told_to_stop_gives_its_work_back(
    live: Live, nora: Countersign, work_dir: Path
) -> None:
    run = queue(nora, "paused", LONG)
    first = process(live, work_dir)
    until(lambda: "loss" in nora.training_run(run.id).progress)
    first.send_signal(signal.SIGTERM)
    assert first.wait(300) == 0
    assert nora.training_run(run.id).state == "queued"
    [point] = (work_dir / "runs" / str(run.id) / "save-points").iterdir()
    assert int(point.name.removeprefix("step-")) >= 1
    nora.cancel_training(run.id)


@pytest.mark.slow
def test_a_child_that_keeps_being_killed_fails_with_its_reason(
    nora: Countersign, worker: Worker, work_dir: Path
) -> None:
    """As the system does for want of memory: once it is started again, then the run fails and says
    so.
    """
    run = queue(nora, "greedy", LONG)
    working = threading.Thread(target=worker.run, args=(0.1,), kwargs={"once": True})
    working.start()
    progress = work_dir / "runs" / str(run.id) / "progress.jsonl"
    for starts in (1, 2):
        until(
            lambda starts=starts: (
                progress.exists() and progress.read_text().count("loading") == starts
            )
        )
        [child] = [
            int(entry.name)
            for entry in Path("/proc").iterdir()
            if entry.name.isdecimal() and str(progress.parent).encode() in _cmdline(entry)
        ]
        os.kill(child, signal.SIGKILL)
    working.join(300)
    after = nora.training_run(run.id)
    assert after.state == "failed"
    assert after.error is not None
    assert "killed" in after.error


def _cmdline(entry: Path) -> bytes:
    try:
        return (entry / "cmdline").read_bytes()
    except OSError:
        return b""


def test_an_output_discarded_meanwhile_ends_the_run_before_it_trains_again(
    live: Live,
    nora: Countersign,
    unbroken: TrainingRunView,
    worker: Worker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A first attempt left a draft, for no ticket was named, and was lost; then somebody discarded
    the draft.
    """
    run = nora.train(
        NewTrainingRun(
            "acme/regretted", "acme/tiny@v1", "acme/letters@v1", SHORT, "service", {"purpose": "x"}
        )
    )
    # More is required than when the training was queued.
    monkeypatch.setitem(judge.REQUIRED_META, "adapter", ("domain", "purpose", "ticket"))
    nora.pull(unbroken.outputs[0], tmp_path / "made")
    with Countersign(live.url, live.trainer) as lost:
        taken = lost.lease("a worker that is lost")
        assert taken is not None and taken.id == run.id
        added = lost.add(
            "adapter",
            tmp_path / "made",
            NewVersion(
                "acme/regretted",
                base="acme/tiny@v1",
                training_run=run.id,
                attempt=taken.attempt,
                step=6,
            ),
        )
        assert added.status == "draft"
        nora.discard(added.ref, "not wanted")
        lost.requeue(run.id, taken.attempt, "the worker goes")
    worker.run(0.1, once=True)
    after = nora.training_run(run.id)
    assert (after.state, after.attempt, after.progress) == ("failed", 2, {})
    assert after.error is not None
    assert after.error.startswith("output-discarded: ")
    assert added.ref in after.error


def test_what_the_rows_do_not_allow_is_refused_before_it_waits(nora: Countersign) -> None:
    with pytest.raises(Invalid, match="longer than 8") as refusal:
        queue(nora, "cramped", {**SHORT, "max_length": 8})
    assert set(refusal.value.facts["problems"]) == {"max_length"}


def test_a_damaged_cache_costs_a_download_and_nothing_else(
    nora: Countersign, worker: Worker, work_dir: Path
) -> None:
    files = nora.version("acme/tiny@v1").files
    folder = worker._cache.folder(files)
    [config] = [file for file in files if file.path == "config.json"]
    (work_dir / "cache" / "blobs" / config.sha256).write_text("{}")
    assert (folder / "config.json").read_text() == "{}"
    again = worker._cache.folder(files)
    assert (again / "config.json").stat().st_size == config.size
    shutil.rmtree(again)
