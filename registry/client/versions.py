"""Base models, adapters and checkpoints: register a folder as a version, show, verify, pull."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from uuid import UUID

from registry.artifacts.bundles import companions
from registry.artifacts.bundles.files import read_bundle
from registry.artifacts.bundles.judge import by_name
from registry.artifacts.weights.local_files import read_files
from registry.artifacts.weights.tensors import File
from registry.client.blobs import Blobs, OnBytes, Progress, hash_file
from registry.client.transport import SLOW, ref_path
from registry.errors import BundleRejected, Defect, Invalid, Unverified
from registry.views.imports import LeftOut
from registry.views.versions import AddedView, LinePage, LineView, VerifiedView, VersionView

Kind = Literal["base", "adapter", "checkpoint"]
NOUNS: dict[Kind, str] = {"base": "/bases", "adapter": "/adapters", "checkpoint": "/checkpoints"}

UNSENT = "0" * 64
"""The placeholder digest of a file that has not been read yet."""


@dataclass(frozen=True, slots=True)
class NewVersion:
    """What to register a bundle as: its line `team/name`, its base, and what is known of it.

    `quantised_of` names the version that a checkpoint is a quantisation of; the registry verifies
    that from the bytes. `left_out` is what was beside the files and is not sent. Only a trainer
    sets `training_run`, `attempt` and `step`.
    """

    name: str
    base: str | None = None
    domain: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    quantised_of: str | None = None
    left_out: Sequence[LeftOut] = ()
    training_run: UUID | str | None = None
    attempt: int | None = None
    step: int | None = None

    def body(self, files: list[dict[str, Any]]) -> dict[str, Any]:
        """The request that registers these files."""
        left_out = [asdict(each) | {"why": each.why[:200]} for each in self.left_out]
        return {
            "name": self.name,
            "meta": dict(self.meta),
            "base": self.base,
            "domain": self.domain,
            "training_run": str(self.training_run) if self.training_run else None,
            "attempt": self.attempt,
            "step": self.step,
            "files": files,
            **({"left_out": left_out} if left_out else {}),
            **({"quantised_of": self.quantised_of} if self.quantised_of else {}),
        }


class Versions(Blobs):
    """Lines and their versions."""

    def add(
        self,
        kind: Kind,
        directory: str | Path,
        version: NewVersion,
        on_bytes: OnBytes | Progress | None = None,
    ) -> AddedView:
        """Send every file of a folder, then register them as a version: bytes before rows.

        When the names or sizes alone are wrong, nothing is sent. The registry refuses the names,
        and the error also lists the defects that our own rules find in the contents.

        Raises BundleRejected with every defect when the registry refuses the files; nothing is
        stored then.
        """
        paths = bundle_files(directory)
        self._check_names(kind, paths, version)
        files = [self._sent(path, inside, on_bytes) for path, inside in paths]
        return self._post(NOUNS[kind], AddedView, version.body(files), timeout=SLOW)

    def _check_names(self, kind: Kind, paths: list[tuple[Path, str]], version: NewVersion) -> None:
        """Have the registry refuse wrong names or sizes before a byte is sent.

        The refusal is the registry's own. One whose rules accept the names answers that the bytes
        are missing (`blob-missing`), and is then sent them.
        """
        unsent = [File(inside, UNSENT, path.stat().st_size) for path, inside in paths]
        if not by_name(kind, unsent) and not companions.undeclared(kind, version.left_out):
            return
        files = [{"path": file.path, "sha256": file.sha256, "size": file.size} for file in unsent]
        try:
            self._post(NOUNS[kind], AddedView, version.body(files), timeout=SLOW)
        except BundleRejected as refused:
            known = {(defect.file, defect.rule) for defect in refused.defects}
            unknown = [
                defect
                for defect in _local_defects(kind, paths)
                if (defect.file, defect.rule) not in known
            ]
            raise BundleRejected([*refused.defects, *unknown], **refused.facts) from None
        except Unverified as missing:
            if missing.kind != "blob-missing":
                raise

    def _sent(self, path: Path, inside: str, on_bytes: OnBytes | Progress | None) -> dict[str, Any]:
        """Send one file of a bundle; return it as the request to register names it."""
        sent = self.put_file(path, on_bytes)
        return {"path": inside, "sha256": sent.sha256, "size": sent.size}

    def lines(self, kind: Kind | None = None, q: str | None = None) -> list[LineView]:
        """Return all lines, or those of one kind or matching a text."""
        return list(self._items("/lines", LinePage, kind=kind, q=q))

    def version(self, ref: str) -> VersionView:
        """Return one version by number, channel or digest."""
        return self._get(f"/versions/{ref_path(ref)}", VersionView)

    def versions(self, line: str) -> list[VersionView]:
        """Return every version of `team/name`."""
        return self._get(f"/lines/{ref_path(line)}/versions", list[VersionView])

    def verify(self, ref: str) -> VerifiedView:
        """Have the registry read every byte again and compare digests and roots."""
        return self._get(f"/verify/{ref_path(ref)}", VerifiedView, timeout=SLOW)

    def pull(
        self, ref: str, dest: str | Path, on_bytes: OnBytes | Progress | None = None
    ) -> VersionView:
        """Fetch all files of a version into a folder.

        Files that are there with the right digest are kept.
        """
        version = self.version(ref)
        for file in version.files:
            inside = PurePosixPath(file.path)
            if inside.is_absolute() or ".." in inside.parts or "\\" in file.path:
                raise Unverified(
                    "unsafe-path",
                    f"{version.ref} names a file outside its own folder: {file.path!r}.",
                )
            target = Path(dest, inside)
            if target.is_file() and hash_file(target)[0] == file.sha256:
                if on_bytes is not None:
                    on_bytes(file.size)
                continue
            self.get_blob(file.sha256, target, on_bytes)
        return version


def _local_defects(kind: Kind, paths: list[tuple[Path, str]]) -> list[Defect]:
    """Every defect that our rules find in the local files, without reading every tensor value."""
    places = {f"{number:064x}": path for number, (path, _) in enumerate(paths)}
    files = [
        File(inside, digest, places[digest].stat().st_size)
        for digest, (_, inside) in zip(places, paths, strict=True)
    ]
    read = read_files(places.__getitem__)
    return read_bundle(kind, files, read).defects.listed()


def bundle_files(directory: str | Path) -> list[tuple[Path, str]]:
    """Return every file under a folder with its path inside it, sorted by that path.

    Raises Invalid for links, pipes and anything else that is neither a file nor a folder.
    """
    root = Path(directory)
    if not root.is_dir():
        raise Invalid("no-such-folder", f"{root} is not a folder.")
    paths: list[tuple[Path, str]] = []
    for folder, folders, names in os.walk(root):
        for name in [*folders, *names]:
            path = Path(folder, name)
            if path.is_symlink():
                raise Invalid(
                    "linked-folder" if path.is_dir() else "linked-file",
                    f"{path} is a link, which may lead anywhere.",
                    "Replace the link by a copy of what it leads to. A snapshot of a Hugging Face "
                    "cache can be imported as it is.",
                )
            if path.is_file():
                paths.append((path, path.relative_to(root).as_posix()))
            elif not path.is_dir():
                raise Invalid(
                    "not-a-file", f"{path} is {nature(path)}, neither a file nor a folder."
                )
    if not paths:
        raise Invalid("empty-folder", f"{root} has no file.")
    return sorted(paths, key=lambda entry: entry[1])


def nature(path: Path) -> str:
    """Say what a path is that is not a file. It is never opened: opening a pipe could block."""
    mode = path.lstat().st_mode
    return next((what for is_so, what in NATURES if is_so(mode)), "of an unknown type")


NATURES = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISLNK, "a link"),
    (stat.S_ISDIR, "a folder"),
)
