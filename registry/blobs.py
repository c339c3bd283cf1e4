"""Content-addressed bytes in a local folder, in memory, or in S3, GCS or Azure, chosen by URL.

Bytes come before rows: they are hashed while they stream into a temporary object, made durable, and only then
published under `sha256/ab/cd/<hex>`. A crash at any step leaves at most an orphan, which `sweep` removes; whatever is
visible under a digest is whole. Memory is constant, whatever the size.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import obstore
from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, LocalStore, MemoryStore, ObjectStore, S3Store, from_url

from registry.errors import Invalid, NotFound, TooLarge, Unavailable, Unverified

PUBLISHED, INCOMING = "sha256", "incoming"
HEX = re.compile(r"[0-9a-f]{64}")
CLOUDS = {"s3", "s3a", "gs", "az", "azure", "adl", "abfs", "abfss"}
CHUNK = 1 << 20
PART = 8 << 20
"""Bytes of one part of a multipart upload; at most four wait in memory."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What was stored: hex SHA-256 of the bytes, and how many there are."""

    sha256: str
    size: int


class Blobs:
    """The blob store at one URL: `file:///...` (or a plain path), `memory:///`, `s3://`, `gs://`, `az://`."""

    def __init__(self, url: str | Path) -> None:
        """Open the store; a local folder is made, private to its owner. Invalid (`bad-blob-url`) names a wrong URL."""
        self._folder = _local_folder(url)
        self._store: ObjectStore
        with _named():
            if self._folder is None:
                self._store = _object_store(str(url))
            else:
                for folder in (self._folder, self._folder / PUBLISHED, self._folder / INCOMING):
                    _make_private(folder)
                self._store = LocalStore(self._folder)

    def put(self, chunks: Iterable[bytes], expect: str | None = None, limit: int | None = None) -> Stored:
        """Store the bytes and say what they are; nothing becomes visible unless all is well.

        `expect` is the hex digest they must have (Unverified `digest-mismatch`), `limit` the most bytes taken
        (TooLarge `body-too-large`). Bytes already there are not written again.
        """
        if expect is not None:
            _check(expect)
        hasher, size = hashlib.sha256(), 0
        draft: Draft = _ObjectDraft(self._store) if self._folder is None else _FileDraft(self._folder)
        try:
            for chunk in chunks:
                size += len(chunk)
                if limit is not None and size > limit:
                    raise TooLarge(
                        "body-too-large", f"More than the {limit} bytes allowed were sent.",
                        "Send a smaller file, or ask an administrator to raise the limit.", limit=limit,
                    )  # fmt: skip
                hasher.update(chunk)
                with _named():
                    draft.write(chunk)
            found = hasher.hexdigest()
            if expect is not None and found != expect:
                raise Unverified(
                    "digest-mismatch", f"The bytes sent have the digest {found}, not {expect}.",
                    "The file changed or was damaged on its way: hash it again and send it again.",
                    expected=expect, found=found,
                )  # fmt: skip
            with _named():
                # A wrong size can only be damage done to the disk; then these bytes heal it.
                draft.publish(found, present=self._find(found) == size)
        finally:
            # The bytes are published or refused by now; a temporary object that will not go is the sweep's.
            with suppress(BaseError, OSError):
                draft.discard()
        return Stored(found, size)

    @property
    def notes_use(self) -> bool:
        """Does `has` leave a note that bytes were asked for? A local folder does, an object store does not."""
        return self._folder is not None

    def has(self, digest: str) -> bool:
        """Are these bytes here? In a local folder they count as used just now: a row may be about to name them."""
        with _named():
            if self._folder is None:
                return self._find(digest) is not None
            return _touch(self._folder / _place(digest))

    def size(self, digest: str) -> int:
        """How many bytes; NotFound (`blob-missing`)."""
        with _named():
            found = self._find(digest)
        if found is None:
            raise _missing(digest)
        return found

    def read(self, digest: str, start: int, length: int) -> bytes:
        """At most `length` bytes from `start`: fewer only at the end, none past it; NotFound (`blob-missing`)."""
        return b"".join(self.stream(digest, start, start + length, max(length, CHUNK)))

    def stream(self, digest: str, start: int = 0, end: int | None = None, chunk: int = CHUNK) -> Iterator[bytes]:
        """The bytes from `start` up to `end`, in pieces of about `chunk` bytes.

        NotFound (`blob-missing`) comes from this very call, not from the first piece: a door has sent no header yet.
        """
        size = self.size(digest)
        end = size if end is None else min(end, size)
        if start < 0:
            raise Invalid("bad-range", f"A range cannot start at {start}.", "Start at 0 or later.")
        return self._pieces(digest, start, end, chunk) if start < end else iter(())

    def _pieces(self, digest: str, start: int, end: int, chunk: int) -> Iterator[bytes]:
        if self._folder is not None:
            # Straight from the file: the same bytes through the object store's layers were measured at nine times the time.
            with _named(digest), (self._folder / _place(digest)).open("rb", buffering=0) as file:
                file.seek(start)
                while start < end and (piece := file.read(min(chunk, end - start))):
                    start += len(piece)
                    yield piece
            return
        with _named(digest):
            found = self._store.get(_place(digest), options={"range": (start, end)})
            for piece in found.stream(min_chunk_size=chunk):
                yield bytes(piece)

    def presign(self, digest: str, seconds: int) -> str | None:
        """An address at which an object store itself gives out these bytes for a while; None where there is none.

        Made here from the credentials, without asking the store.
        """
        if not isinstance(self._store, S3Store | GCSStore | AzureStore):
            return None
        with _named(digest):
            return obstore.sign(self._store, "GET", _place(digest), timedelta(seconds=seconds))

    def verify(self, digest: str) -> bool:
        """Do the stored bytes still have their digest? Reads all of them; NotFound (`blob-missing`)."""
        hasher = hashlib.sha256()
        for piece in self.stream(digest):
            hasher.update(piece)
        return hasher.hexdigest() == digest

    def sweep(self, referenced: Callable[[str], bool], older_than: timedelta) -> int:
        """Remove what no row names and what crashed uploads left, if older than that; how many objects went.

        `older_than` must exceed the time from an upload to the row that names it. Only a local folder notes when
        bytes were asked for again; on an object store an old orphan may go while somebody is about to reuse it.
        """
        before = datetime.now(UTC) - older_than
        with _named():
            gone = [one for one in self._listed(INCOMING) if one[1] < before]
            gone += [
                (path, moment)
                for path, moment in self._listed(PUBLISHED)
                if moment < before and HEX.fullmatch(path[-64:]) and not referenced(path[-64:])
            ]
            return sum(self._remove(path, before) for path, _ in gone)

    def remove(self, digest: str, unless_since: datetime) -> bool:
        """Remove published bytes unless they were put or asked for (`has`) since a moment; did they go?

        Whoever is about to name them in a row asks first, so what is in use at that moment stays. On an object store,
        which notes no asking, only a new copy counts. Bytes that are not here are no error: a second try may come.
        """
        with _named():
            return self._remove(_place(digest), unless_since)

    def published(self) -> Iterator[tuple[str, int, datetime]]:
        """Every digest that is here, with its size and when it was last put or, in a local folder, asked for."""
        with _named():
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
            return int(self._store.head(_place(digest))["size"])
        except FileNotFoundError:
            return None


