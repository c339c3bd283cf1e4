"""MLflow: what its own server was told, and that its absence costs nothing."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from tests.gateway.served import until
from tests.ports import free_port
from trainer import tracking
from trainer.tracking import Topic, Untracked, track

ROOT = "sha256:" + "ab" * 32


def topic(**changes: object) -> Topic:
    values = {
        "experiment": f"acme/tiny@v1 · {uuid4().hex[:6]}",
        "training_run": str(uuid4()),
        "attempt": 1,
        "params": {"rank": 8, "targets": ["q_proj", "v_proj"], "layers": None},
        "tags": {"recipe_digest": ROOT},
        "dataset": "acme/letters@v1",
        "dataset_root": ROOT,
        **changes,
    }
    return Topic(**values)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """MLflow's real server on a database of its own."""
    folder = tmp_path_factory.mktemp("mlflow")
    port = free_port()
    given = {
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{folder}/mlflow.db",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONWARNINGS": "ignore",
    }
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "mlflow",
                "server",
                "--host",
                "127.0.0.1",
                "--port",
                str(port),
                "--workers",
                "1",
                "--artifacts-destination",
                str(folder / "artifacts"),
            ],
            env=given,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:

        def ready() -> bool:
            assert process.poll() is None, (folder / "log.txt").read_text()[-2000:]
            try:
                return (
                    httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).status_code == 200
                )
            except httpx.TransportError:
                return False

        until(ready, "MLflow answers", 300)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, 9)
        process.wait()


def test_the_server_holds_params_metrics_tags_data_and_the_adapter(
    server: str, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    (tmp_path / "adapter_config.json").write_text("{}")
    told = topic()
    tracker = track(server, told)
    for step in (1, 2, 3):
        tracker.step(step, {"loss": 3.0 / step, "tokens": 10.0 * step})
    link = tracker.close("FINISHED", tmp_path, wait=120)
    assert link is not None
    assert link.url.startswith(f"{server}/#/experiments/")
    assert httpx.get(link.url.partition("#")[0], trust_env=False, timeout=60).status_code == 200

    client = MlflowClient(server)
    run = client.get_run(link.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"rank": "8", "targets": "['q_proj', 'v_proj']", "layers": "None"}
    assert run.data.tags["countersign.training_run"] == told.training_run
    assert run.data.tags["dataset_root"] == ROOT
    assert [metric.value for metric in client.get_metric_history(link.run_id, "loss")] == [
        3.0,
        1.5,
        1.0,
    ]
    [dataset] = run.inputs.dataset_inputs
    assert dataset.dataset.name == "acme/letters@v1"
    assert ROOT.removeprefix("sha256:").startswith(dataset.dataset.digest)
    assert len(dataset.dataset.digest) == tracking.DIGEST_LIMIT
    assert [one.path for one in client.list_artifacts(link.run_id, "adapter")] == [
        "adapter/adapter_config.json"
    ]


def test_an_attempt_is_taken_up_again_and_another_one_is_new(server: str) -> None:
    told = topic()
    first = track(server, told).close("KILLED", wait=120)
    again = track(server, told).close("FINISHED", wait=120)
    second = track(
        server, topic(experiment=told.experiment, training_run=told.training_run, attempt=2)
    )
    other = second.close("FINISHED", wait=120)
    assert first is not None
    assert again is not None
    assert other is not None
    assert first.run_id == again.run_id != other.run_id


def test_a_dead_server_costs_the_caller_nothing_but_one_warning(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First with a patience that outlasts any test: a step that waited for the server would never
    come back.
    """
    with socket.socket() as nobody, caplog.at_level(logging.WARNING, "trainer.tracking"):
        nobody.bind(("127.0.0.1", 0))  # bound and not listening: every connection is refused
        for patience, wait, warnings in ((3600.0, 0.0, 0), (0.5, 300.0, 1)):
            monkeypatch.setattr(tracking, "PATIENCE", patience)
            tracker = track(f"http://127.0.0.1:{nobody.getsockname()[1]}", topic())
            for step in range(1000):
                tracker.step(step, {"loss": 1.0})
            assert tracker.close("FINISHED", wait=wait) is None
            assert isinstance(tracker, tracking.MLflow)
            tracker._thread.join()
            assert (
                len([record for record in caplog.records if record.name == "trainer.tracking"])
                == warnings
            )


def test_without_a_server_nothing_is_started() -> None:
    tracker = track(None, topic())
    assert isinstance(tracker, Untracked)
    assert tracker.close("FINISHED") is None


def test_the_worker_never_loads_torch_nor_mlflow() -> None:
    """What it holds must not be at the mercy of either, and it must start at once."""
    code = (
        "import sys, trainer.worker; sys.exit(bool({'torch', 'transformers', 'mlflow'} & "
        "set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_next_attempt_ends_what_a_dead_one_left_running(server: str) -> None:
    from mlflow import MlflowClient

    identity = topic()
    dead = track(server, identity)
    assert isinstance(dead, tracking.MLflow)
    until(lambda: dead._link is not None, "the first attempt is in MLflow", 120)
    other = track(server, topic(experiment=identity.experiment))
    assert isinstance(other, tracking.MLflow)
    until(lambda: other._link is not None, "another training run is in MLflow", 120)
    following = topic(experiment=identity.experiment, training_run=identity.training_run, attempt=2)
    link = track(server, following).close("FINISHED", wait=120)
    client = MlflowClient(server)
    assert dead._link is not None
    assert other._link is not None
    assert link is not None
    ended = client.get_run(dead._link.run_id)
    assert ended.info.status == "KILLED"
    assert ended.data.tags[tracking.ENDED_BY] == "attempt 2"
    assert client.get_run(other._link.run_id).info.status == "RUNNING"
    assert client.get_run(link.run_id).info.status == "FINISHED"
    dead.close("KILLED", wait=120)
    other.close("KILLED", wait=120)


def test_no_password_of_the_server_is_shown(
    server: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = server.replace("://", "://ann:secret@")
    link = track(secret, topic()).close("FINISHED", wait=120)
    assert link is not None
    assert link.url.startswith(f"{server}/#/")
    monkeypatch.setattr(tracking, "PATIENCE", 0.5)
    with socket.socket() as nobody, caplog.at_level(logging.WARNING, "trainer.tracking"):
        nobody.bind(("127.0.0.1", 0))
        address = f"http://ann:secret@127.0.0.1:{nobody.getsockname()[1]}"
        assert track(address, topic()).close("FINISHED", wait=300) is None
        until(lambda: bool(caplog.records), "the warning", 120)
    assert "secret" not in caplog.text
