"""Bytes by digest: streamed up, asked for first; streamed down, resumed, and never left behind unverified."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx

from registry.client.transport import SLOW, Transport
from registry.errors import Invalid, Unavailable, Unverified
from registry.views.versions import FileView

CHUNK = 1 << 20
OnBytes = Callable[[int], None]


class Blobs(Transport):
    """The blob store's door. `on_bytes` hears every step in bytes; the steps of one file add up to its size."""

    def has_blob(self, sha256: str) -> bool:
        """Are these bytes (64 hex digits) there already?"""

        def attempt() -> bool:
            with self._open("HEAD", f"/blobs/{sha256}", accept=httpx.codes.NOT_FOUND) as answer:
                return answer.status_code != httpx.codes.NOT_FOUND

        return self._patiently(attempt)

    def put_file(self, path: str | Path, on_bytes: OnBytes | None = None) -> FileView:
        """Send one file unless the registry has its bytes: hashed in a first pass, streamed in a second.

        A file that changes between the passes is refused by the registry as Unverified.
        """
        path = Path(path)
        if not path.is_file():
            raise Invalid("no-such-file", f"{path} is not a file.", "Name a file that exists.")
        sha256, size = hash_file(path)
        step = on_bytes or _ignore
        if self.has_blob(sha256):
            step(size)
            return FileView(path.name, sha256, size)

        sent = 0

        def count(n: int) -> None:
            nonlocal sent
            sent += n
            step(n)

        def attempt() -> None:
            # The same bytes under the same digest: sending them again changes nothing, so a retry is safe.
            if sent:
                count(-sent)
            headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
            body = _chunks(path, count)
            with self._open("PUT", f"/blobs/{sha256}", content=body, headers=headers, timeout=SLOW) as answer:
                answer.read()

        self._patiently(attempt)
        return FileView(path.name, sha256, size)

    def get_blob(self, sha256: str, dest: str | Path, on_bytes: OnBytes | None = None) -> Path:
        """Fetch bytes to `dest`: resumed where a cut one stopped, compared with the digest, then moved into place.

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
                if _size(part) <= had:  # a link that is cut again and again still gets there while bytes arrive
                    raise
        found, _ = hash_file(part)
        if found != sha256:
            part.unlink()
            raise Unverified(
                "digest-mismatch", f"The bytes received for sha256:{sha256} have the digest sha256:{found}.",
                "Fetch them again; if it happens twice, ask an administrator to run countersign doctor.",
            )  # fmt: skip
        part.replace(dest)
        return dest

    def _fetch(self, sha256: str, part: Path, step: OnBytes) -> None:
        had = _size(part)
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={had}-"} if had else {})
        past_the_end = httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE
        with self._open("GET", f"/blobs/{sha256}", headers=headers, accept=past_the_end if had else None) as answer:
            if answer.status_code == past_the_end:
                return  # there is nothing more to get: the digest says whether what is here is right
            resumed = answer.status_code == httpx.codes.PARTIAL_CONTENT
            if had and not resumed:
                step(-had)
            with part.open("ab" if resumed else "wb") as out:
                for chunk in answer.iter_raw():  # as it comes: a cut loses nothing that was received
                    out.write(chunk)
                    step(len(chunk))
                out.flush()
                os.fsync(out.fileno())


def hash_file(path: Path) -> tuple[str, int]:
    """The SHA-256 of a file in hex, and its size in bytes, without holding it in memory."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return digest.hexdigest(), file.tell()


def _chunks(path: Path, step: OnBytes) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk
            step(len(chunk))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _ignore(_: int) -> None:
    """Nobody counts."""
