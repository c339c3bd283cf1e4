"""JSON, read strictly and within limits.

The text must be UTF-8, without a key that occurs twice and without numbers that another reader
would read differently.
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
    """The error for a JSON text that is refused."""
    return Invalid("bad-json", detail)


MAX_VALUES = 300_000
"""Limit on the values of one document, as `weight` counts them."""
MAX_BUNDLE_VALUES = 3_200_000
"""Limit on the values of one bundle, headers included, as `weight` counts them.

A tokenizer of 262,144 pieces and twice as many merges has 2.9 million; 140,000 tensors have 2.2.
"""
MAX_ESCAPES = 2_000_000
"""Backslashes in one document; every reader is slow at each of them."""
MAX_BYTES = 72 << 20
"""Of all texts and headers of one bundle: the largest tokenizer allowed, and 8 MiB of others."""
CONTAINERS = frozenset({dict, list})
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


MAX_DIGITS = 64
NUMBERS = bytes.maketrans(b"123456789E+]} \t\n\r", b"000000000e0,,,,,,")
"""Writes every digit as 0 and every end of a number as a comma."""
UNUSUAL = b"0" * (MAX_DIGITS + 1), b"0e000,", b"0e0000"
"""Too many digits, and powers of ten of three digits or more, once translated by NUMBERS."""


def weight(data: bytes) -> int:
    """An upper bound on the values in these bytes, counted before they are parsed.

    A list counts three and an object eight.
    """
    return data.count(b",") + 3 * data.count(b"[") + 8 * data.count(b"{")


def has_unusual_numbers(data: bytes) -> bool:
    """Whether a number in these bytes may be too long, or too large for a double.

    If not, numbers are read without a step of Python for each. Reading one of 4,000 digits takes as
    long as reading a thousand short ones.
    """
    plain = data.translate(NUMBERS)
    return any(pattern in plain for pattern in UNUSUAL) or plain.endswith(b"0e000")


class Allowance:
    """How much may still be read.

    The documents of one bundle share an allowance, so that many cost no more than one. Values are
    counted before parsing, by the commas and opening brackets in the bytes, including those inside
    of texts: a megabyte of `[],[],` would be parsed into sixty. A list counts three and an object
    eight, as they cost.
    """

    def __init__(self, values: int = MAX_VALUES) -> None:
        self.limit = self.values = values
        self.escapes = MAX_ESCAPES
        self.bytes = MAX_BYTES

    def take(self, size: int) -> None:
        """Take bytes from the allowance before they are read.

        Raises Invalid (`bad-json`) when not enough are left.
        """
        self.bytes -= size
        if self.bytes < 0:
            raise bad(f"the texts and headers read so far exceed {MAX_BYTES} bytes")

    def spend(self, data: bytes, most: int | None = None) -> None:
        """Take the values in these bytes from the allowance; `most` limits them further.

        Raises Invalid (`bad-json`) when there are more than `most`, or than are left.
        """
        count = weight(data)
        if most is not None and count > most:
            raise bad(f"it has more than {most} values (an object counts eight, a list three)")
        self.values -= count
        self.escapes -= data.count(b"\\")
        if self.values < 0:
            raise bad(
                f"the JSON read so far has more than {self.limit} values (an object counts eight, "
                "a list three)"
            )
        if self.escapes < 0:
            raise bad(f"the JSON read so far has more than {MAX_ESCAPES} backslashes")


class Strict:
    """The checks on objects and numbers that the whole and the streamed reader share."""

    def __init__(self) -> None:
        self.repeated_keys: list[str] = []
        self.hooks: dict[str, Any] = {
            "object_pairs_hook": self._unique,
            "parse_constant": self._constant,
        }
        self.careful = self.hooks | {"parse_int": self._int, "parse_float": self._float}
        """The hooks for bytes with unusual numbers."""

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
                    self.repeated_keys.append(key)
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
        """Check a value that was read whole, `outer` levels inside the document.

        Raises Invalid (`bad-json`) for a key that occurs twice, a value that nests too deeply and,
        unless `halves`, half of a surrogate pair.
        """
        if self.repeated_keys:
            named = ", ".join(repr(key[:60]) for key in self.repeated_keys[:5])
            raise bad(f"the key {named} occurs more than once in one object")
        if _is_deeper(value, depth - outer):
            raise bad(f"it nests deeper than {depth} levels")
        if not halves and "\\u" in text and SURROGATE.search(text):
            try:
                json.dumps(value, ensure_ascii=False).encode("utf-8")
            except UnicodeEncodeError:
                raise bad("a text has half of a surrogate pair, which is not a character") from None


def loads(
    data: bytes,
    *,
    depth: int = 32,
    values: int | None = None,
    allowance: Allowance | None = None,
    halves: bool = True,
) -> Any:
    """Parse JSON that has only one meaning.

    It must be UTF-8, with no key twice, no NaN or infinity, and at most `depth` levels: two readers
    of `{"a": 1, "a": 2}` may see different things, and a reviewer's tool and the loader must not.

    `values` limits the number of values, and `allowance` limits them across documents; commas
    inside of texts count too. `halves` allows half of a surrogate pair in a text, which some
    clients send, but which UTF-8 cannot encode. Raises Invalid (`bad-json`) that names the first
    few faults.
    """
    if values is not None or allowance is not None:
        (allowance or Allowance(values or 0)).spend(data, values)
    strict = Strict()
    try:
        text = data.decode("utf-8")
        value = json.loads(text, **(strict.careful if has_unusual_numbers(data) else strict.hooks))
    except RecursionError:
        raise bad(f"it nests deeper than {depth} levels") from None
    except UnicodeDecodeError as error:
        raise bad(f"it is not UTF-8 at byte {error.start}") from None
    except ValueError as error:
        raise bad(f"it is not JSON: {str(error)[:120]}") from None
    strict.check(text, value, depth, halves=halves)
    return value


def _is_deeper(value: Any, depth: int) -> bool:
    """Whether a value has more levels than `depth`.

    It is walked level by level: a recursive walk would fail on the very input it has to catch.
    """
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(depth):
        # The last level is the widest. Look at it without a step of Python for each of its values.
        if CONTAINERS.isdisjoint(map(type, _children(level))):
            return False
        level = [child for child in _children(level) if type(child) in CONTAINERS]
    return bool(level)


def _children(level: list[Any]) -> Iterable[Any]:
    tables = (
        level if set(map(type, level)) == {dict} else [node for node in level if type(node) is dict]
    )
    lists = level if not tables else [node for node in level if type(node) is list]
    return chain(chain.from_iterable(lists), chain.from_iterable(map(dict.values, tables)))
