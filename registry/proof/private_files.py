"""Private files: readable by their owner alone, and never seen half-written.

Standard library only and below every room, since keys, tokens, sign-ins and routes are all kept so.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_private(path: Path, content: str | bytes, *, overwrite: bool = True) -> Path:
    """Write a 0600 file at once: a reader, or a crash, sees the old content or the new, never a
    part of it.

    Without `overwrite`, raises FileExistsError where the name is taken, even by another process
    that writes at the same time.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            draft.replace(path)
        else:
            # A link fails where the name is taken; a rename would silently replace the file.
            path.hardlink_to(draft)
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(path.parent)
    return path


def sync_folder(folder: Path) -> None:
    """Make the renames in this folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
