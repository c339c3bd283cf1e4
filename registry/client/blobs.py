"""Send and fetch bytes by digest.

Only bytes that the registry lacks are sent. Transfers resume where they were cut, and fetched bytes
reach their place only after their digest was verified.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx

from registry.client.transport import SLOW, Transport
from registry.errors import Conflict, Invalid, Unavailable, Unverified
from registry.views.versions import FileView

CHUNK_BYTES = 1 << 20
MAX_WHOLE_BYTES = 8 << 20
"""Files up to this size are sent in one request, which starts again when it is cut."""
PAUSES = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds between attempts that make no progress.

Their sum is longer than a registry waits for a silent sender.
"""
WAITING = ("upload-busy", "upload-offset")
"""Kinds of Conflict that pass: another sender has the upload, or its offset has moved."""
SENDING = httpx.Timeout(SLOW, connect=5.0, write=60.0)
OnBytes = Callable[[int], None]


class Progress:
    """Receives the progress of files in bytes.

    Calls to the object itself add up to a file's size; a negative step takes back what a cut
    request had sent. A subclass can also distinguish hashed, known and resumed bytes.
    """

    def __init__(self, on_bytes: OnBytes | None = None) -> None:
        self._on_bytes = on_bytes

    def __call__(self, n: int) -> None:
        """Count `n` more bytes as done, whether they were sent or already there."""
        if self._on_bytes is not None:
            self._on_bytes(n)

    def hashed(self, n: int) -> None:
        """Count `n` more bytes of a file as hashed."""

    def known(self, n: int) -> None:
        """Count a whole file of `n` bytes that the registry already has."""
        self(n)

    def resumed(self, n: int) -> None:
        """Count `n` more bytes of a file that the registry has from an earlier attempt."""
        self(n)


