"""Base models, adapters and checkpoints: add a folder as a version, look, verify, pull."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from uuid import UUID

from registry.artifacts.bundles.files import read_bundle
from registry.artifacts.bundles.judge import by_name
from registry.artifacts.weights.local_files import read_files
from registry.artifacts.weights.tensors import File
from registry.client.blobs import Blobs, OnBytes, Progress, hash_file
from registry.client.transport import SLOW, ref_path
from registry.errors import BundleRejected, Defect, Invalid, Unverified
from registry.views.chat_templates import ChatTemplateView
from registry.views.deprecations import DeprecationView
from registry.views.versions import AddedView, LinePage, LineView, VerifiedView, VersionView

Kind = Literal["base", "adapter", "checkpoint"]
NOUNS: dict[Kind, str] = {"base": "/bases", "adapter": "/adapters", "checkpoint": "/checkpoints"}

UNSENT = "0" * 64
"""The digest of a file that was not read yet."""


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
        quantised_of: str | None = None,
        on_bytes: OnBytes | Progress | None = None,
    ) -> AddedView:
        """Send every file of a folder, then register them as a version of `team/name` (bytes before
        rows).

        Where the names or sizes alone are wrong, nothing is sent: the registry is asked to refuse,
        and what the rules say of the contents is told with it.

        `quantised_of` names what a checkpoint is a quantisation of: the registry works that out
        from the bytes. `training_run`, `attempt` and `step` are a trainer's. Raises BundleRejected
        with every defect when the registry refuses the files; nothing is stored then.
        """
        found = bundle_files(directory)
        body = {
            "name": name,
            "meta": dict(meta or {}),
            "base": base,
            "domain": domain,
            "training_run": str(training_run) if training_run else None,
            "attempt": attempt,
            "step": step,
            **({"quantised_of": quantised_of} if quantised_of else {}),
        }
        self._ask(kind, found, body)
        files = [self._sent(path, inside, on_bytes) for path, inside in found]
        return self._post(NOUNS[kind], AddedView, body | {"files": files}, timeout=SLOW)

    def _ask(self, kind: Kind, found: list[tuple[Path, str]], body: Mapping[str, Any]) -> None:
        """Have the registry refuse what is wrong by its name or size, before a byte is sent; the
        refusal is its own.

        A registry that takes what our rules would not asks for the bytes (`blob-missing`), and then
        it gets them.
        """
        unsent = [File(inside, UNSENT, path.stat().st_size) for path, inside in found]
        if not by_name(kind, unsent):
            return
        files = [{"path": file.path, "sha256": file.sha256, "size": file.size} for file in unsent]
        try:
            self._post(NOUNS[kind], AddedView, {**body, "files": files}, timeout=SLOW)
        except BundleRejected as refused:
            known = {(one.file, one.rule) for one in refused.defects}
            more = [one for one in _judged_here(kind, found) if (one.file, one.rule) not in known]
            raise BundleRejected([*refused.defects, *more], **refused.facts) from None
        except Unverified as missing:
            if missing.kind != "blob-missing":
                raise

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

    def deprecate(self, ref: str, reason: str) -> DeprecationView:
        """Mark a version, or with `dataset:` before it a data set version, as not to be newly used,
        for good.
        """
        return self._post("/deprecations", DeprecationView, {"ref": ref, "reason": reason})

    def chat_template(self, ref: str) -> ChatTemplateView:
        """A version's chat template against its base's, and golden conversations under both."""
        return self._get(f"/chat-templates/{ref_path(ref)}", ChatTemplateView, timeout=SLOW)

    def pull(
        self, ref: str, dest: str | Path, on_bytes: OnBytes | Progress | None = None
    ) -> VersionView:
        """Fetch all files of a version into a folder; those already there with the right digest are
        kept.
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


def _judged_here(kind: Kind, found: list[tuple[Path, str]]) -> list[Defect]:
    """All that the rules say of the files as they lie here, short of reading every number in
    them.
    """
    places = {f"{number:064x}": path for number, (path, _) in enumerate(found)}
    listed = [
        File(inside, digest, places[digest].stat().st_size)
        for digest, (_, inside) in zip(places, found, strict=True)
    ]

    read = read_files(places.__getitem__)
    return read_bundle(kind, listed, read).defects.listed()


def bundle_files(directory: str | Path) -> list[tuple[Path, str]]:
    """Every file under a folder with its path inside it, sorted; Invalid for links, pipes and
    whatever else is no file.
    """
    root = Path(directory)
    if not root.is_dir():
        raise Invalid("no-such-folder", f"{root} is not a folder.")
    found: list[tuple[Path, str]] = []
    for folder, folders, names in os.walk(root):
        for name in [*folders, *names]:
            path = Path(folder, name)
            if path.is_symlink():
                raise Invalid(
                    "linked-folder" if path.is_dir() else "linked-file",
                    f"{path} is a link, which may lead anywhere.",
                    "Copy what it leads to in its place; a snapshot of a Hugging Face cache can "
                    "be imported.",
                )
            if path.is_file():
                found.append((path, path.relative_to(root).as_posix()))
            elif not path.is_dir():
                raise Invalid(
                    "not-a-file",
                    f"{path} is {nature(path)}, neither a file nor a folder.",
                )
    if not found:
        raise Invalid("empty-folder", f"{root} holds no file.")
    return sorted(found, key=lambda item: item[1])


def nature(path: Path) -> str:
    """What stands there instead of a file; it is never opened, for that could wait without end."""
    mode = path.lstat().st_mode
    return next((what for holds, what in NATURES if holds(mode)), "nothing we know")


NATURES = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISLNK, "a link"),
    (stat.S_ISDIR, "a folder"),
)
