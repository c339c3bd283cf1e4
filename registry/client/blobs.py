"""Bytes by digest: streamed up, asked for first; streamed down, resumed, and never left behind
unverified.
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

CHUNK = 1 << 20
WHOLE = 8 << 20
"""Bytes up to which a file is sent in one request that begins again when it is cut."""
PAUSES = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds between the tries that get no further; together more than a registry waits for a silent
sender.
"""
SENDING = httpx.Timeout(SLOW, connect=5.0, write=60.0)
OnBytes = Callable[[int], None]


class Progress:
    """Hears how files get on, in bytes; without a subclass only of those that are at the registry.

    Calls to the object itself add up to a file's size; a negative step takes back what a cut
    request had sent.
    """

    def __init__(self, on_bytes: OnBytes | None = None) -> None:
        self._on_bytes = on_bytes

    def __call__(self, n: int) -> None:
        """So many bytes more are there, sent or not."""
        if self._on_bytes is not None:
            self._on_bytes(n)

    def hashed(self, n: int) -> None:
        """So many bytes more of a file are hashed."""

    def known(self, n: int) -> None:
        """A whole file of so many bytes was there already."""
        self(n)

    def resumed(self, n: int) -> None:
        """So many bytes (more) of a file were there from an earlier try."""
        self(n)


