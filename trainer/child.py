"""The child process as the worker sees it: start it, follow it, stop it, explain how it ended."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from registry.errors import Refused
from trainer.exits import STOPPED
from trainer.lease import Gone, Lease
from trainer.tracking import Tracker

LOG = logging.getLogger("trainer.child")
SECRETS = ("COUNTERSIGN_TOKEN", "COUNTERSIGN_MLFLOW_URL")
"""Environment variables that the child does not get."""
LOOK_SECONDS = 0.2
"""The time between two looks at the child."""
STOP_SECONDS = 10.0
"""How long a child may take to end its step and save; `up` gives the worker 15 seconds."""
MAX_RESTARTS = 1
"""How often a child that the system killed is started again from its save point."""
TRACKED = ("loss", "learning_rate", "grad_norm", "tokens", "seconds", "peak_memory_bytes")
"""The meters of a step that the tracker gets."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a child: meters and environment, or an error that names the reason.

    `first_row` is the form of the first row that was trained on. `effect` is what an adapter moved
    of its base's logits.
    """

    meters: dict[str, Any]
    environment: dict[str, Any]
    error: str | None
    first_row: dict[str, Any] = field(default_factory=dict)
    effect: dict[str, Any] | None = None


class Child:
    """`python -m trainer.job FOLDER`, in its own session so that Ctrl-C reaches only the worker."""

    def __init__(self, folder: Path, job: dict[str, Any]) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        progress = folder / "progress.jsonl"
        progress.touch()
        self._progress = progress.open(encoding="utf-8")
        self._progress.seek(0, os.SEEK_END)
        self._torn = ""
        self._log = (folder / "log.txt").open("ab")
        self._process: subprocess.Popen[bytes] | None = None
        # With an outcome, an earlier child has ended and its worker could not report it.
        if not (folder / "outcome.json").exists():
            self.start()

    def start(self) -> None:
        """Start the process, which goes on from the last save point."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "trainer.job", str(self._folder)],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
            # The child needs only files, so it gets no access to the registry.
            env={name: value for name, value in os.environ.items() if name not in SECRETS},
        )

    def news(self) -> list[dict[str, Any]]:
        """The progress records written since the last call; an incomplete line is kept back."""
        *whole, self._torn = (self._torn + self._progress.read()).split("\n")
        return [json.loads(line) for line in whole]

    def running(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def stop(self, wait: float) -> None:
        """Ask the process to save and end; kill it after `wait` seconds."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(wait)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Kill the process. Its save points remain."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """Kill the process if it runs, and close its files."""
        self.kill()
        self._log.close()
        self._progress.close()

    def outcome(self) -> Outcome:
        """The result of a child that has ended; a crash becomes an error with its known cause."""
        path = self._folder / "outcome.json"
        if path.exists():
            result = json.loads(path.read_text("utf-8"))
            meters, environment = result.get("meters", {}), result.get("environment", {})
            first_row, effect = result.get("first_row", {}), result.get("effect")
            return Outcome(meters, environment, result.get("error"), first_row, effect)
        assert self._process is not None
        return Outcome({}, {}, self._crash(self._process.returncode))

    @property
    def killed(self) -> bool:
        """Whether SIGKILL ended the process, sent by the system or by somebody."""
        return self._process is not None and self._process.returncode == -signal.SIGKILL

    def _crash(self, code: int) -> str:
        if code == STOPPED:
            return "stopped: something other than the worker stopped the process."
        if code == -signal.SIGKILL:
            return (
                "killed: the system ended the process, most often because memory ran out. Lower "
                "batch_size or max_length."
            )
        if code < 0:
            return f"crashed: the process died of {signal.Signals(-code).name}."
        lines = (self._folder / "log.txt").read_text("utf-8", "replace").strip().splitlines()
        if lines:
            return f"crashed: {lines[-1][:300]}"
        return f"crashed: the process ended with status {code} and without a message."


def follow(
    lease: Lease,
    folder: Path,
    job: dict[str, Any],
    tracker: Tracker,
    on_look: Callable[[], None] = lambda: None,
) -> Outcome:
    """Run a child to its end, pass on its progress, and call `on_look` at every look at it.

    Raises Gone when the work has to stop, Refused `job-failed` with the child's own reason.
    """
    child = Child(folder, job)
    restarts = 0
    first_row: dict[str, Any] = {}
    try:
        while True:
            # Asked before the records are read, so that the last ones are not missed.
            running = child.running()
            for record in child.news():
                if "first_row" in record:
                    # It stays in the progress, so that whoever looks later sees it too.
                    first_row = {"first_row": record["first_row"]}
                    LOG.info("the first row as the model sees it: %s", json.dumps(first_row))
                progress = {key: value for key, value in record.items() if key != "grad_norm"}
                lease.progress = first_row | progress
                if "loss" in record:
                    tracker.step(
                        record["step"], {key: record[key] for key in TRACKED if key in record}
                    )
            on_look()
            lease.check()
            if running:
                time.sleep(LOOK_SECONDS)
                continue
            if child.killed and restarts < MAX_RESTARTS:
                restarts += 1
                LOG.warning("the child was killed; starting it again from its save point")
                child.start()
                continue
            outcome = child.outcome()
            if outcome.error:
                raise Refused("job-failed", outcome.error)
            return outcome
    except Gone:
        # The last step of cancelled or lost work is worth nothing; a worker that stops saves it.
        child.stop(STOP_SECONDS if lease.state == "held" else 0.0)
        raise
    finally:
        child.close()
