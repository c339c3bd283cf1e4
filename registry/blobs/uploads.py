"""Unfinished uploads: an account's bytes kept where a connection broke, until the rest of them
comes.

An upload is named by its account and by the digest its bytes will have, so whoever sends the same
file again goes on by himself, and nobody can name another's. Nothing of it is visible before the
digest over all of it agrees. In a folder it is one file that grows; on an object store, whose
objects do not grow, it is a row of parts named by their offset, each made only where there is none,
so that two senders can never mix their bytes.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import ObjectStore

from registry.blobs.drafts import INCOMING, PART, FileDraft, ObjectDraft, agreed, busy, check, named
from registry.blobs.store import Blobs, Stored, within
from registry.errors import Conflict, Invalid, NotFound, TooLarge

ACCOUNT = re.compile(r"[0-9a-f-]{36}")
MOST = 32
"""Unfinished uploads of one account."""
LIFE = timedelta(days=1)
"""How long an upload may lie untouched before it makes room for the account's next."""
REMEMBERED = 256
"""Hashers kept of uploads that nobody is sending at the moment, so that they need not be read
again.
"""

Known = tuple[tuple[int, int, int], "hashlib._Hash"]
"""A file as it was left, and the hasher over all of it."""
Proven = Callable[[str], None] | None


class Upload(Protocol):
    """One upload while somebody sends: it grows, and is published, given up, or kept for later."""

    size: int

    def write(self, data: bytes) -> None: ...

    def publish(self, blobs: Blobs, digest: str, proven: Proven) -> Stored: ...

    def keep(self) -> None: ...

    def drop(self) -> None: ...


class Sending:
    """An upload open for its one sender."""

    def __init__(self, blobs: Blobs, upload: Upload, digest: str, limit: int, room: int) -> None:
        self._blobs, self._upload, self._digest, self._limit, self._room = (
            blobs,
            upload,
            digest,
            limit,
            room,
        )
        self.done = False

    @property
    def size(self) -> int:
        """Bytes that are here now."""
        return self._upload.size

    def write(self, data: bytes) -> None:
        """Take the next bytes; TooLarge `body-too-large` past the limit of a file,
        `unfinished-uploads` past the account's room.
        """
        size = self._upload.size + len(data)
        try:
            within(size, self._limit)
        except TooLarge:
            self._give_up()
            raise
        if size > self._room:
            raise _crowded(
                f"would hold {size} bytes in this upload where {self._room} are left to it"
            )
        with named():
            self._upload.write(data)

    def finish(self, proven: Proven = None) -> Stored:
        """Publish the whole; when the digest is another (Unverified `digest-mismatch`) all of it is
        given up, for nobody can tell which bytes are wrong. `proven` hears the digest before that;
        should it raise, all is kept.
        """
        try:
            with named():
                stored = self._upload.publish(self._blobs, self._digest, proven)
        except Exception as error:
            if getattr(error, "kind", "") == "digest-mismatch":
                self._give_up()
            raise
        self.done = True
        return stored

    def _give_up(self) -> None:
        self.done = True
        with suppress(BaseError, OSError):
            self._upload.drop()

    def close(self) -> None:
        """Keep what came, unless it was finished or given up."""
        if not self.done and not self._upload.size:
            self._give_up()
        elif not self.done:
            self.done = True
            with named():
                self._upload.keep()


