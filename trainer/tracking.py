"""Report a training run to MLflow, without ever holding up or failing the run.

Everything goes through one thread of the worker, which does not train itself. MLflow's server takes
long to start and may be unreachable at any time, so the thread retries for a while and then gives
up with one warning. The registry's database stays the record of truth. The import of MLflow alone
was measured at 1.5 s of CPU, so it also happens in that thread, and only where there is a server.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from registry.client.retries import Retry
from registry.rules.trackers import without_credentials

T = TypeVar("T")
LOG = logging.getLogger("trainer.tracking")
PATIENCE = 90.0
"""Seconds without any answer before giving up. MLflow's server was measured to start in 17."""
MAX_COPIED_BYTES = 64 << 20
"""A larger adapter is not copied into MLflow's store."""
DIGEST_LIMIT = 36
"""MLflow refuses longer data set digests. The whole digest is in a tag."""
MAX_BATCH = 100
"""How many entries of the queue are sent in one request."""
CONTEXT = "mlflow.data.context"
ATTEMPT = "countersign.attempt"
RUN = "countersign.training_run"
ENDED_BY = "countersign.ended_by"
"""The tag of an attempt that could not report its own end: the attempt that took over."""
MAX_DEAD = 20
"""Dead attempts that are closed at once; a run has at most five attempts."""


@dataclass(frozen=True, slots=True)
class Topic:
    """What is tracked.

    A base and a domain share one experiment; each attempt of a training run is one MLflow run.
    """

    experiment: str
    training_run: str
    attempt: int
    params: Mapping[str, Any]
    tags: Mapping[str, str]
    dataset: str
    dataset_root: str


@dataclass(frozen=True, slots=True)
class Link:
    """The MLflow run that holds an attempt."""

    run_id: str
    url: str


class Tracker(Protocol):
    """Receives the steps and the end of a training run."""

    def step(self, step: int, metrics: Mapping[str, float]) -> None: ...
    def close(
        self, status: str, artifacts: Path | None = None, wait: float = 20.0
    ) -> Link | None: ...


