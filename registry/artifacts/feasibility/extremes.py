"""The first row and the longest rows of a data set, which show whether a recipe can read it.

Judging every row would take minutes for a large file. The longest lines are found without parsing
the others, and the result is kept by the file's digest.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Lock

from registry.artifacts.datasets.rows import Row, read_row
from registry.artifacts.tokenizers.lengths import words
from registry.artifacts.weights.tensors import File, Read, chunks

MAX_SCANNED_BYTES = 64 << 20
"""Bytes from the beginning of a file that are looked at."""
MAX_LONGEST = 32
"""Lines that are parsed because they are the longest."""
MAX_FIRST = 1000
"""Lines that are parsed to find the first row of a split."""
SYSTEM_KEY = b'"system"'
MAX_KEPT = 128
"""Files and splits whose result is kept."""


@dataclass(frozen=True, slots=True)
class Length:
    """One long row: its line, the words of its prompt and completion, whether it has a `system`."""

    line: int
    words: int
    system: bool


@dataclass(frozen=True, slots=True)
class Extremes:
    """The first row of a split, and its longest rows in the beginning of the file."""

    first: Row | None
    longest: tuple[Length, ...]


_KEPT: OrderedDict[tuple[str, str], Extremes] = OrderedDict()
_LOCK = Lock()


def extremes(file: File, read: Read, split: str) -> Extremes:
    """The first and the longest rows of a split; raises Unverified when the bytes are not there."""
    key = (file.sha256, split)
    with _LOCK:
        if key in _KEPT:
            _KEPT.move_to_end(key)
            return _KEPT[key]
    seen = _extremes(file, read, split)
    with _LOCK:
        _KEPT[key] = seen
        while len(_KEPT) > MAX_KEPT:
            _KEPT.popitem(last=False)
    return seen


def other_system(file: File, read: Read, split: str, system: str) -> int | None:
    """The first line of a split that has a system prompt other than this one; None if none has.

    Only lines that name the column are parsed. Raises Unverified when the bytes are not there.
    """
    for number, line in _lines(file, read):
        row = read_row(file.path, number, line) if SYSTEM_KEY in line else None
        if isinstance(row, Row) and row.split == split and row.own_system not in (None, system):
            return number
    return None


def _lines(file: File, read: Read) -> Iterator[tuple[int, bytes]]:
    """The lines in the beginning of a file, with their numbers; a line that is cut is left out."""
    size = min(file.size, MAX_SCANNED_BYTES)
    number, beginning = 0, b""
    for piece in chunks(file, read, 0, size):
        *whole, beginning = (beginning + piece).split(b"\n")
        for line in whole:
            number += 1
            yield number, line
    if beginning and size == file.size:
        yield number + 1, beginning


def _extremes(file: File, read: Read, split: str) -> Extremes:
    heap: list[tuple[int, int, bytes]] = []
    first: Row | None = None
    for number, line in _lines(file, read):
        first = first or _first(file, number, line, split)
        _push(heap, number, line)
    rows = [read_row(file.path, number, line) for _, number, line in heap]
    longest = [
        Length(row.line, words(row.prompt) + words(row.completion), row.system is not None)
        for row in rows
        if isinstance(row, Row) and row.split == split
    ]
    return Extremes(first, tuple(longest))


def _first(file: File, number: int, line: bytes, split: str) -> Row | None:
    row = read_row(file.path, number, line) if number <= MAX_FIRST else None
    return row if isinstance(row, Row) and row.split == split else None


def _push(heap: list[tuple[int, int, bytes]], number: int, line: bytes) -> None:
    if len(heap) < MAX_LONGEST:
        heapq.heappush(heap, (len(line), number, line))
    elif len(line) > heap[0][0]:
        heapq.heapreplace(heap, (len(line), number, line))