class Uploads:
    """All unfinished uploads of one blob store; `most_bytes` is what one account may leave
    unfinished in all.
    """

    def __init__(self, blobs: Blobs, most_bytes: int) -> None:
        self._blobs, self._most_bytes = blobs, most_bytes
        self._lock = threading.Lock()
        self._open: set[str] = set()
        self._hashers: OrderedDict[str, Known] = OrderedDict()

    def offset(self, account: str, digest: str) -> int:
        """How many bytes are here; NotFound (`upload-missing`) when none are."""
        found = self._unfinished(account).get(check(digest))
        if found is None:
            raise NotFound(
                "upload-missing",
                f"You have no unfinished upload of sha256:{digest}.",
            )
        return found[0]

    @contextmanager
    def sending(self, account: str, digest: str, offset: int, limit: int) -> Iterator[Sending]:
        """The upload, for one sender who goes on at `offset`; what he sent is kept when he breaks
        off.

        Raises Conflict (`upload-offset`, with the right one; `upload-busy`), and TooLarge
        (`unfinished-uploads`) when the account has left too many. `limit` is the most bytes of one
        file.
        """
        path = f"{INCOMING}/{_account(account)}/{check(digest)}"
        with self._alone(path):
            room = self._room(account, digest)
            if offset and digest not in self._unfinished(account):
                raise wrong_offset(digest, offset, 0)
            upload = self._opened(path)
            sending = Sending(self._blobs, upload, digest, limit, room)
            try:
                if upload.size != offset:
                    raise wrong_offset(digest, offset, upload.size)
                yield sending
            finally:
                sending.close()
                self._remember(path, upload)

    def discard(self, account: str, digest: str) -> None:
        """Give an upload up; NotFound (`upload-missing`), Conflict (`upload-busy`) while it is
        being sent.
        """
        path = f"{INCOMING}/{_account(account)}/{check(digest)}"
        with self._alone(path):
            self.offset(account, digest)
            with named():
                self._opened(path).drop()

    def _room(self, account: str, digest: str) -> int:
        """How large this upload may grow; the account's own forgotten ones make room first."""
        others = {
            name: found for name, found in self._unfinished(account).items() if name != digest
        }
        if len(others) >= MOST:
            old = datetime.now(UTC) - LIFE
            for name in [name for name, found in others.items() if found[1] < old]:
                with suppress(Conflict, NotFound):
                    self.discard(account, name)
                    del others[name]
        if len(others) >= MOST:
            raise _crowded(f"left {len(others)} uploads unfinished")
        return self._most_bytes - sum(size for size, _ in others.values())

    def _unfinished(self, account: str) -> dict[str, tuple[int, datetime]]:
        """The account's uploads by digest: bytes that are here, and when the last came."""
        found: dict[str, tuple[int, datetime]] = {}
        prefix = f"{INCOMING}/{_account(account)}"
        with named():
            if self._blobs.folder is not None:
                folder = self._blobs.folder / prefix
                for path in folder.iterdir() if folder.is_dir() else ():
                    with suppress(FileNotFoundError):
                        there = path.stat()
                        found[path.name] = (
                            there.st_size,
                            datetime.fromtimestamp(there.st_mtime, UTC),
                        )
                return found
            parts: dict[str, list[tuple[int, int, datetime]]] = {}
            for batch in self._blobs.store.list(prefix):
                for one in batch:
                    name, start = one["path"].split("/")[-2:]
                    parts.setdefault(name, []).append(
                        (int(start), one["size"], one["last_modified"])
                    )
        for name, row in parts.items():
            found[name] = (
                _reached([(start, size) for start, size, _ in row]),
                max(moment for *_, moment in row),
            )
        return found

    @contextmanager
    def _alone(self, path: str) -> Iterator[None]:
        with self._lock:
            if path in self._open:
                raise busy()
            self._open.add(path)
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(path)

    def _opened(self, path: str) -> Upload:
        with named():
            if self._blobs.folder is None:
                return _Parts(self._blobs.store, path)
            with self._lock:
                known = self._hashers.pop(path, None)
            return _File(self._blobs.folder, self._blobs.folder / path, known)

    def _remember(self, path: str, upload: Upload) -> None:
        if isinstance(upload, _File) and upload.left is not None:
            with self._lock:
                self._hashers[path] = upload.left, upload.hasher
                while len(self._hashers) > REMEMBERED:
                    self._hashers.popitem(last=False)


