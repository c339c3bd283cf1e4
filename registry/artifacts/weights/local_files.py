"""Blobs in local files, as the judge reads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from registry.artifacts.weights.tensors import Read


def read_files(path_of: Callable[[str], Path]) -> Read:
    """A `Read` over local files; `path_of` returns the file of a digest.

    Reading raises what `path_of` raises for an unknown digest (such as KeyError), and
    FileNotFoundError when the file no longer exists.
    """

    def read(sha256: str, start: int, length: int) -> bytes:
        with path_of(sha256).open("rb") as file:
            file.seek(start)
            return file.read(length)

    return read
