"""How an unfinished upload is stored: in a folder as a file, on an object store as parts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import ObjectStore

from registry.blobs.drafts import PART_BYTES, FileDraft, ObjectDraft, agreed, busy
from registry.blobs.store import Blobs, Stored

Identity = tuple[int, int, int]
"""Inode, modification time and size of a file."""
Known = tuple[Identity, "hashlib._Hash"]
"""The identity of a file when it was closed, and the hasher over all its bytes."""
Proven = Callable[[str], None] | None
"""Called with the digest before anything is published; it stops that by raising."""


class Upload(Protocol):
    """One upload during a request: it grows, and is published, dropped, or kept for later."""

    size: int

    def write(self, data: bytes) -> None:
        """Append the bytes."""

    def publish(self, blobs: Blobs, digest: str, proven: Proven) -> Stored:
        """Publish all bytes; raises Unverified (`digest-mismatch`) if they have another digest."""

    def keep(self) -> None:
        """Make the bytes durable, so that a later request can continue."""

    def drop(self) -> None:
        """Remove the bytes."""


class GrowingFile:
    """A file that grows.

    Its hasher is kept while the process lives; after a restart the file is read again.
    """

    def __init__(self, folder: Path, path: Path, known: Known | None) -> None:
        self._draft = FileDraft(folder, path)
        self.closed_as: Identity | None = None
        try:
            self.size = self._draft.size()
            self.hasher = (
                known[1]
                if known and known[0] == self._draft.identity(opened=True)
                else self._draft.hashed()
            )
        except BaseException:
            self._draft.keep()
            raise

    def write(self, data: bytes) -> None:
        """Append the bytes."""
        self._draft.write(data)
        self.hasher.update(data)
        self.size += len(data)

    def publish(self, blobs: Blobs, digest: str, proven: Proven) -> Stored:
        """Publish the file."""
        stored = Stored(agreed(self.hasher.hexdigest(), digest), self.size)
        if proven is not None:
            proven(digest)
        blobs.publish(self._draft, stored)
        with suppress(OSError):
            self._draft.discard()
        return stored

    def keep(self) -> None:
        """Close the file with durable bytes, and record its identity."""
        identity = self._draft.identity()
        self._draft.keep()
        self.closed_as = identity

    def drop(self) -> None:
        """Remove the file."""
        self._draft.discard()


class Parts:
    """A sequence of objects that are named by their offset.

    Each one is complete or absent, and only the first writer can make it.
    """

    def __init__(self, store: ObjectStore, path: str) -> None:
        self._store, self._path = store, path
        listed = self._listed()
        self._parts = list(_contiguous(listed))
        # An interrupted sweep may leave parts behind a gap.
        for start, _ in set(listed) - set(self._parts):
            self._store.delete(f"{path}/{start:020d}")
        self._written = contiguous_size(self._parts)
        self._pending: list[bytes] = []
        self.size = self._written

    def _listed(self) -> list[tuple[int, int]]:
        return [
            (int(entry["path"].rpartition("/")[2]), entry["size"])
            for batch in self._store.list(self._path)
            for entry in batch
        ]

    def write(self, data: bytes) -> None:
        """Collect the bytes, and store them as a part once they are large enough."""
        self._pending.append(data)
        self.size += len(data)
        if self.size - self._written >= PART_BYTES:
            self._flush()

    def _flush(self) -> None:
        data, self._pending = b"".join(self._pending), []
        self.size = self._written
        if data:
            try:
                self._store.put(
                    f"{self._path}/{self._written:020d}", data, mode="create", use_multipart=False
                )
            except AlreadyExistsError:
                # Another registry on the same store was faster, and its bytes count.
                raise busy() from None
            self._parts.append((self._written, len(data)))
            self._written += len(data)
            self.size = self._written

    def publish(self, blobs: Blobs, digest: str, proven: Proven) -> Stored:
        """Join the parts and publish them.

        They are hashed as they are read back, so the published bytes are those that the store has.
        """
        self._flush()
        hasher, draft = hashlib.sha256(), ObjectDraft(self._store)
        try:
            for start, _ in _contiguous(self._parts):
                for piece in self._store.get(f"{self._path}/{start:020d}").stream(
                    min_chunk_size=1 << 20
                ):
                    hasher.update(piece)
                    draft.write(bytes(piece))
            stored = Stored(agreed(hasher.hexdigest(), digest), self._written)
            if proven is not None:
                proven(digest)
            blobs.publish(draft, stored)
        finally:
            with suppress(BaseError, OSError):
                draft.discard()
        with suppress(BaseError, OSError):
            self.drop()  # the sweep removes what cannot be removed here
        return stored

    def keep(self) -> None:
        """Store the collected bytes as a part."""
        self._flush()

    def drop(self) -> None:
        """Remove the parts."""
        self._pending = []
        # Remove the last part first: an interruption then leaves a shorter upload, not one with a
        # gap.
        for start, _ in sorted(self._parts, reverse=True):
            with suppress(FileNotFoundError):
                self._store.delete(f"{self._path}/{start:020d}")


def _contiguous(parts: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The parts from offset 0 on that follow each other without a gap, as (offset, size)."""
    reached = 0
    for start, size in sorted(parts):
        if start != reached:
            return
        yield start, size
        reached += size


def contiguous_size(parts: list[tuple[int, int]]) -> int:
    """The bytes from offset 0 up to the first gap; `parts` are (offset, size)."""
    return sum(size for _, size in _contiguous(parts))
