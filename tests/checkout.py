"""Where the tests' own checkout is."""

from __future__ import annotations

from pathlib import Path


def repository() -> Path:
    """The checkout's root."""
    return Path(__file__).parents[1]
