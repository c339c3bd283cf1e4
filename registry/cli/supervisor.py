"""Keep the child processes and the embedded PostgreSQL running, and leave none behind.

A child that dies is started again, after a delay that grows with the number of its deaths. Each
child has its own session and process group, and the kernel signals it when the supervisor dies,
even by SIGKILL. A process that outlives both has the home in its environment; by that mark, the
next supervisor of the home finds and ends it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
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
GRACE_SECONDS = 15.0
"""Time for children to end by themselves: a trainer must write a save point."""
STEADY_SECONDS = 60.0
"""The delays of a child that ran for this long begin again with the shortest."""
DELAYS = (0.2, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds before a child is started again, by the number of its deaths."""
MAX_LOG_BYTES = 16 * 1024 * 1024
"""A log that is larger when its child starts is renamed to <name>.log.1, which it replaces."""

logger = logging.getLogger("registry.up")


@dataclass
class Child:
    """One program to keep running.

    `environ` is called at every start, so that the child gets a valid token. `listener` is a socket
    that the child inherits under its number.
    """

    name: str
    argv: list[str]
    environ: Callable[[], dict[str, str]]
    listener: socket.socket | None = None
    deaths: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _started: float = 0.0
    _due: float = 0.0

    def start(self, home: Path) -> None:
        """Start it, with its output in private/logs/<name>.log.

        Secrets are passed in the environment: other users can read the arguments of a process.
        """
        log = log_of(home, self.name)
        log.parent.mkdir(mode=0o700, exist_ok=True)
        if log.exists() and log.stat().st_size > MAX_LOG_BYTES:
            log.replace(log.with_name(log.name + ".1"))
        with log.open("ab") as output, undisturbed():
            self.process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self.environ() | {MARK: str(home)},
                start_new_session=True,
                pass_fds=[] if self.listener is None else [self.listener.fileno()],
                preexec_fn=die_with_parent(signal.SIGTERM),
            )
        self._started = time.monotonic()

    def tick(self, home: Path) -> None:
        """Notice a death, and start the child again when its delay is over."""
        if self.process is not None and self.process.poll() is not None:
            self.signal(signal.SIGKILL)  # to what is left of its process group
            seconds = time.monotonic() - self._started
            self.deaths = 1 if seconds > STEADY_SECONDS else self.deaths + 1
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
            except Exception as error:  # for example, no token while the database is away
                self.deaths += 1
                self._due = time.monotonic() + DELAYS[min(self.deaths, len(DELAYS)) - 1]
                logger.warning("%s cannot start: %s", self.name, error)

    def signal(self, number: int) -> None:
        """Send a signal to the whole process group of the child."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)


class Supervisor:
    """Keeps children running, from the main thread.

    The kernel ends each child together with the thread that started it.
    """

    def __init__(self, home: Path, cluster: Cluster | None) -> None:
        self.home = home
        self.cluster = cluster
        self.children: list[Child] = []
        self._cluster_due = 0.0

    def add(self, child: Child) -> Child:
        """Start a child, and keep it running from now on."""
        self.children.append(child)
        child.tick(self.home)
        return child

    def tick(self) -> None:
        """Start again what has died: PostgreSQL first, because the others need it."""
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
        """Tick until `until` returns true."""
        while not until():
            self.tick()
            time.sleep(TICK_SECONDS)

    def stop(self) -> None:
        """End all children, by force after GRACE_SECONDS, and then PostgreSQL."""
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
    """End what an earlier supervisor of this home left running; return the number of processes.

    Force is used after `grace` seconds. Call it under the lock of the home: the mark alone does not
    distinguish a stray from a child of another running supervisor.
    """
    pids = strays(home)
    _signal(pids, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while strays(home):
        if time.monotonic() > deadline:
            _signal(strays(home), signal.SIGKILL)
        time.sleep(0.02)
    return len(pids)


def strays(home: Path) -> list[int]:
    """Return the processes that have the mark of this home; none on systems without /proc."""
    mark = f"{MARK}={home}".encode()
    pids = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # it has ended, or belongs to another user
            if mark in entry.read_bytes().split(b"\0"):
                pids.append(int(entry.parent.name))
    return [pid for pid in pids if pid != os.getpid()]


def log_of(home: Path, name: str) -> Path:
    """Return the file for a child's output."""
    return home / "private" / "logs" / f"{name}.log"


def last_line(log: Path) -> str:
    """Return the last line that a child printed, which often says why it died."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 4096))
            lines = file.read().decode(errors="replace").split("\n")
    except FileNotFoundError:
        lines = []
    printed = [line.strip() for line in lines if line.strip()]
    return printed[-1] if printed else "it printed nothing"


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