class Blobs(Transport):
    """The blob store's door. `on_bytes` hears every step in bytes; the steps of one file add up to
    its size.
    """

    def has_blob(self, sha256: str) -> bool:
        """Need these bytes (64 hex digits) not be sent? False also where they are there, but are
        not yours to name.
        """
        return self._patiently(lambda: self._has(sha256))

    def _has(self, sha256: str) -> bool:
        with self._open("HEAD", f"/blobs/{sha256}", accept=httpx.codes.NOT_FOUND) as answer:
            return answer.status_code != httpx.codes.NOT_FOUND

    def put_file(self, path: str | Path, on_bytes: OnBytes | Progress | None = None) -> FileView:
        """Send one file unless the registry has its bytes: hashed in a first pass, streamed in a
        second.

        A large file goes on where it was cut, in this call or in a later one for the same file;
        Unavailable (`upload-broken`) says so when several tries in a row got no further. One that
        changes between the passes is refused as Unverified.
        """
        path = Path(path)
        if not path.is_file():
            raise Invalid("no-such-file", f"{path} is not a file.")
        watch = on_bytes if isinstance(on_bytes, Progress) else Progress(on_bytes)
        sha256, size = hash_file(path, watch.hashed)
        if self.has_blob(sha256):
            watch.known(size)
        elif size <= WHOLE:
            self._send_whole(path, sha256, size, watch)
        else:
            self._send_resumably(path, sha256, size, watch)
        return FileView(path.name, sha256, size)

    def _send_whole(self, path: Path, sha256: str, size: int, watch: Progress) -> None:
        sent = _Sent(watch)

        def attempt() -> None:
            # The same bytes under the same digest: sending them again changes nothing, so a retry
            # is safe.
            sent.back_to(0)
            body = _chunks(path, 0, size, sent)
            with self._open(
                "PUT", f"/blobs/{sha256}", content=body, headers=_length(size), timeout=SENDING
            ) as answer:
                answer.read()

        self._patiently(attempt)

    def _send_resumably(self, path: Path, sha256: str, size: int, watch: Progress) -> None:
        sent, furthest, quiet, told, ours, again = _Sent(watch), -1, 0, 0, False, False
        while True:
            try:
                if again and self._has(sha256):  # an answer was lost, not the bytes
                    sent.back_to(size)
                    return
                offset = self._offset(sha256)
                if not ours and offset > told:
                    sent.back_to(told)
                    watch.resumed(offset - told)
                    sent.so_far = told = offset
                sent.back_to(offset)
                again = True
                if offset > furthest:
                    furthest, quiet = offset, 0
                headers = _length(size - offset) | {"Upload-Offset": str(offset)}
                body = _chunks(path, offset, size, sent)
                where = f"/uploads/{sha256}"
                with self._open(
                    "PATCH", where, content=body, headers=headers, timeout=SENDING
                ) as answer:
                    answer.read()
                return
            except (Unavailable, Conflict) as error:
                if isinstance(error, Conflict) and error.kind not in (
                    "upload-busy",
                    "upload-offset",
                ):
                    raise
                again, ours = (
                    True,
                    ours or isinstance(error, Unavailable),
                )  # a conflict took nothing of ours
                if quiet == len(PAUSES):
                    raise Unavailable(
                        "upload-broken",
                        f"The upload of {path} stands at {max(furthest, 0)} of {size} bytes: "
                        f"{error.detail}",
                        "Run the same command again: it goes on from there.",
                        offset=max(furthest, 0),
                        size=size,
                    ) from error
                if self._on_wait is not None:
                    self._on_wait(error)
                time.sleep(max(PAUSES[quiet], float(error.facts.get("retry_after", 0))))
                quiet += 1

    def _offset(self, sha256: str) -> int:
        """How many bytes an earlier try has left at the registry."""
        with self._open("HEAD", f"/uploads/{sha256}", accept=httpx.codes.NOT_FOUND) as answer:
            said = answer.headers.get("Upload-Offset", "")
            return int(said) if said.isdecimal() and answer.is_success else 0

    def get_blob(self, sha256: str, dest: str | Path, on_bytes: OnBytes | None = None) -> Path:
        """Fetch bytes to `dest`: resumed where a cut one stopped, compared with the digest, then
        moved into place.

        Raises Unverified when the bytes are others than asked for; nothing is left at `dest` then.
        """
        dest = Path(dest)
        dest.parent.mkdir(parents=True, exist_ok=True)
        part = dest.with_name(f".{dest.name}.{sha256[:12]}.part")
        step = on_bytes or _ignore
        if part.exists():
            step(part.stat().st_size)
        while True:
            had = _size(part)
            try:
                self._patiently(lambda: self._fetch(sha256, part, step))
                break
            except Unavailable:
                if (
                    _size(part) <= had
                ):  # a link that is cut again and again still gets there while bytes arrive
                    raise
        found, _ = hash_file(part)
        if found != sha256:
            part.unlink()
            raise Unverified(
                "digest-mismatch",
                f"The bytes received for sha256:{sha256} have the digest sha256:{found}.",
                "Fetch them again; if it happens twice, ask an administrator to run countersign "
                "doctor.",
            )
        part.replace(dest)
        return dest

    def _fetch(self, sha256: str, part: Path, step: OnBytes) -> None:
        had = _size(part)
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={had}-"} if had else {})
        past_the_end = httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE
        with self._open(
            "GET", f"/blobs/{sha256}", headers=headers, accept=past_the_end if had else None
        ) as answer:
            if answer.status_code == past_the_end:
                # there is nothing more to get: the digest says whether what is here is right
                return
            resumed = answer.status_code == httpx.codes.PARTIAL_CONTENT
            if had and not resumed:
                step(-had)
            with part.open("ab" if resumed else "wb") as out:
                for (
                    chunk
                ) in answer.iter_raw():  # as it comes: a cut loses nothing that was received
                    out.write(chunk)
                    step(len(chunk))
                out.flush()
                os.fsync(out.fileno())


def hash_file(path: Path, on_bytes: OnBytes | None = None) -> tuple[str, int]:
    """The SHA-256 of a file in hex, and its size in bytes, without holding it in memory."""
    hasher, size, room = hashlib.sha256(), 0, memoryview(bytearray(CHUNK))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(room):
            hasher.update(room[:count])
            size += count
            if on_bytes is not None:
                on_bytes(count)
    return hasher.hexdigest(), size


class _Sent:
    """What one file's steps add up to so far, so that a cut can be taken back to where the registry
    stands.
    """

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
            chunk = file.read(min(CHUNK, end - start))
            if not chunk:
                raise Unverified(
                    "file-changed",
                    f"{path} became shorter while it was sent.",
                )
            yield chunk
            start += len(chunk)
            step(len(chunk))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _ignore(_: int) -> None:
    """Nobody counts."""