class _File:
    """A file that grows. Its hasher is kept while the process lives; after a restart the file is
    read again.
    """

    def __init__(self, folder: Path, path: Path, known: Known | None) -> None:
        self._draft = FileDraft(folder, path)
        self.left: tuple[int, int, int] | None = None
        try:
            self.size = self._draft.size()
            self.hasher = (
                known[1]
                if known and known[0] == self._draft.identity(found=True)
                else self._draft.hashed()
            )
        except BaseException:
            self._draft.keep()
            raise

    def write(self, data: bytes) -> None:
        self._draft.write(data)
        self.hasher.update(data)
        self.size += len(data)

    def publish(self, blobs: Blobs, digest: str, proven: Proven) -> Stored:
        stored = Stored(agreed(self.hasher.hexdigest(), digest), self.size)
        if proven is not None:
            proven(digest)
        blobs.publish(self._draft, stored)
        with suppress(OSError):
            self._draft.discard()
        return stored

    def keep(self) -> None:
        left = self._draft.identity()
        self._draft.keep()
        self.left = left

    def drop(self) -> None:
        self._draft.discard()


class _Parts:
    """A row of objects named by their offset: each is whole or not there, and the first to make one
    has made it.
    """

    def __init__(self, store: ObjectStore, path: str) -> None:
        self._store, self._path = store, path
        there = self._listed()
        self._rows = list(_chain(there))
        for start, _ in set(there) - set(
            self._rows
        ):  # behind a gap, which a sweep that was cut short may leave
            self._store.delete(f"{path}/{start:020d}")
        self._written = _reached(self._rows)
        self._wait: list[bytes] = []
        self.size = self._written

    def _listed(self) -> list[tuple[int, int]]:
        return [
            (int(one["path"].rpartition("/")[2]), one["size"])
            for batch in self._store.list(self._path)
            for one in batch
        ]

    def write(self, data: bytes) -> None:
        self._wait.append(data)
        self.size += len(data)
        if self.size - self._written >= PART:
            self._flush()

    def _flush(self) -> None:
        data, self._wait = b"".join(self._wait), []
        self.size = self._written
        if data:
            try:
                self._store.put(
                    f"{self._path}/{self._written:020d}", data, mode="create", use_multipart=False
                )
            except AlreadyExistsError:
                # another registry on the same store was faster: its bytes stand, ours do not
                raise busy() from None
            self._rows.append((self._written, len(data)))
            self._written += len(data)
            self.size = self._written

    def publish(self, blobs: Blobs, digest: str, proven: Proven) -> Stored:
        """Put the parts together, hashed as they come back: what is published is what the store
        holds.
        """
        self._flush()
        hasher, draft = hashlib.sha256(), ObjectDraft(self._store)
        try:
            for start, _ in _chain(self._rows):
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
            self.drop()  # what will not go is the sweep's
        return stored

    def keep(self) -> None:
        self._flush()

    def drop(self) -> None:
        self._wait = []
        # The last first: should this be cut short, what is left is a shorter upload and not one
        # with a hole.
        for start, _ in sorted(self._rows, reverse=True):
            with suppress(FileNotFoundError):
                self._store.delete(f"{self._path}/{start:020d}")


def _chain(rows: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The parts that follow each other from 0 on without a gap."""
    reached = 0
    for start, size in sorted(rows):
        if start != reached:
            return
        yield start, size
        reached += size


def _reached(rows: list[tuple[int, int]]) -> int:
    return sum(size for _, size in _chain(rows))


def _account(account: str) -> str:
    if not ACCOUNT.fullmatch(account):
        raise Invalid("bad-account", "An upload belongs to an account.")
    return account


def wrong_offset(digest: str, asked: int, right: int) -> Conflict:
    return Conflict(
        "upload-offset",
        f"The upload of sha256:{digest} stands at {right} bytes, not at {asked}.",
        f"Send the bytes from {right} on, with Upload-Offset: {right}.",
        offset=right,
    )


def _crowded(what: str) -> TooLarge:
    return TooLarge(
        "unfinished-uploads",
        f"Your account {what}.",
        retry_after=3600,
    )