class Untracked:
    """The tracker without an MLflow server: it does nothing."""

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Do nothing."""

    def close(self, status: str, artifacts: Path | None = None, wait: float = 20.0) -> Link | None:
        """Return None: there is nothing to link to."""
        return None


def track(url: str | None, topic: Topic) -> Tracker:
    """Begin to report a training run to the MLflow server at `url`; None reports to nobody.

    Returns at once and never raises.
    """
    return MLflow(url, topic) if url else Untracked()


@dataclass(slots=True)
class _End:
    status: str
    artifacts: Path | None


@dataclass(slots=True)
class _Step:
    step: int
    metrics: Mapping[str, float]
    at: int = field(default_factory=lambda: int(time.time() * 1000))


class MLflow:
    """Reports one attempt to one server, and resumes an attempt that was reported before."""

    def __init__(self, url: str, topic: Topic) -> None:
        self._url = url.rstrip("/")
        self._topic = topic
        self._queue: queue.SimpleQueue[_Step | _End] = queue.SimpleQueue()
        self._link: Link | None = None
        self._given_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mlflow", daemon=True)
        self._thread.start()

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Queue one step, which costs the caller nothing more."""
        if not self._given_up.is_set():
            self._queue.put(_Step(step, dict(metrics)))

    def close(self, status: str, artifacts: Path | None = None, wait: float = 20.0) -> Link | None:
        """Report the end (FINISHED, FAILED or KILLED) and return the MLflow run, if there is one.

        It waits at most `wait` seconds for the queue to empty.
        """
        self._queue.put(_End(status, artifacts))
        self._thread.join(wait)
        self._given_up.set()
        return self._link

    def _run(self) -> None:
        try:
            self._send()
        except Exception as error:
            if not self._given_up.is_set():
                # MLflow's own message may name the address, with a password in it.
                text = str(error).replace(self._url, without_credentials(self._url))
                why = f"{type(error).__name__}: {text.partition(chr(10))[0][:200]}"
                LOG.warning(
                    "no longer reporting %s to MLflow at %s: %s",
                    self._topic.training_run,
                    without_credentials(self._url),
                    why,
                )
            self._given_up.set()

    def _send(self) -> None:
        client = self._client()
        from mlflow.entities import Metric

        experiment, run_id = self._patiently(lambda: self._open(client))
        page = f"{without_credentials(self._url)}/#/experiments/{experiment}/runs/{run_id}"
        self._link = Link(run_id, page)
        self._patiently(partial(self._close_dead, client, experiment))
        while True:
            entries = [self._queue.get()]
            while len(entries) < MAX_BATCH and not self._queue.empty():
                entries.append(self._queue.get())
            metrics = [
                Metric(name, float(value), entry.at, entry.step)
                for entry in entries
                if isinstance(entry, _Step)
                for name, value in entry.metrics.items()
            ]
            if metrics:
                self._patiently(partial(client.log_batch, run_id, metrics=metrics))
            for entry in entries:
                if isinstance(entry, _End):
                    if entry.artifacts is not None and _size(entry.artifacts) <= MAX_COPIED_BYTES:
                        client.log_artifacts(run_id, str(entry.artifacts), "adapter")
                    client.set_terminated(run_id, entry.status)
                    return

    def _client(self) -> Any:
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
        # `_patiently` retries, so MLflow's client must not.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self._url)

    def _open(self, client: Any) -> tuple[str, str]:
        """The experiment and the MLflow run of this attempt, made where they are missing."""
        from mlflow.entities import Dataset, DatasetInput, InputTag, Param, RunTag

        topic = self._topic
        known = client.get_experiment_by_name(topic.experiment)
        experiment = known.experiment_id if known else client.create_experiment(topic.experiment)
        query = f"tags.`{RUN}` = '{topic.training_run}' and tags.`{ATTEMPT}` = '{topic.attempt}'"
        if runs := client.search_runs([experiment], query, max_results=1):
            run_id = runs[0].info.run_id
            client.update_run(run_id, status="RUNNING")
        else:
            name = f"{topic.training_run[:8]} attempt {topic.attempt}"
            tags = {RUN: topic.training_run, ATTEMPT: str(topic.attempt)}
            run_id = client.create_run(experiment, tags=tags, run_name=name).info.run_id
        # Sent again for a resumed run, because the first time may have been cut short. MLflow takes
        # the same values twice.
        client.log_batch(
            run_id,
            params=[Param(key, str(value)) for key, value in topic.params.items()],
            tags=[
                RunTag(key, value)
                for key, value in {**topic.tags, "dataset_root": topic.dataset_root}.items()
            ],
        )
        digest = topic.dataset_root.removeprefix("sha256:")[:DIGEST_LIMIT]
        source = f'{{"ref": "{topic.dataset}", "record_root": "{topic.dataset_root}"}}'
        client.log_inputs(
            run_id,
            datasets=[
                DatasetInput(
                    Dataset(topic.dataset, digest, "countersign", source),
                    [InputTag(CONTEXT, "train")],
                )
            ],
        )
        return experiment, run_id

    def _close_dead(self, client: Any, experiment: str) -> None:
        """End what earlier attempts left running in MLflow: their workers died or were cut off."""
        query = f"tags.`{RUN}` = '{self._topic.training_run}' and attributes.status = 'RUNNING'"
        for run in client.search_runs([experiment], query, max_results=MAX_DEAD):
            attempt = run.data.tags.get(ATTEMPT, "")
            if attempt.isdecimal() and int(attempt) < self._topic.attempt:
                client.set_tag(run.info.run_id, ENDED_BY, f"attempt {self._topic.attempt}")
                client.set_terminated(run.info.run_id, "KILLED")

    def _patiently(self, attempt: Callable[[], T]) -> T:
        """Try again while the server starts, until the training run is over."""

        def wait(seconds: float) -> None:
            if self._given_up.wait(seconds):
                raise TimeoutError("the training run ended first")

        return Retry(lambda _: True, PATIENCE, first=0.5, longest=5.0).call(attempt, wait=wait)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
