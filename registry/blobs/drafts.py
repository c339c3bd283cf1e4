"""Drafts: a temporary file or object that becomes a published blob, or nothing.

A draft's bytes are durable before their name is. A file system may reorder the two, and a crash at
any step may leave an orphan, but never a digest with other bytes.
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
PART_BYTES = 8 << 20
"""Bytes of one part of a multipart upload; at most four parts wait in memory."""
FULL_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""Errors of the operating system that mean that no more bytes fit."""


class Draft(Protocol):
    """New bytes: written, then published under their digest, and in every case discarded."""

    def write(self, data: bytes) -> None:
        """Append the bytes."""

    def publish(self, digest: str, *, present: bool) -> None:
        """Make the bytes visible under their digest, unless they are `present` there already."""

    def discard(self) -> None:
        """Remove what was not published."""


class FileDraft:
    """A temporary file.

    One with a given path may be closed and opened again later, by one writer at a time.
    """

    def __init__(self, folder: Path, path: Path | None = None) -> None:
        """Open the draft; raises Conflict (`upload-busy`) if another writer has the path open."""
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
            # Another process may have published or removed the file after we opened it and before
            # we locked it. Then we have opened a blob, or a file without a name.
            if not _is_same(self._file, self._path):
                raise BlockingIOError
            self.opened = os.fstat(self._file)
            os.utime(self._path)  # the sweep spares recently used files
        except BlockingIOError:
            os.close(self._file)
            raise busy() from None
        except BaseException:
            os.close(self._file)
            raise

    def size(self) -> int:
        """Bytes written so far."""
        return os.fstat(self._file).st_size

    def identity(self, *, opened: bool = False) -> tuple[int, int, int]:
        """The file's inode, modification time and size: now, or when it was `opened`."""
        status = self.opened if opened else os.fstat(self._file)
        return status.st_ino, status.st_mtime_ns, status.st_size

    def hashed(self) -> hashlib._Hash:
        """A SHA-256 over all bytes written so far, read in constant memory."""
        hasher, start = hashlib.sha256(), 0
        while piece := os.pread(self._file, 1 << 20, start):
            hasher.update(piece)
            start += len(piece)
        return hasher

    def write(self, data: bytes) -> None:
        """Append all of it or nothing: what a full disk accepted of it is removed again."""
        before, remaining = self.size(), memoryview(data)
        try:
            while remaining:
                remaining = remaining[os.write(self._file, remaining) :]
        except OSError:
            os.ftruncate(self._file, before)
            raise

    def publish(self, digest: str, *, present: bool) -> None:
        """Move the file to its place under the digest, durably.

        When `present`, the place already has these bytes, and they only count as used now.
        """
        target = self._folder / place(digest)
        parents = [target.parent, target.parent.parent, target.parent.parent.parent]
        if not (present and touch(target)):
            self._sync()
            for folder in reversed(parents):
                make_private(folder)
            # The crash test counts the calls made through os.
            os.replace(self._path, target)  # noqa: PTH105
        # Sync the folders even if the bytes were there: the writer that put them may have crashed
        # before this step.
        for folder in parents:
            _sync_folder(folder)

    def keep(self) -> None:
        """Close the file so that it can be opened again, with durable bytes."""
        try:
            self._sync()
        finally:
            os.close(self._file)

    def _sync(self) -> None:
        try:
            os.fsync(self._file)
        except OSError:
            # The next fsync would succeed although these pages never reached the disk, so the bytes
            # cannot be trusted.
            self._unlink()
            raise

    def _unlink(self) -> None:
        if _is_same(self._file, self._path):
            os.unlink(self._path)  # noqa: PTH108 - as above

    def discard(self) -> None:
        """Remove the file and then close it: its path is ours only while it is locked."""
        try:
            self._unlink()
        finally:
            os.close(self._file)


class ObjectDraft:
    """A temporary object that the store itself copies to its place.

    Places are content-addressed, so a second copy changes nothing.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._path = f"{INCOMING}/{uuid4().hex}"
        with named():
            self._writer = obstore.open_writer(
                store, self._path, buffer_size=PART_BYTES, max_concurrency=4
            )

    def write(self, data: bytes) -> None:
        """Append the bytes."""
        self._writer.write(data)

    def publish(self, digest: str, *, present: bool) -> None:
        """Copy the object to its place under the digest, unless it is `present` there."""
        self._writer.close()
        if not present:
            self._store.copy(self._path, place(digest))

    def discard(self) -> None:
        """Remove the temporary object."""
        if not self._writer.closed():
            self._writer.close()
        self._store.delete(self._path)


def check(digest: str) -> str:
    """The digest itself; raises Invalid (`bad-digest`) unless it is 64 lower-case hex digits."""
    if not HEX.fullmatch(digest):
        raise Invalid(
            "bad-digest",
            f"'{digest[:80]}' is not a digest.",
            "Send the 64 lower-case hex digits of a SHA-256.",
        )
    return digest


def place(digest: str) -> str:
    """The path of published bytes, relative to the store's root.

    It is made of the digest alone, so names that clients choose never reach the file system.
    """
    check(digest)
    return f"{PUBLISHED}/{digest[:2]}/{digest[2:4]}/{digest}"


def agreed(received: str, expect: str | None) -> str:
    """The received digest; raises Unverified (`digest-mismatch`) when another one was expected."""
    if expect is not None and received != expect:
        raise Unverified(
            "digest-mismatch",
            f"The bytes that were sent have the digest {received}, not {expect}.",
            "The file changed or was damaged in transit. Hash it again and send it again.",
            expected=expect,
            found=received,
        )
    return received


def missing(digest: str) -> NotFound:
    """The error for a digest without bytes."""
    detail = f"There are no bytes with the digest {digest}."
    return NotFound("blob-unknown", detail, "Upload them first.", sha256=digest)


def busy() -> Conflict:
    """The error for an upload that another request is sending."""
    return Conflict("upload-busy", "Another request of this account is sending the same bytes.")


def make_private(folder: Path) -> None:
    """Make a folder and its missing parents, accessible to their owner alone."""
    for path in reversed((folder, *folder.parents)):
        if not path.is_dir():
            try:
                os.mkdir(path, 0o700)  # noqa: PTH102 - as above
            except FileExistsError:
                continue


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_same(descriptor: int, path: Path) -> bool:
    try:
        by_path, opened = os.stat(path), os.fstat(descriptor)  # noqa: PTH116 - as above
    except FileNotFoundError:
        return False
    return (by_path.st_dev, by_path.st_ino) == (opened.st_dev, opened.st_ino)


def touch(path: Path) -> bool:
    """Record that a file is used now, and return whether it exists."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        return path.is_file()  # nothing is swept where nothing can be written
    return True


@contextmanager
def named(digest: str = "") -> Iterator[None]:
    """Turn the errors of the storage into ours.

    A blob that disappeared is NotFound (`blob-unknown`); everything else is Unavailable
    (`blobs-full`, `blobs-unreachable`).
    """
    try:
        yield
    except RegistryError:
        raise
    except FileNotFoundError as error:
        if digest:
            raise missing(digest) from error
        raise _unavailable(error) from error
    except (BaseError, OSError) as error:
        raise _unavailable(error) from error


def _unavailable(error: Exception) -> Unavailable:
    if isinstance(error, OSError) and error.errno in FULL_ERRORS:
        return Unavailable("blobs-full", "The blob store is full. Nothing was published.")
    text = error.strerror if isinstance(error, OSError) else None
    reason = text or str(error).partition("\n")[0]
    return Unavailable("blobs-unreachable", f"The blob store cannot be used: {reason[:200]}.")
