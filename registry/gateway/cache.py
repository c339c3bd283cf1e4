"""What one gateway keeps on disk: bundles by manifest digest, the last good routes, and its key."""

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
    """A directory and its lock. Layout: `<manifest hex>/`, routing.json, unit.key, records/."""

    def __init__(self, root: Path) -> None:
        """Make the directory and lock it. Raises Conflict `cache-in-use`."""
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
            raise Conflict("cache-in-use", f"Another gateway works in {self.root}.") from error

    def close(self) -> None:
        """Release the directory."""
        os.close(self._lock)

    def unit_key(self) -> bytes:
        """This gateway's random key for hashing unit ids, 32 bytes.

        It is made once, so that counts survive a restart.
        """
        path = self.root / "unit.key"
        if not path.exists() or path.stat().st_size != 32:
            write_private(path, secrets.token_bytes(32))
        return path.read_bytes()

    def place(self, arm: ArmView) -> Path:
        """The directory of an arm's files. It exists only when they are complete."""
        return self.root / arm.digest.removeprefix("sha256:")

    def pull(self, registry: Countersign, arm: ArmView) -> Path:
        """Fetch an arm's files where they are missing, and return their directory.

        Every byte is read and compared with its digest at each call. The directory appears by one
        rename, so an engine never sees half of it; a directory whose bytes have changed is removed
        and fetched again. Blocks. Raises Unverified, and whatever fetching raises.
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
                # A link or a file that somebody else put there: nothing in it can be trusted.
                shutil.rmtree(partial)
                raise Unverified(
                    "bundle-mismatch",
                    f"The files fetched for {arm.ref} are not those that its manifest lists.",
                )
            partial.rename(home)
            sync_folder(self.root)
            return home


def check_manifest(arm: ArmView) -> None:
    """Check that the listed files match the arm's digest and that none leaves its folder.

    Raises Unverified `manifest-mismatch`.
    """
    manifest = [
        {"path": file.path, "sha256": file.sha256, "size": file.size}
        for file in sorted(arm.files, key=lambda file: file.path)
    ]
    unsafe = [file.path for file in arm.files if not inside(file.path)]
    if unsafe or not arm.files or digest(manifest) != arm.digest:
        why = (
            f"it names {unsafe[0]!r} outside its folder"
            if unsafe
            else "the files it lists do not have its digest"
        )
        raise Unverified("manifest-mismatch", f"{arm.ref} is not loaded: {why}.", ref=arm.ref)


def inside(path: str) -> bool:
    """Whether this is a plain relative path that stays in its folder."""
    parts = PurePosixPath(path).parts
    plain = path == "/".join(parts) and "\\" not in path and "\0" not in path
    return bool(parts) and plain and not path.startswith("/") and ".." not in parts


def holds(directory: Path, arm: ArmView) -> bool:
    """Whether the directory holds the arm's files, byte for byte, and nothing else."""
    expected = {file.path: (file.sha256, file.size) for file in arm.files}
    paths = [path for path in directory.rglob("*") if path.is_symlink() or not path.is_dir()]
    if any(path.is_symlink() or not path.is_file() for path in paths):
        return False
    return {path.relative_to(directory).as_posix(): hash_file(path) for path in paths} == expected