class Draft(Protocol):
    """Bytes on their way in: written, then published under their digest, and in any case discarded at the end."""

    def write(self, chunk: bytes) -> None: ...

    def publish(self, digest: str, *, present: bool) -> None: ...

    def discard(self) -> None: ...


class _FileDraft:
    """A temporary file, durable before its name is, for a file system may reorder the two."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / INCOMING / uuid4().hex
        with _named():
            self._file = os.fdopen(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")

    def write(self, chunk: bytes) -> None:
        self._file.write(chunk)

    def publish(self, digest: str, *, present: bool) -> None:
        place = self._folder / _place(digest)
        above = [place.parent, place.parent.parent, place.parent.parent.parent]
        if not (present and _touch(place)):
            self._file.flush()
            os.fsync(self._file.fileno())
            for folder in reversed(above):
                _make_private(folder)
            os.replace(self._path, place)  # noqa: PTH105 - the crash test counts the calls made through os
        # Also when the bytes were there: whoever put them may not have come as far as this.
        for folder in above:
            _sync_folder(folder)

    def discard(self) -> None:
        try:
            self._file.close()  # fails again where writing failed, on a full disk
        finally:
            self._path.unlink(missing_ok=True)


class _ObjectDraft:
    """A temporary object, copied to its place inside the store; content-addressed, so a second copy changes nothing."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._path = f"{INCOMING}/{uuid4().hex}"
        with _named():
            self._writer = obstore.open_writer(store, self._path, buffer_size=PART, max_concurrency=4)

    def write(self, chunk: bytes) -> None:
        self._writer.write(chunk)

    def publish(self, digest: str, *, present: bool) -> None:
        self._writer.close()
        if not present:
            self._store.copy(self._path, _place(digest))

    def discard(self) -> None:
        if not self._writer.closed():
            self._writer.close()
        self._store.delete(self._path)


def _check(digest: str) -> str:
    if not HEX.fullmatch(digest):
        raise Invalid("bad-digest", f"'{digest[:80]}' is no digest.", "Send 64 lower-case hex digits of a SHA-256.")
    return digest


def _place(digest: str) -> str:
    _check(digest)
    return f"{PUBLISHED}/{digest[:2]}/{digest[2:4]}/{digest}"


def _missing(digest: str) -> NotFound:
    detail = f"There are no bytes with the digest {digest}."
    return NotFound("blob-missing", detail, "Upload them first.", sha256=digest)


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
        return from_url(url, retry_config={"max_retries": 4, "retry_timeout": timedelta(seconds=20)})
    except (BaseError, ValueError, TypeError) as error:
        raise _bad_url(url) from error


def _bad_url(url: str) -> Invalid:
    shown = url.partition("://")[0]  # the rest may hold a password
    return Invalid(
        "bad-blob-url", f"The blob store's URL ({shown[:20]}://...) cannot be used.",
        "Use file:///folder, memory:///, s3://bucket/prefix, gs://bucket/prefix or az://account/container/prefix; "
        "credentials come from the environment.",
    )  # fmt: skip


def _make_private(folder: Path) -> None:
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


def _touch(path: Path) -> bool:
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


@contextmanager
def _named(digest: str = "") -> Iterator[None]:
    """Give the storage's own errors our names: a blob gone in between is NotFound, all else Unavailable."""
    try:
        yield
    except FileNotFoundError as error:
        if digest:
            raise _missing(digest) from error
        raise _away(error) from error
    except (BaseError, OSError) as error:
        raise _away(error) from error


def _away(error: Exception) -> Unavailable:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).partition("\n")[0]
    return Unavailable("blobs-unreachable", f"The blob store cannot be used: {reason[:200]}.",
                       "Try again; if it stays so, see its disk, network and credentials.")  # fmt: skip
