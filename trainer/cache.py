"""Files of the registry on this machine's disk: by digest, fetched once, checked at every use."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Protocol

from registry.client import Countersign
from registry.documents import canonical
from registry.errors import Unverified


class FileEntry(Protocol):
    """A file as the registry lists it in a lease, a version or a route."""

    @property
    def path(self) -> str: ...
    @property
    def sha256(self) -> str: ...
    @property
    def size(self) -> int: ...


class Cache:
    """Blobs under their digests, and folders of hard links to them for the loaders."""

    def __init__(self, registry: Countersign, root: Path) -> None:
        self._registry = registry
        self._blobs = root / "blobs"
        self._folders = root / "folders"
        self._blobs.mkdir(parents=True, exist_ok=True)
        self._folders.mkdir(exist_ok=True)

    def file(self, sha256: str) -> Path:
        """The file with a digest.

        It is hashed again at every call, so that a damaged disk costs only a download.
        """
        blob = self._blobs / sha256
        if blob.is_file():
            with blob.open("rb") as stored:
                if hashlib.file_digest(stored, "sha256").hexdigest() == sha256:
                    return blob
            blob.unlink()
        return self._registry.get_blob(sha256, blob)

    def folder(self, files: Iterable[FileEntry]) -> Path:
        """A folder with exactly these files, named by its manifest's digest.

        Raises Unverified `unsafe-path`.
        """
        entries = sorted(files, key=lambda entry: entry.path)
        manifest = [
            {"path": entry.path, "sha256": entry.sha256, "size": entry.size} for entry in entries
        ]
        blobs = [self.file(entry.sha256) for entry in entries]
        final = self._folders / canonical.digest(manifest).removeprefix("sha256:")
        part = final.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        for entry, blob in zip(entries, blobs, strict=True):
            inside = PurePosixPath(entry.path)
            if inside.is_absolute() or ".." in inside.parts or "\\" in entry.path:
                raise Unverified(
                    "unsafe-path", f"The path {entry.path!r} leads outside its own folder."
                )
            target = part / inside
            target.parent.mkdir(parents=True, exist_ok=True)
            target.hardlink_to(blob)
        # Always linked again: an old folder may still hold a blob that was just found damaged.
        shutil.rmtree(final, ignore_errors=True)
        return part.rename(final)
