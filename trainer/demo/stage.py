"""The demo's stage: its folder, its registry, its people, and what it prints and records."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from registry.client import Countersign
from registry.errors import Conflict, Unavailable

FRESH_SECONDS = 11 * 3600
"""The oldest token that is used again: promoting needs a sign-in of the last twelve hours."""
PATIENCE = 180.0
"""Seconds that the demo waits for something by default."""
EXTRAS = ("trainer", "mlflow", "engine", "gateway")
"""The programs that run beside the registry."""


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who takes part: one account, one role, one token, and a key for those who sign."""

    name: str
    role: str
    team: str | None
    signs: bool = False


NORA = Person("nora", "engineer", "legal", signs=True)
DAVE = Person("dave", "engineer", "legal")
CARLA = Person("carla", "reviewer", "compliance", signs=True)
RAVI = Person("ravi", "reviewer", "risk", signs=True)
ALEX = Person("alex", "auditor", None)
PEOPLE = (NORA, DAVE, CARLA, RAVI, ALEX)


class Refusal(Exception):
    """A refusal by the command line: its exit status and the problem it printed."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        super().__init__(f"{problem.get('detail', '')} {problem.get('fix', '')}".strip())
        self.status = status
        self.problem = problem


@dataclass
class Stage:
    """Everything a step needs."""

    home: Path
    tiny: bool
    port: int
    out: TextIO = sys.stdout
    server: subprocess.Popen[str] | None = None
    urls: dict[str, str] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    _began: float = 0.0
    _seconds: float = 0.0
    _first_line: str = ""
    _reader: threading.Thread = field(default_factory=threading.Thread)
    _lines: list[str] = field(default_factory=list)

    @property
    def ends(self) -> bool:
        """Whether the demo ends after its table (DEMO_EXIT=1) instead of serving on."""
        return os.environ.get("DEMO_EXIT") == "1"

    @property
    def registry_home(self) -> Path:
        return self.home / "registry"

    @property
    def url(self) -> str:
        return self.urls["url"]

    def say(self, text: str) -> None:
        """Print a line, and keep it for the transcript of the current step."""
        print(text, file=self.out, flush=True)
        self._lines.append(text.strip())

    @contextmanager
    def recorded(self, step: str) -> Iterator[None]:
        """Keep the lines that a step prints as its transcript in the result.

        A step that an earlier run completed keeps its lines, as `timed` keeps its seconds.
        """
        self._lines = []
        yield
        self.result.setdefault("transcript", {}).setdefault(step, self._lines)
        self._lines = []
        self.save()

    def start(self) -> None:
        """Start the registry and the programs beside it, as a user would.

        It returns at once; `await_ready` waits until the registry answers.
        """
        self._began = time.monotonic()
        command = [
            "up",
            "--home",
            str(self.registry_home),
            "--port",
            str(self.port),
            "--json",
            "--with",
            ",".join(EXTRAS),
        ]
        self.say(f"  $ countersign {shlex.join(_short(tuple(command), self.home))}")
        log = (self.home / "registry.log").open("a")
        self.server = subprocess.Popen(
            [sys.executable, "-P", "-m", "registry", *command],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            preexec_fn=_die_with_parent,  # no other thread runs when the demo starts it
        )
        log.close()
        self._first_line = ""
        self._reader = threading.Thread(
            target=self._read_first_line, args=(self.server,), daemon=True
        )
        self._reader.start()

    def _read_first_line(self, server: subprocess.Popen[str]) -> None:
        assert server.stdout is not None
        self._first_line = server.stdout.readline()
        self._seconds = time.monotonic() - self._began

    def await_ready(self) -> float:
        """Wait until the registry answers, and return the seconds since its start.

        Raises Unavailable `registry-not-started` with the last line of its log when it ends first.
        """
        assert self.server is not None
        self._reader.join()
        deadline = time.monotonic() + 60
        while not self._first_line:
            self.server.wait(timeout=30)
            lines = (self.home / "registry.log").read_text().strip().splitlines()
            if lines and "home-in-use" in lines[-1] and time.monotonic() < deadline:
                # The registry of a demo that was just killed is still shutting down.
                time.sleep(1.0)
                self.start()
                self._reader.join()
                continue
            raise Unavailable(
                "registry-not-started",
                lines[-1] if lines else "The registry did not start.",
                f"See {self.home / 'registry.log'}.",
            )
        self.urls = {key: value for key, value in json.loads(self._first_line).items() if value}
        return self._seconds

    def stop(self) -> None:
        """Stop the registry and everything it started."""
        if self.server is not None and self.server.poll() is None:
            self.server.send_signal(signal.SIGTERM)
            try:
                self.server.wait(timeout=40)
            except subprocess.TimeoutExpired:
                self.server.kill()
                self.server.wait()
        self.server = None

    def folder(self, person: Person) -> Path:
        """A person's own configuration: their token, and their key if they sign."""
        folder = self.home / "people" / person.name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def token(self, person: Person) -> str:
        """The person's token, which the registry showed once."""
        return (self.folder(person) / "token").read_text().strip()

    def has_fresh_token(self, person: Person) -> bool:
        path = self.folder(person) / "token"
        return path.exists() and time.time() - path.stat().st_mtime < FRESH_SECONDS

    def client(self, person: Person) -> Countersign:
        """The public client with this person's token, to look at what is there."""
        return Countersign(self.url, self.token(person))

    def run(self, person: Person | None, *words: str, quiet: bool = False) -> Any:
        """Run one command as this person would type it, and return its JSON output.

        Without a person it is the administrator's. Raises Refusal when it exits other than with 0.
        """
        if not quiet:
            self.say(
                f"  {person.name if person else 'admin'} $ countersign "
                f"{shlex.join(_short(words, self.home))}"
            )
        environ = {
            name: value for name, value in os.environ.items() if not name.startswith("COUNTERSIGN_")
        }
        environ["COUNTERSIGN_URL"] = self.url
        environ["COUNTERSIGN_TOKEN"] = self.token(person) if person else self.urls["admin_token"]
        environ["COUNTERSIGN_CONFIG_DIR"] = str(
            self.folder(person) if person else self.home / "people" / "admin"
        )
        done = subprocess.run(
            [sys.executable, "-P", "-m", "registry", *words, "--json"],
            env=environ,
            text=True,
            capture_output=True,
            check=False,
        )
        if done.returncode:
            raise Refusal(done.returncode, _problem(done.stderr))
        return json.loads(done.stdout) if done.stdout.strip() else {}

    def save(self) -> None:
        """Write the result file, the source of every figure that the README quotes."""
        part = self.home / "result.part"
        part.write_text(json.dumps(self.result, indent=2, sort_keys=True) + "\n")
        part.replace(self.home / "result.json")

    def note(self, key: str, value: Any) -> None:
        """Record a figure in the result file."""
        self.result[key] = value
        self.save()

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Record a step's wall time, unless an earlier run has recorded it."""
        began = time.monotonic()
        yield
        times = self.result.setdefault("seconds", {})
        times.setdefault(step, round(time.monotonic() - began, 1))
        self.save()

    def wait(self, what: str, ready: Callable[[], Any], seconds: float = PATIENCE) -> Any:
        """Ask until `ready` returns something true, and return that.

        Raises Unavailable `demo-waited` after `seconds`.
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                if outcome := ready():
                    return outcome
            except Unavailable:
                pass
            if time.monotonic() > deadline:
                raise Unavailable(
                    "demo-waited",
                    f"Waited {seconds:.0f} s for {what}.",
                    f"See the logs under {self.registry_home}.",
                )
            time.sleep(0.2)


def _die_with_parent() -> None:
    """Make Linux end the registry when the demo is killed, so that the home is free again."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGTERM)


