"""JSON read strictly: UTF-8, no key twice, no number that another reader would see differently,
bounded in all.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from itertools import chain
from typing import Any

from registry.errors import Invalid


def bad(detail: str) -> Invalid:
    """The one refusal of a JSON text."""
    return Invalid("bad-json", detail)


MAX_VALUES = 300_000
MAX_ESCAPES = 2_000_000
"""Backslashes in one document: each is a slow step for every reader."""
MAX_BYTES = 72 << 20
"""Of all texts and headers of one bundle: the largest tokenizer there may be, and 8 MiB of
others.
"""
NESTS = frozenset({dict, list})
HALF = re.compile(r"\\u[dD][89a-fA-F]")


MAX_DIGITS = 64
NUMBERS = bytes.maketrans(b"123456789E+]} \t\n\r", b"000000000e0,,,,,,")
ODD = b"0" * (MAX_DIGITS + 1), b"0e000,", b"0e0000"
"""Too many digits, and powers of ten of three digits or more, once every digit is written as 0 and
every end as a comma.
"""


def weight(data: bytes) -> int:
    """At most how many values these bytes hold, before they are parsed; a list counts three and an
    object eight.
    """
    return data.count(b",") + 3 * data.count(b"[") + 8 * data.count(b"{")


def odd_numbers(data: bytes) -> bool:
    """May a number in here be too long, or too large for a double? Else numbers are read without a
    step of ours for each.

    To read one of 4,000 digits takes as long as to read a thousand short ones.
    """
    plain = data.translate(NUMBERS)
    return any(one in plain for one in ODD) or plain.endswith(b"0e000")


class Allowance:
    """How much may still be read: shared by the documents of one bundle, so that many cost no more
    than one.

    Counted before parsing, by the commas and opening brackets that stand in the bytes (those inside
    texts too): a megabyte of `[],[],` would be parsed into sixty. A list counts three and an object
    eight, as they cost.
    """

    def __init__(self, values: int = MAX_VALUES) -> None:
        self.limit = self.values = values
        self.escapes = MAX_ESCAPES
        self.bytes = MAX_BYTES

    def take(self, size: int) -> None:
        """Take off so many bytes before they are read at all; Invalid (`bad-json`) when they are
        not left.
        """
        self.bytes -= size
        if self.bytes < 0:
            raise bad(f"with it, more than {MAX_BYTES} bytes of texts and headers were read")

    def spend(self, data: bytes, most: int | None = None) -> None:
        """Take off what these bytes hold, which may be at most `most`; Invalid (`bad-json`) when it
        is not left.
        """
        count = weight(data)
        if most is not None and count > most:
            raise bad(f"it holds more than {most} values (an object counts eight, a list three)")
        self.values -= count
        self.escapes -= data.count(b"\\")
        if self.values < 0:
            raise bad(
                f"with it, more than {self.limit} values were read (an object counts eight, a "
                "list three)"
            )
        if self.escapes < 0:
            raise bad(f"with it, more than {MAX_ESCAPES} backslashes were read")


class Strict:
    """What both readers, the whole and the streamed one, do with every object and number on the
    way.
    """

    def __init__(self) -> None:
        self.twice: list[str] = []
        self.hooks: dict[str, Any] = {
            "object_pairs_hook": self._unique,
            "parse_constant": self._constant,
        }
        self.careful = self.hooks | {"parse_int": self._int, "parse_float": self._float}
        """The hooks for bytes that hold `odd_numbers`."""

    @staticmethod
    def _int(text: str) -> int:
        if len(text) > MAX_DIGITS:
            raise ValueError(f"a number has more than {MAX_DIGITS} digits")
        return int(text)

    def _unique(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) != len(pairs):
            seen: set[str] = set()
            for key, _ in pairs:
                if key in seen:
                    self.twice.append(key)
                seen.add(key)
        return table

    @staticmethod
    def _float(text: str) -> float:
        value = float(text)
        if math.isinf(value):
            raise ValueError(f"the number {text[:40]} is too large")
        return value

    @staticmethod
    def _constant(text: str) -> float:
        raise ValueError(f"{text} is no JSON number")

    def check(
        self, text: str, value: Any, depth: int, outer: int = 0, halves: bool = False
    ) -> None:
        """Raise Invalid for what was read whole, below so many `outer` levels: a key twice, too
        deep, half a character.
        """
        if self.twice:
            named = ", ".join(repr(key[:60]) for key in self.twice[:5])
            raise bad(f"the key {named} stands more than once in one object")
        if _deeper(value, depth - outer):
            raise bad(f"it nests deeper than {depth} levels")
        if not halves and "\\u" in text and HALF.search(text):
            try:
                json.dumps(value, ensure_ascii=False).encode("utf-8")
            except UnicodeEncodeError:
                raise bad("a text holds half of a surrogate pair, which is no character") from None


def loads(
    data: bytes,
    *,
    depth: int = 32,
    values: int | None = None,
    allowance: Allowance | None = None,
    halves: bool = True,
) -> Any:
    """Parse JSON that has one meaning only: UTF-8, no key twice, no NaN or infinity, at most
    `depth` levels.

    Two readers of `{"a": 1, "a": 2}` may see different things, and a reviewer's tool and the loader
    must not. At most so many `values`, none of them beyond the `allowance`, where these are given:
    commas inside of texts count, too. `halves` says whether a text may hold half of a surrogate
    pair, as some clients send; UTF-8 cannot carry it on. Raises Invalid (`bad-json`) naming the
    first few faults.
    """
    if values is not None or allowance is not None:
        (allowance or Allowance(values or 0)).spend(data, values)
    strict = Strict()
    try:
        text = data.decode("utf-8")
        value = json.loads(text, **(strict.careful if odd_numbers(data) else strict.hooks))
    except RecursionError:
        raise bad(f"it nests deeper than {depth} levels") from None
    except UnicodeDecodeError as error:
        raise bad(f"it is not UTF-8 at byte {error.start}") from None
    except ValueError as error:
        raise bad(f"it is not JSON: {str(error)[:120]}") from None
    strict.check(text, value, depth, halves=halves)
    return value


def _deeper(value: Any, depth: int) -> bool:
    """Walked level by level, for a recursive walk would fall over exactly the input it is to
    catch.
    """
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(depth):
        # The last level is the widest, and what it holds is seen without a step of ours for each.
        if NESTS.isdisjoint(map(type, _children(level))):
            return False
        level = [child for child in _children(level) if type(child) in NESTS]
    return bool(level)


def _children(level: list[Any]) -> Iterable[Any]:
    tables = (
        level if set(map(type, level)) == {dict} else [node for node in level if type(node) is dict]
    )
    lists = level if not tables else [node for node in level if type(node) is list]
    return chain(chain.from_iterable(lists), chain.from_iterable(map(dict.values, tables)))
