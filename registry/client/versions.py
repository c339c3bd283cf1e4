"""Base models, adapters and checkpoints: add a folder as a version, look, verify, pull."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from uuid import UUID

from registry.client.blobs import Blobs, OnBytes, Progress, hash_file
from registry.client.transport import SLOW, ref_path
from registry.errors import Invalid, Unverified
from registry.views.versions import AddedView, LinePage, LineView, VerifiedView, VersionView

Kind = Literal["base", "adapter", "checkpoint"]
NOUNS: dict[Kind, str] = {"base": "/bases", "adapter": "/adapters", "checkpoint": "/checkpoints"}


class Versions(Blobs):
    """Lines of work and their versions."""

    def add(
        self,
        kind: Kind,
        directory: str | Path,
        name: str,
        *,
        base: str | None = None,
        domain: str | None = None,
        meta: Mapping[str, Any] | None = None,
        training_run: UUID | str | None = None,
        attempt: int | None = None,
        step: int | None = None,
        on_bytes: OnBytes | Progress | None = None,
    ) -> AddedView:
        """Send every file of a folder, then register them as a version of `team/name` (bytes before rows).

        `training_run`, `attempt` and `step` are a trainer's. Raises BundleRejected with every defect when the
        registry refuses the files; nothing is stored then.
        """
        files = [self._sent(path, inside, on_bytes) for path, inside in bundle_files(directory)]
        body = {
            "name": name, "files": files, "meta": dict(meta or {}), "base": base, "domain": domain,
            "training_run": str(training_run) if training_run else None, "attempt": attempt, "step": step,
        }  # fmt: skip
        return self._post(NOUNS[kind], AddedView, body, timeout=SLOW)

    def _sent(self, path: Path, inside: str, on_bytes: OnBytes | Progress | None) -> dict[str, Any]:
        """One file of a bundle, its bytes published, as the registering request names it."""
        sent = self.put_file(path, on_bytes)
        return {"path": inside, "sha256": sent.sha256, "size": sent.size}

    def lines(self, kind: Kind | None = None, q: str | None = None) -> list[LineView]:
        """All lines, of one kind or matching a search."""
        return list(self._items("/lines", LinePage, kind=kind, q=q))

    def version(self, ref: str) -> VersionView:
        """One version by number, channel or digest."""
        return self._get(f"/versions/{ref_path(ref)}", VersionView)

    def versions(self, line: str) -> list[VersionView]:
        """Every version of `team/name`."""
        return self._get(f"/lines/{ref_path(line)}/versions", list[VersionView])

    def verify(self, ref: str) -> VerifiedView:
        """Have the registry read every byte again and compare digests and roots."""
        return self._get(f"/verify/{ref_path(ref)}", VerifiedView, timeout=SLOW)

    def pull(self, ref: str, dest: str | Path, on_bytes: OnBytes | Progress | None = None) -> VersionView:
        """Fetch all files of a version into a folder; those already there with the right digest are kept."""
        version = self.version(ref)
        for file in version.files:
            inside = PurePosixPath(file.path)
            if inside.is_absolute() or ".." in inside.parts or "\\" in file.path:
                raise Unverified(
                    "unsafe-path", f"{version.ref} names a file outside its own folder: {file.path!r}.",
                    "Do not use this version; tell an administrator.",
                )  # fmt: skip
            target = Path(dest, inside)
            if target.is_file() and hash_file(target)[0] == file.sha256:
                if on_bytes is not None:
                    on_bytes(file.size)
                continue
            self.get_blob(file.sha256, target, on_bytes)
        return version


def bundle_files(directory: str | Path) -> list[tuple[Path, str]]:
    """Every file under a folder with its path inside it, sorted; Invalid for what would be left out silently."""
    root = Path(directory)
    if not root.is_dir():
        raise Invalid("no-such-folder", f"{root} is not a folder.", "Name the folder that holds the files.")
    found: list[tuple[Path, str]] = []
    for folder, folders, names in os.walk(root):
        for name in [*folders, *names]:
            path = Path(folder, name)
            if path.is_dir() and path.is_symlink():
                raise Invalid("linked-folder", f"{path} is a link to a folder.", "Copy the folder in its place.")
            if path.is_file():
                found.append((path, path.relative_to(root).as_posix()))
            elif not path.is_dir():
                raise Invalid("not-a-file", f"{path} is neither a file nor a folder.", "Take it out of the folder.")
    if not found:
        raise Invalid("empty-folder", f"{root} holds no file.", "Name the folder that holds the files.")
    return sorted(found, key=lambda item: item[1])