def _short(words: tuple[str, ...], home: Path) -> list[str]:
    """The words with short paths, as a reader would write them."""
    return [word.replace(str(home), "demo") for word in words]


def _problem(stderr: str) -> dict[str, Any]:
    for line in reversed(stderr.strip().splitlines()):
        try:
            problem = json.loads(line)
        except ValueError:
            continue
        if isinstance(problem, dict):
            return problem
    try:
        whole = json.loads(stderr)
        return whole if isinstance(whole, dict) else {"detail": stderr.strip()}
    except ValueError:
        return {"detail": stderr.strip()}


def open_stage() -> Stage:
    """The stage of this run, with the base, the folder and the port that the environment names.

    DEMO_BASE=tiny takes the small model. DEMO_HOME is the folder and DEMO_PORT the port. Raises
    Conflict `demo-home-taken`.
    """
    tiny = os.environ.get("DEMO_BASE", "") == "tiny"
    base = "tiny" if tiny else "smollm2-135m"
    home = Path(os.environ.get("DEMO_HOME") or f"var/demo{'-tiny' if tiny else ''}").absolute()
    home.mkdir(mode=0o755, parents=True, exist_ok=True)
    stage = Stage(home, tiny, int(os.environ.get("DEMO_PORT", "8080")))
    earlier = home / "result.json"
    if earlier.exists():
        stage.result = json.loads(earlier.read_text())
        if stage.result.get("base") != base:
            raise Conflict("demo-home-taken", f"{home} holds a demo on another base model.")
    else:
        stage.result = {"base": base, "began": datetime.now(UTC).isoformat()}
        stage.save()
    return stage
