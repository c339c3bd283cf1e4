"""The real API as a process of its own, to be killed and started again on the same port, home and
database.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.checkout import repository
from tests.gateway.served import until
from tests.ports import free_port


class Server:
    """`python -m registry api`; `start` and `kill` may be called in turn."""

    def __init__(self, home: Path, database: str, environ: Mapping[str, str] | None = None) -> None:
        self.port = free_port()
        self.home, self.url = home, f"http://127.0.0.1:{self.port}"
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith("COUNTERSIGN_")
        }
        self._environ = {
            **kept,
            "COUNTERSIGN_HOME": str(home),
            "COUNTERSIGN_DATABASE_URL": database,
            "COUNTERSIGN_PORT": str(self.port),
            **(environ or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.home / "api.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "registry", "api"],
                cwd=repository(),
                env=self._environ,
                stdout=log,
                stderr=log,
            )
        until(self.answers, "the API answers")

    def answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/healthz", trust_env=False).is_success
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def fill(self, largest: int = resource.RLIM_INFINITY) -> None:
        """No file of its may grow past `largest` bytes from now on: how a disk runs full for one
        process.
        """
        assert self._process is not None
        resource.prlimit(
            self._process.pid, resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY)
        )

    def peak(self) -> float:
        """The most memory it ever held, in MB."""
        assert self._process is not None
        text = Path(f"/proc/{self._process.pid}/status").read_text()
        return (
            next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmHWM"))
            / 1024
        )


@contextmanager
def serving(
    home: Path, database: str, environ: Mapping[str, str] | None = None
) -> Iterator[Server]:
    server = Server(home, database, environ)
    try:
        server.start()
        yield server
    finally:
        server.kill()
