"""The demo's stage: where it keeps things, the registry it runs against, its people, and how it
speaks.
"""

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

FRESH_SECONDS = 11 * 3600  # promoting asks for a sign-in of the last twelve hours
PATIENCE = 180.0
EXTRAS = ("trainer", "mlflow", "engine", "gateway")
"""What runs beside the registry."""


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
    """The command line said no: its exit status and the problem it printed."""

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
        """DEMO_EXIT=1: nothing is left serving."""
        return os.environ.get("DEMO_EXIT") == "1"

    @property
    def registry_home(self) -> Path:
        return self.home / "registry"

    @property
    def url(self) -> str:
        return self.urls["url"]

    def say(self, text: str) -> None:
        """One line to the reader, which the transcript of the current step keeps too."""
        print(text, file=self.out, flush=True)
        self._lines.append(text.strip())

    @contextmanager
    def recorded(self, step: str) -> Iterator[None]:
        """Keep the lines a step prints as its transcript in the result; a step that ended before
        keeps the lines of that time, as `timed` keeps its seconds.
        """
        self._lines = []
        yield
        self.result.setdefault("transcript", {}).setdefault(step, self._lines)
        self._lines = []
        self.save()

    def start(self) -> None:
        """Start the registry with everything beside it, as a user would; `await_ready` says when it
        answers.
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
            [sys.executable, "-m", "registry", *command],
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
        """Seconds from the start until it answered; Unavailable with its own last words when it
        never does.
        """
        assert self.server is not None
        self._reader.join()
        patience = time.monotonic() + 60
        while not self._first_line:
            self.server.wait(timeout=30)
            said = (self.home / "registry.log").read_text().strip().splitlines()
            if said and "home-in-use" in said[-1] and time.monotonic() < patience:
                # A demo that was killed a moment ago is still putting its registry away.
                time.sleep(1.0)
                self.start()
                self._reader.join()
                continue
            raise Unavailable(
                "registry-not-started",
                said[-1] if said else "The registry did not start.",
                f"See {self.home / 'registry.log'}.",
            )
        self.urls = {key: value for key, value in json.loads(self._first_line).items() if value}
        return self._seconds

    def stop(self) -> None:
        """Stop the registry and all it started."""
        if self.server is not None and self.server.poll() is None:
            self.server.send_signal(signal.SIGTERM)
            try:
                self.server.wait(timeout=40)
            except subprocess.TimeoutExpired:
                self.server.kill()
                self.server.wait()
        self.server = None

    def folder(self, person: Person) -> Path:
        """A person's own configuration: his token, and his key if he signs."""
        place = self.home / "people" / person.name
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        return place

    def token(self, person: Person) -> str:
        """The person's token, which he was handed once."""
        return (self.folder(person) / "token").read_text().strip()

    def has_fresh_token(self, person: Person) -> bool:
        path = self.folder(person) / "token"
        return path.exists() and time.time() - path.stat().st_mtime < FRESH_SECONDS

    def client(self, person: Person) -> Countersign:
        """The public client as this person, for looking."""
        return Countersign(self.url, self.token(person))

    def run(self, person: Person | None, *words: str, quiet: bool = False) -> Any:
        """One command as this person would type it; its JSON answer. Refusal when it exits
        otherwise than 0.
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
            [sys.executable, "-m", "registry", *words, "--json"],
            env=environ,
            text=True,
            capture_output=True,
            check=False,
        )
        if done.returncode:
            raise Refusal(done.returncode, _problem(done.stderr))
        return json.loads(done.stdout) if done.stdout.strip() else {}

    def save(self) -> None:
        """Write the result file: every figure the README quotes comes from here."""
        part = self.home / "result.part"
        part.write_text(json.dumps(self.result, indent=2, sort_keys=True) + "\n")
        part.replace(self.home / "result.json")

    def note(self, key: str, value: Any) -> None:
        """Keep a measured figure."""
        self.result[key] = value
        self.save()

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Measure a step's wall time; a step found done keeps the time it took when it was done."""
        began = time.monotonic()
        yield
        times = self.result.setdefault("seconds", {})
        times.setdefault(step, round(time.monotonic() - began, 1))
        self.save()

    def wait(self, what: str, ready: Callable[[], Any], seconds: float = PATIENCE) -> Any:
        """Ask until it is so; Unavailable in words when it never is."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                if found := ready():
                    return found
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
    """Ask Linux to end the registry when the demo is killed, so that the next run finds the home
    free.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGTERM)


def _short(words: tuple[str, ...], home: Path) -> list[str]:
    """Paths as a reader would write them."""
    return [word.replace(str(home), "demo") for word in words]


def _problem(stderr: str) -> dict[str, Any]:
    for line in reversed(stderr.strip().splitlines()):
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            return found
    try:
        whole = json.loads(stderr)
        return whole if isinstance(whole, dict) else {"detail": stderr.strip()}
    except ValueError:
        return {"detail": stderr.strip()}


def open_stage() -> Stage:
    """The stage of this run: DEMO_BASE=tiny takes the small model, DEMO_HOME another place,
    DEMO_PORT another port.
    """
    tiny = os.environ.get("DEMO_BASE", "") == "tiny"
    home = Path(os.environ.get("DEMO_HOME") or f"var/demo{'-tiny' if tiny else ''}").absolute()
    home.mkdir(mode=0o755, parents=True, exist_ok=True)
    stage = Stage(home, tiny, int(os.environ.get("DEMO_PORT", "8080")))
    kept = home / "result.json"
    if kept.exists():
        stage.result = json.loads(kept.read_text())
        if stage.result.get("base") != ("tiny" if tiny else "smollm2-135m"):
            raise Conflict(
                "demo-home-taken",
                f"{home} holds a demo on another base model.",
            )
    else:
        stage.result = {
            "base": "tiny" if tiny else "smollm2-135m",
            "began": datetime.now(UTC).isoformat(),
        }
        stage.save()
    return stage
