"""The child process as the worker sees it: started, followed line by line, stopped, and its end
explained.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.exits import STOPPED

SECRETS = ("COUNTERSIGN_TOKEN",)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a child left: meters and environment, or an error that names its reason."""

    meters: dict[str, Any]
    environment: dict[str, Any]
    error: str | None


class Child:
    """`python -m trainer.job FOLDER`, in a session of its own so that a Ctrl-C reaches only the
    worker.
    """

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
        if not (
            folder / "outcome.json"
        ).exists():  # else it ended before its worker could report it
            self.start()

    def start(self) -> None:
        """Begin, or begin again from the last save point."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "trainer.job", str(self._folder)],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
            # The child needs files only, so it is given no way to the registry.
            env={name: value for name, value in os.environ.items() if name not in SECRETS},
        )

    def news(self) -> list[dict[str, Any]]:
        """The progress records written since the last look; a line half written waits for its
        end.
        """
        *whole, self._torn = (self._torn + self._progress.read()).split("\n")
        return [json.loads(line) for line in whole]

    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self, wait: float) -> None:
        """Ask it to save and end; after `wait` seconds it is killed."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(wait)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it at once; its save points stay."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        self.kill()
        self._log.close()
        self._progress.close()

    def outcome(self) -> Outcome:
        """What the ended child left; a crash becomes an error that says what is known of it."""
        path = self._folder / "outcome.json"
        if path.exists():
            left = json.loads(path.read_text("utf-8"))
            return Outcome(left.get("meters", {}), left.get("environment", {}), left.get("error"))
        assert self._process is not None
        return Outcome({}, {}, self._crash(self._process.returncode))

    @property
    def killed(self) -> bool:
        """Did the system, or somebody, end it by SIGKILL?"""
        return self._process is not None and self._process.returncode == -signal.SIGKILL

    def _crash(self, code: int) -> str:
        if code == STOPPED:
            return "stopped: somebody else told the process to stop."
        if code == -signal.SIGKILL:
            return (
                "killed: the system ended it, most often for want of memory. Lower batch_size "
                "or max_length."
            )
        if code < 0:
            return f"crashed: the process died of {signal.Signals(-code).name}."
        lines = (self._folder / "log.txt").read_text("utf-8", "replace").strip().splitlines()
        return (
            "crashed: "
            f"{lines[-1][:300] if lines else f'the process ended with {code} and said nothing'}"
        )
