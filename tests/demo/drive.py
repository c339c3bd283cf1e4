"""Runs the tiny demo as a user does, watches its steps, and reads what it left."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from registry.client import Countersign
from tests.checkout import repository
from trainer.demo.stage import EXTRAS

PROGRAM = (
    "import sys; from trainer.demo import __main__ as demo, stage; stage.EXTRAS = {!r}; "
    "sys.exit(demo.main())"
)
STEP = re.compile(r"^ ?(\d+)/(\d+)  ")


def environment(home: Path, port: int) -> dict[str, str]:
    """What `make demo` sets, for the tiny base and a home of the test's own."""
    bare = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("COUNTERSIGN_", "DEMO_"))
    }
    return bare | {
        "DEMO_BASE": "tiny",
        "DEMO_EXIT": "1",
        "DEMO_HOME": str(home),
        "DEMO_PORT": str(port),
        "OMP_NUM_THREADS": "2",
        "HF_HUB_OFFLINE": "1",
    }


@dataclass
class Demo:
    """One run of the demo; `on_step` is called in a thread as each step's headline appears."""

    home: Path
    port: int
    on_step: Callable[[Demo, int], None] | None = None
    extras: tuple[str, ...] = EXTRAS
    lines: list[str] = field(default_factory=list)
    process: subprocess.Popen[str] | None = None

    def run(self, timeout: float = 1200) -> int:
        """Run to its end; its exit status, negative when a signal ended it. The time-out ends a
        hang, not a slow run.
        """
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM.format(self.extras)],
            cwd=repository(),
            env=environment(self.home, self.port),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        reader = threading.Thread(target=self._read, daemon=True)
        reader.start()
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError("the demo did not end:\n" + self.said()) from None
        finally:
            self.process.kill()
            self.process.wait()
            reader.join(60)
            assert self.process.stdout is not None
            self.process.stdout.close()
        return status

    def _read(self) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            found = STEP.match(line)
            if found and self.on_step:
                threading.Thread(
                    target=self.on_step, args=(self, int(found[1])), daemon=True
                ).start()

    def kill(self) -> None:
        """SIGKILL, as the out-of-memory killer or a tired hand does."""
        assert self.process is not None
        self.process.kill()

    def kill_postgres(self) -> bool:
        """SIGKILL the database server itself; whether there was one."""
        pid_file = self.home / "registry" / "postgres" / "data" / "postmaster.pid"
        try:
            os.kill(int(pid_file.read_text().splitlines()[0]), signal.SIGKILL)
        except (OSError, ValueError, IndexError):
            return False
        return True

    def said(self) -> str:
        return "\n".join(self.lines[-60:])


@contextmanager
def registry(home: Path, port: int) -> Iterator[Countersign]:
    """The registry of a finished demo, brought up again without its extras, and its administrator's
    client.
    """
    bare = {
        name: value for name, value in os.environ.items() if not name.startswith("COUNTERSIGN_")
    }
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "registry",
            "up",
            "--home",
            str(home / "registry"),
            "--port",
            str(port),
            "--json",
        ],
        cwd=repository(),
        env=bare,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        with Countersign(told["url"], told["admin_token"]) as client:
            yield client
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(180)
        assert process.stdout is not None
        process.stdout.close()


def rows(client: Countersign) -> dict[str, Any]:
    """What a demo leaves, without what is random by design: ids (a model card names its training
    run), salts, moments.
    """
    lines = client.lines()
    return {
        "versions": sorted(
            (
                one.ref,
                one.state,
                one.tensor_root,
                one.base_root,
                tuple(file.path for file in one.files),
                tuple(one.serves),
            )
            for line in lines
            for one in client.versions(line.name)
        ),
        "datasets": sorted((one.ref, one.state, one.record_root) for one in client.datasets()),
        "suites": sorted((one.ref, one.digest) for one in client.suites()),
        "use_cases": sorted((one.name, one.purpose) for one in client.use_cases()),
        "training_runs": sorted(
            (one.adapter, one.state, tuple(one.outputs)) for one in client.training_runs()
        ),
        "eval_runs": sorted(
            (
                one.subject,
                one.suite,
                one.state,
                tuple((metric.name, metric.value, metric.n) for metric in one.metrics),
            )
            for one in client.eval_runs()
        ),
        "reviews": sorted(
            (
                one.version,
                one.environment,
                one.state,
                tuple((vote.account, vote.verdict) for vote in one.votes),
            )
            for one in client.reviews()
        ),
        "accounts": sorted(
            (
                one.name,
                one.kind,
                tuple((grant.role, grant.team) for grant in one.grants),
                len(one.keys),
            )
            for one in client.accounts()
        ),
        "history": [
            (one.generation, one.kind, one.version, one.candidate, one.weight_bp)
            for channel in client.channels()
            for one in client.history(channel.adapter, channel.environment)
        ],
    }


def settle(seconds: float) -> None:
    """Let something else go on for a moment."""
    time.sleep(seconds)
