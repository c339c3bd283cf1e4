"""Blobs that lie in this machine's files, as the judge reads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from registry.artifacts.weights.tensors import Read


def read_files(path_of: Callable[[str], Path]) -> Read:
    """A `Read` over local files; `path_of` names the file of a digest.

    Reading raises whatever `path_of` does for a digest that it does not know (KeyError, say), and
    FileNotFoundError where the file is gone.
    """

    def read(sha256: str, start: int, length: int) -> bytes:
        with path_of(sha256).open("rb") as file:
            file.seek(start)
            return file.read(length)

    return read
