"""Where the public test vectors lie, and a plain reason to skip where they do not."""

from __future__ import annotations

from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2].parent / "shared" / "vectors"

needed = pytest.mark.skipif(
    not FOLDER.is_dir(),
    reason="the public test vectors (shared/vectors beside the repository) are not on this machine",
)


def cases(kind: str) -> list[Path]:
    """The Merkle cases of one kind, `inclusion` or `consistency`, in a fixed order."""
    return sorted((FOLDER / "merkle" / kind).rglob("*.json"))
