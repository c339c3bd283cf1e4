"""Unfinished uploads: an account's bytes, kept when a connection breaks, until the rest arrives.

An upload is named by its account and by the digest that its bytes will have. A client that sends
the same file again therefore continues its own upload, and nobody can name the upload of another
account. Nothing is visible before the digest over all bytes agrees.

In a folder an upload is one file that grows. Objects of an object store cannot grow, so there it is
a sequence of parts named by their offset. A part is only made where there is none, so two senders
never mix their bytes.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta

from obstore.exceptions import BaseError

from registry.blobs.drafts import INCOMING, busy, check, named
from registry.blobs.store import Blobs, Stored, within
from registry.blobs.unfinished import (
    GrowingFile,
    Known,
    Parts,
    Proven,
    Upload,
    contiguous_size,
)
from registry.errors import Conflict, Invalid, NotFound, TooLarge

ACCOUNT = re.compile(r"[0-9a-f-]{36}")
MAX_UPLOADS = 32
"""Limit on the unfinished uploads of one account."""
MAX_IDLE = timedelta(days=1)
"""How long an upload may be idle before the account's next one may replace it."""
MAX_HASHERS = 256
"""Hashers kept for uploads that are not being sent, so that their files need not be read again."""


class Sending:
    """An open upload, with one sender; `room` is how large it may grow."""

    def __init__(self, blobs: Blobs, upload: Upload, digest: str, limit: int, room: int) -> None:
        self._blobs, self._upload, self._digest = blobs, upload, digest
        self._limit, self._room = limit, room
        self.done = False

    @property
    def size(self) -> int:
        """The number of received bytes."""
        return self._upload.size

    def write(self, data: bytes) -> None:
        """Take the next bytes.

        Raises TooLarge: `body-too-large` past the limit of a file, `unfinished-uploads` past what
        the account may leave unfinished.
        """
        size = self._upload.size + len(data)
        try:
            within(size, self._limit)
        except TooLarge:
            self._drop()
            raise
        if size > self._room:
            raise _crowded(
                f"would have {size} bytes in this upload, but only {self._room} are left for it"
            )
        with named():
            self._upload.write(data)

    def finish(self, proven: Proven = None) -> Stored:
        """Publish the complete upload.

        `proven` is called with the digest before that; if it raises, all bytes are kept. Raises
        Unverified (`digest-mismatch`) when the bytes have another digest. All of them are then
        dropped, because nobody can tell which are wrong.
        """
        try:
            with named():
                stored = self._upload.publish(self._blobs, self._digest, proven)
        except Exception as error:
            if getattr(error, "kind", "") == "digest-mismatch":
                self._drop()
            raise
        self.done = True
        return stored

    def _drop(self) -> None:
        self.done = True
        with suppress(BaseError, OSError):
            self._upload.drop()

    def close(self) -> None:
        """Keep the received bytes, unless they were published or dropped."""
        if not self.done and not self._upload.size:
            self._drop()
        elif not self.done:
            self.done = True
            with named():
                self._upload.keep()


class Uploads:
    """All unfinished uploads of one blob store.

    `most_bytes` is what one account may leave unfinished in all.
    """

    def __init__(self, blobs: Blobs, most_bytes: int) -> None:
        self._blobs, self._most_bytes = blobs, most_bytes
        self._lock = threading.Lock()
        self._open: set[str] = set()
        self._hashers: OrderedDict[str, Known] = OrderedDict()

    def offset(self, account: str, digest: str) -> int:
        """How many bytes the upload has; raises NotFound (`upload-missing`) when there are none."""
        unfinished = self._unfinished(account).get(check(digest))
        if unfinished is None:
            raise NotFound("upload-missing", f"You have no unfinished upload of sha256:{digest}.")
        return unfinished[0]

    @contextmanager
    def sending(self, account: str, digest: str, offset: int, limit: int) -> Iterator[Sending]:
        """The upload, for one sender that continues at `offset`.

        The bytes it sent are kept when it stops early. `limit` is the maximum size of one file in
        bytes. Raises Conflict (`upload-offset` with the right one, `upload-busy`), and TooLarge
        (`unfinished-uploads`) when the account has left too many.
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
        """Drop an upload.

        Raises NotFound (`upload-missing`), and Conflict (`upload-busy`) while it is being sent.
        """
        path = f"{INCOMING}/{_account(account)}/{check(digest)}"
        with self._alone(path):
            self.offset(account, digest)
            with named():
                self._opened(path).drop()

    def _room(self, account: str, digest: str) -> int:
        """How large this upload may grow; idle uploads of the account make room if necessary."""
        others = {
            name: state for name, state in self._unfinished(account).items() if name != digest
        }
        if len(others) >= MAX_UPLOADS:
            idle_since = datetime.now(UTC) - MAX_IDLE
            for name in [name for name, (_, last) in others.items() if last < idle_since]:
                with suppress(Conflict, NotFound):
                    self.discard(account, name)
                    del others[name]
        if len(others) >= MAX_UPLOADS:
            raise _crowded(f"left {len(others)} uploads unfinished")
        return self._most_bytes - sum(size for size, _ in others.values())

    def _unfinished(self, account: str) -> dict[str, tuple[int, datetime]]:
        """The account's uploads by digest: how many bytes each has, and when the last arrived."""
        uploads: dict[str, tuple[int, datetime]] = {}
        prefix = f"{INCOMING}/{_account(account)}"
        with named():
            if self._blobs.folder is not None:
                folder = self._blobs.folder / prefix
                for path in folder.iterdir() if folder.is_dir() else ():
                    with suppress(FileNotFoundError):
                        status = path.stat()
                        uploads[path.name] = (
                            status.st_size,
                            datetime.fromtimestamp(status.st_mtime, UTC),
                        )
                return uploads
            parts: dict[str, list[tuple[int, int, datetime]]] = {}
            for batch in self._blobs.store.list(prefix):
                for entry in batch:
                    name, start = entry["path"].split("/")[-2:]
                    part = int(start), entry["size"], entry["last_modified"]
                    parts.setdefault(name, []).append(part)
        for name, listed in parts.items():
            uploads[name] = (
                contiguous_size([(start, size) for start, size, _ in listed]),
                max(modified for *_, modified in listed),
            )
        return uploads

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
                return Parts(self._blobs.store, path)
            with self._lock:
                known = self._hashers.pop(path, None)
            return GrowingFile(self._blobs.folder, self._blobs.folder / path, known)

    def _remember(self, path: str, upload: Upload) -> None:
        if isinstance(upload, GrowingFile) and upload.closed_as is not None:
            with self._lock:
                self._hashers[path] = upload.closed_as, upload.hasher
                while len(self._hashers) > MAX_HASHERS:
                    self._hashers.popitem(last=False)


def _account(account: str) -> str:
    if not ACCOUNT.fullmatch(account):
        raise Invalid("bad-account", "An upload belongs to an account.")
    return account


def wrong_offset(digest: str, requested: int, expected: int) -> Conflict:
    """The error for a request that continues an upload at another offset than it has."""
    return Conflict(
        "upload-offset",
        f"The upload of sha256:{digest} has {expected} bytes, not {requested}.",
        f"Send the bytes from {expected} on, with Upload-Offset: {expected}.",
        offset=expected,
    )


def _crowded(what: str) -> TooLarge:
    return TooLarge("unfinished-uploads", f"Your account {what}.", retry_after=3600)
