"""The registry's bytes on this machine's disk: by digest, checked before every use, fetched
once.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Protocol

from registry.client import Countersign
from registry.documents import canonical
from registry.errors import Unverified


class Wanted(Protocol):
    """A file as the registry names it, in a lease, a version or a route."""

    @property
    def path(self) -> str: ...
    @property
    def sha256(self) -> str: ...
    @property
    def size(self) -> int: ...


class Cache:
    """Blobs under their digests, and folders of hard links to them as loaders want to see them."""

    def __init__(self, registry: Countersign, root: Path) -> None:
        self._registry = registry
        self._blobs = root / "blobs"
        self._folders = root / "folders"
        self._blobs.mkdir(parents=True, exist_ok=True)
        self._folders.mkdir(exist_ok=True)

    def file(self, sha256: str) -> Path:
        """The bytes of a digest; hashed again each time, so a damaged disk costs a download and
        nothing else.
        """
        blob = self._blobs / sha256
        if blob.is_file():
            with blob.open("rb") as held:
                if hashlib.file_digest(held, "sha256").hexdigest() == sha256:
                    return blob
            blob.unlink()
        return self._registry.get_blob(sha256, blob)

    def folder(self, files: Iterable[Wanted]) -> Path:
        """A folder with exactly these files, named by its manifest's digest. Raises Unverified for
        an unsafe path.
        """
        wanted = sorted(files, key=lambda file: file.path)
        manifest = [
            {"path": file.path, "sha256": file.sha256, "size": file.size} for file in wanted
        ]
        blobs = [self.file(file.sha256) for file in wanted]
        final = self._folders / canonical.digest(manifest).removeprefix("sha256:")
        part = final.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        for file, blob in zip(wanted, blobs, strict=True):
            inside = PurePosixPath(file.path)
            if inside.is_absolute() or ".." in inside.parts or "\\" in file.path:
                raise Unverified(
                    "unsafe-path",
                    f"A file is named outside its own folder: {file.path!r}.",
                )
            place = part / inside
            place.parent.mkdir(parents=True, exist_ok=True)
            place.hardlink_to(blob)
        # Always linked anew: an old folder may still hold the bytes of a blob found damaged just
        # now.
        shutil.rmtree(final, ignore_errors=True)
        return part.rename(final)
