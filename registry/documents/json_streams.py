"""JSON too large to parse whole, read strictly by pieces.

A tokenizer of 33 MB would be parsed into ten times that. Only the keys of the objects now open, and
the kind of value of each outermost key, stay in memory. The standard library's own scanner does the
reading. This module feeds it as many complete elements at once as fit.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from registry.documents.strict_json import MAX_DIGITS, Allowance, Strict, bad, has_unusual_numbers

PIECE = 128 << 10
"""Bytes read at once: what is parsed of them fits in a core's own cache."""
MAX_TEXT_CHARACTERS = 512 << 10
"""Limit on the characters of one text; the character maps of T5 have 320,000."""
MIN_TAKE = 1 << 10
"""Characters taken at first; the number doubles while complete elements fit in it."""
SMALL_TAKE = 16 << 10
"""Characters up to which elements are taken without reading ahead."""
MAX_KEYS = 393_216
"""Limit on the keys of one object: 1.5 times as many as the largest known vocabulary has."""
MAX_UNUSUAL_NUMBERS = 600_000
"""Numbers checked one by one; a vocabulary with a score for each of 262,144 pieces has as many."""
MAX_WASTED_CHARACTERS = 16 << 20
"""Characters that may be scanned without a result before a document is refused as too tangled."""
MAX_SINGLE_ELEMENTS = 150_000
"""Elements that may be read one by one before a document is refused as too tangled."""
BLANK = re.compile(r"[ \t\n\r]*")
ENDS = ("},", "],", ",")
KINDS = {dict: "object", list: "list", str: "text", bool: "boolean", int: "number", float: "number"}
Take = Callable[[tuple[str | int, ...], Any], None]
"""Receives what was read: the path of a list or object, and some of its elements in their order.

Each list and object comes once without elements first. An element too large to be read at once has
a path of its own.
"""


def kinds(document: Any) -> dict[str, str]:
    """The result of `outline` for a document that was parsed whole.

    Raises Invalid (`bad-json`) when it is not an object.
    """
    if not isinstance(document, dict):
        raise bad("it is not a JSON object")
    return {key: KINDS.get(type(value), "null") for key, value in document.items()}


def outline(
    pieces: Iterator[bytes], allowance: Allowance, *, depth: int = 16, take: Take | None = None
) -> dict[str, str]:
    """Read a JSON object to its end, and return the kind of value of each of its keys.

    `pieces` are its bytes in order, at most PIECE each. `take` receives the values. It is as strict
    as `strict_json.loads` and raises the same Invalid.
    """
    reader = _Reader(pieces, allowance, depth, take)
    try:
        return reader.whole()
    except UnicodeDecodeError:
        raise bad("it is not UTF-8") from None
    except RecursionError:
        raise bad(f"it nests deeper than {depth} levels") from None
    except ValueError as error:
        raise bad(f"it is not JSON: {str(error)[:120]}") from None


