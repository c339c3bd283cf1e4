"""MLflow, told from the side: what it misses is lost to MLflow only, never to the training run.

Everything goes through one thread of the worker, which does not train itself. MLflow's server takes
long to start and may be away at any time, so the thread retries for a while, then gives up with one
warning. PostgreSQL is the truth. The import alone was measured at 1.5 s of CPU, so it too happens
in that thread and only where there is a server.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from registry.client.retries import Retry

T = TypeVar("T")
LOG = logging.getLogger("trainer.tracking")
# seconds without any answer before giving up; MLflow's own server was measured to start in 17
PATIENCE = 90.0
CHEAP = 64 << 20  # bytes of an adapter that are worth a second copy in MLflow's store
DIGEST_LIMIT = 36  # MLflow refuses longer data set digests; the whole one stands in a tag
CONTEXT = "mlflow.data.context"
ATTEMPT = "countersign.attempt"
RUN = "countersign.training_run"


@dataclass(frozen=True, slots=True)
class Topic:
    """What is tracked: one experiment a base and domain, one MLflow run an attempt of a training
    run.
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
    """Where MLflow keeps it."""

    run_id: str
    url: str


class Tracker(Protocol):
    """What the worker tells of a training run."""

    def step(self, step: int, metrics: Mapping[str, float]) -> None: ...
    def close(
        self, status: str, artifacts: Path | None = None, wait: float = 20.0
    ) -> Link | None: ...


class Untracked:
    """No MLflow server was named."""

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Nobody listens."""

    def close(self, status: str, artifacts: Path | None = None, wait: float = 20.0) -> Link | None:
        """There is nothing to link to."""
        return None


def track(url: str | None, topic: Topic) -> Tracker:
    """Begin to tell the MLflow server at `url` of a training run, or (None) nobody. Returns at
    once, never raises.
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
    """One attempt told to one server; an attempt that was told before is taken up again."""

    def __init__(self, url: str, topic: Topic) -> None:
        self._url = url.rstrip("/")
        self._topic = topic
        self._told: queue.SimpleQueue[_Step | _End] = queue.SimpleQueue()
        self._link: Link | None = None
        self._given_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mlflow", daemon=True)
        self._thread.start()

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Tell of one step; costs the caller nothing but a queue entry."""
        if not self._given_up.is_set():
            self._told.put(_Step(step, dict(metrics)))

    def close(self, status: str, artifacts: Path | None = None, wait: float = 20.0) -> Link | None:
        """Tell that it is over (FINISHED, FAILED or KILLED), waiting `wait` seconds at most; its
        address if any.
        """
        self._told.put(_End(status, artifacts))
        self._thread.join(wait)
        self._given_up.set()
        return self._link

    def _run(self) -> None:
        try:
            self._tell()
        except Exception as error:
            if not self._given_up.is_set():
                why = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
                LOG.warning(
                    "MLflow at %s is given up for %s: %s", self._url, self._topic.training_run, why
                )
            self._given_up.set()

    def _tell(self) -> None:
        client = self._client()
        from mlflow.entities import Metric

        experiment, run_id = self._patiently(lambda: self._open(client))
        self._link = Link(run_id, f"{self._url}/#/experiments/{experiment}/runs/{run_id}")
        while True:
            news = [self._told.get()]
            while len(news) < 100 and not self._told.empty():
                news.append(self._told.get())
            metrics = [
                Metric(name, float(value), one.at, one.step)
                for one in news
                if isinstance(one, _Step)
                for name, value in one.metrics.items()
            ]
            if metrics:
                self._patiently(lambda batch=metrics: client.log_batch(run_id, metrics=batch))  # type: ignore[misc]  # mypy cannot infer a lambda with defaults
            for end in news:
                if isinstance(end, _End):
                    if end.artifacts is not None and _size(end.artifacts) <= CHEAP:
                        client.log_artifacts(run_id, str(end.artifacts), "adapter")
                    client.set_terminated(run_id, end.status)
                    return

    def _client(self) -> Any:
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
        os.environ.setdefault(
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0"
        )  # our own patience is the one that counts
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self._url)

    def _open(self, client: Any) -> tuple[str, str]:
        """Find this attempt's MLflow run, or make it with its params, tags and data set;
        (experiment, run).
        """
        from mlflow.entities import Dataset, DatasetInput, InputTag, Param, RunTag

        topic = self._topic
        known = client.get_experiment_by_name(topic.experiment)
        experiment = known.experiment_id if known else client.create_experiment(topic.experiment)
        mine = f"tags.`{RUN}` = '{topic.training_run}' and tags.`{ATTEMPT}` = '{topic.attempt}'"
        if found := client.search_runs([experiment], mine, max_results=1):
            run_id = found[0].info.run_id
            client.update_run(run_id, status="RUNNING")
        else:
            name = f"{topic.training_run[:8]} attempt {topic.attempt}"
            tags = {RUN: topic.training_run, ATTEMPT: str(topic.attempt)}
            run_id = client.create_run(experiment, tags=tags, run_name=name).info.run_id
        # Said again on taking it up, for the first time may have been cut short; the same twice is
        # once.
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

    def _patiently(self, attempt: Callable[[], T]) -> T:
        """Try again while the server starts, until the training run is over."""

        def wait(seconds: float) -> None:
            if self._given_up.wait(seconds):
                raise TimeoutError("the training run ended first")

        return Retry(lambda _: True, PATIENCE, first=0.5, longest=5.0).call(attempt, wait=wait)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
