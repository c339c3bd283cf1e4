"""A process that dies at every step of storing bytes, one after the other: `python -m tests.crashes
URL WHAT WHEN`.

It forks for each step, before anything has started a thread: the child's n-th change to the store
is its last, killed just before or just after it. Another child then looks at what is left, and goes
on from there.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID

import obstore

from registry.blobs import drafts, unfinished, uploads
from registry.blobs import store as blobs

DATA = b"a" * 300_000 + b"b" * 300_000
PIECE = unfinished.PART_BYTES = 256 << 10  # so that this is several parts of an object store
DIGEST = hashlib.sha256(DATA).hexdigest()
ACCOUNT = str(UUID(int=7))
CUTS = (0, 70_000, 400_000, len(DATA))
CHANGES = {
    "open",
    "mkdir",
    "write",
    "ftruncate",
    "fsync",
    "replace",
    "unlink",
    "utime",  # of the os module
    "put",
    "copy",
    "delete",
    "list",
    "head",
    "get",
    "close",
    "open_writer",  # of an object store and its writers
}


class Fatal:
    """Something whose calls are counted over all of them together; the last one that is left
    kills.
    """

    left, after, reached = 0, False, 0

    def __init__(self, real: Any) -> None:
        self.real = real

    def __getattr__(self, name: str) -> Any:
        real = getattr(self.real, name)
        if name not in CHANGES:
            return real

        def call(*given: Any, **named: Any) -> Any:
            Fatal.left -= 1
            if Fatal.left == 0 and not Fatal.after:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                answer = real(
                    *(one.real if isinstance(one, Fatal) else one for one in given), **named
                )
            finally:
                if Fatal.left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return Fatal(answer) if name == "open_writer" else answer

        return call


def put(store: blobs.Blobs) -> None:
    """A whole PUT."""
    store.put([DATA[:PIECE], DATA[PIECE:]], expect=DIGEST)


def upload(store: blobs.Blobs) -> None:
    """An upload in three requests, going on wherever it stands; published unless it was before."""
    if store.has(DIGEST):
        return
    sender = uploads.Uploads(store, 1 << 30)
    try:
        start = sender.offset(ACCOUNT, DIGEST)
    except drafts.NotFound:
        start = 0
    ends = [cut for cut in CUTS[1:] if cut > start] or [start]
    for end in ends:
        with sender.sending(ACCOUNT, DIGEST, start, 1 << 30) as sending:
            for at in range(start, end, PIECE):
                sending.write(DATA[at : min(at + (PIECE), end)])
            if end == len(DATA):
                sending.finish()
        start = end


def alone(work: Callable[[], None]) -> int:
    """Do it in a fork; the status it ended with."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stderr.flush()
            os._exit(status)
    return os.waitpid(child, 0)[1]


def main(url: str, what: str, when: str) -> None:
    way = {"put": put, "upload": upload}[what]

    def dying(step: int) -> None:
        store = blobs.Blobs(url)
        Fatal.left, Fatal.after = step, when == "after"
        if store.folder is None:
            store._store = Fatal(store._store)
            writers = ModuleType("obstore")
            writers.open_writer = Fatal(obstore).open_writer
            drafts.obstore = writers
        else:
            drafts.os = Fatal(os)
        way(store)

    def looking() -> None:
        store = blobs.Blobs(url)
        assert not store.has(DIGEST) or store.verify(DIGEST), "something half is visible"
        upload(store)
        assert store.verify(DIGEST)
        store.sweep(lambda _: False, timedelta(seconds=-60))
        left = (
            [path for path in Path(url).rglob("*") if path.is_file()]
            if store.folder
            else list(store.store.list())
        )
        assert not any(left), left

    for step in range(1, 400):
        status = alone(lambda step=step: dying(step))
        assert alone(looking) == 0, f"after step {step}"
        if status == 0:
            print(step - 1)
            return
        assert os.WTERMSIG(status) == signal.SIGKILL
    raise AssertionError("the child never came to its end")


if __name__ == "__main__":
    main(*sys.argv[1:])
