"""Private files: only their owner can read them, and nobody sees them half-written.

The module uses the standard library only, because every room stores something this way: keys,
tokens, sign-ins, routes.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_private(path: Path, content: str | bytes, *, overwrite: bool = True) -> Path:
    """Write a file with mode 0600 atomically: a reader, or a crash, never sees a part of it.

    Without `overwrite`, raises FileExistsError if the name exists, even if another process creates
    it at the same time.
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
            # A link fails if the name exists; a rename would silently replace the file.
            path.hardlink_to(draft)
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(path.parent)
    return path


def sync_folder(folder: Path) -> None:
    """Make the renames in this folder durable, so that they survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
