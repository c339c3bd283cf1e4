"""JSON too large to hold, read strictly by pieces: a tokenizer of 33 MB would be parsed into ten
times that.

Nothing is kept but the keys of the objects now open and what kind of value each key of the
outermost one has. The standard library's own scanner does the reading; here it is only fed, with as
many whole elements at once as fit.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from registry.documents.strict_json import MAX_DIGITS, Allowance, Strict, bad, odd_numbers

PIECE = 128 << 10
"""Bytes read at once: what is parsed of them stays in a core's own cache."""
MAX_TEXT = 512 << 10
"""Characters of the longest text that may stand in such a document; the character maps of T5 have
320,000.
"""
SMALL = 16 << 10
LEAST = 1 << 10
"""Characters taken at once: begun with few, doubled while it goes well."""
MAX_KEYS = 393_216
"""Of one object: half as many again as the largest vocabulary we know of."""
MAX_ODD = 600_000
"""Numbers looked at one by one; a vocabulary with a score for each of 262,144 pieces has as
many.
"""
WASTE = 16 << 20
SINGLES = 150_000
"""Characters read in vain, and elements read one by one, before a document is called too
tangled.
"""
BLANK = re.compile(r"[ \t\n\r]*")
ENDS = ("},", "],", ",")
KINDS = {dict: "object", list: "list", str: "text", bool: "boolean", int: "number", float: "number"}


def kinds(document: Any) -> dict[str, str]:
    """What `outline` says, of a document that was read whole; Invalid (`bad-json`) when it is no
    object.
    """
    if not isinstance(document, dict):
        raise bad("it is no JSON object")
    return {key: KINDS.get(type(value), "null") for key, value in document.items()}


def outline(pieces: Iterator[bytes], allowance: Allowance, *, depth: int = 16) -> dict[str, str]:
    """Read a JSON object to its end, and say of each of its keys what kind of value it has.

    `pieces` are its bytes in order, at most PIECE each. It is strict as `documents.loads` is, and
    raises the same Invalid.
    """
    reader = _Reader(pieces, allowance, depth)
    try:
        return reader.whole()
    except UnicodeDecodeError:
        raise bad("it is not UTF-8") from None
    except RecursionError:
        raise bad(f"it nests deeper than {depth} levels") from None
    except ValueError as error:
        raise bad(f"it is not JSON: {str(error)[:120]}") from None


