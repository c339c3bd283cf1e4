"""Content-addressed bytes in a local folder, in memory, or in S3, GCS or Azure, chosen by URL.

Bytes come before rows: they are hashed while they stream into a temporary object, made durable, and
only then published under `sha256/ab/cd/<hex>`. A crash at any step leaves at most an orphan, which
`sweep` removes; whatever is visible under a digest is whole. Memory is constant, whatever the size.
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
    """What was stored: hex SHA-256 of the bytes, and how many there are."""

    sha256: str
    size: int


class Incoming:
    """Bytes on their way in, hashed as they come; `finish` publishes them, and whatever else ends
    it removes them.
    """

    def __init__(self, blobs: Blobs, draft: Draft, expect: str | None, limit: int | None) -> None:
        self._blobs, self._draft, self._expect, self._limit = blobs, draft, expect, limit
        self._hasher, self._size = hashlib.sha256(), 0

    def __enter__(self) -> Incoming:
        return self

    def __exit__(self, *_: object) -> None:
        # The bytes are published or refused by now; a temporary object that will not go is the
        # sweep's.
        with suppress(BaseError, OSError):
            self._draft.discard()

    def write(self, data: bytes) -> None:
        """Take the next bytes; TooLarge (`body-too-large`) past the limit."""
        self._size = within(self._size + len(data), self._limit)
        self._hasher.update(data)
        with named():
            self._draft.write(data)

    def finish(self, proven: Callable[[str], None] | None = None) -> Stored:
        """Publish them; Unverified (`digest-mismatch`) when they are not what was expected.

        `proven` hears the digest once it is known and before anything is published; what it raises
        stops that.
        """
        stored = Stored(agreed(self._hasher.hexdigest(), self._expect), self._size)
        if proven is not None:
            proven(stored.sha256)
        self._blobs.publish(self._draft, stored)
        return stored


class Blobs:
    """The blob store at one URL: `file:///...` (or a plain path), `memory:///`, `s3://`, `gs://`,
    `az://`.
    """

    def __init__(self, url: str | Path) -> None:
        """Open the store; a local folder is made, private to its owner. Invalid (`bad-blob-url`)
        names a wrong URL.
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
        """The folder it lies in; None where an object store holds it."""
        return self._folder

    @property
    def store(self) -> ObjectStore:
        """The store itself, for what is on its way in."""
        return self._store

    def put(
        self, chunks: Iterable[bytes], expect: str | None = None, limit: int | None = None
    ) -> Stored:
        """Store the bytes and say what they are; nothing becomes visible unless all is well.

        `expect` is the hex digest they must have (Unverified `digest-mismatch`), `limit` the most
        bytes taken (TooLarge `body-too-large`). Bytes already there are not written again.
        """
        with self.incoming(expect, limit) as incoming:
            for chunk in chunks:
                incoming.write(chunk)
            return incoming.finish()

    def incoming(self, expect: str | None = None, limit: int | None = None) -> Incoming:
        """The same, for whoever has the bytes piece by piece: a context that leaves nothing behind
        unless finished.
        """
        if expect is not None:
            check(expect)
        draft: Draft = ObjectDraft(self._store) if self._folder is None else FileDraft(self._folder)
        return Incoming(self, draft, expect, limit)

    def publish(self, draft: Draft, stored: Stored) -> None:
        """Make a draft visible under its digest; the caller has hashed every byte of it."""
        with named():
            # A wrong size can only be damage done to the disk; then these bytes heal it.
            draft.publish(stored.sha256, present=self._find(stored.sha256) == stored.size)

    @property
    def notes_use(self) -> bool:
        """Does `has` leave a note that bytes were asked for? A local folder does, an object store
        does not.
        """
        return self._folder is not None

    def has(self, digest: str) -> bool:
        """Are these bytes here? In a local folder they count as used just now: a row may be about
        to name them.
        """
        with named():
            if self._folder is None:
                return self._find(digest) is not None
            return touch(self._folder / place(digest))

    def size(self, digest: str) -> int:
        """How many bytes; NotFound (`blob-unknown`)."""
        with named():
            found = self._find(digest)
        if found is None:
            raise missing(digest)
        return found

    def read(self, digest: str, start: int, length: int) -> bytes:
        """At most `length` bytes from `start`: fewer only at the end, none past it; NotFound
        (`blob-unknown`).
        """
        return b"".join(self.stream(digest, start, start + length, max(length, CHUNK)))

    def stream(
        self, digest: str, start: int = 0, end: int | None = None, chunk: int = CHUNK
    ) -> Iterator[bytes]:
        """The bytes from `start` up to `end`, in pieces of about `chunk` bytes.

        NotFound (`blob-unknown`) comes from this very call, not from the first piece: a door has
        sent no header yet.
        """
        size = self.size(digest)
        end = size if end is None else min(end, size)
        if start < 0:
            raise Invalid("bad-range", f"A range cannot start at {start}.")
        return self._pieces(digest, start, end, chunk) if start < end else iter(())

    def _pieces(self, digest: str, start: int, end: int, chunk: int) -> Iterator[bytes]:
        if self._folder is not None:
            # Straight from the file: the same bytes through the object store's layers were measured
            # at nine times the time.
            with named(digest), (self._folder / place(digest)).open("rb", buffering=0) as file:
                file.seek(start)
                while start < end and (piece := file.read(min(chunk, end - start))):
                    start += len(piece)
                    yield piece
            return
        with named(digest):
            found = self._store.get(place(digest), options={"range": (start, end)})
            for piece in found.stream(min_chunk_size=chunk):
                yield bytes(piece)

    def presign(self, digest: str, seconds: int) -> str | None:
        """An address at which an object store itself gives out these bytes for a while; None where
        there is none.

        Made here from the credentials, without asking the store.
        """
        if not isinstance(self._store, S3Store | GCSStore | AzureStore):
            return None
        with named(digest):
            return obstore.sign(self._store, "GET", place(digest), timedelta(seconds=seconds))

    def verify(self, digest: str) -> bool:
        """Do the stored bytes still have their digest? Reads all of them; NotFound
        (`blob-unknown`).
        """
        hasher = hashlib.sha256()
        for piece in self.stream(digest):
            hasher.update(piece)
        return hasher.hexdigest() == digest

    def sweep(self, referenced: Callable[[str], bool], older_than: timedelta) -> int:
        """Remove what no row names and what crashed uploads left, if older than that; how many
        objects went.

        `older_than` must exceed the time from an upload to the row that names it. Only a local
        folder notes when bytes were asked for again; on an object store an old orphan may go while
        somebody is about to reuse it.
        """
        before = datetime.now(UTC) - older_than
        with named():
            incoming = dict(self._listed(INCOMING))
            newest: dict[str, datetime] = {}
            for path, moment in incoming.items():
                newest[_upload(path)] = max(moment, newest.get(_upload(path), moment))
            # An upload goes as a whole, its last part first: cut short, the sweep leaves a shorter
            # one without a gap.
            gone = [
                path for path in sorted(incoming, reverse=True) if newest[_upload(path)] < before
            ]
            gone += [
                path
                for path, moment in self._listed(PUBLISHED)
                if moment < before and HEX.fullmatch(path[-64:]) and not referenced(path[-64:])
            ]
            return sum(self._remove(path, before) for path in gone)

    def remove(self, digest: str, unless_since: datetime) -> bool:
        """Remove published bytes unless they were put or asked for (`has`) since a moment; did they
        go?

        Whoever is about to name them in a row asks first, so what is in use at that moment stays.
        On an object store, which notes no asking, only a new copy counts. Bytes that are not here
        are no error: a second try may come.
        """
        with named():
            return self._remove(place(digest), unless_since)

    def published(self) -> Iterator[tuple[str, int, datetime]]:
        """Every digest that is here, with its size and when it was last put or, in a local folder,
        asked for.
        """
        with named():
            for batch in self._store.list(PUBLISHED):
                for found in batch:
                    if HEX.fullmatch(found["path"][-64:]):
                        yield found["path"][-64:], found["size"], found["last_modified"]

    def _listed(self, prefix: str) -> Iterator[tuple[str, datetime]]:
        for batch in self._store.list(prefix):
            for found in batch:
                yield found["path"], found["last_modified"]

    def _remove(self, path: str, before: datetime) -> bool:
        """Remove one object, unless somebody used it since it was listed."""
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
    """What a path under `incoming` belongs to: the parts of one upload lie in one folder."""
    return path.rpartition("/")[0] if path.count("/") > 2 else path


def within(size: int, limit: int | None) -> int:
    """The size itself, unless it is more than the limit: TooLarge (`body-too-large`)."""
    if limit is not None and size > limit:
        raise TooLarge(
            "body-too-large",
            f"More than the {limit} bytes allowed were sent.",
            "Send a smaller file, or ask an administrator to raise the limit.",
            limit=limit,
        )
    return size


def _local_folder(url: str | Path) -> Path | None:
    """The folder of a `file:` URL or plain path; None for an object store."""
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
    return Invalid(
        "bad-blob-url",
        f"The blob store's URL ({shown[:20]}://...) cannot be used.",
    )
