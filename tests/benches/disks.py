"""Disks that fail, for real: a file system that is full or read-only, and an fsync that says EIO.
Root and strace only.

Not timed and not in the suite, for it needs rights that a suite should not have; each line says
what held.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from registry.blobs.store import Blobs
from registry.blobs.uploads import Uploads
from registry.errors import Unavailable
from tests.checkout import repository
from tests.crashes import ACCOUNT, DATA, DIGEST

MB = 1 << 20
EIO = """
import sys
from registry.errors import Unavailable
from tests.crashes import ACCOUNT, DIGEST, put, upload
from registry.blobs import Blobs
from registry.blobs.uploads import Uploads
store = Blobs(sys.argv[1])
try:
    {"put": put, "upload": upload}[sys.argv[2]](store)
except Unavailable as error:
    print(error.kind)
"""


@contextmanager
def mounted(megabytes: int) -> Iterator[Path]:
    """A file system of so many megabytes."""
    with tempfile.TemporaryDirectory(prefix="cs") as place:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", place], check=True
        )
        try:
            yield Path(place)
        finally:
            subprocess.run(["umount", "-l", place], check=True)


def full() -> None:
    """ENOSPC at every megabyte: named, nothing visible, what came is kept, and there is room again
    by giving it up.
    """
    data = os.urandom(MB) * 6
    for megabytes in range(1, 6):
        with mounted(megabytes) as place:
            store = Blobs(place)
            with pytest.raises(Unavailable, match="is full"):
                store.put([data[at : at + MB] for at in range(0, len(data), MB)])
            sender = Uploads(store, 1 << 30)
            with (
                pytest.raises(Unavailable, match="is full"),
                sender.sending(ACCOUNT, DIGEST, 0, 1 << 30) as sending,
            ):
                for at in range(0, len(data), MB):
                    sending.write(data[at : at + MB])
            files = [path for path in place.rglob("*") if path.is_file()]
            assert [path.parent.name for path in files] == [ACCOUNT], files
            assert files[0].stat().st_size == sender.offset(ACCOUNT, DIGEST) >= (megabytes - 1) * MB
            sender.discard(ACCOUNT, DIGEST)
            assert store.put([b"small"]).size == 5
    print(f"{'a full disk, of 1 to 5 MB':<44}blobs-full, nothing visible, offset kept")


def read_only() -> None:
    """EROFS: bytes are still given out and found, none are taken."""
    with mounted(8) as place:
        store = Blobs(place)
        stored = store.put([DATA])
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        assert store.has(stored.sha256)
        assert store.verify(stored.sha256)
        with pytest.raises(Unavailable, match="Read-only file system"):
            store.put([b"other"])
        with (
            pytest.raises(Unavailable),
            Uploads(store, 1 << 30).sending(ACCOUNT, DIGEST, 0, 1 << 30),
        ):
            pass
    print(f"{'a read-only disk':<44}blobs-unreachable, reading goes on")


def unsynced() -> None:
    """EIO from the n-th fsync, injected by strace into the real process: never a digest over bytes
    that may be lost.
    """
    for what in ("put", "upload"):
        for number in range(1, 9):
            with tempfile.TemporaryDirectory(prefix="cs") as place:
                inject = f"inject=fsync:error=EIO:when={number}"
                words = [
                    "strace",
                    "-f",
                    "-qqq",
                    "-o",
                    "/dev/null",
                    "-e",
                    "trace=fsync",
                    "-e",
                    inject,
                ]
                done = subprocess.run(
                    [*words, sys.executable, "-c", EIO, place, what],
                    cwd=repository(),
                    capture_output=True,
                    text=True,
                )
                assert done.returncode == 0, done.stderr
                assert done.stdout in ("", "blobs-unreachable\n"), done.stdout
                store = Blobs(place)
                assert not store.has(DIGEST) or store.verify(DIGEST)
                incoming = [path for path in Path(place, "incoming").rglob("*") if path.is_file()]
                assert done.stdout == "" or store.has(DIGEST) or not incoming, (
                    "bytes are kept whose fsync has failed"
                )
                if done.stdout == "":
                    assert store.verify(DIGEST)
                    break
        else:
            raise AssertionError("there is always another fsync")
        print(
            f"{f'EIO from each fsync of {what}':<44}blobs-unreachable at each of {number - 1}, "
            "nothing of it kept"
        )


def run() -> None:
    """All of them, or a line that says why not."""
    if os.geteuid() != 0 or shutil.which("strace") is None:
        print("disks that fail: not run, for it takes root and strace")
        return
    full()
    read_only()
    unsynced()


if __name__ == "__main__":
    run()