class _Reader:
    def __init__(self, pieces: Iterator[bytes], allowance: Allowance, depth: int) -> None:
        self._pieces, self._allowance, self._depth = pieces, allowance, depth
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self._strict = Strict()
        # No number is wanted: how long it is says as well that it is one, and is known in no time.
        self._scan = self._scanner(self._strict.hooks | {"parse_int": len})
        self._careful, self._before = False, b""
        self._odds = MAX_ODD
        self._text, self._at, self._ended = "", 0, False
        self._end = ENDS[-1]
        self._waste, self._singles = WASTE, SINGLES

    def _scanner(self, hooks: dict[str, Any]) -> Any:
        return json.JSONDecoder(**hooks).scan_once  # type: ignore[attr-defined]  # typeshed leaves it out

    def _odd(self, read: Callable[[str], Any]) -> Callable[[str], Any]:
        """Count the numbers that have to be looked at one by one."""

        def counted(text: str) -> Any:
            self._odds -= 1
            if self._odds < 0:
                raise bad(f"with a number that long or large, it holds more than {MAX_ODD}")
            return read(text)

        return counted

    def whole(self) -> dict[str, str]:
        if self._next() != "{":
            raise bad("it is no JSON object")
        kinds: dict[str, str] = {}
        self._walk(1, kinds)
        if self._next():
            raise bad("something follows its end")
        return kinds

    def _more(self) -> bool:
        """Read another piece; False at the end."""
        piece = next(self._pieces, None)
        if piece is not None:
            self._allowance.spend(piece)
            if not self._careful and odd_numbers(self._before + piece):
                odd = {
                    name: self._odd(self._strict.careful[name])
                    for name in ("parse_int", "parse_float")
                }
                self._careful, self._scan = True, self._scanner(self._strict.careful | odd)
            self._before = piece[-MAX_DIGITS:]
        self._ended = piece is None
        self._text = self._text[self._at :] + self._decode(piece or b"", self._ended)
        self._at = 0
        return not self._ended

    def _next(self) -> str:
        """The next character that is no blank, not yet taken; nothing at the end."""
        while True:
            blank = BLANK.match(self._text, self._at)
            assert blank is not None
            self._at = blank.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if self._ended or not self._more():
                return ""

    def _take(self, wanted: str) -> None:
        if self._next() != wanted:
            raise bad(f"it is not JSON: {wanted!r} was expected, not {self._next()!r}")
        self._at += 1

    def _walk(self, level: int, kinds: dict[str, str] | None = None) -> str:
        """A list or object from its opening to its closing bracket, many elements at a time; what
        it is.
        """
        if level > self._depth:
            raise bad(f"it nests deeper than {self._depth} levels")
        table = self._text[self._at] == "{"
        closing = "}" if table else "]"
        self._at += 1
        keys: set[str] = set()
        size = LEAST
        if self._next() == closing:
            self._at += 1
            return KINDS[dict if table else list]
        while True:
            if size > SMALL and len(self._text) - self._at < size and not self._ended:
                self._more()
            elements = self._several(size, table, level)
            if elements is not None:
                size = min(2 * size, PIECE)
                if table:
                    self._known(keys, elements)
                    if kinds is not None:
                        kinds |= {
                            key: KINDS.get(type(value), "null") for key, value in elements.items()
                        }
                continue
            if size > LEAST:
                size = max(size // 4, LEAST)
                continue
            self._single(table, keys, level, kinds)
            if self._next() == closing:
                self._at += 1
                return KINDS[dict if table else list]
            self._take(",")

    def _several(self, size: int, table: bool, level: int) -> Any:
        """As many whole elements as end within so many characters; None when that cannot be
        done.
        """
        end = min(self._at + size, len(self._text))
        for mark in sorted(ENDS, key=lambda one: one != self._end):
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
            self._strict.twice.clear()  # of a part that is read again
            self._waste -= len(text)
            if self._waste < 0:
                raise bad(
                    "its texts are so full of commas and brackets that it cannot be read by pieces"
                )
        return None

    def _known(self, keys: set[str], table: dict[str, Any]) -> None:
        if not keys.isdisjoint(table):
            named = ", ".join(repr(key[:60]) for key in table if key in keys)
            raise bad(f"the key {named[:300]} stands more than once in one object")
        keys.update(table)
        if len(keys) > MAX_KEYS:
            raise bad(f"one object has more than {MAX_KEYS} keys")

    def _single(
        self, table: bool, keys: set[str], level: int, kinds: dict[str, str] | None
    ) -> None:
        self._singles -= 1
        if self._singles < 0:
            raise bad("its elements are too large and too many to be read by pieces")
        key = ""
        if table:
            if self._next() != '"':
                raise bad(f"it is not JSON: a key was expected, not {self._next()!r}")
            key = self._scalar(level)
            self._take(":")
            self._known(keys, {key: None})
        kind = self._element(level)
        if kinds is not None:
            kinds[key] = kind

    def _element(self, level: int) -> str:
        if self._next() not in ("{", "["):
            return KINDS.get(type(self._scalar(level)), "null")
        text = self._text[self._at : self._at + SMALL]
        try:
            value, read = self._scan(text, 0)
        except (StopIteration, ValueError, RecursionError):
            self._strict.twice.clear()
            return self._walk(level + 1)
        self._strict.check(text[:read], value, self._depth, level)
        self._at += read
        return KINDS[type(value)]

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
            # A number may go on in the next piece (`0.` reads as 0 so far), and a text may end
            # there.
            if read >= 0 and (self._ended or len(self._text) - read > 3):
                self._strict.check(self._text[self._at : read], value, 1)
                self._at = read
                return value
            if self._ended or len(self._text) - self._at > MAX_TEXT:
                raise wrong if read < 0 else bad(f"a text is longer than {MAX_TEXT} characters")
            self._more()
