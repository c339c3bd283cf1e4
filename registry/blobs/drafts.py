"""Bytes on their way in: a temporary file or object that becomes a published blob, or nothing.

A draft's bytes are durable before their name is: a file system may reorder the two, and a crash at
any step may leave an orphan, but never a digest over other bytes.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol
from uuid import uuid4

import obstore
from obstore.exceptions import BaseError
from obstore.store import ObjectStore

from registry.errors import Conflict, Invalid, NotFound, RegistryError, Unavailable, Unverified

PUBLISHED, INCOMING = "sha256", "incoming"
HEX = re.compile(r"[0-9a-f]{64}")
PART = 8 << 20
"""Bytes of one part of a multipart upload; at most four wait in memory."""
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Draft(Protocol):
    """Bytes on their way in: written, then published under their digest, and in any case discarded
    at the end.
    """

    def write(self, data: bytes) -> None: ...

    def publish(self, digest: str, *, present: bool) -> None: ...

    def discard(self) -> None: ...


class FileDraft:
    """A temporary file; one that is given its path may be closed and opened again later, by one
    writer at a time.
    """

    def __init__(self, folder: Path, path: Path | None = None) -> None:
        """Open the draft; Conflict (`upload-busy`) while another has the same path open."""
        self._folder = folder
        self._path = path or folder / INCOMING / uuid4().hex
        with named():
            if path is not None:
                make_private(path.parent)
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | (os.O_EXCL if path is None else 0)
            self._file = os.open(self._path, flags, 0o600)
            if path is not None:
                self._claim()

    def _claim(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Somebody may have published or removed the file between our opening it and our lock on
            # it: what we hold would then be a blob, or nothing.
            if not _same(self._file, self._path):
                raise BlockingIOError
            self.found = os.fstat(self._file)
            os.utime(self._path)  # the sweep spares what was used just now
        except BlockingIOError:
            os.close(self._file)
            raise busy() from None
        except BaseException:
            os.close(self._file)
            raise

    def size(self) -> int:
        """Bytes written so far."""
        return os.fstat(self._file).st_size

    def identity(self, *, found: bool = False) -> tuple[int, int, int]:
        """Which file this is and when it was last written; as it was `found`, or as it is now."""
        there = self.found if found else os.fstat(self._file)
        return there.st_ino, there.st_mtime_ns, there.st_size

    def hashed(self) -> hashlib._Hash:
        """A SHA-256 over all bytes written so far, read again in constant memory."""
        hasher, start = hashlib.sha256(), 0
        while piece := os.pread(self._file, 1 << 20, start):
            hasher.update(piece)
            start += len(piece)
        return hasher

    def write(self, data: bytes) -> None:
        """Append all of it, or none: what a full disk took of it is cut off again."""
        before, left = self.size(), memoryview(data)
        try:
            while left:
                left = left[os.write(self._file, left) :]
        except OSError:
            os.ftruncate(self._file, before)
            raise

    def publish(self, digest: str, *, present: bool) -> None:
        target = self._folder / place(digest)
        above = [target.parent, target.parent.parent, target.parent.parent.parent]
        if not (present and touch(target)):
            self._sync()
            for folder in reversed(above):
                make_private(folder)
            os.replace(self._path, target)  # noqa: PTH105 - the crash test counts the calls made through os
        # Also when the bytes were there: whoever put them may not have come as far as this.
        for folder in above:
            _sync_folder(folder)

    def keep(self) -> None:
        """Close it so that it can be opened again, its bytes durable."""
        try:
            self._sync()
        finally:
            os.close(self._file)

    def _sync(self) -> None:
        try:
            os.fsync(self._file)
        except OSError:
            # The next fsync would succeed, over pages that never reached the disk: these bytes are
            # not to be trusted.
            self._unlink()
            raise

    def _unlink(self) -> None:
        if _same(self._file, self._path):
            os.unlink(self._path)  # noqa: PTH108 - as above

    def discard(self) -> None:
        """Remove the file and close it, in this order: while it is locked, its path is ours."""
        try:
            self._unlink()
        finally:
            os.close(self._file)


class ObjectDraft:
    """A temporary object, copied to its place inside the store; content-addressed, so a second copy
    changes nothing.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._path = f"{INCOMING}/{uuid4().hex}"
        with named():
            self._writer = obstore.open_writer(
                store, self._path, buffer_size=PART, max_concurrency=4
            )

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    def publish(self, digest: str, *, present: bool) -> None:
        self._writer.close()
        if not present:
            self._store.copy(self._path, place(digest))

    def discard(self) -> None:
        if not self._writer.closed():
            self._writer.close()
        self._store.delete(self._path)


def check(digest: str) -> str:
    """The digest itself, 64 lower-case hex digits; Invalid (`bad-digest`) otherwise."""
    if not HEX.fullmatch(digest):
        raise Invalid(
            "bad-digest",
            f"'{digest[:80]}' is no digest.",
            "Send 64 lower-case hex digits of a SHA-256.",
        )
    return digest


def place(digest: str) -> str:
    """Where published bytes lie, below the store's root: names that senders choose never touch the
    file system.
    """
    check(digest)
    return f"{PUBLISHED}/{digest[:2]}/{digest[2:4]}/{digest}"


def agreed(found: str, expect: str | None) -> str:
    """The digest found, unless another one was named: Unverified (`digest-mismatch`)."""
    if expect is not None and found != expect:
        raise Unverified(
            "digest-mismatch",
            f"The bytes sent have the digest {found}, not {expect}.",
            "The file changed or was damaged on its way: hash it again and send it again.",
            expected=expect,
            found=found,
        )
    return found


def missing(digest: str) -> NotFound:
    detail = f"There are no bytes with the digest {digest}."
    return NotFound("blob-unknown", detail, "Upload them first.", sha256=digest)


def busy() -> Conflict:
    return Conflict(
        "upload-busy",
        "Another request of this account is sending these very bytes.",
    )


def make_private(folder: Path) -> None:
    """Make a folder and what is missing above it, for its owner alone."""
    for one in reversed((folder, *folder.parents)):
        if not one.is_dir():
            try:
                os.mkdir(one, 0o700)  # noqa: PTH102 - as above
            except FileExistsError:
                continue


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _same(descriptor: int, path: Path) -> bool:
    try:
        there, held = os.stat(path), os.fstat(descriptor)  # noqa: PTH116 - as above
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino)


def touch(path: Path) -> bool:
    """Note that a file was used just now; is it there at all?"""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        return path.is_file()  # where nothing can be written nothing can be swept either
    return True


@contextmanager
def named(digest: str = "") -> Iterator[None]:
    """Give the storage's own errors our names: a blob gone in between is NotFound, all else
    Unavailable.
    """
    try:
        yield
    except RegistryError:
        raise
    except FileNotFoundError as error:
        if digest:
            raise missing(digest) from error
        raise _away(error) from error
    except (BaseError, OSError) as error:
        raise _away(error) from error


def _away(error: Exception) -> Unavailable:
    if isinstance(error, OSError) and error.errno in FULL:
        return Unavailable(
            "blobs-full",
            "The blob store is full; nothing of this became visible.",
        )
    reason = (
        error.strerror
        if isinstance(error, OSError) and error.strerror
        else str(error).partition("\n")[0]
    )
    return Unavailable(
        "blobs-unreachable",
        f"The blob store cannot be used: {reason[:200]}.",
    )
