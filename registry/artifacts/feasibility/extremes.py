"""The first row, the longest rows and the system prompts of a data set, which judge a recipe.

Judging every row would take minutes for a large file. Its beginning is read once, only lines that
may matter are parsed, and the result is kept by the file's digest.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from registry.artifacts.datasets.rows import Row, numbered, read_row
from registry.artifacts.tokenizers.lengths import words
from registry.artifacts.tokenizers.prompts import Question
from registry.artifacts.weights.tensors import File, Read
from registry.documents.canonical import sha256_hex

MAX_SCANNED_BYTES = 64 << 20
"""Bytes from the beginning of a file that are looked at."""
MAX_LONGEST = 32
"""Lines that are parsed because they are the longest."""
MAX_FIRST = 1000
"""Lines that are parsed to find the first row of a split."""
MAX_SYSTEMS = 2
"""System prompts that are noted: one of two is another than any given one."""
MAX_KEPT = 128
"""Files and splits whose result is kept."""
SYSTEM = re.compile(rb'"system"\s*:\s*"([^"\\]*(?:\\.[^"\\]*)*)"')
"""A member `system` that is a text."""


@dataclass(frozen=True, slots=True)
class First:
    """The first row of a split: its line, and what it asks, with long turns cut."""

    line: int
    asked: Question


@dataclass(frozen=True, slots=True)
class Length:
    """One long row: its line, the words of its prompt and completion, and if it has a `system`."""

    line: int
    words: int
    system: bool


@dataclass(frozen=True, slots=True)
class Extremes:
    """The first row of a split, its longest rows, and its first two system prompts.

    `systems` has the digest of each, and the first line with it.
    """

    first: First | None
    longest: tuple[Length, ...]
    systems: Mapping[str, int]

    def other_system(self, system: str) -> int | None:
        """The first line that has a system prompt other than this one; None if none has."""
        digest = _digest(system)
        return next((line for other, line in self.systems.items() if other != digest), None)


@dataclass(frozen=True, slots=True)
class _Split:
    """A split of a file, as a key of the cache by content."""

    file: File
    split: str
    read: Read = field(compare=False)

    def row(self, number: int, line: bytes) -> Row | None:
        """The row in a line; None for one of another split, or for none."""
        row = read_row(self.file.path, number, line)
        return row if isinstance(row, Row) and row.split == self.split else None


def extremes(file: File, read: Read, split: str) -> Extremes:
    """What stands out in the beginning of a split.

    Raises Unverified when the bytes are not there.
    """
    return _extremes(_Split(file, split, read))


@lru_cache(maxsize=MAX_KEPT)
def _extremes(split: _Split) -> Extremes:
    heap: list[tuple[int, int, bytes]] = []
    first: First | None = None
    systems = _Systems(split)
    for number, line in numbered(split.file, split.read, MAX_SCANNED_BYTES):
        if first is None and number <= MAX_FIRST and (row := split.row(number, line)):
            first = First(number, Question(row.prompt, row.completion, row.own_system).cut())
        systems.note(number, line)
        _push(heap, number, line)
    rows = [split.row(number, line) for _, number, line in heap]
    longest = [
        Length(row.line, words(row.prompt) + words(row.completion), row.own_system is not None)
        for row in rows
        if row is not None
    ]
    return Extremes(first, tuple(longest), systems.lines)


class _Systems:
    """Notes the first system prompts of a split, and parses few lines for that."""

    def __init__(self, split: _Split) -> None:
        self.lines: dict[str, int] = {}
        self._split = split
        self._known: list[bytes] = []

    def note(self, number: int, line: bytes) -> None:
        """Note the system prompt of the row in this line, unless it is known or two are."""
        if len(self.lines) == MAX_SYSTEMS:
            return
        stated = SYSTEM.findall(line)
        if not stated or stated == self._known:
            return
        row = self._split.row(number, line)
        if row is None or row.system is None:
            return
        if len(stated) == 1:  # It is this row's. Alone in another line, it says nothing new.
            self._known = stated
        if row.own_system is not None:
            self.lines.setdefault(_digest(row.own_system), number)


def _digest(system: str) -> str:
    return sha256_hex(system.encode("utf-8", "surrogatepass"))


def _push(heap: list[tuple[int, int, bytes]], number: int, line: bytes) -> None:
    if len(heap) < MAX_LONGEST:
        heapq.heappush(heap, (len(line), number, line))
    elif len(line) > heap[0][0]:
        heapq.heapreplace(heap, (len(line), number, line))
