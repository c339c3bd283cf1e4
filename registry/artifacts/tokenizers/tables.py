"""The large parts of a tokenizer: the number of each token, and the merges by rank.

A table of 262,144 tokens is compared by a digest of its entries, which is the same in whatever
form, spacing and file they are written.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from hashlib import sha256
from itertools import islice, pairwise
from typing import Any

SPAN = 1024
"""Entries under one digest: where two tables differ is found in a second reading of one span."""


class Unreadable(Exception):
    """A tokenizer has a part in a form that is not known here, so it cannot be compared."""


class Table:
    """Tokens by number, or merges by rank, reduced to one digest a span.

    `kept` holds the entries of the span that is asked for; `numbers` those of the tokens in `seek`.
    """

    def __init__(self, span: int | None = None, seek: Collection[str] = ()) -> None:
        self.digests: list[bytes] = []
        self.count = 0
        self.kept: list[str] = []
        self.numbers: dict[str, int] = {}
        self._rest = sha256()
        self._span, self._seek = span, set(seek)
        self._last = -1

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Table)
            and self.count == other.count
            and self.digests == other.digests
            and self._rest.digest() == other._rest.digest()
        )

    def seek(self, tokens: Iterable[str]) -> None:
        """Note the numbers of these tokens too, of those entries that are still to come."""
        self._seek.update(tokens)

    def sought(self, token: str) -> bool:
        """Whether the number of a token was noted, if it has one."""
        return token in self._seek

    def number(self, token: str, added: Iterable[Mapping[str, Any]]) -> int:
        """The id of a token that is added behind those in `added`: its own or the next free one."""
        if (own := self.numbers.get(token)) is not None:
            return own
        return max([self.count - 1, *(n for t in added if type(n := t["id"]) is int)]) + 1

    def differing_span(self, other: Table) -> int:
        """The first span in which two tables differ."""
        pairs = enumerate(zip(self.digests, other.digests, strict=False))
        shared = min(len(self.digests), len(other.digests))
        return next((number for number, (own, theirs) in pairs if own != theirs), shared)

    def add(self, entries: Any) -> None:
        """Add entries in their order: an object of tokens, a list of tokens, or a list of merges.

        Raises Unreadable for entries of another form, and for tokens not in the order of their
        numbers: in that order, two tables are equal only when every token has the same number.
        """
        if isinstance(entries, dict):
            self._add_numbered(entries)
        elif isinstance(entries, list):
            if self._seek:
                for number, entry in enumerate(entries, self.count):
                    token = entry[0] if isinstance(entry, list) and entry else None
                    if isinstance(token, str) and token in self._seek:
                        self.numbers[token] = number
            self._feed(map(_listed, entries), len(entries))
        else:
            raise Unreadable("its vocabulary or its merges are neither an object nor a list")

    def add_lines(self, lines: Iterable[str]) -> None:
        """Add the lines of a vocab.txt: each is the token of the line's number."""
        for line in lines:
            self.add({line: self.count})

    def _add_numbered(self, entries: dict[str, Any]) -> None:
        numbers = list(entries.values())
        if not all(type(number) is int for number in numbers):
            raise Unreadable("a token has no whole number")
        if numbers and (
            numbers[0] <= self._last or any(after <= before for before, after in pairwise(numbers))
        ):
            raise Unreadable("its tokens are not in the order of their numbers")
        if numbers:
            self._last = numbers[-1]
        self.numbers |= {token: entries[token] for token in self._seek & entries.keys()}
        lines = (f"{len(token)} {token} {number}\n" for token, number in entries.items())
        self._feed(lines, len(entries))

    def _feed(self, entries: Iterable[str], count: int) -> None:
        entries = iter(entries)
        while count > 0:
            part = list(islice(entries, min(count, SPAN - self.count % SPAN)))
            self._rest.update("".join(part).encode("utf-8", "surrogatepass"))
            if self._span == self.count // SPAN:
                self.kept += part
            self.count += len(part)
            count -= len(part)
            if self.count % SPAN == 0:
                self.digests.append(self._rest.digest())


def _listed(entry: Any) -> str:
    """One entry of a list.

    A merge is a text of two pieces (transformers 4) or a pair of texts (transformers 5). A token of
    a Unigram model is a pair of a text and its score.
    """
    match entry:
        case str():
            first, blank, second = entry.partition(" ")
            if not blank or " " in second:
                raise Unreadable(f"the merge {entry[:60]!r} is not two pieces with one blank")
            return f"{len(first)} {first} {second}\n"
        case [str() as first, str() as second]:
            return f"{len(first)} {first} {second}\n"
        case [str() as token, float() | int() as score] if not isinstance(score, bool):
            return f"{len(token)} {token} {float(score)!r}\n"
        case _:
            raise Unreadable("an entry of its vocabulary or merges has an unknown form")
