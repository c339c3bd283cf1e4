"""The home directory of `countersign up`: claimed by a marker, private where it must be.

Layout (0755)::

    .countersign        the marker: this directory is ours
    log.pub             the public key of the audit log
    private/  0700      keys, tokens, blobs, the passwords of the database roles
    postgres/ 0755      the embedded PostgreSQL (cluster.py)
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from registry.errors import Conflict

MARKER = ".countersign"


def claim(home: Path) -> None:
    """Make `home` a home of Countersign: it must be new, empty, or carry the marker already.

    Raises Conflict `home-not-ours` otherwise, so that a mistyped --home never mixes our files with
    somebody else's.
    """
    fix = "Choose another --home: a new directory, an empty one, or one made by countersign up."
    try:
        home.mkdir(parents=True, exist_ok=True)
        if home.stat().st_uid != os.geteuid():
            raise Conflict("home-not-ours", f"{home} belongs to another user.", fix)
        if not (home / MARKER).is_file():
            if any(home.iterdir()):
                raise Conflict(
                    "home-not-ours", f"{home} is not empty and was not made by Countersign.", fix
                )
            (home / MARKER).write_text("countersign-home/1\n")
        home.chmod(0o755)
        (home / "private").mkdir(mode=0o700, exist_ok=True)
        (home / "private").chmod(0o700)
    except OSError as error:
        raise Conflict("home-not-ours", f"{home} cannot be used: {error.strerror}.", fix) from error


class Lock:
    """An advisory lock on a file, released when its holder dies.

    With `wait=False` a lock that is taken raises Conflict `home-in-use`.
    """

    def __init__(self, path: Path, wait: bool = True) -> None:
        self.path = path
        self.wait = wait

    def __enter__(self) -> Lock:
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | (0 if self.wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            os.close(self._file)
            raise Conflict(
                "home-in-use", f"Another countersign up runs on {self.path.parent.parent}."
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)
