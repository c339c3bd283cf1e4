"""Keep processes running and leave none behind: children by command name, and the embedded
PostgreSQL.

A child that dies starts again, sooner the first time than the tenth. Each is a session and process
group of its own and is told by the kernel when the supervisor dies (SIGKILL included); whatever
outlives both carries the home in its environment, by which the next supervisor of that home finds
and ends it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from registry.errors import Unavailable
from registry.postgres.cluster import Cluster
from registry.postgres.directories import die_with_parent, undisturbed

MARK = "COUNTERSIGN_CHILD_OF"
TICK_SECONDS = 0.2
GRACE_SECONDS = 15.0  # for a trainer to end its training child and write a save point
STEADY_SECONDS = 60.0  # a child that lived this long starts over with the shortest delay
DELAYS = (0.2, 1.0, 2.0, 5.0, 10.0, 30.0)
LOG_LIMIT = 16 * 1024 * 1024

logger = logging.getLogger("registry.up")


@dataclass
class Child:
    """One program to keep running. `environ` is asked at every start, so that a child gets a fresh
    token.
    """

    name: str
    argv: list[str]
    environ: Callable[[], dict[str, str]]
    deaths: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _begun: float = 0.0
    _due: float = 0.0

    def start(self, home: Path) -> None:
        """Start it with its output in private/logs/<name>.log; the argv of a process is public, its
        environment not.
        """
        log = log_of(home, self.name)
        log.parent.mkdir(mode=0o700, exist_ok=True)
        if log.exists() and log.stat().st_size > LOG_LIMIT:
            log.replace(log.with_name(log.name + ".1"))
        with log.open("ab") as output, undisturbed():
            self.process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self.environ() | {MARK: str(home)},
                start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGTERM),
            )
        self._begun = time.monotonic()

    def tick(self, home: Path) -> None:
        """Note a death, and start it again when its delay is over."""
        if self.process is not None and self.process.poll() is not None:
            self.signal(signal.SIGKILL)  # what it left of its group
            lived = time.monotonic() - self._begun
            self.deaths = 1 if lived > STEADY_SECONDS else self.deaths + 1
            delay = DELAYS[min(self.deaths, len(DELAYS)) - 1]
            self._due = time.monotonic() + delay
            logger.warning(
                "%s ended with %s and starts again in %.1f s: %s",
                self.name,
                self.process.returncode,
                delay,
                last_line(log_of(home, self.name)),
            )
            self.process = None
        if self.process is None and time.monotonic() >= self._due:
            try:
                self.start(home)
            except (
                Exception
            ) as error:  # such as no token while the database is away: as good as a death
                self.deaths += 1
                self._due = time.monotonic() + DELAYS[min(self.deaths, len(DELAYS)) - 1]
                logger.warning("%s cannot start: %s", self.name, error)

    def signal(self, number: int) -> None:
        """Signal the whole group of the child."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)


class Supervisor:
    """Watches from the main thread, which every process started here is bound to."""

    def __init__(self, home: Path, cluster: Cluster | None) -> None:
        self.home = home
        self.cluster = cluster
        self.children: list[Child] = []
        self._cluster_due = 0.0

    def add(self, child: Child) -> Child:
        """Start a child and keep it running from now on."""
        self.children.append(child)
        child.tick(self.home)
        return child

    def tick(self) -> None:
        """Start again whatever died; PostgreSQL first, for the others need it."""
        if (
            self.cluster is not None
            and not self.cluster.alive()
            and time.monotonic() >= self._cluster_due
        ):
            logger.warning("PostgreSQL died; starting it again")
            try:
                self.cluster.start()
                logger.info("PostgreSQL is back")
            except Unavailable as error:
                self._cluster_due = time.monotonic() + 2.0
                logger.error("%s", error)
        for child in self.children:
            child.tick(self.home)

    def watch(self, until: Callable[[], bool]) -> None:
        """Tick until `until` is true."""
        while not until():
            self.tick()
            time.sleep(TICK_SECONDS)

    def stop(self) -> None:
        """End all children, by force after their grace, and then PostgreSQL."""
        for child in self.children:
            child.signal(signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        for child in self.children:
            if child.process is not None:
                try:
                    child.process.wait(max(0.0, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    logger.warning("%s does not end; killing it", child.name)
                child.signal(signal.SIGKILL)
                child.process.wait()
        self.children.clear()
        sweep(self.home, 0.0)
        if self.cluster is not None:
            self.cluster.stop()


def sweep(home: Path, grace: float) -> int:
    """End whatever an earlier supervisor of this home left running, by force after `grace` seconds;
    say how many.

    Call it under the lock of the home: the mark alone cannot tell a stray from a child of another
    supervisor.
    """
    found = strays(home)
    _signal(found, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while strays(home):
        if time.monotonic() > deadline:
            _signal(strays(home), signal.SIGKILL)
        time.sleep(0.02)
    return len(found)


def strays(home: Path) -> list[int]:
    """The processes that carry the mark of this home; none where there is no /proc."""
    mark = f"{MARK}={home}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # gone meanwhile, or another user's
            if mark in entry.read_bytes().split(b"\0"):
                found.append(int(entry.parent.name))
    return [pid for pid in found if pid != os.getpid()]


def log_of(home: Path, name: str) -> Path:
    """Where a child's output goes."""
    return home / "private" / "logs" / f"{name}.log"


def last_line(log: Path) -> str:
    """The last line a child said, to tell why it died."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 4096))
            lines = file.read().decode(errors="replace").split("\n")
    except FileNotFoundError:
        lines = []
    said = [line.strip() for line in lines if line.strip()]
    return said[-1] if said else "it said nothing"


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
