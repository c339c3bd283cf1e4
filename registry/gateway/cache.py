"""What a gateway keeps on disk: bundles by manifest digest, the last good routes, its key; one
gateway a directory.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections import defaultdict
from pathlib import Path, PurePosixPath
from threading import Lock

from registry.client import Countersign
from registry.client.blobs import hash_file
from registry.documents.canonical import digest
from registry.errors import Conflict, Unverified
from registry.proof.private_files import sync_folder, write_private
from registry.views.rollouts import ArmView


class Cache:
    """A directory and its lock. Layout: <manifest hex>/ , routing.json, unit.key, records/."""

    def __init__(self, root: Path) -> None:
        """Make the directory and hold it; Conflict `cache-in-use` when another gateway does."""
        self.root = root.absolute()
        self.root.mkdir(parents=True, exist_ok=True)
        self._pulling: defaultdict[str, Lock] = defaultdict(Lock)
        self._lock = os.open(
            self.root / "gateway.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise Conflict(
                "cache-in-use",
                f"Another gateway works in {self.root}.",
            ) from error

    def close(self) -> None:
        """Let another gateway have the directory."""
        os.close(self._lock)

    def unit_key(self) -> bytes:
        """This gateway's own random key for hashing unit ids: 32 bytes, made once, so that counts
        survive a restart.
        """
        path = self.root / "unit.key"
        if not path.exists() or path.stat().st_size != 32:
            write_private(path, secrets.token_bytes(32))
        return path.read_bytes()

    def place(self, arm: ArmView) -> Path:
        """Where an arm's files lie, complete or not at all."""
        return self.root / arm.digest.removeprefix("sha256:")

    def pull(self, registry: Countersign, arm: ArmView) -> Path:
        """Have an arm's files in place, every byte read and compared with its digest before each
        use.

        The directory appears by one rename, so an engine never sees half of it; a directory whose
        bytes have changed is thrown away and fetched anew. Blocks. Raises Unverified, and whatever
        fetching raises.
        """
        check_manifest(arm)
        home = self.place(arm)
        with self._pulling[home.name]:
            if home.exists():
                if holds(home, arm):
                    return home
                spoilt = self.root / f".spoilt-{home.name}-{secrets.token_hex(4)}"
                home.rename(spoilt)
                shutil.rmtree(spoilt)
            partial = self.root / f".partial-{home.name}"
            for file in arm.files:
                target = partial / file.path
                if not target.is_file() or hash_file(target) != (file.sha256, file.size):
                    registry.get_blob(file.sha256, target)
            if not holds(partial, arm):
                # A link, or a file put there by somebody else: nothing in it can be trusted.
                shutil.rmtree(partial)
                raise Unverified(
                    "bundle-mismatch",
                    f"What was fetched for {arm.ref} is not what its manifest lists.",
                )
            partial.rename(home)
            sync_folder(self.root)
            return home


def check_manifest(arm: ArmView) -> None:
    """The files listed are those of the digest, and none leaves its folder; Unverified
    otherwise.
    """
    manifest = [
        {"path": f.path, "sha256": f.sha256, "size": f.size}
        for f in sorted(arm.files, key=lambda f: f.path)
    ]
    unsafe = [f.path for f in arm.files if not inside(f.path)]
    if unsafe or not arm.files or digest(manifest) != arm.digest:
        why = (
            f"it names {unsafe[0]!r} outside its folder"
            if unsafe
            else "its files do not add up to its digest"
        )
        raise Unverified(
            "manifest-mismatch",
            f"{arm.ref} is not loaded: {why}.",
            "Do not serve it; ask an administrator to run countersign doctor.",
            ref=arm.ref,
        )


def inside(path: str) -> bool:
    """Is this a plain relative path that stays in its folder?"""
    parts = PurePosixPath(path).parts
    plain = path == "/".join(parts) and "\\" not in path and "\0" not in path
    return bool(parts) and plain and not path.startswith("/") and ".." not in parts


def holds(directory: Path, arm: ArmView) -> bool:
    """Does the directory hold the arm's files, byte for byte, and nothing else?"""
    wanted = {file.path: (file.sha256, file.size) for file in arm.files}
    there = [path for path in directory.rglob("*") if path.is_symlink() or not path.is_dir()]
    if any(path.is_symlink() or not path.is_file() for path in there):
        return False
    return {path.relative_to(directory).as_posix(): hash_file(path) for path in there} == wanted