class Blobs(Transport):
    """Bytes by digest. `on_bytes` receives steps in bytes, which add up to the size of a file."""

    def has_blob(self, sha256: str) -> bool:
        """Whether the registry has these bytes (64 hex digits), so that they need not be sent.

        Also False for bytes that the registry has, but this account may not use.
        """
        return self._patiently(lambda: self._has(sha256))

    def _has(self, sha256: str) -> bool:
        with self._open("HEAD", f"/blobs/{sha256}", accept=httpx.codes.NOT_FOUND) as answer:
            return answer.status_code != httpx.codes.NOT_FOUND

    def put_file(self, path: str | Path, on_bytes: OnBytes | Progress | None = None) -> FileView:
        """Send one file unless the registry has its bytes. A first pass hashes it, a second sends.

        The upload of a large file resumes where it was cut, in this call or in a later one for the
        same file. Raises Unavailable (`upload-broken`) when several attempts in a row make no
        progress, and Unverified for a file that changes between the passes.
        """
        path = Path(path)
        if not path.is_file():
            raise Invalid("no-such-file", f"{path} is not a file.")
        watch = on_bytes if isinstance(on_bytes, Progress) else Progress(on_bytes)
        sha256, size = hash_file(path, watch.hashed)
        if self.has_blob(sha256):
            watch.known(size)
        elif size <= MAX_WHOLE_BYTES:
            self._send_whole(path, sha256, size, watch)
        else:
            self._send_resumably(path, sha256, size, watch)
        return FileView(path.name, sha256, size)

    def _send_whole(self, path: Path, sha256: str, size: int, watch: Progress) -> None:
        sent = _Sent(watch)

        def attempt() -> None:
            # Sending the same bytes under the same digest again changes nothing: a retry is safe.
            sent.back_to(0)
            body = _chunks(path, 0, size, sent)
            with self._open(
                "PUT", f"/blobs/{sha256}", content=body, headers=_length(size), timeout=SENDING
            ) as answer:
                answer.read()

        self._patiently(attempt)

    def _send_resumably(self, path: Path, sha256: str, size: int, watch: Progress) -> None:
        sent = _Sent(watch)
        furthest, failures = -1, 0  # failures: attempts in a row without progress
        resumed_at = 0  # bytes that were there before this call and are reported as resumed
        retrying = stored_ours = False
        while True:
            try:
                if retrying and self._has(sha256):  # only the answer was lost, not the bytes
                    sent.back_to(size)
                    return
                offset = self._offset(sha256)
                if not stored_ours and offset > resumed_at:
                    sent.back_to(resumed_at)
                    watch.resumed(offset - resumed_at)
                    sent.so_far = resumed_at = offset
                sent.back_to(offset)
                retrying = True
                if offset > furthest:
                    furthest, failures = offset, 0
                headers = _length(size - offset) | {"Upload-Offset": str(offset)}
                body = _chunks(path, offset, size, sent)
                with self._open(
                    "PATCH",
                    f"/uploads/{sha256}",
                    content=body,
                    headers=headers,
                    timeout=SENDING,
                ) as answer:
                    answer.read()
                return
            except (Unavailable, Conflict) as error:
                if isinstance(error, Conflict) and error.kind not in WAITING:
                    raise
                retrying = True
                # After a conflict, the registry has stored nothing of what we sent.
                stored_ours = stored_ours or isinstance(error, Unavailable)
                if failures == len(PAUSES):
                    raise Unavailable(
                        "upload-broken",
                        f"The upload of {path} stopped at {max(furthest, 0)} of {size} bytes: "
                        f"{error.detail}",
                        "Run the same command again: the upload resumes from there.",
                        offset=max(furthest, 0),
                        size=size,
                    ) from error
                if self._on_wait is not None:
                    self._on_wait(error)
                time.sleep(max(PAUSES[failures], float(error.facts.get("retry_after", 0))))
                failures += 1

    def _offset(self, sha256: str) -> int:
        """How many bytes of an unfinished upload the registry has."""
        with self._open("HEAD", f"/uploads/{sha256}", accept=httpx.codes.NOT_FOUND) as answer:
            offset = answer.headers.get("Upload-Offset", "")
            return int(offset) if offset.isdecimal() and answer.is_success else 0

    def get_blob(self, sha256: str, dest: str | Path, on_bytes: OnBytes | None = None) -> Path:
        """Fetch bytes to `dest`, resuming where an earlier fetch was cut.

        The bytes are moved to `dest` only once their digest was compared. Raises Unverified when
        they are not those of the digest; nothing is left at `dest` then.
        """
        dest = Path(dest)
        dest.parent.mkdir(parents=True, exist_ok=True)
        part = dest.with_name(f".{dest.name}.{sha256[:12]}.part")
        step = on_bytes or _ignore
        if part.exists():
            step(part.stat().st_size)
        while True:
            size = _size(part)
            try:
                self._patiently(lambda: self._fetch(sha256, part, step))
                break
            except Unavailable:
                # While bytes arrive, a connection that is cut again and again is no failure.
                if _size(part) <= size:
                    raise
        actual, _ = hash_file(part)
        if actual != sha256:
            part.unlink()
            raise Unverified(
                "digest-mismatch",
                f"The bytes received for sha256:{sha256} have the digest sha256:{actual}.",
                "Fetch them again. If it happens twice, ask an administrator to run "
                "`countersign doctor`.",
            )
        part.replace(dest)
        return dest

    def _fetch(self, sha256: str, part: Path, step: OnBytes) -> None:
        start = _size(part)
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
        past_the_end = httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE
        with self._open(
            "GET", f"/blobs/{sha256}", headers=headers, accept=past_the_end if start else None
        ) as answer:
            if answer.status_code == past_the_end:
                return  # Nothing more to fetch. The digest decides whether these are the bytes.
            resumed = answer.status_code == httpx.codes.PARTIAL_CONTENT
            if start and not resumed:
                step(-start)
            with part.open("ab" if resumed else "wb") as out:
                for chunk in answer.iter_raw():  # written as it arrives: a cut loses none of it
                    out.write(chunk)
                    step(len(chunk))
                out.flush()
                os.fsync(out.fileno())


def hash_file(path: Path, on_bytes: OnBytes | None = None) -> tuple[str, int]:
    """Return the SHA-256 of a file in hex, and its size in bytes, without loading it whole."""
    hasher, size, buffer = hashlib.sha256(), 0, memoryview(bytearray(CHUNK_BYTES))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            hasher.update(buffer[:count])
            size += count
            if on_bytes is not None:
                on_bytes(count)
    return hasher.hexdigest(), size


class _Sent:
    """The sum of one file's steps, so that progress can be set back to the registry's offset."""

    def __init__(self, step: OnBytes) -> None:
        self._step, self.so_far = step, 0

    def __call__(self, n: int) -> None:
        self.so_far += n
        self._step(n)

    def back_to(self, offset: int) -> None:
        if offset != self.so_far:
            self(offset - self.so_far)


def _length(size: int) -> dict[str, str]:
    return {"Content-Length": str(size), "Content-Type": "application/octet-stream"}


def _chunks(path: Path, start: int, end: int, step: OnBytes) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(start)
        while start < end:
            chunk = file.read(min(CHUNK_BYTES, end - start))
            if not chunk:
                raise Unverified("file-changed", f"{path} became shorter while it was sent.")
            yield chunk
            start += len(chunk)
            step(len(chunk))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _ignore(_: int) -> None:
    """Count nothing."""
