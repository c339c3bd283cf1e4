"""Content-addressed bytes in a local folder, in memory, or in S3, GCS or Azure, chosen by URL.

Bytes come before rows. They are hashed while they stream into a temporary object, made durable, and
only then published under `sha256/ab/cd/<hex>`. A crash at any step leaves at most an orphan, which
`sweep` removes; everything visible under a digest is complete. Memory is constant, whatever the
size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import (
    AzureStore,
    GCSStore,
    LocalStore,
    MemoryStore,
    ObjectStore,
    S3Store,
    from_url,
)

from registry.blobs.drafts import (
    HEX,
    INCOMING,
    PUBLISHED,
    Draft,
    FileDraft,
    ObjectDraft,
    agreed,
    check,
    make_private,
    missing,
    named,
    place,
    touch,
)
from registry.errors import Invalid, TooLarge

CLOUDS = {"s3", "s3a", "gs", "az", "azure", "adl", "abfs", "abfss"}
CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Stored:
    """What was stored: the hex SHA-256 of the bytes, and their number."""

    sha256: str
    size: int


class Incoming:
    """New bytes, hashed while they arrive.

    `finish` publishes them; any other end of the context removes them.
    """

    def __init__(self, blobs: Blobs, draft: Draft, expect: str | None, limit: int | None) -> None:
        self._blobs, self._draft, self._expect, self._limit = blobs, draft, expect, limit
        self._hasher, self._size = hashlib.sha256(), 0

    def __enter__(self) -> Incoming:
        return self

    def __exit__(self, *_: object) -> None:
        # The bytes are published or refused by now. The sweep removes a temporary object that
        # cannot be removed here.
        with suppress(BaseError, OSError):
            self._draft.discard()

    def write(self, data: bytes) -> None:
        """Take the next bytes; raises TooLarge (`body-too-large`) past the limit."""
        self._size = within(self._size + len(data), self._limit)
        self._hasher.update(data)
        with named():
            self._draft.write(data)

    def finish(self, proven: Callable[[str], None] | None = None) -> Stored:
        """Publish the bytes.

        `proven` is called with the digest before anything is published, and stops that by raising.
        Raises Unverified (`digest-mismatch`) when the bytes are not those that were expected.
        """
        stored = Stored(agreed(self._hasher.hexdigest(), self._expect), self._size)
        if proven is not None:
            proven(stored.sha256)
        self._blobs.publish(self._draft, stored)
        return stored


class Blobs:
    """The blob store at a URL: `file:///...` or a path, `memory:///`, `s3://`, `gs://`, `az://`."""

    def __init__(self, url: str | Path) -> None:
        """Open the store; a local folder is made, private to its owner.

        Raises Invalid (`bad-blob-url`) for a URL that cannot be used.
        """
        self._folder = _local_folder(url)
        self._store: ObjectStore
        with named():
            if self._folder is None:
                self._store = _object_store(str(url))
            else:
                for folder in (self._folder, self._folder / PUBLISHED, self._folder / INCOMING):
                    make_private(folder)
                self._store = LocalStore(self._folder)

    @property
    def folder(self) -> Path | None:
        """The folder of the store; None for an object store."""
        return self._folder

    @property
    def store(self) -> ObjectStore:
        """The object store itself, which holds unfinished uploads too."""
        return self._store

    def put(
        self, chunks: Iterable[bytes], expect: str | None = None, limit: int | None = None
    ) -> Stored:
        """Store the bytes; nothing becomes visible unless all of them are right.

        `expect` is the hex digest they must have (else Unverified `digest-mismatch`). `limit` is
        the maximum number of bytes (else TooLarge `body-too-large`). Bytes that are already there
        are not written again.
        """
        with self.incoming(expect, limit) as incoming:
            for chunk in chunks:
                incoming.write(chunk)
            return incoming.finish()

    def incoming(self, expect: str | None = None, limit: int | None = None) -> Incoming:
        """As `put`, for bytes that arrive piece by piece.

        It is a context that leaves nothing behind unless `finish` is called.
        """
        if expect is not None:
            check(expect)
        draft: Draft = ObjectDraft(self._store) if self._folder is None else FileDraft(self._folder)
        return Incoming(self, draft, expect, limit)

    def publish(self, draft: Draft, stored: Stored) -> None:
        """Publish a draft under its digest; the caller has hashed every byte of it."""
        with named():
            # A wrong size can only come from damage to the disk. These bytes repair it.
            draft.publish(stored.sha256, present=self._find(stored.sha256) == stored.size)

    @property
    def notes_use(self) -> bool:
        """Whether `has` records that bytes were asked for.

        A local folder records it; an object store cannot.
        """
        return self._folder is not None

    def has(self, digest: str) -> bool:
        """Whether the store has these bytes.

        In a local folder they count as used now, because a row may be about to name them.
        """
        with named():
            if self._folder is None:
                return self._find(digest) is not None
            return touch(self._folder / place(digest))

    def size(self, digest: str) -> int:
        """The number of bytes; raises NotFound (`blob-unknown`)."""
        with named():
            size = self._find(digest)
        if size is None:
            raise missing(digest)
        return size

    def read(self, digest: str, start: int, length: int) -> bytes:
        """At most `length` bytes from `start`: fewer only at the end, none past it.

        Raises NotFound (`blob-unknown`).
        """
        return b"".join(self.stream(digest, start, start + length, max(length, CHUNK)))

    def stream(
        self, digest: str, start: int = 0, end: int | None = None, chunk: int = CHUNK
    ) -> Iterator[bytes]:
        """The bytes from `start` to `end`, in pieces of about `chunk` bytes.

        Raises NotFound (`blob-unknown`) from this call itself, not at the first piece, so that a
        caller has not sent a header yet.
        """
        size = self.size(digest)
        end = size if end is None else min(end, size)
        if start < 0:
            raise Invalid("bad-range", f"A range cannot start at {start}.")
        return self._pieces(digest, start, end, chunk) if start < end else iter(())

    def _pieces(self, digest: str, start: int, end: int, chunk: int) -> Iterator[bytes]:
        if self._folder is not None:
            # Read the file directly: through the layers of the object store the same bytes took
            # nine times as long.
            with named(digest), (self._folder / place(digest)).open("rb", buffering=0) as file:
                file.seek(start)
                while start < end and (piece := file.read(min(chunk, end - start))):
                    start += len(piece)
                    yield piece
            return
        with named(digest):
            response = self._store.get(place(digest), options={"range": (start, end)})
            for piece in response.stream(min_chunk_size=chunk):
                yield bytes(piece)

    def presign(self, digest: str, seconds: int) -> str | None:
        """A temporary URL at which an object store serves these bytes; None for other stores.

        It is signed here with the credentials, without a request to the store.
        """
        if not isinstance(self._store, S3Store | GCSStore | AzureStore):
            return None
        with named(digest):
            return obstore.sign(self._store, "GET", place(digest), timedelta(seconds=seconds))

    def verify(self, digest: str) -> bool:
        """Whether the stored bytes still have their digest; all of them are read.

        Raises NotFound (`blob-unknown`).
        """
        hasher = hashlib.sha256()
        for piece in self.stream(digest):
            hasher.update(piece)
        return hasher.hexdigest() == digest

    def sweep(self, referenced: Callable[[str], bool], older_than: timedelta) -> int:
        """Remove old bytes that no row names and that crashed uploads left.

        Returns the number of removed objects. `older_than` must exceed the time from an upload to
        the row that names it. Only a local folder records when bytes were asked for again. On an
        object store, an old orphan may be removed while a client is about to use it again.
        """
        before = datetime.now(UTC) - older_than
        with named():
            incoming = dict(self._listed(INCOMING))
            newest: dict[str, datetime] = {}
            for path, moment in incoming.items():
                newest[_upload(path)] = max(moment, newest.get(_upload(path), moment))
            # An upload is removed as a whole, its last part first. A sweep that is interrupted then
            # leaves a shorter upload without a gap.
            unused = [
                path for path in sorted(incoming, reverse=True) if newest[_upload(path)] < before
            ]
            unused += [
                path
                for path, moment in self._listed(PUBLISHED)
                if moment < before and HEX.fullmatch(path[-64:]) and not referenced(path[-64:])
            ]
            return sum(self._remove(path, before) for path in unused)

    def remove(self, digest: str, unless_since: datetime) -> bool:
        """Remove published bytes unless they were put or asked for (`has`) since a moment.

        Returns whether they were removed. A client that is about to name bytes in a row asks for
        them first, so bytes in use at that moment stay. On an object store, which does not record
        requests, only a new copy counts. Bytes that are not there are no error, because a removal
        may be tried twice.
        """
        with named():
            return self._remove(place(digest), unless_since)

    def published(self) -> Iterator[tuple[str, int, datetime]]:
        """Every digest in the store, with its size and when it was last used.

        That is when it was put or, in a local folder, asked for.
        """
        with named():
            for batch in self._store.list(PUBLISHED):
                for entry in batch:
                    if HEX.fullmatch(entry["path"][-64:]):
                        yield entry["path"][-64:], entry["size"], entry["last_modified"]

    def _listed(self, prefix: str) -> Iterator[tuple[str, datetime]]:
        for batch in self._store.list(prefix):
            for entry in batch:
                yield entry["path"], entry["last_modified"]

    def _remove(self, path: str, before: datetime) -> bool:
        """Remove one object, unless it was used since it was listed."""
        try:
            if self._store.head(path)["last_modified"] >= before:
                return False
            self._store.delete(path)
        except FileNotFoundError:
            return False
        return True

    def _find(self, digest: str) -> int | None:
        try:
            return int(self._store.head(place(digest))["size"])
        except FileNotFoundError:
            return None


def _upload(path: str) -> str:
    """The upload to which a path under `incoming` belongs: its parts are in one folder."""
    return path.rpartition("/")[0] if path.count("/") > 2 else path


def within(size: int, limit: int | None) -> int:
    """The size itself; raises TooLarge (`body-too-large`) when it is more than the limit."""
    if limit is not None and size > limit:
        raise TooLarge(
            "body-too-large",
            f"More than the allowed {limit} bytes were sent.",
            "Send a smaller file, or ask an administrator to raise the limit.",
            limit=limit,
        )
    return size


def _local_folder(url: str | Path) -> Path | None:
    """The folder of a `file:` URL or a plain path; None for an object store."""
    if isinstance(url, Path):
        return url.absolute()
    parts = urlsplit(url)
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
        return Path(unquote(parts.path))
    if not parts.scheme and url:
        return Path(url).absolute()
    if parts.scheme == "file" or not url:
        raise _bad_url(url)
    return None


def _object_store(url: str) -> ObjectStore:
    scheme = urlsplit(url).scheme
    if scheme == "memory":
        return MemoryStore()
    if scheme not in CLOUDS:
        raise _bad_url(url)
    try:
        return from_url(
            url, retry_config={"max_retries": 4, "retry_timeout": timedelta(seconds=20)}
        )
    except (BaseError, ValueError, TypeError) as error:
        raise _bad_url(url) from error


def _bad_url(url: str) -> Invalid:
    shown = url.partition("://")[0]  # the rest may hold a password
    return Invalid("bad-blob-url", f"The blob store's URL ({shown[:20]}://...) cannot be used.")