class _Reader:
    def __init__(
        self, pieces: Iterator[bytes], allowance: Allowance, depth: int, take: Take | None
    ) -> None:
        self._pieces, self._allowance, self._depth = pieces, allowance, depth
        self._give = take or (lambda path, elements: None)
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self._strict = Strict()
        # Unless somebody takes them, the values of numbers are not needed. Their length shows that
        # they are numbers, and takes no time.
        self._scan = self._scanner(self._strict.hooks | ({} if take else {"parse_int": len}))
        self._careful, self._before = False, b""
        self._unusual_left = MAX_UNUSUAL_NUMBERS
        self._text, self._at, self._ended = "", 0, False
        self._end = ENDS[-1]
        self._waste_left, self._singles_left = MAX_WASTED_CHARACTERS, MAX_SINGLE_ELEMENTS

    def _scanner(self, hooks: dict[str, Any]) -> Any:
        return json.JSONDecoder(**hooks).scan_once  # type: ignore[attr-defined]  # not in typeshed

    def _count_unusual(self, read: Callable[[str], Any]) -> Callable[[str], Any]:
        """Count the numbers that are checked one by one."""

        def counted(text: str) -> Any:
            self._unusual_left -= 1
            if self._unusual_left < 0:
                raise bad(
                    "it has unusually long or large numbers, and more than "
                    f"{MAX_UNUSUAL_NUMBERS} numbers in all"
                )
            return read(text)

        return counted

    def whole(self) -> dict[str, str]:
        """Read the object to its end; the kind of value of each key."""
        if self._next() != "{":
            raise bad("it is not a JSON object")
        kinds: dict[str, str] = {}
        self._walk(1, (), kinds)
        if self._next():
            raise bad("something follows its end")
        return kinds

    def _read_more(self) -> bool:
        """Read another piece; False at the end."""
        piece = next(self._pieces, None)
        if piece is not None:
            self._allowance.spend(piece)
            if not self._careful and has_unusual_numbers(self._before + piece):
                counted = {
                    name: self._count_unusual(self._strict.careful[name])
                    for name in ("parse_int", "parse_float")
                }
                self._careful, self._scan = True, self._scanner(self._strict.careful | counted)
            self._before = piece[-MAX_DIGITS:]
        self._ended = piece is None
        self._text = self._text[self._at :] + self._decode(piece or b"", self._ended)
        self._at = 0
        return not self._ended

    def _next(self) -> str:
        """The next character that is not a blank, without taking it; empty at the end."""
        while True:
            blank = BLANK.match(self._text, self._at)
            assert blank is not None
            self._at = blank.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if self._ended or not self._read_more():
                return ""

    def _take(self, expected: str) -> None:
        if self._next() != expected:
            raise bad(f"it is not JSON: {expected!r} was expected, not {self._next()!r}")
        self._at += 1

    def _walk(
        self, level: int, path: tuple[str | int, ...], kinds: dict[str, str] | None = None
    ) -> str:
        """Read a list or object to its end, many elements at a time, and return its kind."""
        if level > self._depth:
            raise bad(f"it nests deeper than {self._depth} levels")
        table = self._text[self._at] == "{"
        closing = "}" if table else "]"
        self._at += 1
        keys: set[str] = set()
        size, count = MIN_TAKE, 0
        self._give(path, {} if table else [])
        if self._next() == closing:
            self._at += 1
            return KINDS[dict if table else list]
        while True:
            if size > SMALL_TAKE and len(self._text) - self._at < size and not self._ended:
                self._read_more()
            elements = self._take_several(size, table, level)
            if elements is not None:
                size, count = min(2 * size, PIECE), count + len(elements)
                self._give(path, elements)
                if table:
                    self._add_keys(keys, elements)
                    if kinds is not None:
                        kinds |= {
                            key: KINDS.get(type(value), "null") for key, value in elements.items()
                        }
                continue
            if size > MIN_TAKE:
                size = max(size // 4, MIN_TAKE)
                continue
            key: str | int = self._take_key(keys, level) if table else count
            kind, count = self._element(level, path, key), count + 1
            if kinds is not None:
                kinds[str(key)] = kind
            if self._next() == closing:
                self._at += 1
                return KINDS[dict if table else list]
            self._take(",")

    def _take_several(self, size: int, table: bool, level: int) -> Any:
        """The complete elements in the next `size` characters; None when they cannot be read."""
        end = min(self._at + size, len(self._text))
        for mark in sorted(ENDS, key=lambda end: end != self._end):
            cut = self._text.rfind(mark, self._at, end)
            if cut < 0:
                continue
            cut += len(mark) - 1
            inside = self._text[self._at : cut]
            text = f"{{{inside}}}" if table else f"[{inside}]"
            try:
                elements, read = self._scan(text, 0)
            except (StopIteration, ValueError, RecursionError):
                read = -1
            if read == len(text) and elements:
                self._strict.check(text, elements, self._depth, level - 1)
                self._end, self._at = mark, cut + 1
                return elements
            self._strict.repeated_keys.clear()  # the part is read again
            self._waste_left -= len(text)
            if self._waste_left < 0:
                raise bad("its texts have too many commas and brackets for it to be read by pieces")
        return None

    def _add_keys(self, keys: set[str], table: dict[str, Any]) -> None:
        if not keys.isdisjoint(table):
            named = ", ".join(repr(key[:60]) for key in table if key in keys)
            raise bad(f"the key {named[:300]} occurs more than once in one object")
        keys.update(table)
        if len(keys) > MAX_KEYS:
            raise bad(f"one object has more than {MAX_KEYS} keys")

    def _take_key(self, keys: set[str], level: int) -> str:
        if self._next() != '"':
            raise bad(f"it is not JSON: a key was expected, not {self._next()!r}")
        key: str = self._scalar(level)
        self._take(":")
        self._add_keys(keys, {key: None})
        return key

    def _element(self, level: int, path: tuple[str | int, ...], key: str | int) -> str:
        """Read one element, which stands under `key` in the list or object at `path`."""
        self._singles_left -= 1
        if self._singles_left < 0:
            raise bad("it has too many large elements to be read by pieces")
        if self._next() not in ("{", "["):
            value = self._scalar(level)
        else:
            text = self._text[self._at : self._at + SMALL_TAKE]
            try:
                value, read = self._scan(text, 0)
            except (StopIteration, ValueError, RecursionError):
                self._strict.repeated_keys.clear()
                return self._walk(level + 1, (*path, key))
            self._strict.check(text[:read], value, self._depth, level)
            self._at += read
        self._give(path, {key: value} if isinstance(key, str) else [value])
        return KINDS.get(type(value), "null")

    def _scalar(self, level: int) -> Any:
        while True:
            try:
                value, read = self._scan(self._text, self._at)
            except StopIteration:
                value, read = None, -1
                wrong: Exception = bad(
                    f"it is not JSON: a value was expected, not {self._text[self._at :][:20]!r}"
                )
            except ValueError as error:
                value, read, wrong = None, -1, error
            # A number may continue in the next piece (`0.` reads as 0 so far), and so may a text.
            if read >= 0 and (self._ended or len(self._text) - read > 3):
                self._strict.check(self._text[self._at : read], value, 1)
                self._at = read
                return value
            if self._ended or len(self._text) - self._at > MAX_TEXT_CHARACTERS:
                raise (
                    wrong
                    if read < 0
                    else bad(f"a text is longer than {MAX_TEXT_CHARACTERS} characters")
                )
            self._read_more()
