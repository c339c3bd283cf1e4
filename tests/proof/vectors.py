"""Public test vectors of other projects, kept in tests/vectors with their licences."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parents[1] / "vectors"


def cases(kind: str) -> list[Path]:
    """The Merkle cases of one kind, `inclusion` or `consistency`, in a fixed order."""
    return sorted((FOLDER / "merkle" / kind).rglob("*.json"))
